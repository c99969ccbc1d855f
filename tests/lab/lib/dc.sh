# shellcheck shell=bash
# The domain controllers: certificates, start, readiness, and faults.

readonly TLS=/var/lib/samba/private/tls
readonly SMB_CONF=/etc/samba/smb.conf

dc_prepare() { # DC…
    local dc
    ca_make
    for dc; do
        node_mount "$dc"
        install -d -m 700 "$(node_root "$dc")$TLS"
        dc_install_certificate "$dc" good
        dc_own_kdc "$dc" >"$(node_root "$dc")/usr/local/lib/lab/krb5.conf"
    done
}

dc_install_certificate() { # DC KIND
    local tls
    tls=$(node_root "$1")$TLS
    ca_issue "$1" "$2"
    install -m 644 "$CA/ca.pem" "$tls/lab-ca.pem"
    install -m 644 "$CA/$1-$2.pem" "$tls/lab-cert.pem"
    install -m 600 "$CA/$1-$2.key" "$tls/lab-key.pem"
}

# A Kerberos configuration with only this DC's KDC.
dc_own_kdc() { # DC
    printf '%s\n' '[libdefaults]' "default_realm = ${DOMAIN^^}" 'dns_lookup_kdc = false' '[realms]' "${DOMAIN^^} = {" "kdc = ${ADDRESS[$1]}" '}'
}

dc_wait_ready() { # DC…
    local dc service
    for dc; do
        for service in dns ldap ldaps kdc; do
            if [[ $service == ldaps ]] && dc_is_without_tls "$dc"; then continue; fi
            wait_for 60 dc_answers "$dc" "$service"
        done
    done
}

# One query per service, sent from the DC's own address. `host` and similar tools are not installed,
# so Samba's Python sends the DNS query. The LDAPS check accepts every certificate.
dc_answers() { # DC SERVICE
    case $2 in
        ldap) node_run "$1" ldapsearch -x -H "ldap://${FQDN[$1]}" -o nettimeout=2 -s base -b "" defaultNamingContext ;;
        ldaps) node_run "$1" env LDAPTLS_REQCERT=never \
            ldapsearch -x -H "ldaps://${FQDN[$1]}" -o nettimeout=2 -s base -b "" defaultNamingContext ;;
        kdc) cast_password Administrator | node_run "$1" env KRB5_CONFIG=/usr/local/lib/lab/krb5.conf \
            kinit -c /tmp/ready.ccache "Administrator@${DOMAIN^^}" &&
            node_run "$1" env KRB5_CONFIG=/usr/local/lib/lab/krb5.conf kvno -c /tmp/ready.ccache "ldap/${FQDN[$1]}" ;;
        dns) node_run "$1" /usr/bin/python3 - "_ldap._tcp.dc._msdcs.$DOMAIN" "${ADDRESS[$1]}" <<'PYTHON' ;;
import sys
import dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.lifetime = [sys.argv[2]], 2
resolver.resolve(sys.argv[1], "SRV")
PYTHON
    esac
}

# stop: like an administrator. kill: like a crash. hang: nothing answers, and no connection ends.
# In all three, the node itself stays up.
dc_stop() {
    node_run "$1" systemctl stop samba-ad-dc
}

dc_kill() {
    wait_for 10 dc_kill_samba "$1"
}

dc_start() {
    node_run "$1" systemctl reset-failed samba-ad-dc
    node_run "$1" systemctl start samba-ad-dc
    dc_wait_ready "$1"
}

dc_restart() {
    dc_stop "$1"
    dc_start "$1"
}

dc_hang() {
    wait_for 10 dc_freeze_samba "$1"
}

dc_continue() {
    local pids
    pids=$(dc_samba_pids "$1")
    # shellcheck disable=SC2086  # a list of numbers
    [[ -z $pids ]] || kill -CONT $pids
}

dc_samba_pids() { # DC
    # shellcheck disable=SC2046  # a list of folders
    find $(node_cgroups "$1") -path '*/samba-ad-dc.service/cgroup.procs' -exec cat {} + | sort -u
}

# Kills every process of Samba. Succeeds when none is left.
dc_kill_samba() {
    local pids
    pids=$(dc_samba_pids "$1")
    [[ -n $pids ]] || return 0
    # shellcheck disable=SC2086  # a list of numbers
    kill -KILL $pids
    return 1
}

# Suspends every process of Samba. Succeeds when all are suspended. A process that is just being
# forked is suspended in the next attempt.
dc_freeze_samba() {
    local pid moving=0
    for pid in $(dc_samba_pids "$1"); do
        grep -qs '^State:[[:space:]]*T' "/proc/$pid/status" || {
            kill -STOP "$pid" 2>/dev/null || true
            moving=1
        }
    done
    ((!moving))
}

# off: LDAPS is closed. Samba still agrees to StartTLS, and then closes the connection.
dc_tls() { # DC on|off
    dc_setting "$1" "tls enabled" "$([[ $2 == on ]] || echo no)"
}

# on: a simple bind without TLS is answered, as a Windows domain controller does unless it requires signing.
dc_plain() { # DC on|off
    dc_setting "$1" "ldap server require strong auth" "$([[ $2 == off ]] || echo no)"
}

# off: Samba 4.22 takes no simple bind then, and so the lab's own commands do not read accounts.
dc_ntlm() { # DC on|off
    dc_setting "$1" "ntlm auth" "$([[ $2 == on ]] || echo disabled)"
}

# Restarts Samba with this setting in smb.conf; without a VALUE with its default.
dc_setting() { # DC SETTING VALUE
    local conf
    conf=$(node_root "$1")$SMB_CONF
    sed -i "/^\t$2/d" "$conf"
    [[ -z $3 ]] || sed -i "/^\[global\]/a\\\t$2 = $3" "$conf"
    dc_restart "$1"
}

dc_is_without_tls() { # DC
    grep -q '^[[:space:]]*tls enabled = no' "$(node_root "$1")$SMB_CONF"
}

dc_cert() { # DC KIND
    dc_install_certificate "$1" "$2" >>"$LAB_LOG" 2>&1
    dc_restart "$1"
}

lab_dc() {
    local usage="usage: lab dc stop|kill|start|restart|hang|continue [dc|dc2] | tls on|off [dc|dc2] |
        plain|ntlm on|off [dc|dc2] | cert good|expired|revoked|other-name|other-ca [dc|dc2] | replicate"
    local command=${1:-} argument='' dc
    (($#)) && shift
    if [[ $command == tls || $command == plain || $command == ntlm || $command == cert ]]; then
        argument=${1:-}
        (($#)) && shift
    fi
    dc=${1:-dc}
    (($# <= 1)) || die "$usage"
    is_dc "$dc" || die "no domain controller of this lab: $dc"
    case $command-$argument in
        stop- | kill- | start- | restart- | hang- | continue-) "dc_$command" "$dc" ;;
        tls-on | tls-off) dc_tls "$dc" "$argument" ;;
        plain-on | plain-off) dc_plain "$dc" "$argument" ;;
        ntlm-on | ntlm-off) dc_ntlm "$dc" "$argument" ;;
        cert-good | cert-expired | cert-revoked | cert-other-name | cert-other-ca) dc_cert "$dc" "$argument" ;;
        replicate-) replicate ;;
        *) die "$usage" ;;
    esac
}
