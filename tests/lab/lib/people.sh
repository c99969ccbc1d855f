# shellcheck shell=bash
# The cast while the domain runs: looking at accounts, resetting them, locking the locked one.

readonly SAM_LDB=/var/lib/samba/private/sam.ldb

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

cast_lock_locked() {
    :
}
