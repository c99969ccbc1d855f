//! `motion-ad setup --bridge` and `--no-bridge`: point XCALLY's own integration at the LDAP bridge instead of
//! a domain controller.
//!
//! Only the necessary lines of `.env` change. The original file is kept in a folder for root only, so that
//! `--no-bridge` can restore the old values.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Uid, User};

use super::super::{Cli, Exit, Failure, Page, Setup, is_denied, print, show};
use super::env::File;
use super::kept::{self, BACKUP, Kept};
use super::lines::{Change, URL, back, changes, is_bridged, name, needs_admin, overwrites};
use super::units::{self, Bridge, SERVICE, SOCKET};
use super::{config, env_path, read_or_example};
use crate::config::admin::{ADMIN, AdminError, LocalAdmin};
use crate::config::xcally::ENV;
use crate::config::xcally::change::has;
use crate::doctor::application::bind_as;

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 3890);

/// Shows the change, and applies it on request.
pub(super) fn bridge(cli: &Cli, args: &Setup) -> Result<Page, Failure> {
    let file = File::read(env_path(args))?;
    let config = config(cli, &read_or_example(&cli.config)?, is_denied(&cli.sssd))?;
    let known = known(args)?;
    let is_new = known.is_none() || args.new_secret;
    let admin = match known.clone().filter(|_| !is_new) {
        Some(admin) => admin,
        None => LocalAdmin::make().map_err(|error| Failure::Write { file: ADMIN.into(), error })?,
    };
    let changes = changes(&file.text, &config, &admin);
    file.changed(&changes)?;
    match Kept::read(Path::new(BACKUP)) {
        Ok(Some(copy)) => other(&copy, &file, known.as_ref())?,
        // As for the admin.
        Err(Failure::Denied(_)) if !args.apply => {}
        copy => drop(copy?),
    }
    let host = Bridge { admin: Path::new(ADMIN), systemctl: &units::systemctl };
    let text = shown(&file, &changes, "the LDAP bridge of this host");
    if !args.apply {
        return Ok(proposed(&file, &changes, text, host.is_on()));
    }
    let Some(text) = agreed(args, &file, &changes, text)? else {
        return Ok(Page { text: "Nothing is written.\n".to_owned(), exit: Exit::No });
    };
    let kept = copied(Path::new(BACKUP), &file, &changes, known.as_ref())?;
    let has_admin = needs_admin(&file.text);
    let new = Some(&admin).filter(|_| has_admin && is_new);
    let stays = is_bridged(&file.text, known.as_ref());
    let tried = switch(&host, new, stays, &file, &changes, || tried(&file, has_admin.then_some(&admin)))?;
    let written = written(&file, &changes);
    Ok(Page { text: format!("{text}\n{written}.\n{kept}{tried}.\n{}", reading(&file)), exit: Exit::Yes })
}

/// Reads the present local admin. Returns `None` if there is none that the bridge can use.
fn known(args: &Setup) -> Result<Option<LocalAdmin>, Failure> {
    match LocalAdmin::load(Path::new(ADMIN)) {
        Ok(admin) => Ok(admin),
        // A user other than root may see what would change.
        Err(AdminError::Read(error)) if error.kind() == io::ErrorKind::PermissionDenied && !args.apply => {
            Ok(None)
        }
        Err(AdminError::Read(error)) => Err(Failure::Write { file: ADMIN.into(), error }),
        // The bridge cannot use such a file: a new one takes its place.
        Err(AdminError::NoLine | AdminError::Short) => Ok(None),
    }
}

/// Returns an error if the copy is that of another file that still names the bridge: there is one copy, and
/// one secret.
fn other(copy: &Kept, file: &File, admin: Option<&LocalAdmin>) -> Result<(), Failure> {
    let place = file.place().ok();
    let Some(of) = place.and_then(|place| copy.of_another(&place)) else { return Ok(()) };
    match File::read_or_none(Path::new(of)) {
        Ok(None) => Ok(()),
        Ok(Some(other)) if !is_bridged(&other.text, admin) => Ok(()),
        Ok(Some(_)) | Err(_) => Err(Failure::Application(format!(
            "{} is the copy of {of}, which uses the bridge already. Only one file can: first run `motion-ad \
             setup --no-bridge --env {of} --apply`",
            copy.file().display()
        ))),
    }
}

