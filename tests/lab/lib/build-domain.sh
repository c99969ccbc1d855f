# shellcheck shell=bash
# The domain: provisioned where Debian's Samba expects it, with the cast in it.
#     ROOT LAB-DIR DC-FQDN DOMAIN NETBIOS DC-ADDRESS FUNCTION-LEVEL
root=$1 lab_dir=$2 fqdn=$3 domain=$4 netbios=$5 address=$6 level=$7

admin_password=$(awk -F'|' '$1 ~ /^administrator / { gsub(/^ +| +$/, "", $4); print $4 }' "$lab_dir/cast")
printf '127.0.0.1 localhost\n%s %s %s\n' "$address" "$fqdn" "${fqdn%%.*}" >"$root/etc/hosts"

# Samba 4.22 must be told that the DC itself may have this level.
own_level=()
[[ $level == 2008_R2 ]] || own_level=(--option="ad dc functional level = $level")
rm -f "$root/etc/samba/smb.conf"
# The certificate is each lab's own (see dc.sh): Samba's has no subjectAltName, which rustls refuses.
# Built offline: the provisioning would write this machine's addresses and resolver into the domain.
chroot "$root" samba-tool domain provision --server-role=dc --dns-backend=SAMBA_INTERNAL \
    --realm="${domain^^}" --domain="$netbios" --host-name="${fqdn%%.*}" --host-ip="$address" \
    --adminpass="$admin_password" --function-level="$level" "${own_level[@]}" \
    --option="tls cafile = tls/lab-ca.pem" \
    --option="tls certfile = tls/lab-cert.pem" \
    --option="tls keyfile = tls/lab-key.pem"
sed -i '/dns forwarder/d' "$root/etc/samba/smb.conf"
cp "$root/var/lib/samba/private/krb5.conf" "$root/etc/krb5.conf"
# Without this the SPN ldap/… is missing, and nobody gets a ticket for LDAP.
chroot "$root" samba_spnupdate

# These stay on the DC, for `lab cast`.
install -D -m 600 -t "$root/usr/local/lib/lab" "$lab_dir/cast" "$lab_dir/lib/cast.py"
install -m 600 <(printf %s "$admin_password") "$root/usr/local/lib/lab/admin-password"
chroot "$root" /usr/bin/python3 /usr/local/lib/lab/cast.py create /usr/local/lib/lab/cast

systemctl --root="$root" --quiet disable smbd nmbd winbind
systemctl --root="$root" --quiet unmask samba-ad-dc
systemctl --root="$root" --quiet enable samba-ad-dc
