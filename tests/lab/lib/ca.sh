# shellcheck shell=bash
# The lab's private CA: valid and invalid certificates, the revocation list, and the parts that AD publishes.

readonly CA=$LAB_RUN/ca
readonly CA_CN="Acme Root CA"
readonly PUBLIC_KEY_SERVICES="CN=Public Key Services,CN=Services,CN=Configuration,$BASE_DN"

# The CA of the lab's certificates, and an unrelated one for "signed by the wrong CA".
ca_make() {
    mkdir -p "$CA/issued"
    ca_make_root ca "$CA_CN"
    ca_make_root other-ca "Other Root CA"
}

ca_make_root() { # NAME SUBJECT
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/O=Acme/CN=$2" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$CA/$1.key" -out "$CA/$1.pem"
    : >"$CA/$1.index"
    echo 01 >"$CA/$1.crlnumber"
    cat >"$CA/$1.cnf" <<CONFIG
[ca]
default_ca = lab
[lab]
certificate = $CA/$1.pem
private_key = $CA/$1.key
database = $CA/$1.index
crlnumber = $CA/$1.crlnumber
new_certs_dir = $CA/issued
rand_serial = yes
unique_subject = no
default_md = sha256
default_days = 825
default_crl_days = 30
crl_extensions = crl
policy = policy
[policy]
organizationName = optional
commonName = supplied
[crl]
authorityKeyIdentifier = keyid
CONFIG
}

# An earlier, expired certificate of the CA, with the same key.
ca_expire() {
    [[ ! -e $CA/expired-ca.pem ]] || return 0
    openssl req -new -key "$CA/ca.key" -subj "/O=Acme/CN=$CA_CN" -out "$CA/expired-ca.csr"
    openssl ca -batch -notext -selfsign -config "$CA/ca.cnf" -keyfile "$CA/ca.key" \
        -startdate 20100101000000Z -enddate 20200101000000Z -in "$CA/expired-ca.csr" -out "$CA/expired-ca.pem" \
        -extfile <(printf '%s\n' basicConstraints=critical,CA:TRUE keyUsage=critical,keyCertSign,cRLSign)
}

# Issues $CA/NODE-KIND.pem and .key for a node, unless they exist.
ca_issue() { # NODE KIND
    local ca=ca out=$CA/$1-$2 name=${FQDN[$1]} dates=()
    local names="DNS:${FQDN[$1]},DNS:$DOMAIN,DNS:$NETBIOS"
    case $2 in
        expired) dates=(-startdate 20200101000000Z -enddate 20210101000000Z) ;;
        other-name) name=elsewhere.$DOMAIN names=DNS:elsewhere.$DOMAIN ;;
        other-ca) ca=other-ca ;;
    esac
    [[ ! -e $out.pem ]] || return 0
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Acme/CN=$name" \
        -keyout "$out.key" -out "$out.csr"
    openssl ca -batch -notext -config "$CA/$ca.cnf" "${dates[@]}" -in "$out.csr" -out "$out.new" \
        -extfile <(printf '%s\n' "subjectAltName=$names" basicConstraints=critical,CA:FALSE \
            keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth)
    [[ $2 != revoked ]] || openssl ca -config "$CA/$ca.cnf" -revoke "$out.new"
    mv "$out.new" "$out.pem"
}

# Container of the root CAs that the forest's members trust. Samba leaves it empty; a Windows CA
# adds itself.
ca_dn() {
    echo "CN=$CA_CN,CN=Certification Authorities,$PUBLIC_KEY_SERVICES"
}

ca_publish() {
    printf '%s\n' "dn: $(ca_dn)" "objectClass: certificationAuthority" \
        "cACertificate:: $(openssl x509 -in "$CA/$1.pem" -outform DER | base64 -w0)" \
        "authorityRevocationList:: AA==" "certificateRevocationList:: AA==" | cast_ldap dc ldapadd >/dev/null
}

ca_unpublish() {
    ca_delete "$(ca_dn)"
}

ca_delete() { # DN
    # "No such object" (32) is success, too.
    cast_ldap dc ldapdelete "$1" 2>/dev/null || (($? == 32))
}

# Place where a Windows CA publishes its list: below a container named after the CA's server.
ca_crl_container() {
    local server=${FQDN[dc]%%.*}
    echo "CN=$server,CN=CDP,$PUBLIC_KEY_SERVICES"
}

ca_crl_publish() {
    local dc
    for dc in $(dcs); do
        ca_issue "$dc" revoked
    done
    openssl ca -config "$CA/ca.cnf" -gencrl -out "$CA/ca.crl"
    printf '%s\n' "dn: $(ca_crl_container)" "objectClass: container" "" \
        "dn: CN=$CA_CN,$(ca_crl_container)" "objectClass: cRLDistributionPoint" \
        "certificateRevocationList:: $(openssl crl -in "$CA/ca.crl" -outform DER | base64 -w0)" |
        cast_ldap dc ldapadd >/dev/null
}

ca_crl_unpublish() {
    ca_delete "CN=$CA_CN,$(ca_crl_container)"
    ca_delete "$(ca_crl_container)"
}

lab_ca() {
    case $* in
        '') echo "$CA/ca.pem" ;;
        --other) echo "$CA/other-ca.pem" ;;
        --expired)
            ca_expire 2>>"$LAB_LOG"
            echo "$CA/expired-ca.pem"
            ;;
        publish | 'publish --other')
            ca_unpublish
            ca_publish "${2:+other-}ca"
            ;;
        unpublish) ca_unpublish ;;
        'crl publish')
            ca_crl_unpublish
            ca_crl_publish 2>>"$LAB_LOG"
            ;;
        'crl unpublish') ca_crl_unpublish ;;
        *) die "usage: lab ca [--other | --expired] | publish [--other] | unpublish | crl publish|unpublish" ;;
    esac
    [[ -z $* || $1 == --* ]] || replicate
}