/// Returns the page without `--apply`.
fn proposed(file: &File, changes: &[Change], text: String, is_on: bool) -> Page {
    let path = file.path.display();
    let apply = again(file, "--bridge");
    let (rest, exit) = match (changes.is_empty(), is_on) {
        (true, true) => ("The bridge is on.\n".to_owned(), Exit::Yes),
        (true, false) => {
            let text = "is not enabled and active, so no AD user can log in to XCALLY";
            (format!("{SOCKET} {text}: `{apply}` turns the bridge on\n"), Exit::No)
        }
        (false, _) => (format!("Nothing is written yet; `{apply}` writes {path}\n"), Exit::No),
    };
    Page { text: format!("{text}\n{rest}"), exit }
}

/// Copies the file before its change, if it holds anything but setup's own values. Returns the text about it.
fn copied(
    folder: &Path,
    file: &File,
    changes: &[Change],
    admin: Option<&LocalAdmin>,
) -> Result<String, Failure> {
    if changes.is_empty() {
        return Ok(String::new());
    }
    let told = |what: &str, copy: &Path| format!("{what}: {}, which only root can read.\n", copy.display());
    if is_bridged(&file.text, admin) {
        // The copy from before the bridge stays.
        return match overwrites(changes, &file.text, admin) {
            true => Ok(told("The file as it was edited", &kept::aside(folder, &file.text)?)),
            false => Ok(String::new()),
        };
    }
    let (copy, earlier) = kept::keep(folder, &file.place()?, &file.text)?;
    let earlier = earlier.map(|earlier| told("An earlier copy", &earlier)).unwrap_or_default();
    Ok(told("The file as it was", &copy) + &earlier)
}

/// Turns the bridge on, tries it, and only then writes the `.env`: XCALLY must not be sent to a bridge that
/// does not answer.
///
/// # Errors
/// If a step fails. The `.env` is then unchanged, and the bridge as it was before.
fn switch(
    host: &Bridge<'_>,
    new: Option<&LocalAdmin>,
    stays: bool,
    file: &File,
    changes: &[Change],
    tried: impl FnOnce() -> Result<String, String>,
) -> Result<String, Failure> {
    let failed =
        |cause: String| Failure::Application(format!("{cause}. {} is unchanged", file.path.display()));
    let before = host.on(new, stays).map_err(failed)?;
    let wrong = |cause| {
        format!("the bridge does not answer as it should: {cause}; see `systemctl status {SOCKET} {SERVICE}`")
    };
    let write = |said| file.change(changes).map(|()| said).map_err(|failure| failure.to_string());
    let done = tried().map_err(wrong).and_then(write);
    done.map_err(|cause| failed(cause + &host.take_back(&before)))
}

