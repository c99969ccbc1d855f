//! The helper for people and scripts.

use std::alloc::System;
use std::process::ExitCode;

use motion_ad::helper::{self, Cli, Exit};
use zeroizing_alloc::ZeroAlloc;

/// The terminal's line passes through buffers of libraries before it is a `Secret`.
#[global_allocator]
static WIPED: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    match Cli::read() {
        Ok(cli) => helper::run(&cli),
        Err(e) => {
            // Nobody is left to be told when not even this can be written.
            let _ = e.print();
            if e.use_stderr() { Exit::Usage } else { Exit::Yes }
        }
    }
    .into()
}
