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
        // clap_complete 4.6: for a program with a hyphen, bash looks up the commands by another name than the
        // list has.
        let text = String::from_utf8_lossy(&text).replace("motion__subcmd__ad__", "motion__ad__");
        let text = match shell {
            Shell::Zsh => with_sessions(&text),
            _ => text + more(shell),
        };
        fs::create_dir_all(folder.join(name))?;
        fs::write(folder.join(name).join(file), text)?;
    }
    Ok(())
}

/// Completes ids and names of open sessions, which only root and the users of `broker.users` may list.
/// `motion-ad complete` prints only words that mean nothing to a shell; bash's `compgen -W` would still run
/// what they hold.
const BASH: &str = r#"
_motion_ad_sessions() {
    _motion__ad "$@"
    local kind="" word cur="${COMP_WORDS[COMP_CWORD]}"
    case " ${COMP_WORDS[*]:0:COMP_CWORD} " in
        *" sessions "*" --user ") kind=names ;;
        *" sessions kick "* | *" sessions end "* | *" sessions show "*) [[ $cur == -* ]] || kind=ids ;;
    esac
    [[ -n $kind ]] || return 0
    COMPREPLY=()
    while IFS= read -r word; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done < <(motion-ad complete "$kind" 2>/dev/null)
    return 0
}
complete -F _motion_ad_sessions -o bashdefault -o default motion-ad
"#;

/// The same for fish.
const FISH: &str = r#"
complete -c motion-ad \
    -n "__fish_seen_subcommand_from sessions; and __fish_seen_subcommand_from kick end show" \
    -f -a "(motion-ad complete ids 2>/dev/null)"
complete -c motion-ad \
    -n "__fish_seen_subcommand_from sessions; and __fish_seen_subcommand_from kick list" \
    -l user -x -a "(motion-ad complete names 2>/dev/null)"
"#;

/// The same for zsh, as functions that [`with_sessions`] names where clap_complete has nothing to offer.
const ZSH: &str = r#"_motion_ad_open() {
    local -a found=("${(@f)$(motion-ad complete $1 2>/dev/null)}")
    found=("${(@)found:#}")
    compadd -a found
}
_motion_ad_ids() { _motion_ad_open ids }
_motion_ad_names() { _motion_ad_open names }

"#;

/// Returns zsh's completion with the ids and names of open sessions.
fn with_sessions(text: &str) -> String {
    const BEGIN: &str = "if [ \"$funcstack[1]\"";
    let line = |line: &str| match line {
        user if user.starts_with("'--user=[") => user.replace(":NAME:_default", ":NAME:_motion_ad_names"),
        id if id.contains(":id -- ") || id.contains(":ids -- ") => id.replace(":_default", ":_motion_ad_ids"),
        other => other.to_owned(),
    };
    let lines: String = text.lines().map(|one| line(one) + "\n").collect();
    lines.replacen(BEGIN, &format!("{ZSH}{BEGIN}"), 1)
}

/// Returns what a shell's completion has in addition to the arguments.
fn more(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => BASH,
        Shell::Fish => FISH,
        _ => "",
    }
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
