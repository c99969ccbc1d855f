# shellcheck shell=bash
# Names in the domain's DNS, and the UPN suffixes of its forest.

# samba-tool as the administrator; the password comes from the file.
dns_tool() { # add|delete NAME TYPE DATA
    local zone=$DOMAIN name=$2
    # Services of the domain controllers are in a separate zone.
    if [[ $name == *_msdcs ]]; then
        zone=_msdcs.$DOMAIN name=${name%._msdcs}
    fi
    node_run dc env PASSWD_FILE=/usr/local/lib/lab/admin-password \
        samba-tool dns "$1" "${FQDN[dc]}" "$zone" "$name" "$3" "$4" -U Administrator >>"$LAB_LOG" 2>&1
}

dns_add() { # NAME ADDRESS
    dns_tool add "$1" A "$2"
}

dns_addresses() { # NAME
    node_run dc /usr/bin/python3 - "$1.$DOMAIN" "${ADDRESS[dc]}" <<'PYTHON'
import sys
import dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.lifetime = [sys.argv[2]], 2
try:
    print(*resolver.resolve(sys.argv[1], "A"), sep="\n")
except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
    pass
PYTHON
}

dns_remove() { # NAME
    local found
    for found in $(dns_addresses "$1"); do
        dns_tool delete "$1" A "$found"
    done
}

lab_dns() {
    local usage="usage: lab dns add NAME ADDRESS | remove NAME | srv add|remove SERVICE TARGET PORT PRIORITY WEIGHT"
    local verb
    # A name in the domain, with or without the domain's name.
    case $#-${1:-}-${2:-} in
        3-add-*) dns_add "${2%."$DOMAIN"}" "$3" ;;
        2-remove-*) dns_remove "${2%."$DOMAIN"}" ;;
        7-srv-add | 7-srv-remove)
            verb=${2/remove/delete}
            dns_tool "$verb" "${3%."$DOMAIN"}" SRV "$4 $5 $6 $7"
            ;;
        *) die "$usage" ;;
    esac || die "the DNS refused: see $LAB_LOG"
    replicate
}

# Suffixes of userPrincipalNames in addition to the domain's name.
lab_suffix() {
    [[ $# == 2 && $1 =~ ^(add|remove)$ ]] || die "usage: lab suffix add|remove SUFFIX"
    local verb=${1/remove/delete}
    printf '%s\n' "dn: CN=Partitions,CN=Configuration,$BASE_DN" "changetype: modify" "$verb: uPNSuffixes" \
        "uPNSuffixes: $2" | cast_ldap dc ldapmodify >/dev/null
    replicate
}
