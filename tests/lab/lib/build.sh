# shellcheck shell=bash
# Prepares a new layer's root and runs the script that fills it (see `build` in roots.sh).
#     build.sh NEW LOWER SCRIPT ARGUMENT…
set -euo pipefail

new=$1 lower=$2 script=$3
shift 3
root=$new/root
mount --make-rprivate /

if [[ -n $lower ]]; then
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$new/layer,workdir=$new/work" "$root"
    mount -t proc proc "$root/proc"
    mount --bind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    # The root's own resolv.conf belongs to the lab's network; packages come from the machine's.
    touch "$root/etc/resolv.conf"
    mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
else
    mount --bind "$new/layer" "$root"
fi

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
# shellcheck source=/dev/null
. "$script" "$root" "$@"
