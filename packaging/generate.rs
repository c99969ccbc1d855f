//! Writes the files that are generated: most of them from the tables of the programs. The arguments choose
//! one:
//!
//! - `FOLDER`: the man pages
//! - `--completions FOLDER`: the completions for bash, zsh and fish
//! - `--sbom ARCHITECTURE TARGET`: the list of the package's parts, to standard output
//! - `--config`: the shipped `config.toml`, to standard output
//! - `--codes`: `docs/log-and-codes.md`, to standard output
//! - `--outcomes`: `clients/node/lib/outcomes.json`, to standard output
//!
//! This is a binary for `make deb`, which needs none of the tests' dependencies, and the example `man`
//! (`man.rs`) where the tests are built anyway: cargo builds the libraries a second time if the tests'
//! dependencies are among them.

mod codes;
mod completions;
mod outcomes;
#[path = "man/pages.rs"]
mod pages;
mod sbom;

use std::error::Error;
use std::path::Path;

use motion_ad::config::keys;

/// Writes what the arguments choose.
pub fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--config"] => print!("{}", keys::example()),
        ["--codes"] => print!("{}", codes::document()),
        ["--outcomes"] => print!("{}", outcomes::document()),
        ["--completions", folder] => completions::write(Path::new(folder))?,
        ["--sbom", architecture, target] => println!("{}", sbom::document(architecture, target)?),
        [folder] if !folder.starts_with('-') => pages::write(Path::new(folder))?,
        _ => {
            let usage = "FOLDER | --completions FOLDER | --sbom ARCHITECTURE TARGET | --config | --codes | \
                         --outcomes";
            return Err(format!("usage: {usage}").into());
        }
    }
    Ok(())
}
