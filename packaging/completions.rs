//! Writes the completions of `motion-ad`, from its arguments, to a folder for each shell.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use motion_ad::helper::Cli;

/// The name of the program.
const NAME: &str = "motion-ad";

/// Each shell with its folder, and the name of the file there that the shell loads.
pub const SHELLS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "bash", "motion-ad"),
    (Shell::Zsh, "zsh", "_motion-ad"),
    (Shell::Fish, "fish", "motion-ad.fish"),
];

/// Writes every completion to its folder in `folder`.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn write(folder: &Path) -> io::Result<()> {
    for (shell, name, file) in SHELLS {
        let mut text = Vec::new();
        generate(shell, &mut shown(&Cli::command()), NAME, &mut text);
        // clap_complete 4.6: for a program with a hyphen, bash looks up the commands by another name than the list has.
        let text = String::from_utf8_lossy(&text).replace("motion__subcmd__ad__", "motion__ad__");
        fs::create_dir_all(folder.join(name))?;
        fs::write(folder.join(name).join(file), text)?;
    }
    Ok(())
}

/// Returns a copy of a command without its hidden subcommands, so that no shell offers them.
fn shown(command: &Command) -> Command {
    let below = command.get_subcommands().filter(|one| !one.is_hide_set()).map(shown);
    // clap requires a `'static` name; the leak ends with this short program.
    let name: &'static str = command.get_name().to_owned().leak();
    let copy = Command::new(name)
        .about(command.get_about().cloned().unwrap_or_default())
        .args(command.get_arguments().cloned())
        .groups(command.get_groups().cloned())
        .subcommands(below);
    match command.get_version() {
        Some(_) => copy.version(env!("CARGO_PKG_VERSION")),
        None => copy,
    }
}
