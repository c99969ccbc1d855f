# shellcheck shell=bash
# Prepares a new layer's root and runs the script that fills it (see `build` in roots.sh).
#     build.sh NEW LOWER SCRIPT ARGUMENT…
# Where LOWER is "-", the script mounts its own roots, below NEW.
set -euo pipefail

new=$1 lower=$2 script=$3
shift 3
root=$new/root
mount --make-rprivate /

mount_overlay() { # ROOT LOWER UPPER WORK
    mount -t overlay overlay -o "lowerdir=$2,upperdir=$3,workdir=$4" "$1"
    mount -t proc proc "$1/proc"
    mount --bind /dev "$1/dev"
    mount -t tmpfs tmpfs "$1/run"
}

case $lower in
    -) root=$new ;;
    '') mount --bind "$new/layer" "$root" ;;
    *)
        mount_overlay "$root" "$lower" "$new/layer" "$new/work"
        # The root's own resolv.conf is for the lab's network, but packages come through the machine's network.
        touch "$root/etc/resolv.conf"
        mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
        ;;
esac

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
# shellcheck source=/dev/null
. "$script" "$root" "$@"
