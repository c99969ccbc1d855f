# shellcheck shell=bash
# A forged KDC: MIT's, with the domain's realm. It knows John's password, but no key of the host. The users in
# FORGED_EXPIRED have different passwords there, which it reports as expired and changes by kpasswd. Only the host's
# Kerberos traffic is redirected to it; all other traffic still reaches the real DC.

readonly FORGE_TABLE=7388
readonly FORGED_EXPIRED="fiona.forged frank.forged" FORGED_PASSWORD=F0rged-from-front-to-end

lab_forge() {
    case $* in
        up) forge_up ;;
        down) forge_down ;;
        *) die "usage: lab forge up|down" ;;
    esac
}

forge_up() {
    lab_is_up || die "$LAB_NAME is down"
    # A killed run may have left a partial forger: start from scratch.
    forge_down
    ensure_layers host-base forger
    step "forged KDC" forge_start
}

forge_start() {
    local dc
    node_mount forger
    net_add_node forger
    net_stand_in forger dc dc2
    forge_make_realm
    # As in node_launch: it dies with the lab until it is in the namespace, where `lab down` finds it.
    setpriv --pdeathsig KILL setsid ip netns exec "$(netns forger)" setpriv --pdeathsig clear \
        chroot "$(node_root forger)" krb5kdc -n </dev/null >>"$LAB_RUN/forger/kdc.log" 2>&1 7>&- 9>&- &
    setpriv --pdeathsig KILL setsid ip netns exec "$(netns forger)" setpriv --pdeathsig clear \
        chroot "$(node_root forger)" kadmind -nofork </dev/null >>"$LAB_RUN/forger/kpasswd.log" 2>&1 7>&- 9>&- &
    wait_for 20 forge_answers
    for dc in $(dcs); do
        net_lead host "$dc" 88 $FORGE_TABLE "${ADDRESS[forger]}"
        net_lead host "$dc" 464 $FORGE_TABLE "${ADDRESS[forger]}"
    done
}

forge_run() { # COMMAND…
    ip netns exec "$(netns forger)" chroot "$(node_root forger)" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

# Encryption types and salts are those of AD. To this KDC, John's full name is a different principal,
# so John exists twice. Every principal with keys in AD has keys here, but different ones.
forge_make_realm() {
    local root john sam kvno name key=$EPOCHREALTIME
    root=$(node_root forger)
    sam=$(cast_sam john)
    john=$(cast_password "$sam")
    kvno=$(forge_kvno)
    cat >"$root/etc/krb5.conf" <<CONFIG
[libdefaults]
default_realm = ${DOMAIN^^}
dns_lookup_kdc = false
[realms]
${DOMAIN^^} = {
    kdc = ${ADDRESS[forger]}
}
[logging]
kdc = STDERR
admin_server = STDERR
CONFIG
    install -d "$root/etc/krb5kdc"
    cat >"$root/etc/krb5kdc/kdc.conf" <<CONFIG
[kdcdefaults]
kdc_listen = 88
kdc_tcp_listen = 88
[realms]
${DOMAIN^^} = {
    supported_enctypes = aes256-cts:normal aes128-cts:normal
    master_key_type = aes256-cts
    default_principal_flags = +preauth
}
CONFIG
    : >"$root/etc/krb5kdc/kadm5.acl"
    # The tool prompts twice for the master key. Any value does, because the key is never needed again.
    printf '%s\n' "$key" "$key" | forge_run kdb5_util create -s
    forge_run kadmin.local <<COMMANDS
addprinc -pw "$john" $sam
addprinc -pw "$john" $sam\\@$DOMAIN
addprinc -randkey XCALLY\$
modprinc -kvno $kvno XCALLY\$
addprinc -randkey host/${FQDN[host]}
modprinc -kvno $kvno host/${FQDN[host]}
$(for name in $FORGED_EXPIRED; do echo "addprinc -pw $FORGED_PASSWORD +requires_preauth +needchange $name"; done)
COMMANDS
}

# The host's key version numbers equal AD's, so that they do not reveal the forgery.
forge_kvno() {
    cast_ldap dc ldapsearch -LLL -b "$BASE_DN" '(sAMAccountName=XCALLY$)' msDS-KeyVersionNumber |
        awk '$1 == "msDS-KeyVersionNumber:" { kvno = $2 } END { print kvno ? kvno : 1 }'
}

forge_answers() {
    local sam
    sam=$(cast_sam john)
    cast_password "$sam" | forge_run kinit -c MEMORY:ready "$sam"
}

forge_down() {
    if net_has forger; then
        net_forget_rules host "lookup $FORGE_TABLE"
        wait_for 10 kill_in_namespaces forger
        net_remove_node forger
    fi
    unmount_below "$LAB_RUN/forger"
    rm -rf --one-file-system "$LAB_RUN/forger"
}
