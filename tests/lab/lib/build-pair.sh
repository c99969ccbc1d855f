# shellcheck shell=bash
# The domain with a second DC: what the second's joining changes on the first, and the second itself.
# The layer is two folders, dc and dc2.
#     NEW DC-LAYERS DC2-LAYERS DOMAIN DC-FQDN DC-ADDRESS DC2-FQDN DC2-ADDRESS
new=$1 dc_layers=$2 dc2_layers=$3 domain=$4 fqdn=$5 address=$6 fqdn2=$7 address2=$8
dc=$new/dc dc2=$new/dc2
base_dn=DC=${domain//./,DC=}

mkdir -p "$new"/{dc,dc2} "$new"/{layer,work}/{dc,dc2}
mount_overlay "$dc" "$dc_layers" "$new/layer/dc" "$new/work/dc"
mount_overlay "$dc2" "$dc2_layers" "$new/layer/dc2" "$new/work/dc2"
for root in "$dc" "$dc2"; do
    printf 'search %s\nnameserver %s\n' "$domain" "$address" >"$root/etc/resolv.conf"
    printf '127.0.0.1 localhost\n%s %s %s\n%s %s %s\n' "$address" "$fqdn" "${fqdn%%.*}" \
        "$address2" "$fqdn2" "${fqdn2%%.*}" >"$root/etc/hosts"
    mkdir -p "$root/run/samba" "$root/run/lock"
done

# One network for both; each Samba answers at its own address.
ip link set lo up
ip link add lan type veth peer name far
ip link set far up
ip link set lan up
ip address add "$address/24" dev lan
ip address add "$address2/24" dev lan

at() { # ADDRESS : Samba's options for it
    printf '%s\n' "--option=interfaces=$1/24" "--option=bind interfaces only=yes"
}

start() { # ROOT ADDRESS : Samba in the background, until it answers
    local options
    mapfile -t options < <(at "$2")
    # The certificates are each lab's own: none is made here.
    chroot "$1" samba --foreground --no-process-group --debug-stdout "${options[@]}" --option="tls enabled=no" &
    for _ in {1..300}; do
        ! chroot "$1" ldapsearch -x -H "ldap://$2" -s base -b "" defaultNamingContext >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    return 1
}

stop() { # PID…
    kill "$@"
    wait "$@" || true
}

# samba-tool as the administrator; the password comes from the file.
as_administrator() { # ROOT ARGUMENT…
    local root=$1
    shift
    chroot "$root" env PASSWD_FILE=/usr/local/lib/lab/admin-password samba-tool "$@" -U Administrator
}

install -d "$dc2/usr/local/lib/lab"
cp -p -t "$dc2/usr/local/lib/lab" "$dc"/usr/local/lib/lab/*
sed "/^\[domain_realm\]/,\$ s/${fqdn%%.*} =/${fqdn2%%.*} =/" "$dc/etc/krb5.conf" >"$dc2/etc/krb5.conf"
rm -f "$dc2/etc/samba/smb.conf"

start "$dc" "$address"
first=$!
mapfile -t options < <(at "$address2"; sed -n 's/^\t\(ad dc functional level\)/--option=\1/p' "$dc/etc/samba/smb.conf")
as_administrator "$dc2" domain join "$domain" DC --dns-backend=SAMBA_INTERNAL --server="$fqdn" \
    --option="netbios name=${fqdn2%%.*}" "${options[@]}"
# The second is configured as the first is. The options above were for this network alone.
sed -i '/interfaces/d' "$dc2/etc/samba/smb.conf"
sed -n '/^\ttls /p' "$dc/etc/samba/smb.conf" | sed -i '/^\[global\]/r /dev/stdin' "$dc2/etc/samba/smb.conf"
# A change is told to the other DC after a second, not five.
sed -i '/^\[global\]/a\	dreplsrv:notify_interval = 1' "$dc/etc/samba/smb.conf" "$dc2/etc/samba/smb.conf"
start "$dc2" "$address2"
second=$!

# The second DC's own SRV records and SPNs. By RPC: there is no nsupdate.
chroot "$dc2" samba_dnsupdate --use-samba-tool --rpc-server-ip="$address" --current-ip="$address2"
chroot "$dc2" samba_spnupdate
# Each finds out that it replicates from the other, and does so until nothing is left.
for server in "$fqdn" "$fqdn2"; do
    # Samba 4.22 does so by itself soon after its start, and is busy meanwhile.
    for attempt in {10..0}; do
        ! as_administrator "$dc" drs kcc "$server" || break
        ((attempt))
        sleep 2
    done
done
for partition in "$base_dn" "CN=Configuration,$base_dn" "CN=Schema,CN=Configuration,$base_dn" \
    "DC=DomainDnsZones,$base_dn" "DC=ForestDnsZones,$base_dn"; do
    as_administrator "$dc" drs replicate "$fqdn" "$fqdn2" "$partition"
    as_administrator "$dc" drs replicate "$fqdn2" "$fqdn" "$partition"
done
stop "$second" "$first"

systemctl --root="$dc2" --quiet disable smbd nmbd winbind
systemctl --root="$dc2" --quiet unmask samba-ad-dc
systemctl --root="$dc2" --quiet enable samba-ad-dc
