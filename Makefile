# The targets for building and testing motion-ad; `make` alone lists them. No target calls sudo: those that need root say so.

.DEFAULT_GOAL := help

version := $(shell sed -n '/^version = /{s/.*"\(.*\)"/\1/p;q}' Cargo.toml)
oldest_rust := $(shell sed -n '/^rust-version = /{s/.*"\(.*\)"/\1/p;q}' Cargo.toml)
stage := target/debian-build/motion-ad-$(version)
lab_tests = cargo run --locked --quiet --package motion-ad-lab --
# The lab's roots are built while the compiler works.
with_roots := tests/lab/lab roots
# A check whose tool is missing says so; with ALL=yes, as .ci/run has it, it fails. So do the tests (`MOTION_AD_ALL`).
skipped = { echo "skipped: $(1)"; $(if $(ALL),exit 1,true); }
ifneq ($(ALL),)
export MOTION_AD_ALL := 1
endif
# Another name, because `make --dry-run` runs every command that names MAKE itself.
again = $(MAKE)

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
# libgssapi looks for no other architecture's library by itself: this names the one.
shipped += CARGO_TARGET_$(shell echo $(rust) | tr a-z- A-Z_)_LINKER=$(gnu)-gcc CC_$(subst -,_,$(rust))=$(gnu)-gcc \
	PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=/usr/lib/$(gnu)/pkgconfig:/usr/share/pkgconfig LIBGSSAPI_IMPL=mit
endif
deb := libpam-motion-ad_$(version)_$(ARCH)

