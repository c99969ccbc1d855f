//! Programs that `make bench` runs next to the suite, optimized like the shipped ones. They are not shipped.
//!
//! `bench client` logs in through PAM and binds on open connections, as the suite commands on standard input.
//! `bench server CERTIFICATE KEY` is a domain controller that answers every bind at once.
#![allow(missing_docs)]
// The client loads PAM modules and reads the clock of its own CPU time by calls of C.
#![allow(unsafe_code)]

mod bind;
mod client;
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
