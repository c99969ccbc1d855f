# shellcheck shell=bash
# The XCALLY hosts: the motion user with its .env, the realm join, and the package under test.

readonly MOTION_HOME=/var/opt/motion2

# Creates the files that XCALLY's installer and its Active Directory page leave on a server.
host_prepare() { # HOST
    node_run "$1" useradd --system --user-group --create-home --home-dir $MOTION_HOME --shell /bin/bash motion
    cast_password Administrator | host_write_env "$1"
}

host_write_env() { # HOST
    local password
    read -r password
    # shellcheck disable=SC2016  # for the inner shell
    node_run "$1" sh -c 'umask 077; cat >"$1/.env"; chown motion: "$1/.env"' sh $MOTION_HOME <<ENV
XC_ACTIVEDIRECTORY_STRATEGY=inetOrgPerson
XC_ACTIVEDIRECTORY_ADMIN='cn=Administrator,cn=Users,${BASE_DN,,}'
XC_ACTIVEDIRECTORY_PASSWORD='$password'
XC_ACTIVEDIRECTORY_BASE_DN='${BASE_DN,,}'
XC_ACTIVEDIRECTORY_URL='ldap://${FQDN[dc]}'
XC_ACTIVEDIRECTORY_DOMAIN='$DOMAIN'
ENV
}

host_is_joined() { # HOST
    [[ -s $(node_root "$1")/etc/krb5.keytab ]]
}

# Joins as the XCALLY page describes.
host_join() { # HOST
    cast_password Administrator | node_run "$1" realm join -v -U Administrator "$DOMAIN"
}

host_leave() { # HOST
    cast_password Administrator | node_run "$1" realm leave -v -U Administrator --remove "$DOMAIN"
}

lab_join() {
    local host
    for host in $(hosts); do
        if host_is_joined "$host"; then
            say "$host: already joined"
        else
            step "$host: realm join" host_join "$host"
        fi
    done
    # Both DCs must know a host's new password before its first use.
    replicate
}

lab_leave() {
    local host
    for host in $(hosts); do
        if host_is_joined "$host"; then step "$host: realm leave" host_leave "$host"; else say "$host: not joined"; fi
    done
}

# Changes of a host's computer account in AD that the host does not notice.
lab_machine() {
    local usage="usage: lab machine reset|delete|restore [host|host2]" host=${2:-host}
    is_host "$host" || die "$usage"
    case $#-${1:-} in
        [12]-reset | [12]-delete) "machine_$1" "$host" ;;
        [12]-restore)
            # Leaves only locally, then joins again. An existing account gets a new password.
            ! host_is_joined "$host" || step "$host: realm leave" node_run "$host" realm leave -v
            lab_join
            ;;
        *) die "$usage" ;;
    esac
    replicate
}

machine_dn() { # HOST
    local name=${FQDN[$1]%%.*}
    echo "CN=${name^^},CN=Computers,$BASE_DN"
}

machine_reset() { # HOST
    printf '%s\n' "dn: $(machine_dn "$1")" "changetype: modify" "replace: unicodePwd" \
        "unicodePwd:: $(printf '"An0ther-%s"' "$EPOCHREALTIME" | iconv -t UTF-16LE | base64 -w0)" |
        cast_ldap dc ldapmodify >/dev/null
}

machine_delete() { # HOST
    cast_ldap dc ldapdelete -r "$(machine_dn "$1")"
}

lab_install() {
    local deb=${1:-} host
    [[ -n $deb ]] || deb=$(newest_deb) || true
    [[ -r $deb ]] || die "no package to install: ${deb:-build one into target/debian first}"
    for host in $(hosts); do
        node_leader "$host" >/dev/null || die "$host is not up"
        host_install "$host" "$deb"
    done
}

host_install() { # HOST DEB
    local file=/var/cache/motion-ad-lab/${2##*/}
    install -D -m 644 "$2" "$(node_root "$1")$file"
    step "$1: download what ${2##*/} needs" host_download "$1" "$file"
    step "$1: apt-get install" host_apt "$1" --reinstall --allow-downgrades install "$file"
}

# Keeps changed configuration files without a prompt.
host_apt() { # HOST ARGUMENT…
    local host=$1
    shift
    node_run "$host" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# The package next to it contains debug symbols and depends on it.
newest_deb() {
    find "$LAB_DIR/../../target/debian" -maxdepth 1 -name '*.deb' -not -name '*-dbgsym_*' -printf '%T@ %p\n' 2>/dev/null |
        sort -rn | head -n 1 | cut -d' ' -f2-
}

# A host has no outside network, so its apt runs in its root, but in this machine's network.
host_download() { # HOST PACKAGE…
    local root
    root=$(node_root "$1")
    shift
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
        bash "$LAB_DIR/lib/download.sh" "$root" "$@" </dev/null
}

lab_remove() { # remove|purge
    local host
    for host in $(hosts); do
        step "$host: apt-get $1" host_apt "$host" "$1" libpam-motion-ad
    done
}
