# shellcheck shell=bash
# Downloads packages and their dependencies into the apt cache of ROOT, through the machine's network.
#     download.sh ROOT PACKAGE…
set -euo pipefail

root=$1
shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
chroot "$root" apt-get -y --no-install-recommends --reinstall --download-only install "$@" ||
    {
        chroot "$root" apt-get update
        chroot "$root" apt-get -y --no-install-recommends --reinstall --download-only install "$@"
    }
