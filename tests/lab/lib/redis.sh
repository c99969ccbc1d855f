# shellcheck shell=bash
# Redis for the register of sessions: Debian's, on a node that is only a network namespace. With --sentinel there
# are a master, two replicas and three sentinels, on separate ports.

readonly REDIS=$LAB_RUN/redis
readonly REDIS_PORT=6379
readonly REPLICA_PORTS=(6380 6381)
readonly SENTINEL_PORTS=(26379 26380 26381)
# Name of the master at the sentinels.
readonly REDIS_SERVICE=motion
# The user's ACL from the documentation, so that the suite proves that it is sufficient.
REDIS_ACL=$(sed -n 's/^user motion on >PASSWORD //p' "$LAB_DIR/../../docs/several-servers.md")
# The documented rule that disables the default user.
REDIS_DEFAULT=$(sed -n '/^user default off /p' "$LAB_DIR/../../docs/several-servers.md")
readonly REDIS_ACL REDIS_DEFAULT
# The user's ACL at a sentinel: the query for the master's address.
readonly SENTINEL_ACL="-@all +sentinel|get-master-addr-by-name"

lab_redis() {
    local command=${1:-} usage="usage: lab redis up [--tls] [--sentinel] | down | stop|kill|start|restart | failover |
        full|free | cli ARGUMENT…"
    (($# == 0)) || shift
    case $command-$# in
        up-*) redis_up "$@" ;;
        down-0) redis_down ;;
        stop-0 | kill-0 | start-0 | restart-0 | failover-0 | full-0 | free-0 | cli-[1-9]*)
            net_has redis || die "redis is not up"
            "redis_$command" "$@"
            ;;
        *) die "$usage" ;;
    esac
}

redis_up() {
    local options
    options=$(printf '%s\n' "$@" | sort -u | paste -sd' ')
    [[ $options =~ ^(--sentinel)?' '?(--tls)?$ ]] || die "usage: lab redis up [--tls] [--sentinel]"
    lab_is_up || die "$LAB_NAME is down"
    # Each begins empty. A killed run may have left a partial one.
    redis_down
    ensure_layers host-base redis
    step "Redis ${options:-alone}" redis_prepare "$options"
    redis_print
}

redis_has() { # --tls|--sentinel
    [[ " $(cat "$REDIS/options") " == *" $1 "* ]]
}

redis_prepare() { # OPTIONS
    local port
    node_mount redis
    echo "$1" >"$REDIS/options"
    redis_make_password "$REDIS/password"
    redis_make_password "$REDIS/root/etc/redis/lab-password"
    ca_issue redis good
    install -m 644 -t "$REDIS/root/etc/redis" "$CA/ca.pem" "$CA/redis-good.pem" "$CA/redis-good.key"
    for port in $(redis_servers) $(redis_sentinels); do
        redis_configure "$port"
    done
    dns_remove redis
    dns_add redis "${ADDRESS[redis]}"
    replicate
    net_add_node redis
    redis_start
    for port in $(redis_sentinels); do
        redis_run "$port"
        wait_for 20 redis_answers "$port"
    done
    ! redis_has --sentinel || wait_for 30 redis_sentinels_agree
}

# A long password of characters that need no escape in a URL, without a newline.
redis_make_password() { # FILE
    (umask 077 && openssl rand -hex 24 | tr -d '\n' >"$1")
}

redis_servers() {
    echo $REDIS_PORT
    ! redis_has --sentinel || printf '%s\n' "${REPLICA_PORTS[@]}"
}

redis_sentinels() {
    ! redis_has --sentinel || printf '%s\n' "${SENTINEL_PORTS[@]}"
}

redis_is_sentinel() { # PORT
    ((${1} >= SENTINEL_PORTS[0]))
}

# `default` is off, so every client needs a password. Redis and the sentinels use `lab` between themselves.
redis_configure() { # PORT
    local lab data=/var/lib/redis/$1 conf=$REDIS/root/etc/redis/$1.conf acl=$REDIS_ACL
    lab=$(cat "$REDIS/root/etc/redis/lab-password")
    ! redis_is_sentinel "$1" || acl=$SENTINEL_ACL
    {
        printf '%s\n' "bind ${ADDRESS[redis]}" "protected-mode no" "dir $data" "$REDIS_DEFAULT" \
            "user lab on >$lab ~* &* +@all" "user motion on >$(cat "$REDIS/password") $acl"
        if redis_has --tls; then
            printf '%s\n' "port 0" "tls-port $1" "tls-auth-clients no" "tls-replication yes" \
                "tls-ca-cert-file /etc/redis/ca.pem" "tls-cert-file /etc/redis/redis-good.pem" \
                "tls-key-file /etc/redis/redis-good.key"
        else
            echo "port $1"
        fi
        if redis_is_sentinel "$1"; then
            redis_sentinel_options "$lab"
        else
            # Everything that it has acknowledged survives a restart and a crash.
            printf '%s\n' 'save ""' "appendonly yes" "appendfsync always" "masteruser lab" "masterauth $lab" \
                "replica-announce-ip ${FQDN[redis]}" "repl-diskless-sync-delay 0"
            [[ $1 == "$REDIS_PORT" ]] || echo "replicaof ${FQDN[redis]} $REDIS_PORT"
            # As in the manual: an isolated master accepts no writes.
            ! redis_has --sentinel || printf '%s\n' "min-replicas-to-write 1" "min-replicas-max-lag 5"
        fi
    } >"$conf"
    mkdir -p "$REDIS/root$data"
    # Sentinels write the current master to their configuration.
    chroot "$REDIS/root" chown -R redis: /etc/redis "$data"
}

