# shellcheck shell=bash
# The cached root file systems, as layers that overlayfs stacks:
#
#     dc-base    debootstrap's minimal Debian of the DCs' release
#     host-base  the same of the hosts' release; one layer if the releases are equal
#     host     host-base + the packages of a joined server
#     dc       dc-base + Samba
#     domain   dc + the provisioned domain with its cast
#     crowd    domain with 50,000 additional users
#     pair     the second DC on dc, and on domain the changes of its join
#     forger   host-base + MIT's KDC
#     redis    host-base + Redis
#     clients  host + the applications that Debian has, for a lab with --clients
#     workshop host-base + compilers and the registries' own tools
#     programs on clients; the workshop's results, which are only below /opt/clients
#
# A layer is named after a hash of its inputs. It is built in a separate folder under the cache's lock,
# and gets its name when it is complete. A build runs in separate mount and pid namespaces and dies with
# the lab's process, so a killed build leaves nothing but a folder.

# What every lab stands on.
# shellcheck disable=SC2034  # read by `lab`
readonly SMALL_LAB=(dc-base host-base dc host domain)
# The tests' applications, with their lists of dependencies.
readonly CLIENTS=$LAB_DIR/../clients

# The Debian mirrors of this machine's apt, in either format of its sources.
debian_uri() {
    # shellcheck disable=SC2016  # the names are apt's own
    apt-get indextargets --format '$(CODENAME) $(ORIGIN) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == suite && $2 == "Debian" && $3 == "main" { print $4; exit }'
}

# Both releases come from the mirror of this machine's apt, whichever of them it uses itself.
mirror() { # [-security]
    local suite uri
    for suite in "${SUITES[@]}"; do
        uri=$(debian_uri "$suite${1:-}")
        [[ -z $uri ]] || break
    done
    echo "$uri"
}

# apt inside needs them if the machine's own source uses https.
base_packages() {
    packages base
    [[ $URI != https:* ]] || echo ca-certificates
}

digest() {
    sha256sum | cut -c1-12
}

# layer NAME FILE… : the layer's folder. Its inputs are stdin and these files.
layer() {
    local name=$1
    shift
    echo "$LAB_CACHE/$name-$(cat - "$@" | digest)"
}

# Sets LAYER to the layers' folders, and UNDER to those of their bases.
declare -A LAYER UNDER
find_layers() {
    local lib=$LAB_DIR/lib name
    URI=$(mirror)
    URI=${URI:-http://deb.debian.org/debian/}
    for name in dc host; do
        LAYER[$name-base]=$(layer base "$lib/build-base.sh" < <(echo "$(suite $name) $URI"; base_packages))
    done
    for name in dc host forger redis workshop; do
        UNDER[$name]=${LAYER[host-base]}
        [[ $name != dc ]] || UNDER[dc]=${LAYER[dc-base]}
        LAYER[$name]=$(layer $name "$lib/build-packages.sh" < <(echo "${UNDER[$name]}"; node_packages $name))
    done
    LAYER[clients]=$(layer clients "$lib/build-packages.sh" < <(echo "${LAYER[host]}"; packages clients))
    LAYER[programs]=$(layer programs "$lib/build-programs.sh" \
        "$CLIENTS"/{node,motion-login,ldap,xcally-login}/package{,-lock}.json \
        "$CLIENTS/python/requirements.txt" <<<"${LAYER[workshop]}")
    LAYER[domain]=$(layer domain "$LAB_DIR/cast" "$lib"/{build-domain.sh,cast.py} \
        <<<"${LAYER[dc]} $(function_level)")
    LAYER[crowd]=$(layer crowd "$lib/build-crowd.sh" <<<"${LAYER[domain]}")
    LAYER[pair]=$(layer pair "$lib/build-pair.sh" <<<"${LAYER[domain]}")
}

# layers NODE : the lower layers of a node, topmost first, as overlayfs wants them.
layers() {
    local above=
    case $1 in
        dc) above=$(two_dcs && echo "${LAYER[pair]}/dc:")$(is_crowded && echo "${LAYER[crowd]}:")${LAYER[domain]}: ;;
        dc2) above=${LAYER[pair]}/dc2: ;;
        host | host2) above=$(with_clients && echo "${LAYER[programs]}:${LAYER[clients]}:") ;;
    esac
    echo "$above$(layer_and_base "${1%2}")"
}

