# shellcheck shell=bash
# The cast while the domain runs: looking at accounts, resetting them, locking the locked one.

# cast_rows : person, sAMAccountName, userPrincipalName, password and condition, one a line, by tab.
cast_rows() {
    sed -E -e '/^#/d' -e '/^[[:space:]]*$/d' -e 's/[[:space:]]*\|[[:space:]]*/\t/g' -e 's/[[:space:]]+$//' \
        -e 's/(^|\t)"([^\t]*)"(\t|$)/\1\2\3/g' "$LAB_DIR/cast"
}

cast_password() { # SAM
    cast_rows | awk -F'\t' -v sam="$1" '$2 == sam { print $4 }'
}

# Somebody in the table by person or sAMAccountName -> the sAMAccountName.
cast_sam() {
    local sam
    sam=$(cast_rows | awk -F'\t' -v name="$1" '$1 == name || $2 == name { print $2; exit }')
    [[ -n $sam ]] || die "nobody in the cast is called $1"
    echo "$sam"
}

cast_with_condition() { # CONDITION : sAMAccountNames
    cast_rows | awk -F'\t' -v condition="$1" '$5 == condition { print $2 }'
}

# ldapsearch or ldapmodify as the administrator, over Samba's own socket: no network and no TLS in
# the way. ldbsearch would spend a tenth of a second on loading its modules.
cast_ldap() { # TOOL ARGUMENT…
    local tool=$1
    shift
    node_run dc "$tool" -x -H ldapi://%2Fvar%2Flib%2Fsamba%2Fprivate%2Fldap_priv%2Fldapi \
        -D "Administrator@$DOMAIN" -y /usr/local/lib/lab/admin-password "$@"
}

cast_show() { # SAM : "attribute: value" lines
    cast_ldap ldapsearch -LLL -b "$BASE_DN" "(sAMAccountName=$1)" badPwdCount lockoutTime userAccountControl | awk '
        /^(badPwdCount|userAccountControl): / { print }
        /^lockoutTime: / { locked = $2 }
        END { print "lockoutTime: " (locked ? locked : "0") }'
}

cast_show_all() { # : sAMAccountName, badPwdCount and lockoutTime of everybody in the domain, by tab
    local key value sam='' count=0 lock=0
    cast_ldap ldapsearch -LLL -o ldif-wrap=no -b "$BASE_DN" '(&(objectCategory=person)(objectClass=user))' \
        sAMAccountName badPwdCount lockoutTime |
        while read -r key value; do
            case $key in
                sAMAccountName:) sam=$value ;;
                sAMAccountName::) sam=$(base64 -d <<<"$value") ;;
                badPwdCount:) count=$value ;;
                lockoutTime:) lock=$value ;;
                '')
                    [[ -z $sam ]] || printf '%s\t%s\t%s\n' "$sam" "$count" "$lock"
                    sam='' count=0 lock=0
                    ;;
            esac
        done
}

# Forgets wrong passwords and locks, of all these people in one go.
cast_forget() { # SAM…
    local sam
    for sam; do
        printf 'dn:: %s\nchangetype: modify\nreplace: lockoutTime\nlockoutTime: 0\n\n' \
            "$(printf 'CN=%s,OU=People,%s' "$sam" "$BASE_DN" | base64 -w0)"
    done | cast_ldap ldapmodify >/dev/null
}

# Locks somebody out the way it happens: by wrong passwords.
cast_lock() { # SAM
    for _ in 1 2 3; do
        # Refused, of course.
        node_run dc env LDAPTLS_CACERT=/var/lib/samba/private/tls/lab-ca.pem ldapsearch -x -H "ldaps://${FQDN[dc]}" \
            -D "CN=$1,OU=People,$BASE_DN" -w "not the password of $1" -s base -b "" >/dev/null 2>&1 || true
    done
    cast_is_locked "$1" || die "three wrong passwords have not locked $1"
}

cast_is_locked() { # SAM
    ! cast_show "$1" | grep -qx 'lockoutTime: 0'
}

# The locked person is locked afresh: a lock lasts thirty minutes, and a lab may live longer.
cast_reset() { # SAM…
    local sam
    cast_forget "$@"
    for sam in $(cast_with_condition locked); do
        if [[ " $* " == *" $sam "* ]]; then cast_lock "$sam"; fi
    done
}

cast_reset_all() {
    local everybody
    mapfile -t everybody < <(cast_rows | awk -F'\t' '$5 != "administrator" { print $2 }')
    cast_reset "${everybody[@]}"
}

cast_restore() { # SAM
    node_run dc /usr/bin/python3 /usr/local/lib/lab/cast.py restore /usr/local/lib/lab/cast "$1"
    cast_reset "$1"
}

lab_cast() {
    local usage="usage: lab cast show [NAME] | reset [NAME] | restore NAME | lock NAME" sam
    case $#-${1:-} in
        1-reset) cast_reset_all ;;
        1-show) cast_show_all ;;
        2-show | 2-reset | 2-restore | 2-lock)
            sam=$(cast_sam "$2")
            "cast_$1" "$sam"
            ;;
        *) die "$usage" ;;
    esac
}
