//! `motion-ad doctor --fix`: shows each fix, prompts, applies it, checks again, and undoes it on a failure.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::Uid;
use tokio::runtime::Runtime;

use super::{Found, report};
use crate::doctor::{Edit, Finding, Fix, Level, Options, Run, diff, examine};
use crate::helper::setup::write;
use crate::helper::{Doctor, Exit, Failure, Page, show};

/// Folder of the original files, each with the time of the change in its name.
const BACKUP: &str = "/etc/motion-ad/backup";
/// Maximum number of changes in one run.
const CHANGES: usize = 10;
/// Pauses before each new check after a change, in seconds: the broker notices a new file within two seconds
/// and then restarts.
const PAUSES: [u64; 4] = [0, 3, 4, 8];

/// Fixes one finding after the other, and returns the report on the rest.
pub(super) fn fix(args: &Doctor, runtime: &Runtime, options: &dyn Fn() -> Options) -> Result<Page, Failure> {
    if !Uid::effective().is_root() {
        return Err(Failure::NotDone("--fix needs root: use `sudo`".to_owned()));
    }
    let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.yes && !can_ask {
        let text = "there is no terminal to ask on; scripts use --fix --yes";
        return Err(Failure::NotDone(text.to_owned()));
    }
    let mut refused = BTreeSet::new();
    let mut found = runtime.block_on(examine(options()));
    for _ in 0..CHANGES {
        let Some((id, finding, fixes)) = next(&found, &refused) else { break };
        say(&format!("{id}: {}", finding.seen))?;
        for fix in &fixes {
            say(&plan(fix))?;
        }
        if !args.yes && !asked()? {
            refused.insert(id);
            continue;
        }
        let done = apply(&fixes);
        found = settled(runtime, options, id, finding.level);
        let is_better = level_of(&found, id) < finding.level && done.error.is_none();
        match (is_better, &done.error) {
            (true, _) => say(&format!("done{}", done.kept()))?,
            (false, error) => {
                let cause = error.clone().unwrap_or_else(|| "the check does not pass".to_owned());
                say(&format!("{cause}: {}", take_back(&done)))?;
                refused.insert(id);
                found = runtime.block_on(examine(options()));
            }
        }
    }
    Ok(Page { text: report::text(&found, None), exit: Exit::from(super::worst(&found)) })
}

/// Returns the first of the worst findings that have an automatic fix.
fn next(found: &Found, refused: &BTreeSet<&'static str>) -> Option<(&'static str, Finding, Vec<Fix>)> {
    let can = |level: Level| {
        found.iter().find_map(|(check, finding)| {
            let fixes: Vec<_> = finding.fix.iter().filter(|fix| fix.is_automatic()).cloned().collect();
            let is_next = finding.level == level && !refused.contains(check.id) && !fixes.is_empty();
            is_next.then(|| (check.id, finding.clone(), fixes))
        })
    };
    can(Level::Failure).or_else(|| can(Level::Warning))
}

fn level_of(found: &Found, id: &str) -> Level {
    let of = found.iter().find(|(check, _)| check.id == id);
    // A check that was skipped has not passed.
    of.map_or(Level::Failure, |(_, finding)| match finding.level {
        Level::Skipped => Level::Failure,
        level => level,
    })
}

/// Checks again until the check passes or the pauses are over.
fn settled(runtime: &Runtime, options: &dyn Fn() -> Options, id: &str, before: Level) -> Found {
    let mut found = Found::new();
    for pause in PAUSES {
        std::thread::sleep(Duration::from_secs(pause));
        found = runtime.block_on(examine(options()));
        if level_of(&found, id) < before {
            break;
        }
    }
    found
}

fn plan(fix: &Fix) -> String {
    match fix {
        Fix::Edit(edit) => diff(edit),
        Fix::Run(run) => format!("  {}", run.shown()),
        Fix::Command { .. } | Fix::Advice { .. } => String::new(),
    }
}

fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for line in text.lines() {
        writeln!(out, "{}", show::escape(line))?;
    }
    Ok(out.flush()?)
}