layer_and_base() { # NAME
    echo "${LAYER[$1]}:${UNDER[$1]}"
}

# build [--offline] LAYER SCRIPT LOWER ARGUMENT… : builds LAYER by SCRIPT on top of LOWER ("" = from
# nothing, "-" = SCRIPT mounts its roots itself). SCRIPT runs as pid 1 of new namespaces with the new
# root's path as its first argument. With --offline it has no network.
build() {
    local isolate=()
    if [[ $1 == --offline ]]; then
        isolate=(--net)
        shift
    fi
    local layer=$1 script=$2 lower=$3 new=$1.new
    shift 3
    rm -rf --one-file-system "$new"
    mkdir -p "$new"/{layer,work,root}
    # Not in a pipe or subshell, because --pdeathsig refers to the direct parent.
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child "${isolate[@]}" \
        bash "$LAB_DIR/lib/build.sh" "$new" "$lower" "$LAB_DIR/lib/$script" "$@" </dev/null
    mv "$new/layer" "$layer"
    rm -rf --one-file-system "$new"
}

# shellcheck disable=SC2046  # lists of words
build_layer() { # NAME
    local layer=${LAYER[$1]} dc host
    dc=$(layer_and_base dc) host=$(layer_and_base host)
    case $1 in
        dc-base | host-base) step "$(suite "${1%-base}"): base root (debootstrap)" build "$layer" build-base.sh "" \
            "$(suite "${1%-base}")" "$URI" "$(mirror -security)" "$(base_packages | paste -sd,)" ;;
        dc) build_packages "packages of the domain controller" dc ;;
        host) build_packages "packages of the XCALLY host" host ;;
        forger) build_packages "packages of the forged KDC" forger ;;
        redis) build_packages "packages of Redis" redis ;;
        workshop) build_packages "packages of the workshop" workshop ;;
        clients) step "packages of the applications" build "$layer" build-packages.sh "$host" $(packages clients) ;;
        programs) step "applications of npm and PyPI" build "$layer" build-programs.sh "$(layer_and_base workshop)" \
            "$CLIENTS" ;;
        domain) step "domain and cast" build --offline "$layer" build-domain.sh "$dc" \
            "$LAB_DIR" "${FQDN[dc]}" "$DOMAIN" "$NETBIOS" "${ADDRESS[dc]}" "$(function_level)" ;;
        crowd) step "50,000 people and 2,000 groups" build --offline "$layer" build-crowd.sh "${LAYER[domain]}:$dc" \
            "$CROWD_PASSWORD" "$DOMAIN" "$BASE_DN" ;;
        pair) step "second domain controller" build --offline "$layer" build-pair.sh - \
            "${LAYER[domain]}:$dc" "$dc" "$DOMAIN" \
            "${FQDN[dc]}" "${ADDRESS[dc]}" "${FQDN[dc2]}" "${ADDRESS[dc2]}" ;;
    esac
}

# shellcheck disable=SC2046  # a list of words
build_packages() { # TEXT NAME
    step "$1" build "${LAYER[$2]}" build-packages.sh "${UNDER[$2]}" $(node_packages "$2")
}

ensure_machine_packages() {
    local missing=() package
    for package in $(packages machine); do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    export DEBIAN_FRONTEND=noninteractive
    install_machine_packages "${missing[@]}" || {
        apt-get -o DPkg::Lock::Timeout=300 update
        install_machine_packages "${missing[@]}"
    }
}

install_machine_packages() { # PACKAGE…
    apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "$@"
}

# Builds the missing layers. If two labs start together, one builds and the other waits here.
ensure_layers() { # NAME…, each after its lower layers
    local name
    find_layers
    layers_are_complete "$@" && return
    lock_cache
    for name; do
        [[ -d ${LAYER[$name]} ]] || build_layer "$name"
    done
    unlock_cache
}

layers_are_complete() { # NAME…
    local name
    for name; do
        [[ -d ${LAYER[$name]} ]] || return 1
    done
}