# A master that is silent for four seconds counts as dead. After one second the sentinels replaced a master that only had a
# busy machine, and the new one had no replica for eleven seconds. It is addressed by name, to match its certificate.
redis_sentinel_options() { # LAB-PASSWORD
    printf 'sentinel %s\n' "resolve-hostnames yes" "announce-hostnames yes" "announce-ip ${FQDN[redis]}" \
        "monitor $REDIS_SERVICE ${FQDN[redis]} $REDIS_PORT 2" "auth-user $REDIS_SERVICE lab" \
        "auth-pass $REDIS_SERVICE $1" "sentinel-user lab" "sentinel-pass $1" \
        "down-after-milliseconds $REDIS_SERVICE 4000" "failover-timeout $REDIS_SERVICE 6000"
}

redis_print() {
    local scheme=redis at=${FQDN[redis]}:$REDIS_PORT
    ! redis_has --tls || scheme=rediss
    if redis_has --sentinel; then
        scheme+=-sentinel
        at=$(printf "${FQDN[redis]}:%s\n" "${SENTINEL_PORTS[@]}" | paste -sd,)/$REDIS_SERVICE
    fi
    printf '%s\n' "$scheme://motion@$at" "$REDIS/password" "$CA/ca.pem"
}

redis_run() { # PORT : Redis or a sentinel in the background
    local sentinel=()
    ! redis_is_sentinel "$1" || sentinel=(--sentinel)
    # As in node_launch: it dies with the lab until it is in the namespace, where `lab down` finds it.
    setpriv --pdeathsig KILL setsid ip netns exec "$(netns redis)" setpriv --pdeathsig clear \
        chroot --userspec=redis:redis "$REDIS/root" redis-server "/etc/redis/$1.conf" "${sentinel[@]}" \
        </dev/null >>"$REDIS/$1.log" 2>&1 7>&- 9>&- &
    echo "$! $(start_time $!)" >"$REDIS/$1.pid"
}

redis_ask() { # PORT ARGUMENT…
    local port=$1 tls=()
    shift
    ! redis_has --tls || tls=(--tls --cacert /etc/redis/ca.pem)
    ip netns exec "$(netns redis)" chroot "$REDIS/root" \
        env -i PATH=/usr/bin:/bin REDISCLI_AUTH="$(cat "$REDIS/root/etc/redis/lab-password")" \
        redis-cli --user lab -h "${FQDN[redis]}" -p "$port" "${tls[@]}" "$@"
}

# Succeeds when it has loaded its data from disk.
redis_answers() { # PORT
    [[ $(redis_ask "$1" ping) == PONG ]]
}

redis_start() {
    local port
    for port in $(redis_servers); do
        recorded "$REDIS/$port.pid" >/dev/null || redis_run "$port"
    done
    for port in $(redis_servers); do
        wait_for 20 redis_answers "$port"
    done
}

redis_stop() {
    local port pid
    for port in $(redis_servers); do
        pid=$(recorded "$REDIS/$port.pid") || continue
        kill "$pid"
        wait_for 20 is_gone "$REDIS/$port.pid"
    done
}

redis_kill() {
    local port
    for port in $(redis_servers); do
        kill_recorded "$REDIS/$port.pid"
    done
}

redis_restart() {
    redis_stop
    redis_start
}

redis_master() { # its port
    if redis_has --sentinel; then
        redis_ask "${SENTINEL_PORTS[0]}" sentinel get-master-addr-by-name $REDIS_SERVICE | sed -n 2p
    else
        echo $REDIS_PORT
    fi
}

# Succeeds if every sentinel knows the others, the master and the replicas, and a replica is up to date.
redis_sentinels_agree() {
    local port master
    master=$(redis_master)
    redis_ask "$master" info replication | grep -q '^slave0:.*state=online' || return 1
    for port in $(redis_sentinels); do
        if [[ $(redis_ask "$port" sentinel get-master-addr-by-name $REDIS_SERVICE | sed -n 2p) != "$master" ]] ||
            ! redis_ask "$port" sentinel ckquorum $REDIS_SERVICE | grep -q '^OK 3 ' ||
            ! redis_ask "$port" sentinel replicas $REDIS_SERVICE | grep -qx ok; then
            return 1
        fi
    done
}

redis_failover() {
    local master
    redis_has --sentinel || die "lab redis up --sentinel comes first"
    # The former master is a replica again.
    redis_start
    wait_for 60 redis_sentinels_agree
    master=$(redis_master)
    kill_recorded "$REDIS/$master.pid"
    wait_for 60 redis_master_is_other_than "$master"
}

redis_master_is_other_than() { # PORT
    local master
    master=$(redis_master)
    [[ $master != "$1" && $(redis_ask "$master" role | head -n 1) == master ]]
}

redis_full() {
    redis_cli config set maxmemory 1
}

redis_free() {
    redis_cli config set maxmemory 0
}

redis_cli() { # ARGUMENT…
    redis_ask "$(redis_master)" "$@"
}

redis_down() {
    if net_has redis; then
        wait_for 10 kill_in_namespaces redis
        dns_remove redis
        net_remove_node redis
        replicate
    fi
    unmount_below "$REDIS"
    rm -rf --one-file-system "$REDIS"
}
