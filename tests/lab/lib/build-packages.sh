# shellcheck shell=bash
# A node's packages on top of the base.    ROOT PACKAGE…
root=$1
shift

chroot "$root" apt-get -q update
chroot "$root" apt-get -q -y --no-install-recommends install "$@"
chroot "$root" apt-get clean
