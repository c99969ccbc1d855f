# shellcheck shell=bash
# The two nodes: an overlay on the cached layers, booted by systemd-nspawn, entered by nsenter.

node_root() {
    echo "$LAB_RUN/$1/root"
}

node_mount() { # NODE
    local run=$LAB_RUN/$1 root
    root=$(node_root "$1")
    mkdir -p "$run"/{upper,work,root}
    mount -t overlay "mad-$LAB_NAME-$1" -o "lowerdir=$(layers "$1"),upperdir=$run/upper,workdir=$run/work" "$root"
    # Services may start from here on.
    rm -f "$root/usr/sbin/policy-rc.d"
    echo "${FQDN[$1]%%.*}" >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n%s %s %s\n' "${ADDRESS[$1]}" "${FQDN[$1]}" "${FQDN[$1]%%.*}" >"$root/etc/hosts"
    printf 'search %s\nnameserver %s\n' "$DOMAIN" "${ADDRESS[dc]}" >"$root/etc/resolv.conf"
}

# Starts nspawn in the background. Until it has written its own pid down it dies with the lab, and
# then it is known: a killed lab never leaves a process that `lab down` cannot find.
node_start() { # NODE
    local run=$LAB_RUN/$1
    # shellcheck disable=SC2016  # for the inner shell
    setpriv --pdeathsig KILL setsid bash -euc '
        . "$1/lib/common.sh"
        . "$1/lib/node.sh"
        node_become_nspawn "$2"
    ' node_start "$LAB_DIR" "$1" </dev/null >"$run/console" 2>&1 7>&- 9>&- &
    wait_for 20 recorded "$run/nspawn.pid"
    wait_for 30 node_find_leader "$1"
    wait_for 90 node_is_running "$1" || {
        tail -n 20 "$run/console"
        return 1
    }
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

# A cgroup of its own per node, in the hierarchies by which systemd tells its services' processes
# apart: two systemds in one cgroup would fight over it. With cgroup v2 that is the one hierarchy,
# with v1 name=systemd and, where it is mounted beside (hybrid), the v2 one.
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

# The node's systemd is the descendant of nspawn that is pid 1 in its own namespace.
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

node_leader() { # NODE : its systemd's pid, as seen from outside
    recorded "$LAB_RUN/$1/leader.pid"
}

node_is_running() {
    local state
    state=$(node_run "$1" systemctl is-system-running) || true
    [[ $state == running || $state == degraded ]]
}

# node_run NODE COMMAND… : runs COMMAND inside, as root, with a clean environment.
node_run() {
    local leader
    leader=$(node_leader "$1") || die "$1 is not up"
    shift
    nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 TERM="${TERM:-dumb}" "$@"
}

# The same as one of the node's users, with that user's groups and environment.
node_run_as() { # NODE USER COMMAND…
    local node=$1 user=$2
    shift 2
    # shellcheck disable=SC2016  # for the inner shell
    node_run "$node" sh -c 'user=$1; shift
        exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --reset-env -- "$@"' sh "$user" "$@"
}

lab_exec() {
    local node=${1:-} user=
    [[ $node =~ ^(dc|host)$ ]] || die "usage: lab exec dc|host [-u USER] -- COMMAND…"
    shift
    if [[ ${1:-} == -u ]]; then
        user=$2
        shift 2
    fi
    [[ ${1:-} != -- ]] || shift
    (($#)) || die "lab exec: no command"
    if [[ -n $user ]]; then node_run_as "$node" "$user" "$@"; else node_run "$node" "$@"; fi
}

lab_shell() {
    [[ ${1:-} =~ ^(dc|host)$ ]] || die "usage: lab shell dc|host"
    node_run "$1" bash -c 'cd; exec bash -l'
}
