# shellcheck shell=bash
# The lab's network: a bridge in a separate namespace, a veth to each node, and no route to the outside.
#
#     mad-NAME-net   br0 ── to-dc ── eth0   mad-NAME-dc     10.73.0.10
#                        ├─ to-host ─ eth0   mad-NAME-host   10.73.0.20
#                        └─ …
#
# A fault of a node (net cut, blackhole, forget, delay, mute, swallow, refuse) lasts until `net heal`.

# Address that refuses connections for other nodes, and numbers that identify the lab's routing rules and tables.
readonly REFUSER=10.73.0.1
readonly RULES=73
readonly REFUSE_TABLE=7301
readonly LONGEST_DELAY=60000 # milliseconds

netns() { # net|NODE
    echo "mad-$LAB_NAME-$1"
}

net_up() { # NODE…
    local node net
    net=$(netns net)
    ip netns add "$net"
    ip -n "$net" link add br0 type bridge
    ip -n "$net" link set br0 addrgenmode none up
    ip -n "$net" link set lo up
    ip -n "$net" address add "$REFUSER/24" dev br0
    net_stand_in net "${NODES[@]}"
    # It must also stand in for the sending node, so it owns the nodes' addresses only for incoming packets.
    ip netns exec "$net" sh -c 'echo 1 >/proc/sys/net/ipv4/conf/all/accept_local'
    ip -n "$net" rule add pref 0 iif br0 lookup local
    ip -n "$net" rule delete pref 0 from all lookup local
    for node; do
        net_add_node "$node"
    done
}

# Lets a namespace answer redirected packets for other nodes, without claiming their addresses by ARP.
# With the second setting it refuses every UDP packet, not one per second.
net_stand_in() { # net|NODE NODE…
    local ns node
    ns=$(netns "$1")
    shift
    ip netns exec "$ns" sh -c 'cd /proc/sys/net/ipv4; echo 1 >conf/all/arp_ignore; echo 0 >icmp_ratelimit'
    for node; do
        ip -n "$ns" address add "${ADDRESS[$node]}/32" dev lo
    done
}

net_add_node() { # NODE
    local ns net
    ns=$(netns "$1") net=$(netns net)
    ip netns add "$ns"
    ip -n "$net" link add "to-$1" type veth peer name eth0 netns "$ns"
    ip -n "$net" link set "to-$1" addrgenmode none master br0 up
    ip -n "$ns" link set lo up
    # No IPv6 link-local addresses, because Samba would register them in its DNS.
    ip -n "$ns" link set eth0 address "${MAC[$1]}" addrgenmode none
    ip -n "$ns" link set eth0 up
    ip -n "$ns" address add "${ADDRESS[$1]}/24" dev eth0
}

net_remove_node() { # NODE
    net_heal "$1"
    ip netns delete "$(netns "$1")"
}

net_has() { # NODE
    [[ -n ${ADDRESS[${1:-none}]:-} && -e /run/netns/$(netns "$1") ]]
}

net_nodes() {
    local node
    for node in "${NODES[@]}"; do
        ! net_has "$node" || echo "$node"
    done
}

# Takes the node's own link down, so that the node detects it at once.
net_cut() { # NODE
    ip -n "$(netns "$1")" link set eth0 down
}

# Drops packets while the link stays up. The neighbor entries are fixed, because failed ARP would turn
# silence into "No route to host" after three seconds.
net_blackhole() { # NODE
    net_undelay "$1"
    ip -n "$(netns net)" link set "to-$1" nomaster
    net_fix_neighbours
}

net_is_blackhole() { # NODE
    [[ ! -e $LAB_RUN/delay-$1.pid && $(ip -n "$(netns net)" link show "to-$1") != *' master br0 '* ]]
}

# Delays every packet from and to the node, by a forwarder between its link and the bridge. (Not every
# kernel has netem.)
#
#     br0 ── late-NODE ── lag-NODE ·· delay.py ·· to-NODE ── eth0
net_delay() { # NODE MILLISECONDS
    net_undelay "$1"
    ((!$2)) || net_forward "$1" "$2"
}

# Accepts connections to these ports, but drops the data from them.
net_mute() { # NODE PORT…
    net_undelay "$1"
    net_forward "$1" 0 "${@:2}"
}

# What is open already gets no packet through any more, as behind a firewall that forgets idle connections.
net_forget() { # NODE
    net_undelay "$1"
    net_forward "$1" 0 forget
}

net_forward() { # NODE MILLISECONDS [MUTED-PORT… | forget]
    local net node=$1
    net=$(netns net)
    ip -n "$net" link set "to-$node" nomaster
    ip -n "$net" link add "late-$node" type veth peer name "lag-$node"
    ip -n "$net" link set "lag-$node" addrgenmode none up
    # As in node_launch: it dies with the lab until it is in the namespace, where `lab down` finds it.
    setpriv --pdeathsig KILL setsid ip netns exec "$net" setpriv --pdeathsig clear \
        /usr/bin/python3 "$LAB_DIR/lib/delay.py" "$2" "to-$node" "lag-$node" "${@:3}" \
        </dev/null >>"$LAB_LOG" 2>&1 7>&- 9>&- &
    echo "$! $(start_time $!)" >"$LAB_RUN/delay-$node.pid"
    ip -n "$net" link set "late-$node" addrgenmode none master br0 up
    net_fix_neighbours
}

