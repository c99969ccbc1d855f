# shellcheck shell=bash
# The XCALLY host: the motion user with its .env, the realm join, and the package under test.

readonly MOTION_HOME=/var/opt/motion2

# What XCALLY's installer and its Active Directory page leave on a server.
host_prepare() {
    node_run host useradd --system --user-group --create-home --home-dir $MOTION_HOME --shell /bin/bash motion
    cast_password Administrator | host_write_env
}

host_write_env() {
    local password
    read -r password
    # shellcheck disable=SC2016  # for the inner shell
    node_run host sh -c 'umask 077; cat >"$1/.env"; chown motion: "$1/.env"' sh $MOTION_HOME <<ENV
XC_ACTIVEDIRECTORY_STRATEGY=inetOrgPerson
XC_ACTIVEDIRECTORY_ADMIN='cn=Administrator,cn=Users,${BASE_DN,,}'
XC_ACTIVEDIRECTORY_PASSWORD='$password'
XC_ACTIVEDIRECTORY_BASE_DN='${BASE_DN,,}'
XC_ACTIVEDIRECTORY_URL='ldap://${FQDN[dc]}'
XC_ACTIVEDIRECTORY_DOMAIN='$DOMAIN'
ENV
}

host_is_joined() {
    [[ -s $(node_root host)/etc/krb5.keytab ]]
}

# As the XCALLY page says.
host_join() {
    cast_password Administrator | node_run host realm join -v -U Administrator "$DOMAIN"
}

host_leave() {
    cast_password Administrator | node_run host realm leave -v -U Administrator --remove "$DOMAIN"
}

lab_join() {
    if host_is_joined; then
        say "already joined"
    else
        step "realm join" host_join
        # Both DCs must know the host's new password before anybody uses it.
        replicate
    fi
}

lab_leave() {
    if host_is_joined; then step "realm leave" host_leave; else say "not joined"; fi
}

# What befalls the host's computer account in AD while the host does not notice.
lab_machine() {
    case $* in
        reset) machine_reset ;;
        delete) machine_delete ;;
        restore)
            # Here alone, and then anew: where the account is still there, it gets a new password.
            ! host_is_joined || step "realm leave" node_run host realm leave -v
            lab_join
            ;;
        *) die "usage: lab machine reset|delete|restore" ;;
    esac
    replicate
}

machine_dn() {
    local name=${FQDN[host]%%.*}
    echo "CN=${name^^},CN=Computers,$BASE_DN"
}

machine_reset() {
    printf '%s\n' "dn: $(machine_dn)" "changetype: modify" "replace: unicodePwd" \
        "unicodePwd:: $(printf '"An0ther-%s"' "$EPOCHREALTIME" | iconv -t UTF-16LE | base64 -w0)" |
        cast_ldap dc ldapmodify >/dev/null
}

machine_delete() {
    cast_ldap dc ldapdelete -r "$(machine_dn)"
}

lab_install() {
    local deb=${1:-}
    [[ -n $deb ]] || deb=$(newest_deb) || true
    [[ -r $deb ]] || die "no package to install: ${deb:-build one into target/debian first}"
    node_leader host >/dev/null || die "the host is not up"
    local file=/var/cache/motion-ad-lab/${deb##*/}
    install -D -m 644 "$deb" "$(node_root host)$file"
    step "download what ${deb##*/} depends on" host_download "$file"
    step "apt-get install on the host" host_apt --reinstall --allow-downgrades install "$file"
}

# Not asked about changed configuration files: they stay as they are.
host_apt() {
    node_run host env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# The package beside it holds debug symbols and depends on it.
newest_deb() {
    find "$LAB_DIR/../../target/debian" -maxdepth 1 -name '*.deb' -not -name '*-dbgsym_*' -printf '%T@ %p\n' 2>/dev/null |
        sort -rn | head -n 1 | cut -d' ' -f2-
}

# The host has no network: its packages are fetched by its own apt, in its root, from out here.
host_download() {
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
        bash "$LAB_DIR/lib/download.sh" "$(node_root host)" "$1" </dev/null
}

lab_remove() { # remove|purge
    step "apt-get $1 on the host" host_apt "$1" libpam-motion-ad
}
