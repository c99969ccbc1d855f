# shellcheck shell=bash
# The lab's network: a bridge in a namespace of its own, one veth to each node, and no way out.
#
#     mad-NAME-net   br0 ── to-dc ── eth0   mad-NAME-dc     10.73.0.10
#                        └─ to-host ─ eth0   mad-NAME-host   10.73.0.20

netns() { # net|dc|host
    echo "mad-$LAB_NAME-$1"
}

net_up() {
    local node net
    net=$(netns net)
    ip netns add "$net"
    ip -n "$net" link add br0 type bridge
    ip -n "$net" link set br0 up
    for node in "${NODES[@]}"; do
        net_add_node "$node" "$net"
    done
}

net_add_node() { # NODE NET
    local ns
    ns=$(netns "$1")
    ip netns add "$ns"
    ip -n "$2" link add "to-$1" type veth peer name eth0 netns "$ns"
    ip -n "$2" link set "to-$1" master br0 up
    ip -n "$ns" link set lo up
    # No IPv6 link-local addresses: Samba would register them in its DNS.
    ip -n "$ns" link set eth0 address "${MAC[$1]}" addrgenmode none
    ip -n "$ns" link set eth0 up
    ip -n "$ns" address add "${ADDRESS[$1]}/24" dev eth0
}

# The node's own link goes down: it knows at once that it is cut off.
net_cut() {
    ip -n "$(netns "$1")" link set eth0 down
}

# The link stays up and packets vanish. With fixed neighbours nobody notices by ARP either, which
# would turn silence into "No route to host" after three seconds.
net_blackhole() {
    net_fix_neighbours replace
    ip -n "$(netns net)" link set "to-$1" nomaster
}

net_heal() {
    ip -n "$(netns net)" link set "to-$1" master br0
    ip -n "$(netns "$1")" link set eth0 up
    net_fix_neighbours delete
}

net_fix_neighbours() { # replace|delete
    neighbour "$1" dc host
    neighbour "$1" host dc
}

neighbour() { # replace|delete HERE THERE
    if [[ $1 == replace ]]; then
        ip -n "$(netns "$2")" neighbour replace "${ADDRESS[$3]}" lladdr "${MAC[$3]}" nud permanent dev eth0
    else
        # Absent is what we want.
        ip -n "$(netns "$2")" neighbour delete "${ADDRESS[$3]}" dev eth0 2>/dev/null || true
    fi
}

lab_net() {
    [[ $# == 2 && $1 =~ ^(cut|heal|blackhole)$ && $2 =~ ^(dc|host)$ ]] || die "usage: lab net cut|heal|blackhole dc|host"
    "net_$1" "$2"
}