net_undelay() { # NODE
    local net
    net=$(netns net)
    kill_recorded "$LAB_RUN/delay-$1.pid"
    rm -f "$LAB_RUN/delay-$1.pid"
    # Absent is success, too.
    ip -n "$net" link delete "late-$1" 2>/dev/null || true
    ip -n "$net" link set "to-$1" master br0
}

# Drops packets that the node sends from that port, like a firewall.
net_swallow() { # NODE PORT[/tcp|/udp]
    net_rule "$1" sport "$2" blackhole
}

# Refuses connections to that port and resets open ones: routes the packets to an address without a
# listener.
net_refuse() { # NODE PORT[/tcp|/udp]
    local node
    for node in $(net_nodes); do
        [[ $node != "$1" ]] || continue
        net_lead "$node" "$1" "$2" $REFUSE_TABLE "$REFUSER"
    done
}

# Routes packets from HERE to that port of NODE to another address of the network.
net_lead() { # HERE NODE PORT TABLE GATEWAY
    ip -n "$(netns "$1")" route replace default via "$5" dev eth0 table "$4"
    net_rule "$1" dport "$3" to "${ADDRESS[$2]}" lookup "$4"
}

# Keeps an existing rule.
net_rule() { # HERE sport|dport PORT[/tcp|/udp] REST…
    local here=$1 which=$2 port=${3%/*} protocol=() error
    [[ $3 != */* ]] || protocol=(ipproto "${3#*/}")
    shift 3
    error=$(ip -n "$(netns "$here")" rule add pref 100 "$which" "$port" "${protocol[@]}" "$@" protocol $RULES 2>&1) ||
        [[ $error == *'File exists'* ]] || die "$error"
}

net_heal() { # NODE
    local node
    net_undelay "$1"
    ip -n "$(netns "$1")" link set eth0 up
    net_forget_rules "$1" ' blackhole'
    for node in $(net_nodes); do
        net_forget_rules "$node" "to ${ADDRESS[$1]} .*lookup $REFUSE_TABLE"
    done
    net_fix_neighbours
}

# Deletes the lab's rules that match.
net_forget_rules() { # HERE REGEX
    local ns rule
    ns=$(netns "$1")
    ip -n "$ns" rule show pref 100 | sed -n "/$2/s/^[0-9]*:[[:space:]]*//p" | while read -r rule; do
        # shellcheck disable=SC2086  # words
        ip -n "$ns" rule delete pref 100 $rule
    done
}

# Fixes the neighbor entries between two nodes if one is a black hole. Otherwise they are learned.
net_fix_neighbours() {
    local here there all holes=
    all=$(net_nodes)
    for here in $all; do
        ! net_is_blackhole "$here" || holes+=" $here "
    done
    for here in $all; do
        for there in $all; do
            [[ $here != "$there" ]] || continue
            if [[ $holes == *" $here "* || $holes == *" $there "* ]]; then
                neighbour replace "$here" "$there"
            else
                neighbour delete "$here" "$there"
            fi
        done
    done
}

neighbour() { # replace|delete HERE THERE
    if [[ $1 == replace ]]; then
        # A link that is down has no neighbors.
        ip -n "$(netns "$2")" neighbour replace "${ADDRESS[$3]}" lladdr "${MAC[$3]}" nud permanent dev eth0 || true
    else
        # Absent is success, too.
        ip -n "$(netns "$2")" neighbour delete "${ADDRESS[$3]}" dev eth0 2>/dev/null || true
    fi
}

lab_net() {
    local usage="usage: lab net cut|blackhole|forget|heal NODE | delay NODE MILLISECONDS | mute NODE PORT… |
        swallow|refuse NODE PORT[/tcp|/udp]"
    (($# >= 2)) || die "$usage"
    net_has "$2" || die "no node of this lab: $2"
    case $#-$1 in
        2-cut | 2-heal | 2-blackhole | 2-forget) "net_$1" "$2" ;;
        3-delay)
            [[ $3 =~ ^[0-9]{1,5}$ ]] || die "$usage"
            ((10#$3 <= LONGEST_DELAY)) || die "the longest delay is $LONGEST_DELAY milliseconds"
            net_delay "$2" "$((10#$3))"
            ;;
        [3-9]-mute)
            [[ ${*:3} =~ ^[0-9]{1,5}(' '[0-9]{1,5})*$ ]] || die "$usage"
            net_mute "${@:2}"
            ;;
        3-swallow | 3-refuse)
            [[ $3 =~ ^[0-9]{1,5}(/tcp|/udp)?$ ]] || die "$usage"
            "net_$1" "$2" "$3"
            ;;
        *) die "$usage" ;;
    esac
}
