# shellcheck shell=bash
# Puts what the package FILE depends on into the apt cache of ROOT, over the machine's network.
#     download.sh ROOT FILE
set -euo pipefail

root=$1 file=$2
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
chroot "$root" apt-get -y --no-install-recommends --reinstall --download-only install "$file" ||
    {
        chroot "$root" apt-get update
        chroot "$root" apt-get -y --no-install-recommends --reinstall --download-only install "$file"
    }
