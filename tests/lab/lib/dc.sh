# shellcheck shell=bash
# The domain controller: its certificate, its start and its readiness.

readonly CA=$LAB_RUN/ca

# A private CA with the DC's certificate, and an unrelated one for "signed by the wrong CA".
ca_make() {
    mkdir -p "$CA"
    ca_make_root ca "Acme Root CA"
    ca_make_root other-ca "Other Root CA"
    ca_issue ca server
    ca_issue other-ca other-server
}

ca_make_root() { # NAME SUBJECT
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/O=Acme/CN=$2" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$CA/$1.key" -out "$CA/$1.pem"
}

ca_issue() { # CA NAME : a certificate for the DC
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Acme/CN=${FQDN[dc]}" \
        -keyout "$CA/$2.key" -out "$CA/$2.csr"
    openssl x509 -req -in "$CA/$2.csr" -CA "$CA/$1.pem" -CAkey "$CA/$1.key" -CAcreateserial -days 825 -out "$CA/$2.pem" \
        -extfile <(printf '%s\n' "subjectAltName=DNS:${FQDN[dc]},DNS:$DOMAIN,DNS:$NETBIOS" \
            basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth)
}

dc_prepare() {
    ca_make
    node_mount dc
    dc_install_certificate
}

dc_install_certificate() {
    local tls
    tls=$(node_root dc)/var/lib/samba/private/tls
    install -d -m 700 "$tls"
    install -m 644 "$CA/ca.pem" "$tls/lab-ca.pem"
    install -m 644 "$CA/server.pem" "$tls/lab-cert.pem"
    install -m 600 "$CA/server.key" "$tls/lab-key.pem"
}

dc_wait_ready() {
    wait_for 60 dc_answers dns
    wait_for 60 dc_answers ldap
    wait_for 60 dc_answers ldaps
    wait_for 60 dc_answers kdc
}

# One question per service, asked from the DC's own address. `host` and friends are not installed:
# Samba's python asks the DNS question.
dc_answers() {
    case $1 in
        ldap) node_run dc ldapsearch -x -H "ldap://${FQDN[dc]}" -o nettimeout=2 -s base -b "" defaultNamingContext ;;
        ldaps) node_run dc env LDAPTLS_CACERT=/var/lib/samba/private/tls/lab-ca.pem \
            ldapsearch -x -H "ldaps://${FQDN[dc]}" -o nettimeout=2 -s base -b "" defaultNamingContext ;;
        kdc) cast_password Administrator | node_run dc kinit -c /tmp/ready.ccache "Administrator@${DOMAIN^^}" &&
            node_run dc kvno -c /tmp/ready.ccache "ldap/${FQDN[dc]}" ;;
        dns) node_run dc /usr/bin/python3 - "_ldap._tcp.dc._msdcs.$DOMAIN" "${ADDRESS[dc]}" <<'PYTHON' ;;
import sys
import dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.lifetime = [sys.argv[2]], 2
resolver.resolve(sys.argv[1], "SRV")
PYTHON
    esac
}

# stop: as an administrator would. kill: as a crash would. Both leave the node itself up.
lab_dc() {
    case ${1:-} in
        stop) node_run dc systemctl stop samba-ad-dc ;;
        kill) wait_for 10 dc_kill ;;
        start)
            node_run dc systemctl reset-failed samba-ad-dc
            node_run dc systemctl start samba-ad-dc
            dc_wait_ready
            ;;
        restart)
            lab_dc stop
            lab_dc start
            ;;
        *) die "usage: lab dc stop|kill|start|restart" ;;
    esac
}

# Kills every process of Samba, and succeeds when none is left.
dc_kill() {
    local pids
    # shellcheck disable=SC2046  # a list of folders
    pids=$(find $(node_cgroups dc) -path '*/samba-ad-dc.service/cgroup.procs' -exec cat {} + | sort -u)
    [[ -n $pids ]] || return 0
    # shellcheck disable=SC2086  # a list of numbers
    kill -KILL $pids
    return 1
}

# Where a forest keeps the root CAs that its members trust. Samba leaves the container empty; a
# Windows CA puts itself there.
ca_dn() {
    echo "CN=Acme Root CA,CN=Certification Authorities,CN=Public Key Services,CN=Services,CN=Configuration,$BASE_DN"
}

ca_publish() {
    printf '%s\n' "dn: $(ca_dn)" "objectClass: certificationAuthority" \
        "cACertificate:: $(openssl x509 -in "$CA/$1.pem" -outform DER | base64 -w0)" \
        "authorityRevocationList:: AA==" "certificateRevocationList:: AA==" | cast_ldap ldapadd >/dev/null
}

ca_unpublish() {
    # Absent is what we want: "no such object" is 32.
    cast_ldap ldapdelete "$(ca_dn)" 2>/dev/null || (($? == 32))
}

lab_ca() {
    case $* in
        '') echo "$CA/ca.pem" ;;
        --other) echo "$CA/other-ca.pem" ;;
        publish | 'publish --other')
            ca_unpublish
            ca_publish "${2:+other-}ca"
            ;;
        unpublish) ca_unpublish ;;
        *) die "usage: lab ca [--other] | publish [--other] | unpublish" ;;
    esac
}
