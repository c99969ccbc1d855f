//! Programs that `make bench` runs next to the suite, optimized like the shipped ones. They are not shipped.
//!
//! `bench client` logs in through PAM and binds on open connections, as the suite commands on standard input.
//! `bench server CERTIFICATE KEY` is a domain controller that answers every bind at once.
// The client calls libpam through its C interface.
#![allow(unsafe_code)]

#[path = "bench/bind.rs"]
mod bind;
#[path = "bench/client.rs"]
mod client;
#[path = "libpam.rs"]
#[allow(dead_code)]
mod libpam;
#[path = "bench/plan.rs"]
mod plan;
#[path = "bench/server.rs"]
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["client"] => client::run(),
        ["server", certificate, key] => server::run(certificate, key),
        _ => Err("usage: bench client | bench server CERTIFICATE KEY".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
