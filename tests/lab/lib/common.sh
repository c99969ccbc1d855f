# shellcheck shell=bash
# Functions for all parts of the lab: names, progress lines, locks, recorded processes.

export LAB_NAME=${LAB_NAME:-lab}
export LAB_CACHE=${LAB_CACHE:-/var/cache/motion-ad-lab}
export LAB_RUN=${LAB_RUN:-/var/lib/motion-ad-lab/$LAB_NAME}
readonly LAB_LOG=$LAB_RUN/lab.log

# Names and addresses. All labs use the same ones, because their namespaces have no route to the outside.
# shellcheck disable=SC2034  # read by the other files
{
    readonly DOMAIN=acme.com
    readonly NETBIOS=ACME
    readonly BASE_DN=DC=acme,DC=com
    readonly SUITES=(bookworm trixie) LEVELS=(2008_R2 2016) SETTINGS=(dc-suite host-suite function-level)
    readonly CROWD_PASSWORD=Cr0wds-come-in-coaches
    # Machines boot; the other nodes are only network namespaces. Nodes other than dc and host exist only on
    # request.
    readonly MACHINES=(dc dc2 host host2)
    readonly PLACES=(forger fake redis)
    readonly NODES=("${MACHINES[@]}" "${PLACES[@]}")
    declare -rA FQDN=([dc]=ad.acme.com [dc2]=ad2.acme.com [host]=xcally.acme.com [host2]=xcally2.acme.com
        [forger]=forger.acme.com [fake]=fake.acme.com [redis]=redis.acme.com)
    declare -rA ADDRESS=([dc]=10.73.0.10 [dc2]=10.73.0.11 [host]=10.73.0.20 [host2]=10.73.0.21
        [forger]=10.73.0.30 [fake]=10.73.0.40 [redis]=10.73.0.50)
    declare -rA MAC=([dc]=02:00:0a:49:00:0a [dc2]=02:00:0a:49:00:0b [host]=02:00:0a:49:00:14
        [host2]=02:00:0a:49:00:15 [forger]=02:00:0a:49:00:1e [fake]=02:00:0a:49:00:28 [redis]=02:00:0a:49:00:32)
}

# The domain controllers, the hosts and all the machines of this lab. The second ones have a folder.
dcs() {
    echo dc
    ! two_dcs || echo dc2
}

two_dcs() {
    [[ -d $LAB_RUN/dc2 ]]
}

# The Debian release of the DCs or of the hosts. A lab that is up keeps its own.
suite() { # dc|host
    lab_setting "$1-suite"
}

# The functional level of forest and domain, as samba-tool writes it.
function_level() {
    lab_setting function-level
}

lab_setting() { # NAME
    if [[ -r $LAB_RUN/$1 ]]; then cat "$LAB_RUN/$1"; else asked_setting "$1"; fi
}

# What the environment asks for. Samba 4.17 knows no level above 2008 R2, and policies of authentication need a higher one.
asked_setting() { # NAME
    case $1 in
        dc-suite) echo "${LAB_DC_SUITE:-bookworm}" ;;
        host-suite) echo "${LAB_HOST_SUITE:-bookworm}" ;;
        function-level)
            if [[ -n ${LAB_FUNCTION_LEVEL:-} ]]; then
                echo "$LAB_FUNCTION_LEVEL"
            elif [[ $(asked_setting dc-suite) == bookworm ]]; then
                echo 2008_R2
            else
                echo 2016
            fi
            ;;
    esac
}

# Succeeds if the domain has 50,000 additional users.
is_crowded() {
    [[ -e $LAB_RUN/crowd ]]
}

hosts() {
    echo host
    ! two_hosts || echo host2
}

two_hosts() {
    [[ -d $LAB_RUN/host2 ]]
}

machines() {
    dcs
    hosts
}

# Succeeds if the hosts of this lab have the applications.
with_clients() {
    [[ -d $LAB_RUN/clients ]]
}