/// Restores the old values of the properties.
pub(super) fn no_bridge(args: &Setup) -> Result<Page, Failure> {
    let file = File::read(env_path(args))?;
    let known = LocalAdmin::load(Path::new(ADMIN)).ok().flatten();
    let copy = original(Path::new(BACKUP), &file, known.as_ref())?;
    let changes = back(&file.text, &copy.text);
    file.changed(&changes)?;
    let text = shown(&file, &changes, "the domain controller from before the bridge");
    let apply = again(&file, "--no-bridge");
    if !args.apply {
        let rest = match changes.is_empty() {
            true => format!("`{apply}` turns the bridge off"),
            false => format!("Nothing is written yet; `{apply}` writes {}", file.path.display()),
        };
        return Ok(Page { text: format!("{text}\n{rest}\n"), exit: Exit::No });
    }
    let Some(text) = agreed(args, &file, &changes, text)? else {
        return Ok(Page { text: "Nothing is written.\n".to_owned(), exit: Exit::No });
    };
    let kept = match overwrites(&changes, &file.text, known.as_ref()) {
        true => {
            let copy = kept::aside(Path::new(BACKUP), &file.text)?;
            format!("The file as it was edited: {}, which only root can read.\n", copy.display())
        }
        false => String::new(),
    };
    // XCALLY must not be sent to a bridge that is off.
    file.change(&changes)?;
    let written = written(&file, &changes);
    let host = Bridge { admin: Path::new(ADMIN), systemctl: &units::systemctl };
    // The copy is removed last: a second run needs it.
    let remove = || units::remove(copy.file()).map_err(|e| format!("{}: {e}", copy.file().display()));
    host.off().and_then(|()| remove()).map_err(|cause| {
        Failure::Application(format!(
            "{written}, but the bridge is not off yet: {cause}; then run `{apply}` again"
        ))
    })?;
    let text =
        format!("{text}\n{written}, the bridge is off, and its secret is gone.\n{kept}{}", reading(&file));
    Ok(Page { text, exit: Exit::Yes })
}

/// Returns the copy from before the bridge.
///
/// # Errors
/// If there is none for this file, or it does not hold the old values.
fn original(folder: &Path, file: &File, admin: Option<&LocalAdmin>) -> Result<Kept, Failure> {
    let unknown = |copy: &Path, cause: &str| {
        Failure::Application(format!(
            "{}: {cause}, so the old values are not known: set {}, ADMIN and PASSWORD yourself, and then \
             turn the bridge off by `systemctl disable --now {SOCKET} {SERVICE}`",
            copy.display(),
            name("URL")
        ))
    };
    let Some(copy) = Kept::read(folder)? else {
        return Err(unknown(&kept::path(folder), "there is no such file"));
    };
    let place = file.place()?;
    if let Some(of) = copy.of_another(&place) {
        return Err(Failure::Application(format!(
            "{} is the copy of {of}, not of {place}: name that file with --env. If it has moved, correct the \
             first line of the copy",
            copy.file().display()
        )));
    }
    let names_bridge = has(&copy.text, &name("URL"), URL.as_bytes());
    match names_bridge || is_bridged(&copy.text, admin) {
        true => Err(unknown(copy.file(), "the file names the bridge itself")),
        false => Ok(copy),
    }
}

/// Returns the command that applies the change to this file.
fn again(file: &File, way: &str) -> String {
    match file.path == Path::new(ENV) {
        true => format!("motion-ad setup {way} --apply"),
        false => format!("motion-ad setup {way} --env {} --apply", file.path.display()),
    }
}

fn written(file: &File, changes: &[Change]) -> String {
    let path = file.path.display();
    if changes.is_empty() { format!("{path} stays as it is") } else { format!("{path} is written") }
}

fn shown(file: &File, changes: &[Change], whom: &str) -> String {
    let path = file.path.display();
    if changes.is_empty() {
        return format!("{path} stays as it is: it names {whom} already\n");
    }
    let line = |change: &Change| {
        let Change { short, was, becomes, .. } = change;
        format!("  {}\n    was: {}\n    new: {}\n", name(short), show::escape(was), show::escape(becomes))
    };
    let lines: String = changes.iter().map(line).collect();
    format!("{path}: XCALLY will query {whom}\n{lines}")
}

/// Returns the text that is still unprinted, if the administrator agrees to the change. Only for `--apply`.
fn agreed(args: &Setup, file: &File, changes: &[Change], text: String) -> Result<Option<String>, Failure> {
    if !Uid::effective().is_root() {
        return Err(Failure::Application("--apply needs root: use `sudo`".to_owned()));
    }
    if args.yes || changes.is_empty() || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(Some(text));
    }
    print(Page { text, exit: Exit::No })?;
    Ok(super::asked(&file.path)?.then(String::new))
}

