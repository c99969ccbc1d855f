//! Writes the files that are generated from the tables of the programs. `cargo run --example man -- FOLDER` writes the
//! man pages; another first word writes another file:
//!
//! - `--completions FOLDER`: the completions for bash, zsh and fish
//! - `--config`: the shipped `config.toml`
//! - `--codes`: `docs/log-and-codes.md`

mod codes;
mod completions;
#[path = "man/pages.rs"]
mod pages;

use std::error::Error;
use std::path::Path;

use motion_ad::config::keys;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--config"] => print!("{}", keys::example()),
        ["--codes"] => print!("{}", codes::document()),
        ["--completions", folder] => completions::write(Path::new(folder))?,
        [folder] if !folder.starts_with('-') => pages::write(Path::new(folder))?,
        _ => return Err("usage: man FOLDER | --completions FOLDER | --config | --codes".into()),
    }
    Ok(())
}