is_machine() {
    is_host "${1:-}" || is_dc "${1:-}"
}

is_host() {
    [[ ${1:-} == host ]] || { [[ ${1:-} == host2 ]] && two_hosts; }
}

is_dc() {
    [[ ${1:-} == dc ]] || { [[ ${1:-} == dc2 ]] && two_dcs; }
}

# Target of progress lines, because the output of a step goes to its log.
exec 7>&2

die() {
    printf 'lab: %s\n' "$*" >&7
    exit 1
}

say() {
    printf 'lab: %s\n' "$*" >&7
}

# step TEXT COMMAND… : runs COMMAND with its output in the lab's log, and prints its duration.
step() {
    local text=$1 start=$EPOCHREALTIME
    shift
    printf 'lab: %-44s ' "$text" >&7
    printf '== %s\n' "$text" >>"$LAB_LOG"
    STEP_OPEN=yes
    "$@" >>"$LAB_LOG" 2>&1
    STEP_OPEN=
    printf '%6s s\n' "$(seconds_since "$start")" >&7
}

# A failed step has printed nothing yet: show the end of its log. (set -e ends the run.)
on_exit() {
    local code=$?
    exec 2>&7
    if [[ -n ${STEP_OPEN:-} ]]; then
        printf 'failed (%s)\n' "$code" >&2
        tail -n 15 "$LAB_LOG" | sed 's/^/lab:   | /' >&2
        say "the whole log: $LAB_LOG"
    fi
}

seconds_since() {
    local us=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
    printf '%d.%d' $((us / 1000000)) $((us / 100000 % 10))
}

# wait_for SECONDS COMMAND… : polls until COMMAND succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || {
            echo "gave up waiting for: $*"
            "$@" || true
            return 1
        }
        sleep 0.1
    done
}

# packages SECTION… : the packages listed under these headings.
packages() {
    local section line wanted
    wanted="|$(IFS='|'; echo "$*")|"
    while read -r line; do
        case $line in
            '' | '#'*) ;;
            '['*']') section=${line//[][]/} ;;
            *) [[ $wanted != *"|$section|"* ]] || echo "$line" ;;
        esac
    done <"$LAB_DIR/packages"
}

# node_packages NAME : those of a node, with the ones that only its release has.
node_packages() {
    local suite
    suite=$(suite host)
    [[ $1 != dc ]] || suite=$(suite dc)
    packages "$1" "$1 $suite"
}

# Locks end with the process that holds them. Long-lived children are started with 9>&-, or they
# would hold the lab's lock as well.
lock_lab() {
    mkdir -p "${LAB_RUN%/*}"
    exec 9>"$LAB_RUN.lock"
    flock -w 900 9 || die "another run holds $LAB_RUN.lock"
    # The former holder may have removed the file. Then this lock is void.
    [[ $LAB_RUN.lock -ef /dev/fd/9 ]] || lock_lab
}

lock_cache() {
    mkdir -p "$LAB_CACHE"
    exec 8>"$LAB_CACHE/lock"
    flock --nonblock 8 || say "waiting for another lab to finish with the cache"
    flock -w 900 8 || die "another run holds $LAB_CACHE/lock"
    [[ $LAB_CACHE/lock -ef /dev/fd/8 ]] || lock_cache
}

unlock_cache() {
    exec 8>&-
}

# A process is recorded as "pid start-time", because a pid may have been reused.
# A zombie counts as ended, although its parent has not reaped it yet.
start_time() { # PID
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The command name, in parentheses, may contain spaces: count the fields after it.
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    [[ $1 != Z ]] || return 1
    echo "${20}"
}

# recorded FILE : prints the pid in FILE if that same process still runs.
recorded() {
    local pid started
    [[ -r $1 ]] && read -r pid started <"$1" || return 1
    [[ -n ${started:-} && $(start_time "$pid") == "$started" ]] || return 1
    echo "$pid"
}
