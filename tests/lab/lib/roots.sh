# shellcheck shell=bash
# The cached root file systems, as layers that overlayfs stacks:
#
#     base    debootstrap's minimal Debian                    shared by all
#     host    base + the packages of a joined server
#     dc      base + Samba
#     domain  dc + the provisioned domain with its cast
#     crowd   domain with 50,000 additional users
#     pair    the second DC on dc, and on domain the changes of its join
#     forger  base + MIT's KDC
#     redis   base + Redis
#     clients host + the applications that Debian has, for a lab with --clients
#     workshop base + compilers and the registries' own tools
#     programs on clients; the workshop's results, which are only below /opt/clients
#
# A layer is named after a hash of its inputs. It is built in a separate folder under the cache's lock,
# and gets its name when it is complete. A build runs in separate mount and pid namespaces and dies with
# the lab's process, so a killed build leaves nothing but a folder.

readonly SUITE=bookworm
# What every lab stands on.
readonly SMALL_LAB=(base dc host domain)
# The tests' applications, with their lists of dependencies.
readonly CLIENTS=$LAB_DIR/../clients
readonly UNPACK=$LAB_DIR/../../packaging/unpack

# The Debian mirrors of this machine's apt, in either format of its sources.
debian_uri() {
    # shellcheck disable=SC2016  # the names are apt's own
    apt-get indextargets --format '$(CODENAME) $(ORIGIN) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == suite && $2 == "Debian" && $3 == "main" { print $4; exit }'
}

main_uri() {
    local uri
    uri=$(debian_uri $SUITE)
    echo "${uri:-http://deb.debian.org/debian/}"
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

# Sets LAYER to the layers' folders.
declare -A LAYER
find_layers() {
    local lib=$LAB_DIR/lib
    URI=$(main_uri)
    LAYER[base]=$(layer base "$lib/build-base.sh" < <(echo "$URI"; base_packages))
    LAYER[dc]=$(layer dc "$lib/build-packages.sh" < <(echo "${LAYER[base]}"; packages dc))
    LAYER[host]=$(layer host "$lib/build-packages.sh" < <(echo "${LAYER[base]}"; packages host))
    LAYER[forger]=$(layer forger "$lib/build-packages.sh" < <(echo "${LAYER[base]}"; packages forger))
    LAYER[redis]=$(layer redis "$lib/build-packages.sh" < <(echo "${LAYER[base]}"; packages redis))
    LAYER[clients]=$(layer clients "$lib/build-packages.sh" < <(echo "${LAYER[host]}"; packages clients))
    LAYER[workshop]=$(layer workshop "$lib/build-packages.sh" < <(echo "${LAYER[base]}"; packages workshop))
    LAYER[programs]=$(layer programs "$lib/build-programs.sh" \
        "$CLIENTS"/{node,motion-login,ldap,xcally-login}/package{,-lock}.json \
        "$CLIENTS/python/requirements.txt" <<<"${LAYER[workshop]}")
    LAYER[domain]=$(layer domain "$LAB_DIR/cast" "$lib"/{build-domain.sh,cast.py} <<<"${LAYER[dc]}")
    LAYER[crowd]=$(layer crowd "$lib/build-crowd.sh" <<<"${LAYER[domain]}")
    LAYER[pair]=$(layer pair "$lib/build-pair.sh" <<<"${LAYER[domain]}")
}

# layers NODE : the lower layers of a node, topmost first, as overlayfs wants them.
layers() {
    case $1 in
        dc) echo "$(two_dcs && echo "${LAYER[pair]}/dc:")$(is_crowded && echo "${LAYER[crowd]}:")${LAYER[domain]}:${LAYER[dc]}:${LAYER[base]}" ;;
        dc2) echo "${LAYER[pair]}/dc2:${LAYER[dc]}:${LAYER[base]}" ;;
        host | host2)
            echo "$(with_clients && echo "${LAYER[programs]}:${LAYER[clients]}:")${LAYER[host]}:${LAYER[base]}"
            ;;
        *) echo "${LAYER[$1]}:${LAYER[base]}" ;;
    esac
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
    local layer=${LAYER[$1]} base=${LAYER[base]} dc=${LAYER[dc]}
    case $1 in
        base) step "base root (debootstrap)" build "$layer" build-base.sh "" \
            "$SUITE" "$URI" "$(debian_uri $SUITE-security)" "$(base_packages | paste -sd,)" ;;
        dc) step "packages of the domain controller" build "$layer" build-packages.sh "$base" $(packages dc) ;;
        host) step "packages of the XCALLY host" build "$layer" build-packages.sh "$base" $(packages host) ;;
        forger) step "packages of the forged KDC" build "$layer" build-packages.sh "$base" $(packages forger) ;;
        redis) step "packages of Redis" build "$layer" build-packages.sh "$base" $(packages redis) ;;
        clients) step "packages of the applications" build "$layer" build-packages.sh "${LAYER[host]}:$base" \
            $(packages clients) ;;
        workshop) step "packages of the workshop" build "$layer" build-packages.sh "$base" $(packages workshop) ;;
        programs) step "applications of npm and PyPI" build "$layer" build-programs.sh "${LAYER[workshop]}:$base" \
            "$CLIENTS" ;;
        domain) step "domain and cast" build --offline "$layer" build-domain.sh "$dc:$base" \
            "$LAB_DIR" "${FQDN[dc]}" "$DOMAIN" "$NETBIOS" "${ADDRESS[dc]}" ;;
        crowd) step "50,000 people and 2,000 groups" build --offline "$layer" build-crowd.sh "${LAYER[domain]}:$dc:$base" \
            "$CROWD_PASSWORD" "$DOMAIN" "$BASE_DN" ;;
        pair) step "second domain controller" build --offline "$layer" build-pair.sh - \
            "${LAYER[domain]}:$dc:$base" "$dc:$base" "$DOMAIN" \
            "${FQDN[dc]}" "${ADDRESS[dc]}" "${FQDN[dc2]}" "${ADDRESS[dc2]}" ;;
    esac
}

# The machine's own packages are not upgraded: nspawn would draw in the rest of its systemd.
ensure_machine_packages() {
    local missing=() package
    for package in $(packages machine); do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || [[ -e $TOOLS/has-$package ]] ||
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
    local install=() package
    for package; do
        if [[ $package == systemd-container ]] && "$UNPACK" --upgrades "$package"; then
            "$UNPACK" "$TOOLS" "$package" || return
            : >"$TOOLS/has-$package"
        else
            install+=("$package")
        fi
    done
    ((${#install[@]} == 0)) || apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "${install[@]}"
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