# `make deb PROFILE=dev` packages what `cargo test` has compiled anyway: in seconds, for trying a change in the lab.
#
# Every crate is compiled once for a profile: the generator of the man pages is built together with what is shipped, and in the
# dev profile also with the tests, whose dependencies turn on more features of the same crates.
PROFILE ?= release
binaries := $(built)/release
libraries := $(built)/module
build_flags := --release
module_flags := --profile module
generate = $(shipped) cargo run --locked --quiet --release --features generate --bin generate --
# Debug symbols are a package of their own. Compiling and packing them takes minutes: only a release has it.
packaging := $(if $(SYMBOLS),,DEB_BUILD_OPTIONS=noautodbgsym)
shipped += $(if $(SYMBOLS),CARGO_PROFILE_RELEASE_DEBUG=line-tables-only)
check_package := @if command -v lintian >/dev/null; then lintian --allow-root --fail-on error,warning target/debian/*.deb; \
	else $(call skipped,lintian is not installed: the package was not checked); fi
ifeq ($(ARCH),$(native))
build_flags += --features generate --bin generate
else
# The generator must run here.
generate = cargo run --locked --quiet --example man --
endif
ifeq ($(PROFILE),dev)
binaries := target/debug
libraries := target/debug
build_flags := --package motion-ad --example man --package motion-ad-lab --bin lab
module_flags :=
generate = cargo run --locked --quiet --example man --
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
deps: ## install the Debian packages that building and testing need, where some are missing (root)
	@packaging/deps --test --release $(ARCH)

# Not in the help: those that building alone needs.
.PHONY: build-deps
build-deps:
	@packaging/deps $(ARCH)

# Not in the help either: those that building and the tests need.
.PHONY: test-deps
test-deps:
	@packaging/deps --test

.PHONY: build
build: build-deps ## build broker, bridge and helper as they are shipped
	$(shipped) cargo build --locked $(build_flags) --bin motion-ad --bin motion-ad-broker --bin motion-ad-ldap $(for_arch)

.PHONY: module
module: build-deps ## build the PAM module as it is shipped
	$(shipped) cargo rustc --locked --lib --crate-type cdylib --no-default-features $(module_flags) $(for_arch)

.PHONY: node
node: build-deps ## build the npm package motion-ad-client as it is shipped, in target/npm
	$(shipped) cargo build --locked --package motion-ad-client $(module_flags) $(for_arch)
	packaging/npm $(libraries)/libmotion_ad_client.so $(ARCH) target/npm

.PHONY: man
man: build ## write man pages and completions to target/man and target/completions
	$(generate) target/man
	$(generate) --completions target/completions

# The documents lose what follows the language of a block, which is for the tests.
.PHONY: deb
deb: build module node man ## build the Debian package and the list of its parts (SBOM) in target/debian
	@changelog=$$(dpkg-parsechangelog -l packaging/debian/changelog -S Version); \
	[ "$$changelog" = "$(version)" ] || { \
	    echo "Cargo.toml says version $(version), packaging/debian/changelog says $$changelog" >&2; exit 1; }
	rm -rf target/debian target/debian-build
	mkdir -p target/debian $(stage)
	cp -r packaging/debian $(stage)
	cp -r --parents packaging pam.d target/man target/completions $(stage)
	cp -r --parents docs README.md SECURITY.md CHANGELOG.md tests/clients/motion-login $(stage)
	rm -rf $(stage)/tests/clients/motion-login/node_modules
	sed -i -E 's/^(```[a-z]+) .*/\1/' $(stage)/README.md $(stage)/docs/*.md
	cargo tree --package motion-ad --package motion-ad-client --target $(rust) --locked --edges normal,no-proc-macro \
	    --prefix none --format '{p}: {l}' | sed '/^motion-ad/d; /^$$/d; s/ (\*)$$//' | sort -u >$(stage)/crates
	install -D -t $(stage)/target/release $(binaries)/motion-ad $(binaries)/motion-ad-broker $(binaries)/motion-ad-ldap
	install -D -t $(stage)/target/module $(libraries)/libmotion_ad.so
	cp -r --parents target/npm/package $(stage)
	cd $(stage) && $(packaging) dpkg-buildpackage --build=binary --no-sign --host-arch=$(ARCH)
	mv target/debian-build/*.deb target/debian
	cp target/npm/*.tgz target/debian
	$(generate) --sbom $(ARCH) $(rust) >target/debian/$(deb).cdx.json
	$(check_package)

# In another folder and from nothing, so that neither shows in what is built.
.PHONY: reproducible
reproducible: deb ## build the package again in another folder, and compare the two byte by byte
	rm -rf target/again
	mkdir -p target/again/another-folder
	tar --exclude=./target --exclude=./.git -cf - . | tar -C target/again/another-folder -xf -
	$(MAKE) -C target/again/another-folder deb ARCH=$(ARCH)
	@for file in target/debian/*_$(ARCH).deb target/debian/*.tgz target/debian/$(deb).cdx.json; do \
	    cmp "$$file" "target/again/another-folder/$$file" || exit 1; sha256sum "$$file"; done
	rm -rf target/again

.PHONY: release
release: root ## build what is published: packages, checksums and an apt repository, signed by RELEASE_KEY (root)
	@packaging/deps --test --release
	@packaging/deps arm64
	packaging/release

.PHONY: test
test: root deps ## run the unit and integration tests, then the package in a real Active Directory (root)
	@echo "make test takes 20 to 30 minutes on two cores: a third of it compiles, the rest tests in a real Active Directory"
	$(with_roots) forger redis pair -- $(again) programs
	@echo "cargo-deny runs, and the package is compiled, while the tests run, which mostly wait; their output comes after that of the tests"
	@nice $(again) deny deb >target/deb.log 2>&1 & deb=$$!; trap 'kill $$deb; exit 130' INT TERM; \
	{ RUST_TEST_THREADS=4 cargo test --locked && cargo test --locked --package motion-ad-model && $(again) test-node; } || \
	    { kill $$deb; exit 1; }; \
	tail --lines=+1 --follow --pid=$$deb target/deb.log; wait $$deb
	$(lab_tests) --suite

# Not in the help: compiles the tests and the lab's suite.
.PHONY: programs
programs:
	cargo test --locked --no-run
	cargo test --locked --package motion-ad-model --no-run
	cargo build --locked --package motion-ad-lab

# Without optimisation, and in a separate folder: `make test` builds the package at the same time.
.PHONY: test-node
test-node: ## test the npm package by node:test, with libpam and modules of Debian (Node.js 18 or later)
	@if command -v node >/dev/null; then \
	    cargo build --locked --package motion-ad-client && \
	    packaging/npm target/debug/libmotion_ad_client.so $(native) target/npm-test && \
	    MOTION_AD_CLIENT=$(CURDIR)/target/npm-test/package node --test clients/node/test/*.test.js; \
	else $(call skipped,node (Debian: nodejs) is not installed: the npm package was not tested); fi

.PHONY: test-matrix
test-matrix: root deps ## run the suite with Debian 12 and 13 as host and as domain controller: one table (root, more than an hour)
	$(MAKE) deb
	tests/lab/matrix $(CHAPTER)

.PHONY: test-failover
test-failover: root ## let domain controllers die under load, in every way to log in (root, a quarter of an hour)
	$(with_roots) forger pair -- $(again) deb
	$(lab_tests) --failover

.PHONY: test-sessions
test-sessions: root ## change passwords and fill the register of sessions, in a file and in Redis (root, a quarter of an hour)
	$(with_roots) redis pair -- $(again) deb
	$(lab_tests) --sessions

.PHONY: test-doctor
test-doctor: root ## break a host in every way that motion-ad doctor must name and fix (root, a quarter of an hour)
	$(with_roots) pair -- $(again) deb
	$(lab_tests) --doctor

# Minutes for the faults; the lab's start and end come in addition.
.PHONY: soak
soak: root ## log in while everything around the broker fails in turn; SOAK_MINUTES (60), SOAK_SEED (root)
	$(with_roots) redis pair -- $(again) deb
	$(lab_tests) --soak

.PHONY: bench
bench: root ## compare logins with the other PAM modules for AD in the lab; BENCH=quick in ten minutes (root)
	$(with_roots) -- $(again) deb
	$(shipped) cargo build --locked --release --package motion-ad --features motion-ad/generate \
	    --package motion-ad-bench --bin bench
	$(lab_tests) --bench

.PHONY: test-clients
test-clients: root ## log in by the PAM libraries of Node and Python, Apache, nginx and a browser (root, ten minutes)
	$(with_roots) clients workshop programs -- $(again) deb
	$(lab_tests) --clients

.PHONY: test-repository
test-repository: root ## install, upgrade and downgrade by apt from the repository of a release (root)
	packaging/deps --release
	$(with_roots) -- $(again) deb
	$(lab_tests) --repository

.PHONY: test-bridge
test-bridge: root ## log in by LDAP libraries of Node and Python through the bridge (root)
	$(with_roots) clients workshop programs -- $(again) deb
	$(lab_tests) --bridge

.PHONY: test-syscalls
test-syscalls: root ## let system calls of broker, bridge and module fail during logins (root)
	packaging/deps --strace
	$(with_roots) -- $(again) deb
	$(lab_tests) --syscalls

# Not optimised: that compiles in less than half the time, and shows the same logins. `make demo PROFILE=release` shows what
# is shipped.
.PHONY: demo
demo: PROFILE = dev
demo: root ## show logins on a real joined host with a real Active Directory (root)
	@echo "make demo takes about six minutes on two cores the first time, most of them for the compiler, and two minutes later:"
	@echo "1. Debian packages that the compiler needs, where some are missing"
	@packaging/deps
	@echo "2. compiling, and meanwhile two small Debian systems: a domain controller, and an XCALLY host"
	$(with_roots) -- $(again) deb PROFILE=$(PROFILE)
	@echo "3. the domain, the realm join, and the logins"
	$(lab_tests) --demo

# Not optimised, as for the demo: the pictures show the same.
.PHONY: pictures
pictures: PROFILE = dev
pictures: root ## renew the pictures of README.md from the lab, in docs/pictures (root)
	packaging/deps --pictures
	$(with_roots) clients workshop programs -- $(again) deb PROFILE=$(PROFILE)
	tests/lab/pictures

# Tools of the crates registry that are not on the PATH are installed in target/tools. They are compiled without optimisation,
# which takes a fraction of the time: one to two minutes each.
tool = { command -v $(1) >/dev/null || [ -x target/tools/bin/$(1) ] || \
	cargo install --quiet --locked --debug --root target/tools $(1); }
deny coverage mutants: export PATH := $(PATH):$(CURDIR)/target/tools/bin

# cargo-deny reads the manifests of all crates in Cargo.lock, also of those for other systems, which no build has downloaded.
.PHONY: deny
deny: build-deps ## check licences, bans and sources of every crate by cargo-deny, which it installs in target/tools
	$(call tool,cargo-deny)
	cargo fetch --quiet --locked
	cargo deny --offline --locked check bans licenses sources

.PHONY: lint-fast
lint-fast: ## check format and shell: the part of lint that takes seconds
	cargo fmt --check
	shellcheck --external-sources --source-path=SCRIPTDIR $(shell_scripts)

.PHONY: lint
lint: lint-fast ## check format, Rust, shell, licences and sources
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	@if command -v promtool >/dev/null; then cd packaging/examples && promtool check rules prometheus-alerts.yml \
	    && promtool test rules prometheus-alerts.test.yml; \
	else $(call skipped,promtool (Debian: prometheus) is not installed: the example's alerts were not checked); fi
	@if command -v ansible-lint >/dev/null; then ansible-lint --offline -q packaging/ansible/motion_ad packaging/ansible/playbook.yml; \
	else $(call skipped,ansible-lint is not installed: the role was not checked; make test-clients checks it); fi
	$(again) deny

# Not in `lint`, because it compiles everything again, in a separate folder.
.PHONY: msrv
msrv: build-deps ## check that everything compiles with the oldest Rust that Cargo.toml promises, which rustup brings
	@if rustup toolchain install --profile minimal --no-self-update $(oldest_rust); then \
	    export CARGO_TARGET_DIR=target/msrv && \
	    cargo +$(oldest_rust) check --locked --workspace --all-targets && \
	    cargo +$(oldest_rust) check --locked --lib --no-default-features; \
	else $(call skipped,rustup has no Rust $(oldest_rust): the oldest supported Rust was not checked); fi

.PHONY: model
model: ## explore every interleaving of the sessions' protocol with larger bounds (minutes, and gigabytes of memory)
	MODEL_BOUNDS=large cargo test --locked --package motion-ad-model -- --nocapture

# Sanitizers need a nightly toolchain; its standard library is the one that comes with it. The dependencies are those of
# Cargo.lock, to which cargo adds the fuzzer's own.
fuzz_flags := --cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,level=4 \
	inline-8bit-counters pc-table trace-compares)

.PHONY: fuzz
fuzz: build-deps ## run the fuzz targets for FUZZ_SECONDS each (600); FUZZ="dn name" for some, KEEP=1 keeps what reached new code
	cp Cargo.lock fuzz
	RUSTFLAGS="$(fuzz_flags)" cargo +nightly build --release --target $(rust) --manifest-path fuzz/Cargo.toml
	FUZZ_PROGRAM=$(CURDIR)/fuzz/target/$(rust)/release/any fuzz/run $(if $(KEEP),--keep) $(FUZZ)

# What the module has in the application's process and no C. Few cases of each property, because miri is hundreds of times slower
# than the processor, and without three tests that visit all of Unicode.
miri_rooms := module::arguments module::code module::memory name:: protocol:: scarce:: texts:: verdict::
miri_skips := $(addprefix --skip ,each_letter every_letter these_are_all)

.PHONY: miri
miri: build-deps ## run the module's tests that call no C under miri (a nightly toolchain with miri and rust-src; ten minutes)
	PROPTEST_CASES=3 MIRIFLAGS=-Zmiri-disable-isolation \
	    cargo +nightly miri test --locked --no-default-features --lib -- $(miri_skips) $(miri_rooms)

.PHONY: coverage
coverage: test-deps ## lines that `cargo test` runs, by part of src; installs cargo-llvm-cov in target/tools (a quarter of an hour)
	$(call tool,cargo-llvm-cov)
	tests/coverage

# What decides a login. Each mutant is compiled and tested by itself, so all of them take hours.
mutants := src/directory/passwords/refusal.rs src/directory/people/account.rs src/directory/people/groups.rs src/login/** \
	src/module/code.rs src/module/memory.rs src/name.rs src/sessions/rule.rs src/verdict.rs

.PHONY: mutants
mutants: test-deps ## change what decides a login line by line, and see a test fail; MUTANTS="src/name.rs" for some files (hours)
	$(call tool,cargo-mutants)
	cargo mutants --package motion-ad --output target $(foreach file,$(or $(MUTANTS),$(mutants)),--file '$(file)') -- \
	    --lib --test broker --test controllers

# A nightly toolchain with its source: rustup toolchain install nightly --component rust-src. It needs seven gigabytes in target.
.PHONY: sanitize
sanitize: ## run the module under libpam, and the Kerberos bindings, with sanitizers and valgrind (half an hour)
	packaging/deps --valgrind
	tests/sanitize

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