fn asked() -> Result<bool, Failure> {
    let mut err = io::stderr().lock();
    write!(err, "Apply this? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::Input)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// The applied fixes, and how to undo them.
#[derive(Default)]
struct Done {
    /// Each file, with the copy of the original if there was one.
    files: Vec<(Edit, Option<PathBuf>)>,
    /// Commands that undo others, in the order of those.
    undo: Vec<Vec<String>>,
    /// True if any of it cannot be undone.
    is_final: bool,
    error: Option<String>,
}

impl Done {
    fn kept(&self) -> String {
        let copies: Vec<_> = self
            .files
            .iter()
            .filter_map(|(_, copy)| copy.as_ref())
            .map(|copy| copy.display().to_string())
            .collect();
        if copies.is_empty() { String::new() } else { format!("; the file as it was: {}", copies.join(", ")) }
    }
}

fn apply(fixes: &[Fix]) -> Done {
    let mut done = Done::default();
    for fix in fixes {
        let applied = match fix {
            Fix::Edit(edit) => {
                change(edit, Path::new(BACKUP)).map(|copy| done.files.push((edit.clone(), copy)))
            }
            Fix::Run(run) => run_all(run, &mut done),
            Fix::Command { .. } | Fix::Advice { .. } => Ok(()),
        };
        if let Err(cause) = applied {
            done.error = Some(cause);
            break;
        }
    }
    done
}

fn run_all(run: &Run, done: &mut Done) -> Result<(), String> {
    match run.undo() {
        // The last command is undone first.
        Some(undo) => done.undo.extend(undo.into_iter().rev()),
        None => done.is_final = true,
    }
    run.commands().iter().try_for_each(|command| execute(command))
}

fn execute(command: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let shown = command.join(" ");
    let ran = Command::new(program).args(arguments).current_dir("/").stdin(Stdio::null()).output();
    match ran {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => Err(format!("{shown}: {}", String::from_utf8_lossy(&ran.stderr).trim())),
        Err(e) => Err(format!("{shown}: {e}")),
    }
}

/// Changes the file, if it still has the text that the check saw. Returns the path of the original's copy.
fn change(edit: &Edit, folder: &Path) -> Result<Option<PathBuf>, String> {
    let file = edit.file();
    let failed = |e: io::Error| format!("{}: {e}", file.display());
    let is_plain = match fs::symlink_metadata(file) {
        Ok(found) => found.is_file(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    };
    if !is_plain {
        return Err(format!("{} is no plain file, and stays as it is", file.display()));
    }
    if read(file).map_err(failed)?.as_deref() != edit.before() {
        return Err(format!("{} has changed since it was read, and stays as it is", file.display()));
    }
    let copy = match edit.before() {
        Some(before) => Some(write::backup(file, before, folder).map_err(failed)?),
        None => None,
    };
    write::put(file, edit.after()).map_err(failed)?;
    Ok(copy)
}

fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Undoes everything, last change first. Returns the result in words.
fn take_back(done: &Done) -> String {
    let mut failed = Vec::new();
    for (edit, _) in done.files.iter().rev() {
        let file = edit.file();
        let restored = match (read(file), edit.before()) {
            // A later change by another program is not ours to undo.
            (Ok(now), _) if now.as_deref() != Some(edit.after()) => {
                Err(io::Error::other("it has changed since the fix, and stays as it is"))
            }
            (Err(e), _) => Err(e),
            (Ok(_), Some(before)) => write::put(file, before),
            (Ok(_), None) => fs::remove_file(file),
        };
        failed.extend(restored.err().map(|e| format!("{}: {e}", file.display())));
    }
    failed.extend(done.undo.iter().rev().filter_map(|command| execute(command).err()));
    match (failed.as_slice(), done.is_final) {
        ([], false) => "undone".to_owned(),
        ([], true) => {
            "undone, except for what cannot be undone: a start, a new user or a new socket".to_owned()
        }
        (failed, _) => format!("not undone: {}{}", failed.join("; "), done.kept()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Check;

    #[test]
    fn the_first_of_the_worst_that_can_be_fixed_comes_first() {
        let check = |id| Check::find(id).unwrap();
        let run = || Run::MakeUser;
        let found: Found = vec![
            (check("root"), Finding::warning("w").run(run())),
            (check("broker-user"), Finding::failure("no way")),
            (check("socket-unit"), Finding::failure("f").run(run())),
            (check("service-unit"), Finding::failure("f").run(run())),
        ];
        let id =
            |refused: &[&'static str]| next(&found, &refused.iter().copied().collect()).map(|(id, ..)| id);
        assert_eq!(id(&[]), Some("socket-unit"));
        assert_eq!(id(&["socket-unit", "service-unit"]), Some("root"));
        assert_eq!(id(&["socket-unit", "service-unit", "root"]), None);
    }

    #[test]
    fn what_is_taken_back_is_as_it_was_with_owner_and_mode() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

        let folder = tempfile::tempdir().unwrap();
        let (file, copies) = (folder.path().join("motion"), folder.path().join("backup"));
        let before = "# mine\r\nauth required x.so";
        let written = || (fs::read_to_string(&file).unwrap(), fs::metadata(&file).unwrap());
        fs::write(&file, before).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(&file, Some(7), Some(8)).unwrap();
        }
        let (_, was) = written();
        let owner = |found: &fs::Metadata| (found.uid(), found.gid(), found.mode());
        let edit = Edit::any(&file, Some(before), "new\n");
        let apply = || {
            let copy = change(&edit, &copies).unwrap();
            assert_eq!(fs::read_to_string(copy.as_ref().unwrap()).unwrap(), before);
            let (text, found) = written();
            assert_eq!((text.as_str(), owner(&found)), ("new\n", owner(&was)));
            Done { files: vec![(edit.clone(), copy)], ..Done::default() }
        };
        assert_eq!(take_back(&apply()), "undone");
        let (text, found) = written();
        assert_eq!((text.as_str(), owner(&found)), (before, owner(&was)));
        // A later change by another program stays.
        let done = apply();
        fs::write(&file, "theirs\n").unwrap();
        let said = take_back(&done);
        assert!(said.starts_with("not undone: ") && said.contains("the file as it was: "), "{said}");
        assert_eq!(written().0, "theirs\n");
        // A file that has changed since the check is not changed either.
        assert!(change(&edit, &copies).unwrap_err().contains("has changed since it was read"));

        // A file that did not exist is removed again.
        let new = folder.path().join("new");
        let edit = Edit::any(&new, None, "text\n");
        assert_eq!(change(&edit, &copies), Ok(None));
        assert_eq!(take_back(&Done { files: vec![(edit, None)], ..Done::default() }), "undone");
        assert!(!new.exists());
    }

    #[test]
    fn a_command_that_fails_says_what_it_was() {
        let command = ["false".to_owned(), "x".to_owned()];
        assert_eq!(execute(&command), Err("false x: ".to_owned()));
        assert_eq!(execute(&["true".to_owned()]), Ok(()));
    }
}
