# shellcheck shell=bash
# A node for a scripted server: only a network namespace, with a name and a certificate.

lab_fake() {
    local command=${1:-}
    (($#)) && shift
    [[ ${1:-} != -- ]] || shift
    case $command-$# in
        up-0) fake_up ;;
        down-0) fake_down ;;
        run-0) die "lab fake run: no command" ;;
        run-*)
            net_has fake || die "fake is not up"
            # In the foreground. `lab down` ends all processes in the namespace.
            exec ip netns exec "$(netns fake)" "$@" 7>&-
            ;;
        *) die "usage: lab fake up | down | run -- COMMAND…" ;;
    esac
}

fake_up() {
    lab_is_up || die "$LAB_NAME is down"
    net_has fake || step "a scripted server's place" fake_prepare
    printf '%s\n' "$CA/fake-good.pem" "$CA/fake-good.key"
}

fake_prepare() {
    ca_issue fake good
    dns_remove fake
    dns_add fake "${ADDRESS[fake]}"
    replicate
    net_add_node fake
}

fake_down() {
    net_has fake || return 0
    wait_for 10 kill_in_namespaces fake
    dns_remove fake
    net_remove_node fake
    replicate
}
