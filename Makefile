# What there is to do with motion-ad; `make` alone prints it. None of it calls sudo: what needs root says so.

.DEFAULT_GOAL := help

version := $(shell sed -n '/^version = /{s/.*"\(.*\)"/\1/p;q}' Cargo.toml)
stage := target/debian-build/motion-ad-$(version)
lab_tests := MOTION_AD_LAB=1 cargo test --locked --test lab --

# No folder of the machine that builds ends up in what is shipped: not by rustc, nor by the C compiler (ring).
cargo_home := $(or $(CARGO_HOME),$(HOME)/.cargo)
shipped := RUSTFLAGS="$(RUSTFLAGS) --remap-path-prefix=$(CURDIR)=/motion-ad --remap-path-prefix=$(cargo_home)=/cargo" \
	CFLAGS="$(CFLAGS) -ffile-prefix-map=$(CURDIR)=/motion-ad -ffile-prefix-map=$(cargo_home)=/cargo"

# `make deb ARCH=arm64` builds for another architecture than this machine's, with Debian's cross compiler.
native := $(shell dpkg --print-architecture)
ARCH ?= $(native)
rust_amd64 := x86_64-unknown-linux-gnu
rust_arm64 := aarch64-unknown-linux-gnu
rust := $(rust_$(ARCH))
built := target
ifneq ($(ARCH),$(native))
gnu := $(shell dpkg-architecture -a$(ARCH) -qDEB_HOST_GNU_TYPE 2>/dev/null)
built := target/$(rust)
for_arch := --target $(rust)
# libgssapi looks for no other architecture's library by itself: it is told which one it is.
shipped += CARGO_TARGET_$(shell echo $(rust) | tr a-z- A-Z_)_LINKER=$(gnu)-gcc CC_$(subst -,_,$(rust))=$(gnu)-gcc \
	PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=/usr/lib/$(gnu)/pkgconfig:/usr/share/pkgconfig LIBGSSAPI_IMPL=mit
endif
deb := libpam-motion-ad_$(version)_$(ARCH)

