//! Runs the target of `src/fuzzing` that the environment variable FUZZ_TARGET names. One program for all
//! targets is compiled and linked once.
#![no_main]

use std::sync::LazyLock;

use motion_ad::fuzzing::{TARGETS, Target, target};

static CHOSEN: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let all: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET={name} is no target; there are: {}", all.join(" "));
        std::process::exit(2);
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (CHOSEN.run)(data));
