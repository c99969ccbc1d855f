# shellcheck shell=bash
# The cast while the domain runs: shows accounts, resets them, and locks the locked one.

# cast_rows : key, sAMAccountName, userPrincipalName, password and condition of a user per line, separated by tabs.
cast_rows() {
    sed -E -e '/^#/d' -e '/^[[:space:]]*$/d' -e 's/[[:space:]]*\|[[:space:]]*/\t/g' -e 's/[[:space:]]+$//' \
        -e 's/(^|\t)"([^\t]*)"(\t|$)/\1\2\3/g' "$LAB_DIR/cast"
}

cast_password() { # SAM
    cast_rows | awk -F'\t' -v sam="$1" '$2 == sam { print $4 }'
}

# Prints the sAMAccountName of a user, given by key or sAMAccountName.
cast_sam() {
    local sam
    sam=$(cast_rows | awk -F'\t' -v name="$1" '$1 == name || $2 == name { print $2; exit }')
    [[ -n $sam ]] || die "nobody in the cast is called $1"
    echo "$sam"
}

cast_with_condition() { # CONDITION… : sAMAccountNames
    cast_rows | awk -F'\t' -v conditions=" $* " 'index(conditions, " " $5 " ") { print $2 }'
}

# Runs ldapsearch or ldapmodify as the administrator over Samba's own socket, without network or TLS.
# ldbsearch would need a tenth of a second to load its modules.
readonly LDAPI=ldapi://%2Fvar%2Flib%2Fsamba%2Fprivate%2Fldap_priv%2Fldapi
cast_ldap() { # DC TOOL ARGUMENT…
    local dc=$1 tool=$2
    shift 2
    node_run "$dc" timeout 20 "$tool" -x -H "$LDAPI" \
        -D "Administrator@$DOMAIN" -y /usr/local/lib/lab/admin-password "$@"
}

cast_show() { # DC SAM : "attribute: value" lines
    cast_ldap "$1" ldapsearch -LLL -b "$BASE_DN" "(sAMAccountName=$2)" badPwdCount lockoutTime userAccountControl | awk '
        /^(badPwdCount|userAccountControl): / { print }
        /^lockoutTime: / { locked = $2 }
        END { print "lockoutTime: " (locked ? locked : "0") }'
}