/// Tests a bind as the application's user, which owns the `.env`: as the admin, or, if XCALLY has none,
/// without a password, which the bridge rejects with a distinct code.
fn tried(file: &File, admin: Option<&LocalAdmin>) -> Result<String, String> {
    const UNWILLING_TO_PERFORM: u32 = 53;
    let owner = User::from_uid(Uid::from_raw(file.metadata.uid())).ok().flatten();
    let owner = owner.ok_or_else(|| format!("{} belongs to no user of this host", file.path.display()))?;
    let (bind, expected) = match admin {
        Some(admin) => ((admin.name.as_str(), admin.secret.clone()), 0),
        None => (("motion-ad-setup", crate::protocol::Secret::default()), UNWILLING_TO_PERFORM),
    };
    let code = bind_as(&owner, SocketAddr::from(ADDRESS), bind.0, &bind.1)?.code;
    match code == expected {
        true => Ok(format!("A bind as the user {} works", owner.name)),
        false => Err(format!("a bind as the user {} was answered with the LDAP result {code}", owner.name)),
    }
}

/// Explains how XCALLY reads the file.
fn reading(file: &File) -> String {
    let folder = file.path.parent().unwrap_or(Path::new("/")).display();
    format!(
        "XCALLY reads the file only when it is initialized again. As root, run its vendor's commands:\n    \
         service motion stop\n    su - motion -c 'cd {folder} && npm run initialize'\n    \
         service motion start\n"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;
    use crate::protocol::Secret;

    const SECRET: &str = "feedfeedfeedfeedfeedfeedfeedfeed";
    const ENV: &str = "XC_ACTIVEDIRECTORY_ADMIN='cn=admin,dc=acme,dc=com'\n\
        XC_ACTIVEDIRECTORY_PASSWORD='Hush-1'\nXC_ACTIVEDIRECTORY_BASE_DN='dc=acme,dc=com'\n\
        XC_ACTIVEDIRECTORY_URL='ldap://ad.acme.com'\nXC_ACTIVEDIRECTORY_DOMAIN='acme.com'\n";

    /// A host with a file that could use the bridge.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Host(tempfile::tempdir().unwrap());
            fs::write(host.0.path().join(".env"), ENV).unwrap();
            host
        }

        fn file(&self) -> File {
            File::read(&self.0.path().join(".env")).unwrap()
        }

        fn edit(&self, from: &str, to: &str) {
            fs::write(self.0.path().join(".env"), self.file().text.replace(from, to)).unwrap();
        }

        fn copies(&self) -> std::path::PathBuf {
            self.0.path().join("backup")
        }

        /// Points the file at the bridge, as `--apply` does.
        fn bridge(&self) -> String {
            let (file, admin) = (self.file(), admin());
            let changes = changes(&file.text, &config(), &admin);
            let said = copied(&self.copies(), &file, &changes, Some(&admin)).unwrap();
            file.change(&changes).unwrap();
            assert!(is_bridged(&self.file().text, None));
            said
        }

        /// Restores the old values, as `--no-bridge --apply` does.
        fn go_back(&self) -> Result<String, Failure> {
            let file = self.file();
            let copy = original(&self.copies(), &file, Some(&admin()))?;
            file.change(&back(&file.text, &copy.text))?;
            Ok(self.file().text)
        }
    }

    fn admin() -> LocalAdmin {
        LocalAdmin { name: "motion-ad".into(), secret: Secret::new(SECRET.into()) }
    }

    fn config() -> Config {
        let text = "names.map_file = \"/dev/null\"\ndomain.name = \"acme.com\"\n".to_owned();
        Config::load_text("config.toml".as_ref(), text, "/nonexistent".as_ref()).unwrap()
    }

    #[test]
    fn what_was_there_before_the_bridge_comes_back_whatever_was_edited_since() {
        for (from, to, is_copied) in [
            ("none", "none", false),
            (":3890", ":389", true),
            (URL, "ldap://localhost:3890", true),
            (URL, "ldap://ad.acme.com", true),
            (SECRET, "another-secret", true),
            ("'motion-ad'", "''", false),
        ] {
            let host = Host::new();
            assert!(host.bridge().starts_with("The file as it was: "), "{to}");
            host.edit(from, to);
            assert_eq!(host.bridge().starts_with("The file as it was edited: "), is_copied, "{to}");
            assert_eq!(host.go_back().unwrap(), ENV, "{to}");
        }
    }

    #[test]
    fn a_file_with_another_administrator_is_an_original_again() {
        let host = Host::new();
        host.bridge();
        fs::write(host.0.path().join(".env"), ENV.replace("Hush-1", "Hush-2")).unwrap();
        assert!(host.bridge().contains("\nAn earlier copy: "));
        assert_eq!(host.go_back().unwrap(), ENV.replace("Hush-1", "Hush-2"));
        assert_eq!(fs::read_dir(host.copies()).unwrap().count(), 2);
    }

    #[test]
    fn a_copy_of_another_file_is_neither_replaced_nor_restored() {
        let (one, two) = (Host::new(), Host::new());
        one.bridge();
        let copy = Kept::read(&one.copies()).unwrap().unwrap();
        let refused = other(&copy, &two.file(), Some(&admin())).err().unwrap().to_string();
        let place = one.file().place().unwrap();
        assert!(
            refused.ends_with(&format!("`motion-ad setup --no-bridge --env {place} --apply`")),
            "{refused}"
        );
        let refused = original(&one.copies(), &two.file(), None).err().unwrap().to_string();
        assert!(refused.contains(&format!("is the copy of {place}, not of ")), "{refused}");
        assert!(other(&copy, &one.file(), Some(&admin())).is_ok());
        // A file that does not name the bridge any more, or is gone, needs it no longer.
        one.go_back().unwrap();
        assert!(other(&copy, &two.file(), Some(&admin())).is_ok());
        fs::remove_file(&place).unwrap();
        assert!(other(&copy, &two.file(), Some(&admin())).is_ok());
    }

    #[test]
    fn a_copy_that_names_the_bridge_is_no_original() {
        let host = Host::new();
        assert!(host.go_back().err().unwrap().to_string().contains("there is no such file"));
        host.bridge();
        for text in [host.file().text, host.file().text.replace("3890", "389")] {
            fs::write(kept::path(&host.copies()), text).unwrap();
            let refused = host.go_back().err().unwrap().to_string();
            assert!(refused.contains("names the bridge itself"), "{refused}");
        }
        // The copy of an earlier version has no line that names its file.
        fs::write(kept::path(&host.copies()), ENV).unwrap();
        assert_eq!(host.go_back().unwrap(), ENV);
    }

    #[test]
    fn a_file_is_written_only_after_the_bridge_has_answered() {
        for (fails, answer, changed_meanwhile) in [
            ("enable", Ok("works".to_owned()), false),
            ("nothing", Err("49".to_owned()), false),
            ("nothing", Ok("works".to_owned()), true),
            ("nothing", Ok("works".to_owned()), false),
        ] {
            let host = Host::new();
            let secret = host.0.path().join("ldap-admin");
            let systemctl = |arguments: &[&str]| match arguments[0] {
                "is-enabled" | "is-active" => Err(String::new()),
                verb if verb == fails => Err("no".to_owned()),
                _ => Ok(()),
            };
            let units = Bridge { admin: &secret, systemctl: &systemctl };
            let file = host.file();
            let changes = changes(&file.text, &config(), &admin());
            let is_fine = fails == "nothing" && answer.is_ok() && !changed_meanwhile;
            let tried = || {
                assert_eq!(host.file().text, ENV);
                if changed_meanwhile {
                    host.edit("dc=acme", "dc=other");
                }
                answer
            };
            let done = switch(&units, Some(&admin()), false, &file, &changes, tried);
            let text = host.file().text;
            assert_eq!(done.is_ok(), is_fine);
            assert_eq!((text.contains(URL), secret.exists()), (is_fine, is_fine));
            if let Err(failure) = done {
                assert!(failure.to_string().ends_with(".env is unchanged"), "{failure}");
            }
        }
    }
}
