# shellcheck shell=bash
# Two domain controllers: checks that changes on one reach the other.

# Partitions whose data can change.
readonly PARTITIONS=("$BASE_DN" "CN=Configuration,$BASE_DN" "DC=DomainDnsZones,$BASE_DN" "DC=ForestDnsZones,$BASE_DN")
# The attribute in which each DC leaves its mark for the other. There are two, so that both can do so at once.
declare -rA MARK=([dc]=adminDescription [dc2]=adminDisplayName)
declare -rA OTHER_DC=([dc]=dc2 [dc2]=dc)

# Waits until all current changes of each DC have reached the other. A partition replicates in the order of
# its changes, so everything before a mark arrives before the mark. With one DC it does nothing.
replicate() {
    local dc mark=$EPOCHREALTIME
    two_dcs || return 0
    for dc in dc dc2; do
        printf "dn: %s\nchangetype: modify\nreplace: ${MARK[$dc]}\n${MARK[$dc]}: $mark\n\n" "${PARTITIONS[@]}" |
            cast_ldap "$dc" ldapmodify >/dev/null
    done
    for dc in dc dc2; do
        wait_for 60 replicated "$dc" "$mark" || die "$dc has not replicated to ${OTHER_DC[$dc]}"
    done
}

replicated() { # DC MARK
    local partition
    for partition in "${PARTITIONS[@]}"; do
        cast_ldap "${OTHER_DC[$1]}" ldapsearch -LLL -s base -b "$partition" "${MARK[$1]}" | grep -qx "${MARK[$1]}: $2"
    done
}

# Tests it with users: one created on each DC gets a password on the other, and logs in at the first.
replication_prove() {
    local dc
    for dc in dc dc2; do
        printf '%s\n' "dn: $(probe_dn "$dc")" "objectClass: user" "sAMAccountName: probe-$dc" | cast_ldap "$dc" ldapadd
    done
    for dc in dc dc2; do
        wait_for 60 probe_is_known "$dc" "${OTHER_DC[$dc]}"
        printf '%s\n' "dn: $(probe_dn "$dc")" "changetype: modify" "replace: unicodePwd" \
            "unicodePwd:: $(printf '"%s"' "$(probe_password "$dc")" | iconv -t UTF-16LE | base64 -w0)" "-" \
            "replace: userAccountControl" "userAccountControl: 512" | cast_ldap "${OTHER_DC[$dc]}" ldapmodify
    done
    for dc in dc dc2; do
        # Not by a login, because a wrong password that comes too early would count.
        wait_for 60 probe_is_enabled "$dc"
        probe_comes_in "$dc"
        cast_ldap "$dc" ldapdelete "$(probe_dn "$dc")"
    done
    replicate
}

probe_dn() { # DC
    echo "CN=probe-$1,CN=Users,$BASE_DN"
}

probe_password() { # DC
    echo "Pr0be-made-on-$1"
}

probe_is_known() { # DC HERE
    cast_ldap "$2" ldapsearch -LLL -s base -b "$(probe_dn "$1")" 1.1
}

probe_is_enabled() { # DC
    cast_ldap "$1" ldapsearch -LLL -s base -b "$(probe_dn "$1")" userAccountControl | grep -qx 'userAccountControl: 512'
}

probe_comes_in() { # DC
    probe_password "$1" | node_run "$1" sh -c 'umask 77; tr -d "\n" >/run/probe'
    node_run "$1" ldapsearch -x -H "$LDAPI" -D "$(probe_dn "$1")" -y /run/probe -s base -b "" 1.1
}
