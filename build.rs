//! Link arguments of the PAM module.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Without the feature `broker` the only thing that is linked is the module (see the Makefile).
    if std::env::var_os("CARGO_FEATURE_BROKER").is_none() {
        // libpam unmaps a module at every pam_end, while other threads of the application may still hold
        // thread-local destructors that point into it (observed with pam_sss). The module stays mapped.
        println!("cargo::rustc-link-arg=-Wl,-z,nodelete");
        // A sanitizer's functions are in the executable that loads the module (see tests/sanitize).
        if std::env::var_os("CARGO_CFG_SANITIZE").is_none() {
            println!("cargo::rustc-link-arg=-Wl,-z,defs");
        }
    }
}
