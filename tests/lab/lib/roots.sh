# shellcheck shell=bash
# The cached root file systems, as layers that overlayfs stacks:
#
#     base    debootstrap's minimal Debian                    shared by both nodes
#     host    base + what a joined server has installed
#     dc      base + Samba
#     domain  dc + the provisioned domain with its cast
#
# A layer is named after a hash of what went into it, is built in a folder of its own under the
# cache's lock, and gets its name when it is complete. A build runs in its own mount and pid
# namespaces and dies with the lab's process: a killed build leaves a folder, nothing else.

readonly SUITE=bookworm

# Where this machine's apt gets Debian from, whatever the format of its sources.
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

# apt inside needs them where the machine's own source is an https one.
base_packages() {
    packages base
    [[ $URI != https:* ]] || echo ca-certificates
}

digest() {
    sha256sum | cut -c1-12
}

# layer NAME FILE… : the layer's folder; what it depends on comes in on stdin and from these files.
layer() {
    local name=$1
    shift
    echo "$LAB_CACHE/$name-$(cat - "$@" | digest)"
}

# Sets URI, and BASE, DC, HOST and PROVISIONED to the layers' folders.
find_layers() {
    local lib=$LAB_DIR/lib
    URI=$(main_uri)
    BASE=$(layer base "$lib/build-base.sh" < <(echo "$URI"; base_packages))
    DC=$(layer dc "$lib/build-packages.sh" < <(echo "$BASE"; packages dc))
    HOST=$(layer host "$lib/build-packages.sh" < <(echo "$BASE"; packages host))
    PROVISIONED=$(layer domain "$LAB_DIR/cast" "$lib"/{build-domain.sh,cast.py} <<<"$DC")
}

# layers NODE : the lower layers of a node, topmost first, as overlayfs wants them.
layers() {
    case $1 in
        dc) echo "$PROVISIONED:$DC:$BASE" ;;
        host) echo "$HOST:$BASE" ;;
    esac
}

# build LAYER SCRIPT LOWER ARGUMENT… : builds LAYER by SCRIPT on top of LOWER ("" = from nothing).
# SCRIPT runs as pid 1 of its own namespaces with the new root's path as its first argument.
build() {
    local layer=$1 script=$2 lower=$3 new=$1.new
    shift 3
    rm -rf --one-file-system "$new"
    mkdir -p "$new"/{layer,work,root}
    # Not in a pipe or subshell: --pdeathsig is about the direct parent.
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
        bash "$LAB_DIR/lib/build.sh" "$new" "$lower" "$LAB_DIR/lib/$script" "$@" </dev/null
    mv "$new/layer" "$layer"
    rm -rf --one-file-system "$new"
}

ensure_machine_packages() {
    local missing=() package
    for package in $(packages machine); do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    local apt=(apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300)
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" install "${missing[@]}" || {
        apt-get -o DPkg::Lock::Timeout=300 update
        "${apt[@]}" install "${missing[@]}"
    }
}

# Builds what is missing. Two labs may start together: one builds, the other waits here.
ensure_layers() {
    find_layers
    layers_are_complete && return
    lock_cache
    # shellcheck disable=SC2046  # lists of words
    {
        [[ -d $BASE ]] || step "base root (debootstrap)" build "$BASE" build-base.sh "" \
            "$SUITE" "$URI" "$(debian_uri $SUITE-security)" "$(base_packages | paste -sd,)"
        [[ -d $DC ]] || step "packages of the domain controller" build "$DC" build-packages.sh "$BASE" $(packages dc)
        [[ -d $HOST ]] || step "packages of the XCALLY host" build "$HOST" build-packages.sh "$BASE" $(packages host)
        [[ -d $PROVISIONED ]] || step "domain and cast" build "$PROVISIONED" build-domain.sh "$DC:$BASE" \
            "$LAB_DIR" "${FQDN[dc]}" "$DOMAIN" "$NETBIOS" "${ADDRESS[dc]}"
    }
    unlock_cache
}

layers_are_complete() {
    [[ -d $BASE && -d $DC && -d $HOST && -d $PROVISIONED ]]
}