cast_show_everybody() { # DC : sAMAccountName, badPwdCount and lockoutTime of all users in the domain, separated by tabs
    local key value sam='' count=0 lock=0
    cast_ldap "$1" ldapsearch -LLL -o ldif-wrap=no -b "$BASE_DN" '(&(objectCategory=person)(objectClass=user))' \
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

# badPwdCount is local to each DC: AD does not replicate it.
cast_show_all() { # : sAMAccountName, DC, badPwdCount and lockoutTime of all users on every DC, separated by tabs
    local dc
    for dc in $(dcs); do
        cast_show_everybody "$dc" | sed "s/\t/\t$dc\t/"
    done
}

# Resets the counters and locks of all these users at once. On every DC, because each counts separately.
cast_forget() { # SAM…
    local dc
    for dc in $(dcs); do
        cast_forget_on "$dc" "$@"
    done
    # Later changes must not lose against an older change of the other DC.
    replicate
}

cast_forget_on() { # DC SAM…
    local dc=$1 sam
    shift
    for sam; do
        printf 'dn:: %s\nchangetype: modify\nreplace: lockoutTime\nlockoutTime: 0\n\n' \
            "$(printf 'CN=%s,OU=People,%s' "$sam" "$BASE_DN" | base64 -w0)"
    done | cast_ldap "$dc" ldapmodify >/dev/null
}

# Locks an account as in practice: by wrong passwords.
cast_lock() { # SAM
    local dc
    for _ in 1 2 3; do
        # The bind is rejected, as expected.
        node_run dc ldapsearch -x -H "$LDAPI" \
            -D "CN=$1,OU=People,$BASE_DN" -w "not the password of $1" -s base -b "" >/dev/null 2>&1 || true
    done
    replicate
    for dc in $(dcs); do
        # Samba replicates the partition's head, and with it the mark, before all other objects.
        wait_for 20 cast_is_locked "$dc" "$1" || die "three wrong passwords have not locked $1 on $dc"
    done
}

cast_is_locked() { # DC SAM
    ! cast_show "$1" "$2" | grep -qx 'lockoutTime: 0'
}

# Locks the locked user again, because a lock lasts thirty minutes and a lab may live longer.
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

# Conditions that depend on a password's age start now, because the domain may have been built long ago.
cast_begin() {
    local young sam
    cast_reset_all
    mapfile -t young < <(cast_with_condition expires-soon new-password)
    for sam in "${young[@]}"; do
        # -1 means "now", but only if the value is 0 before (MS-SAMR 3.1.1.8.8).
        printf "dn: CN=$sam,OU=People,$BASE_DN\nchangetype: modify\nreplace: pwdLastSet\npwdLastSet: %s\n\n" 0 -1
    done | cast_ldap dc ldapmodify >/dev/null
    replicate
}

cast_restore() { # SAM
    node_run dc /usr/bin/python3 /usr/local/lib/lab/cast.py restore /usr/local/lib/lab/cast "$1"
    cast_reset "$1"
}

readonly SAM_DB=/var/lib/samba/private/sam.ldb

# Many users, written while Samba is stopped, with five hundred per transaction, because longer ones are slower.
# Nineteen of twenty are in "Crowd", and so in "XCALLY Agents". One of a hundred is disabled.
cast_load() { # NUMBER
    local number=$1 from
    [[ $number =~ ^[1-9][0-9]{0,4}$ ]] || die "how many people, up to 99999?"
    ! two_dcs || die "a second DC would run out of RIDs"
    dc_stop dc
    printf '%s\n' "dn: OU=Crowd,$BASE_DN" 'objectClass: organizationalUnit' | cast_ldb ldbadd
    for ((from = 1; from <= number; from += 500)); do
        cast_crowd "$from" $((from + 499 < number ? from + 499 : number)) | cast_ldb ldbadd
    done
    {
        printf '%s\n' "dn: CN=Crowd,OU=Groups,$BASE_DN" 'objectClass: group' 'sAMAccountName: Crowd' 'groupType: -2147483646'
        seq -f "member: CN=u%05g,OU=Crowd,$BASE_DN" "$number" | sed '20~20d'
    } | cast_ldb ldbadd
    printf '%s\n' "dn: CN=XCALLY Agents,OU=Groups,$BASE_DN" 'changetype: modify' 'add: member' \
        "member: CN=Crowd,OU=Groups,$BASE_DN" | cast_ldb ldbmodify
    dc_start dc
}

cast_ldb() { # TOOL
    node_run dc "$1" -H "$SAM_DB" --option=ldb:nosync=true >/dev/null
}

cast_crowd() { # FROM TO : the users as LDIF
    awk -v from="$1" -v to="$2" -v root="$BASE_DN" -v domain="$DOMAIN" 'BEGIN {
        for (i = from; i <= to; i++) {
            name = sprintf("u%05d", i)
            print "dn: CN=" name ",OU=Crowd," root "\nobjectClass: user\nsAMAccountName: " name
            print "userPrincipalName: " name "@" domain "\nmail: given" i ".sur" i "@" domain
            print "givenName: Given" i "\nsn: Sur" i "\ndisplayName: Given" i " Sur" i
            # Without a password, because hashing it takes longest.
            print "userAccountControl: " (i % 100 ? 544 : 546) "\npwdLastSet: -1\n"
        }
    }'
}

lab_cast() {
    local usage="usage: lab cast show [NAME] [--dc dc|dc2 | --all] | reset [NAME] | restore NAME | lock NAME | load NUMBER"
    local command=${1:-} name='' sam='' dc=dc
    (($# == 0)) || shift
    if [[ $command == load && $# == 1 ]]; then
        step "$1 more people" cast_load "$1"
        return
    fi
    [[ -z ${1:-} || $1 == --* ]] || {
        name=$1
        shift
    }
    [[ -z $name ]] || sam=$(cast_sam "$name")
    if [[ $command == show && ${1:-} == --dc && $# == 2 ]]; then
        dc=$2
        shift 2
    fi
    is_dc "$dc" || die "no domain controller of this lab: $dc"
    case $command-${name:+NAME}$* in
        show-) cast_show_everybody "$dc" ;;
        show-NAME) cast_show "$dc" "$sam" ;;
        show---all) cast_show_all ;;
        show-NAME--all) cast_show_all | awk -F'\t' -v sam="$sam" '$1 == sam' ;;
        reset-) cast_reset_all ;;
        reset-NAME | restore-NAME | lock-NAME) "cast_$command" "$sam" ;;
        *) die "$usage" ;;
    esac
}
