//! The helper for administrators and scripts.

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
            // If even this cannot be written, nothing is left to report it to.
            let _ = e.print();
            if e.use_stderr() { Exit::Usage } else { Exit::Yes }
        }
    }
    .into()
}
