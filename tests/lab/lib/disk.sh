# shellcheck shell=bash
# The broker's state folder on a separate file system, which can be filled.

readonly STATE=/var/lib/motion-ad
readonly SMALL=64m # enough for the broker's files

lab_disk() {
    local usage="usage: lab disk small|full|free|whole [host|host2]" command=${1:-} host=${2:-host}
    if (($# > 2)) || ! is_host "$host"; then die "$usage"; fi
    node_run "$host" test -d $STATE || die "$host has no $STATE: nothing is installed there"
    case $command in
        small | whole) disk_is "$command" "$host" || disk_exchange "$command" "$host" ;;
        full | free)
            disk_is small "$host" || die "$host: lab disk small comes first"
            "disk_$command" "$host"
            ;;
        *) die "$usage" ;;
    esac
}

disk_is() { # small|whole HOST
    if node_run "$2" mountpoint -q $STATE; then [[ $1 == small ]]; else [[ $1 == whole ]]; fi
}

# Keeps the folder's content. No process may have files open in it.
disk_exchange() { # small|whole HOST
    # shellcheck disable=SC2016  # for the inner shell
    node_run "$2" sh -euc '
        systemctl stop motion-ad.socket motion-ad.service
        kept=$(mktemp -d)
        rm -f "$2/filler"
        cp -a "$2/." "$kept"
        case $1 in
            small) mount -t tmpfs -o size="$3" state "$2" ;;
            whole) umount "$2" ;;
        esac
        find "$2" -mindepth 1 -delete
        cp -a "$kept/." "$2"
        rm -r "$kept"
        systemctl start motion-ad.socket motion-ad.service' sh "$1" $STATE $SMALL
}

disk_full() { # HOST
    # Writes until it fails, because no space is left.
    ! node_run "$1" dd if=/dev/zero of=$STATE/filler bs=4k oflag=append conv=notrunc status=none 2>/dev/null ||
        die "$1: $STATE has no end"
}

disk_free() { # HOST
    node_run "$1" rm -f $STATE/filler
}
