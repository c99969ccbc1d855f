# shellcheck shell=bash
# The base layer: a minimal Debian that boots.    ROOT SUITE URI SECURITY-URI PACKAGE,PACKAGE…
root=$1 suite=$2 uri=$3 security=$4 include=$5

debootstrap --variant=minbase --include="$include" "$suite" "$root" "$uri"

{
    echo "deb $uri $suite main"
    [[ -z $security ]] || echo "deb $security $suite-security main"
} >"$root/etc/apt/sources.list"

# No services start while packages are unpacked here; the file goes when the node boots.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
# A throw-away root needs no fsync per file.
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/lab"

rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
ln -sf /usr/share/zoneinfo/Etc/UTC "$root/etc/localtime"
: >"$root/etc/machine-id"
# Nothing in the lab needs these, and each costs start-up time.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    systemd-timesyncd.service getty.target console-getty.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
mkdir -p "$root/var/log/journal"
