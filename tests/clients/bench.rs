//! What `make bench` runs beside the suite, as it is shipped: optimised. Not shipped itself.
//!
//! `bench client` logs in through PAM and binds on open connections, as the suite tells it on standard input;
//! `bench server CERTIFICATE KEY` is a domain controller that answers every bind at once.
// The calls of an application are C.
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