# `make deb PROFILE=dev` packages what `cargo test` has compiled anyway: in seconds, for trying a change in the lab.
PROFILE ?= release
binaries := $(built)/release
libraries := $(built)/module
build_flags := --release
module_flags := --profile module
packaging :=
check_package := lintian --allow-root --fail-on error,warning target/debian/*.deb
ifeq ($(PROFILE),dev)
binaries := target/debug
libraries := target/debug
build_flags :=
module_flags :=
shipped :=
packaging := DEB_BUILD_OPTIONS=noautodbgsym DPKG_DEB_COMPRESSOR_TYPE=none
check_package := @echo "this package is for the lab alone: it was built without optimisation"
endif

# Files that a shell runs: by their first line, or sourced and called *.sh.
shell_scripts = $(shell { grep -rIlE '^\#!(/usr)?/bin/(env )?(ba|da)?sh' . --exclude-dir=target --exclude-dir=.git; \
	find . -name '*.sh' -not -path './target/*'; } | sort -u)

.PHONY: help
help: ## print this text
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
	    printf '  make %-13s %s\n' "$$name" "$$text"; done

.PHONY: deps
deps: ## install the Debian packages that building needs, where some are missing (root)
	@packaging/deps $(ARCH)

.PHONY: build
build: deps ## build broker, bridge and helper as they are shipped
	$(shipped) cargo build --locked $(build_flags) --bin motion-ad --bin motion-ad-broker --bin motion-ad-ldap $(for_arch)

.PHONY: module
module: deps ## build the PAM module as it is shipped
	$(shipped) cargo rustc --locked --lib --crate-type cdylib --no-default-features $(module_flags) $(for_arch)

# In the dev profile, which the tests build anyway; the release profile would link the whole broker once more.
.PHONY: man
man: deps ## write man pages and completions to target/man and target/completions
	cargo run --locked --quiet --example man -- target/man
	cargo run --locked --quiet --example man -- --completions target/completions

.PHONY: deb
deb: build module man ## build the Debian package in target/debian, and beside it a list of what it is made of (SBOM)
	@changelog=$$(dpkg-parsechangelog -l packaging/debian/changelog -S Version); \
	[ "$$changelog" = "$(version)" ] || { \
	    echo "Cargo.toml says version $(version), packaging/debian/changelog says $$changelog" >&2; exit 1; }
	rm -rf target/debian target/debian-build
	mkdir -p target/debian $(stage)
	cp -r packaging/debian $(stage)
	cp -r --parents packaging pam.d target/man target/completions $(stage)
	cargo tree --target $(rust) --locked --edges normal,no-proc-macro --prefix none --format '{p}: {l}' \
	    | sed '/^motion-ad /d; s/ (\*)$$//' | sort -u >$(stage)/crates
	install -D -t $(stage)/target/release $(binaries)/motion-ad $(binaries)/motion-ad-broker $(binaries)/motion-ad-ldap
	install -D -t $(stage)/target/module $(libraries)/libmotion_ad.so
	cd $(stage) && $(packaging) dpkg-buildpackage --build=binary --no-sign --host-arch=$(ARCH)
	mv target/debian-build/*.deb target/debian
	cargo run --locked --quiet --example sbom -- $(ARCH) $(rust) >target/debian/$(deb).cdx.json
	$(check_package)

# In another folder and from nothing, so that neither shows in what is built.
.PHONY: reproducible
reproducible: deb ## build the package once more in another folder, and compare the two byte by byte
	rm -rf target/again
	mkdir -p target/again/another-folder
	tar --exclude=./target --exclude=./.git -cf - . | tar -C target/again/another-folder -xf -
	$(MAKE) -C target/again/another-folder deb ARCH=$(ARCH)
	@for file in target/debian/*_$(ARCH).deb target/debian/$(deb).cdx.json; do \
	    cmp "$$file" "target/again/another-folder/$$file" || exit 1; sha256sum "$$file"; done
	rm -rf target/again

.PHONY: test
test: root deps ## run every test: unit and integration, then the package in a real Active Directory (root)
	cargo test --locked
	$(MAKE) deb
	$(lab_tests) --suite

.PHONY: test-failover
test-failover: root deps ## let domain controllers die under load, in every way to log in (root, a quarter of an hour)
	$(MAKE) deb
	$(lab_tests) --failover

.PHONY: test-sessions
test-sessions: root deps ## change passwords and fill the register of sessions, in a file and in Redis (root, a quarter of an hour)
	$(MAKE) deb
	$(lab_tests) --sessions

.PHONY: test-doctor
test-doctor: root deps ## break a host in every way that motion-ad doctor is to name and to fix (root, a quarter of an hour)
	$(MAKE) deb
	$(lab_tests) --doctor

.PHONY: bench
bench: root deps ## compare logins with the other PAM modules for AD in the lab; BENCH=quick in ten minutes (root)
	$(MAKE) deb
	$(shipped) cargo build --locked --release --bin bench
	$(lab_tests) --bench

.PHONY: test-clients
test-clients: root deps ## log in by the PAM libraries of Node and Python, Apache, nginx and a browser (root, ten minutes)
	$(MAKE) deb
	$(lab_tests) --clients

.PHONY: test-bridge
test-bridge: root deps ## log in by LDAP libraries of Node and Python through the bridge (root)
	$(MAKE) deb
	$(lab_tests) --bridge

.PHONY: demo
demo: root deps ## show logins on a real joined host with a real Active Directory (root)
	$(MAKE) deb
	$(lab_tests) --demo

.PHONY: lint
lint: ## check format, Rust and shell; licences and sources too where cargo-deny is installed
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	@if command -v promtool >/dev/null; then cd packaging/examples && promtool check rules prometheus-alerts.yml \
	    && promtool test rules prometheus-alerts.test.yml; \
	else echo "promtool (Debian: prometheus) is not installed: the example's alerts were not checked"; fi
	shellcheck --external-sources --source-path=SCRIPTDIR $(shell_scripts)
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --offline check bans licenses sources; \
	else echo "cargo-deny is not installed: licences and sources were not checked"; fi

.PHONY: lab-up
lab-up: root ## start the lab: a domain controller and a joined host (root)
	tests/lab/lab up

.PHONY: lab-down
lab-down: root ## stop the lab and remove what it made (root)
	tests/lab/lab down

.PHONY: clean
clean: ## remove everything that was built
	rm -rf target

# Not in the help: a check that comes first where root is needed.
.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "This needs root: it installs packages and boots machines in namespaces." \
	    "'cargo test' alone does not." >&2; exit 1; }
