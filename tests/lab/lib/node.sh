# shellcheck shell=bash
# The machines: an overlay on the cached layers, booted by systemd-nspawn, entered by nsenter.

node_root() {
    echo "$LAB_RUN/$1/root"
}

node_mount() { # NODE
    local run=$LAB_RUN/$1 root
    root=$(node_root "$1")
    mkdir -p "$run"/{upper,work,root}
    mount -t overlay "mad-$LAB_NAME-$1" -o "lowerdir=$(layers "$1"),upperdir=$run/upper,workdir=$run/work" "$root"
    # From here on, services may start.
    rm -f "$root/usr/sbin/policy-rc.d"
    echo "${FQDN[$1]%%.*}" >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n%s %s %s\n' "${ADDRESS[$1]}" "${FQDN[$1]}" "${FQDN[$1]%%.*}" >"$root/etc/hosts"
    node_resolv_conf "$1" >"$root/etc/resolv.conf"
}

# The domain controllers are the name servers; each queries itself first. With two of them, glibc's
# default wait of ten seconds for a dead one would hide the tested behavior.
node_resolv_conf() { # NODE
    local server servers=(dc dc2)
    [[ $1 != dc2 ]] || servers=(dc2 dc)
    two_dcs || servers=(dc)
    printf 'search %s\n' "$DOMAIN"
    for server in "${servers[@]}"; do
        printf 'nameserver %s\n' "${ADDRESS[$server]}"
    done
    ! two_dcs || echo 'options timeout:1 attempts:1'
}

# Boots the nodes in parallel.
node_start() { # NODE…
    local node
    for node; do
        node_launch "$node"
    done
    for node; do
        wait_for 30 node_find_leader "$node"
        wait_for 90 node_is_running "$node" || {
            tail -n 20 "$LAB_RUN/$node/console"
            return 1
        }
    done
}

# Starts nspawn in the background. It dies with the lab until it has recorded its pid. So a killed lab
# never leaves a process that `lab down` cannot find.
node_launch() { # NODE
    local run=$LAB_RUN/$1
    # shellcheck disable=SC2016  # for the inner shell
    setpriv --pdeathsig KILL setsid bash -euc '
        . "$1/lib/common.sh"
        . "$1/lib/node.sh"
        node_become_nspawn "$2"
    ' node_launch "$LAB_DIR" "$1" </dev/null >"$run/console" 2>&1 7>&- 9>&- &
    wait_for 20 recorded "$run/nspawn.pid"
}

node_become_nspawn() { # NODE
    echo "$$ $(start_time $$)" >"$LAB_RUN/$1/nspawn.pid"
    node_enter_cgroups "$1"
    # --register=no --keep-unit: the machine's own PID 1 need not be systemd.
    exec setpriv --pdeathsig clear systemd-nspawn --quiet --register=no --keep-unit --machine="mad-$LAB_NAME-$1" \
        --directory="$(node_root "$1")" --network-namespace-path="/run/netns/mad-$LAB_NAME-$1" \
        --hostname="${FQDN[$1]%%.*}" --resolv-conf=off --timezone=off --link-journal=no \
        --console=pipe --boot
}

# A separate cgroup per node, in the hierarchies by which systemd tracks the processes of services. Two
# systemds must not share a cgroup. With cgroup v2 this is the only hierarchy; with v1 it is
# name=systemd and, if mounted (hybrid), also the v2 one.
node_cgroups() { # NODE : folders
    local mount
    for mount in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
        [[ ! -e $mount/cgroup.procs ]] || echo "$mount/mad-$LAB_NAME-$1"
    done
}

node_enter_cgroups() { # NODE
    local cgroup
    for cgroup in $(node_cgroups "$1"); do
        mkdir -p "$cgroup"
        echo $$ >"$cgroup/cgroup.procs"
    done
}

# The node's systemd is the descendant of nspawn that has pid 1 in its namespace.
node_find_leader() { # NODE
    local nspawn child
    nspawn=$(recorded "$LAB_RUN/$1/nspawn.pid")
    # shellcheck disable=SC2013  # pids, all on one line
    for child in $(cat "/proc/$nspawn/task/$nspawn/children"); do
        if [[ $(awk '$1 == "NSpid:" { print $NF }' "/proc/$child/status") == 1 ]]; then
            echo "$child $(start_time "$child")" >"$LAB_RUN/$1/leader.pid"
            return 0
        fi
    done
    return 1
}

node_leader() { # NODE : its systemd's pid on this machine
    recorded "$LAB_RUN/$1/leader.pid"
}

node_is_running() {
    local state
    state=$(node_run "$1" systemctl is-system-running) || true
    [[ $state == running || $state == degraded ]]
}

# node_run NODE COMMAND… : runs COMMAND inside as root with a clean environment. With NODE_EXEC=exec it replaces
# this process.
node_run() {
    local leader
    leader=$(node_leader "$1") || die "$1 is not up"
    shift
    ${NODE_EXEC:-} nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 TERM="${TERM:-dumb}" "$@"
}

# Same, as one of the node's users, with that user's groups and environment.
node_run_as() { # NODE USER COMMAND…
    local node=$1 user=$2
    shift 2
    # shellcheck disable=SC2016  # for the inner shell
    node_run "$node" sh -c 'user=$1; shift
        exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --reset-env -- "$@"' sh "$user" "$@"
}

lab_exec() {
    local node=${1:-} user=
    is_machine "$node" || die "usage: lab exec $(machines | paste -sd'|') [-u USER] -- COMMAND…"
    shift
    if [[ ${1:-} == -u ]]; then
        user=$2
        shift 2
    fi
    [[ ${1:-} != -- ]] || shift
    (($#)) || die "lab exec: no command"
    # The command replaces this process, so that no shell prints a message about its end.
    NODE_EXEC='exec'
    if [[ -n $user ]]; then node_run_as "$node" "$user" "$@"; else node_run "$node" "$@"; fi
}

lab_shell() {
    is_machine "${1:-}" || die "usage: lab shell $(machines | paste -sd'|')"
    node_run "$1" bash -c 'cd; exec bash -l'
}
