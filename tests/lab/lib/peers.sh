# shellcheck shell=bash
# Other PAM modules for AD, installed on the host next to this one. `make bench` compares them.

readonly PEERS=(libnss-winbind libpam-krb5 libpam-ldapd libpam-winbind nslcd winbind)

lab_peers() {
    [[ ${1:-} == up ]] || die "usage: lab peers up"
    host_is_joined host || die "the host is not joined"
    step "host: download the other PAM modules" host_download host "${PEERS[@]}"
    step "host: install them" host_apt host install "${PEERS[@]}"
    # Only the services below use them.
    step "host: configure them" peers_configure
}

peers_configure() {
    node_run host pam-auth-update --package --remove krb5 ldap winbind
    install -m 644 "$CA/ca.pem" "$(node_root host)/etc/ssl/certs/lab-ca.pem"
    peers_krb5
    peers_ldapd
    peers_sss
    peers_winbind
}

# peers_service NAME AUTH [ACCOUNT] : a PAM service of these modules.
peers_service() {
    # shellcheck disable=SC2016  # for the inner shell
    printf 'auth required %s\naccount required %s\n' "$2" "${3:-pam_permit.so}" |
        node_run host sh -c 'cat >"/etc/pam.d/$1"' sh "bench-$1"
}

# The module verifies the ticket with the host's keytab, as pam_motion_ad does.
peers_krb5() {
    node_run host sed -i 's/^\[libdefaults\]/&\n\tverify_ap_req_nofail = true/' /etc/krb5.conf
    peers_service krb5 'pam_krb5.so minimum_uid=0 no_ccache' pam_krb5.so
}

# The module needs an account to search the directory, because AD allows no anonymous search.
peers_ldapd() {
    node_run host sh -c 'umask 077; cat >/etc/nslcd.conf; chgrp nslcd /etc/nslcd.conf; chmod 640 /etc/nslcd.conf' <<CONF
uid nslcd
gid nslcd
uri ldaps://${FQDN[dc]}/
base $BASE_DN
binddn CN=john.doe,OU=People,$BASE_DN
bindpw $(cast_password john.doe)
tls_reqcert demand
tls_cacertfile /etc/ssl/certs/lab-ca.pem
referrals off
filter passwd (&(objectClass=user)(!(objectClass=computer)))
map passwd uid sAMAccountName
CONF
    node_run host systemctl restart nslcd
    peers_service ldapd 'pam_ldap.so minimum_uid=0'
}

# Without the two features that no other module has: group policies, and logins from a cache.
peers_sss() {
    # shellcheck disable=SC2016  # for the inner shell
    node_run host sh -c '
        sed -i -E -e "/^(cache_credentials|ad_gpo_access_control|entry_cache_timeout) *=/d" \
            -e "s/^\[domain\/.*/&\ncache_credentials = False\nad_gpo_access_control = disabled\nentry_cache_timeout = 0/" \
            /etc/sssd/sssd.conf
        printf "[pam]\npam_id_timeout = 0\n" >>/etc/sssd/sssd.conf
        systemctl restart sssd'
    peers_service sss pam_sss.so pam_sss.so
}

# winbind keeps a separate machine account.
peers_winbind() {
    node_run host sh -c 'cat >/etc/samba/smb.conf' <<CONF
[global]
    workgroup = $NETBIOS
    realm = ${DOMAIN^^}
    security = ads
    netbios name = XCALLYWB
    winbind use default domain = yes
    idmap config * : backend = tdb
    idmap config * : range = 100000-999999
CONF
    # shellcheck disable=SC2016  # for the inner shell
    cast_password Administrator | node_run host sh -c '
        read -r password; net ads join -U "Administrator%$password" dnshostname=xcallywb.acme.com'
    node_run host systemctl restart winbind
    wait_for 20 node_run host wbinfo --ping-dc
    peers_service winbind pam_winbind.so pam_winbind.so
}
