# shellcheck shell=bash
# `lab down`: removes everything that belongs to this lab, whatever state a killed run left.

lab_down() {
    remove_lab
    # The folder that it stood in stays: another lab may be about to use it.
    rm -f "$LAB_RUN.lock"
    say "$LAB_NAME is down"
}

remove_lab() {
    local node
    for node in "${MACHINES[@]}"; do
        # A run killed at the wrong moment has not recorded this process.
        node_find_leader "$node" 2>/dev/null || true
        kill_recorded "$LAB_RUN/$node/leader.pid"
        kill_recorded "$LAB_RUN/$node/nspawn.pid"
    done
    wait_for 10 kill_leftovers
    unmount_below "$LAB_RUN"
    remove_namespaces
    remove_cgroups
    rm -rf --one-file-system "$LAB_RUN"
}

kill_recorded() { # FILE
    local pid
    pid=$(recorded "$1") || return 0
    kill -KILL "$pid" 2>/dev/null || true
    wait_for 10 is_gone "$1"
}

is_gone() {
    ! recorded "$1"
}

# All processes in the lab's namespaces or cgroups belong to it, including those of a test.
kill_leftovers() {
    kill_all "$({ pids_in_namespaces net "${NODES[@]}"; pids_in_cgroups; } | sort -u)"
}

kill_in_namespaces() { # net|NODE…
    kill_all "$(pids_in_namespaces "$@")"
}

# Succeeds when no process is left.
kill_all() { # PIDS
    local pids=$1
    [[ -z $pids ]] && return 0
    # shellcheck disable=SC2086  # a list of numbers
    kill -KILL $pids 2>/dev/null
    return 1
}

pids_in_namespaces() { # net|NODE…
    local ns
    for ns; do
        ip netns pids "$(netns "$ns")" 2>/dev/null || true
    done
}

pids_in_cgroups() {
    # shellcheck disable=SC2046  # a list of folders
    find $(cgroups) -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

cgroups() {
    local node
    for node in "${MACHINES[@]}"; do
        node_cgroups "$node"
    done
}

# Deepest mounts first. A mount in use is detached lazily.
unmount_below() { # FOLDER
    local mount
    awk -v below="$1/" 'index($5 "/", below) == 1 { print length($5), $5 }' /proc/self/mountinfo |
        sort -rn | cut -d' ' -f2- | while read -r mount; do
        mount=$(printf '%b' "$mount")
        umount "$mount" 2>/dev/null || umount --lazy "$mount" || true
    done
}

# A run killed in `ip netns add` may leave the file without the mount; `ip netns delete` removes both.
remove_namespaces() {
    local ns
    for ns in net "${NODES[@]}"; do
        ns=$(netns "$ns")
        [[ ! -e /run/netns/$ns ]] || ip netns delete "$ns"
    done
}

remove_cgroups() {
    local cgroup
    for cgroup in $(cgroups); do
        [[ ! -d $cgroup ]] || wait_for 10 remove_cgroup "$cgroup"
    done
}

remove_cgroup() {
    find "$1" -depth -type d -exec rmdir {} +
}
