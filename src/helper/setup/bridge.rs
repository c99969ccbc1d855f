//! `motion-ad setup --bridge` and `--no-bridge`: point XCALLY's own integration at the LDAP bridge instead of
//! a domain controller.
//!
//! Only the necessary lines of `.env` change. The original file is kept in a folder for root only, so that
//! `--no-bridge` can restore the old values.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use super::super::{Cli, Exit, Failure, Page, Setup, is_denied, print, show};
use super::{config, env_path, read_or_example, write};
use crate::config::admin::{ADMIN, AdminError, LocalAdmin};
use crate::config::xcally;
use crate::config::xcally::change::{has, quoted, set, written};
use crate::config::{Config, Problem};
use crate::doctor::application::bind_as;

/// URL of the bridge.
pub(in crate::helper) const URL: &str = "ldap://127.0.0.1:3890";
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 3890);
/// Properties that may change, without their common prefix.
const PROPERTIES: [&str; 5] = ["URL", "ADMIN", "PASSWORD", "BASE_DN", "DOMAIN"];
/// Folder of the original files.
const BACKUP: &str = "/etc/motion-ad/backup";
/// Name of the `.env` from before the bridge.
const KEPT: &str = "xcally.env";
const SOCKET: &str = "motion-ad-ldap.socket";
const SERVICE: &str = "motion-ad-ldap.service";

/// A property that gets another value.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    /// Its name without the prefix.
    short: &'static str,
    /// The new value as written, with quotes; `None` removes the property.
    new: Option<String>,
    /// The old value, as shown to the administrator; `becomes` is the new one.
    was: String,
    becomes: String,
}

/// The `.env`.
struct File {
    path: PathBuf,
    text: String,
    metadata: fs::Metadata,
}

/// Shows the change, and applies it on request.
pub(super) fn bridge(cli: &Cli, args: &Setup) -> Result<Page, Failure> {
    let file = File::read(env_path(args))?;
    let sssd_is_denied = is_denied(&cli.sssd);
    let config = config(cli, &read_or_example(&cli.config)?, sssd_is_denied)?;
    let admin = LocalAdmin::load(Path::new(ADMIN));
    let admin = match admin {
        Ok(admin) => admin,
        // A user other than root may see what would change.
        Err(AdminError::Read(error)) if error.kind() == io::ErrorKind::PermissionDenied && !args.apply => {
            None
        }
        Err(AdminError::Read(error)) => return Err(Failure::Write { file: ADMIN.into(), error }),
        // The bridge does not start with such a file: a new one takes its place.
        Err(AdminError::NoLine | AdminError::Short) => None,
    };
    let is_new = admin.is_none() || args.new_secret;
    let made = || LocalAdmin::make().map_err(|error| Failure::Write { file: ADMIN.into(), error });
    let admin = match admin.filter(|_| !is_new) {
        Some(admin) => admin,
        None => made()?,
    };
    let changes = changes(&file.text, &config, &admin);
    file.changed(&changes)?;
    let has_admin = needs_admin(&file.text);
    let text = shown(&file, &changes, "the LDAP bridge of this host");
    if !args.apply {
        let rest = match changes.is_empty() {
            true => "\n`motion-ad setup --bridge --apply` enables the bridge if it is not\n".to_owned(),
            false => format!(
                "\nNothing is written yet; `motion-ad setup --bridge --apply` writes {}\n",
                file.path.display()
            ),
        };
        return Ok(Page { text: text + &rest, exit: if changes.is_empty() { Exit::Yes } else { Exit::No } });
    }
    let Some(text) = agreed(args, &file, &changes, text)? else {
        return Ok(Page { text: "Nothing is written.\n".to_owned(), exit: Exit::No });
    };
    let is_first = !changes.is_empty() && !has(&file.text, &name("URL"), URL.as_bytes());
    if is_first {
        keep(&file)?;
    }
    // The bridge must know the secret before the application gets it.
    if has_admin && is_new {
        write::secret(Path::new(ADMIN), admin.line().bytes())
            .map_err(|error| Failure::Write { file: ADMIN.into(), error })?;
    }
    file.change(&changes)?;
    systemctl(&["enable", "--now", SOCKET])?;
    if is_new {
        systemctl(&["try-restart", SERVICE])?;
    }
    let tried = tried(&file, has_admin.then_some(&admin));
    let exit = if tried.is_ok() { Exit::Yes } else { Exit::Failed };
    let kept = match is_first {
        true => format!("The file as it was: {BACKUP}/{KEPT}, which only root can read.\n"),
        false => String::new(),
    };
    let tried = match tried {
        Ok(text) => text,
        Err(cause) => format!(
            "The bridge does not answer as it should: {cause}; see `systemctl status {SOCKET} {SERVICE}`"
        ),
    };
    Ok(Page {
        text: format!("{text}\n{} is written.\n{kept}{tried}.\n{}", file.path.display(), reading(&file)),
        exit,
    })
}

/// Restores the old values of the properties.
pub(super) fn no_bridge(args: &Setup) -> Result<Page, Failure> {
    let file = File::read(env_path(args))?;
    let kept = Path::new(BACKUP).join(KEPT);
    let old = match File::read(&kept) {
        Ok(old) => old,
        Err(failure) if kept.exists() => return Err(failure),
        Err(_) => {
            let text = format!(
                "{}: there is no such file, so the old values are not known: set {} yourself",
                kept.display(),
                name("URL")
            );
            return Err(Failure::Application(text));
        }
    };
    let changes = back(&file.text, &old.text);
    file.changed(&changes)?;
    let text = shown(&file, &changes, "the domain controller, as before");
    if !args.apply {
        let text = text
            + &format!(
                "\nNothing is written yet; `motion-ad setup --no-bridge --apply` writes {}\n",
                file.path.display()
            );
        return Ok(Page { text, exit: Exit::No });
    }
    let Some(text) = agreed(args, &file, &changes, text)? else {
        return Ok(Page { text: "Nothing is written.\n".to_owned(), exit: Exit::No });
    };
    file.change(&changes)?;
    systemctl(&["disable", "--now", SOCKET, SERVICE])?;
    for gone in [kept.as_path(), Path::new(ADMIN)] {
        match fs::remove_file(gone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::Write { file: gone.to_owned(), error });
            }
            _ => {}
        }
    }
    let text = format!(
        "{text}\n{} is written, the bridge is off, and its secret is gone.\n{}",
        file.path.display(),
        reading(&file)
    );
    Ok(Page { text, exit: Exit::Yes })
}

impl File {
    fn read(path: &Path) -> Result<Self, Failure> {
        let broken = |text: &str| {
            Failure::Config(Problem { file: path.to_owned(), line: None, text: text.to_owned() }.into())
        };
        let (bytes, metadata) = xcally::read(path)
            .map_err(|problem| match is_denied(path) {
                true => Failure::Denied(problem.into()),
                false => Failure::Config(problem.into()),
            })?
            .ok_or_else(|| broken("there is no such file"))?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| broken("is not UTF-8: change it by hand"))?.to_owned();
        Ok(File { path: path.to_owned(), text, metadata })
    }

    /// Returns the text with `changes`.
    ///
    /// # Errors
    /// Returns an error if the file has a flaw because of which XCALLY would read it otherwise.
    fn changed(&self, changes: &[Change]) -> Result<String, Failure> {
        changes.iter().try_fold(self.text.clone(), |text, change| {
            set(&text, &name(change.short), change.new.as_deref()).ok_or_else(|| {
                let text = format!(
                    "{} cannot be set, because the line before its place ends in a colon and would take it \
                     for its own value: correct that line first",
                    name(change.short)
                );
                Failure::Config(Problem { file: self.path.clone(), line: None, text }.into())
            })
        })
    }

    /// Writes the file with `changes`, unless it has changed since it was read.
    fn change(&self, changes: &[Change]) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        let now = File::read(&self.path)?;
        if now.text != self.text {
            return Err(Failure::Changed(self.path.clone()));
        }
        let new = self.changed(changes)?;
        write::put_as(&self.path, &new, &now.metadata)
            .map_err(|error| Failure::Write { file: self.path.clone(), error })
    }
}

fn name(short: &str) -> String {
    format!("{}{short}", xcally::PREFIX)
}

/// Returns true if XCALLY binds as an administrator before it searches for a user.
fn needs_admin(text: &str) -> bool {
    let is_set =
        |short| written(text, &name(short)).is_some_and(|raw| !["", "''", "\"\"", "``"].contains(&raw));
    is_set("ADMIN") || is_set("PASSWORD")
}

/// Returns the changes that point XCALLY at the bridge.
fn changes(text: &str, config: &Config, admin: &LocalAdmin) -> Vec<Change> {
    let secret = String::from_utf8_lossy(admin.secret.bytes()).into_owned();
    let is_missing =
        |short| written(text, &name(short)).is_none_or(|raw| ["", "''", "\"\"", "``"].contains(&raw));
    let mut wanted = vec![("URL", URL.to_owned())];
    if needs_admin(text) {
        wanted.extend([("ADMIN", admin.name.clone()), ("PASSWORD", secret)]);
    }
    if is_missing("BASE_DN") {
        wanted.push(("BASE_DN", config.domain.base_dn.clone()));
    }
    if is_missing("DOMAIN") {
        wanted.push(("DOMAIN", config.domain.name.clone()));
    }
    let wanted = wanted.into_iter().filter(|(short, value)| !has(text, &name(short), value.as_bytes()));
    let change = |(short, value): (&'static str, String)| {
        let new = quoted(&value)?;
        let becomes = if short == "PASSWORD" { "a secret of this host".to_owned() } else { new.clone() };
        Some(Change { short, new: Some(new), was: told(text, short), becomes })
    };
    wanted.filter_map(change).collect()
}

/// Returns the changes that restore the properties as written in `old`.
fn back(text: &str, old: &str) -> Vec<Change> {
    let is_other = |short: &&str| written(text, &name(short)) != written(old, &name(short));
    let change = |short| {
        let becomes = match written(old, &name(short)) {
            Some(_) => told(old, short),
            None => "not set".to_owned(),
        };
        Change { short, new: written(old, &name(short)).map(str::to_owned), was: told(text, short), becomes }
    };
    PROPERTIES.into_iter().filter(is_other).map(change).collect()
}

/// Returns the value of a property for display, but never the password.
fn told(text: &str, short: &str) -> String {
    match (written(text, &name(short)), short) {
        (None, _) => "not set".to_owned(),
        (Some("" | "''" | "\"\"" | "``"), _) => "empty".to_owned(),
        (Some(_), "PASSWORD") => "a password, which is not shown".to_owned(),
        (Some(raw), _) => raw.to_owned(),
    }
}

fn shown(file: &File, changes: &[Change], whom: &str) -> String {
    let path = file.path.display();
    if changes.is_empty() {
        return format!("{path} stays as it is: XCALLY queries {whom} already\n");
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

/// Keeps a copy of the file for root only: it may hold an AD password.
fn keep(file: &File) -> Result<(), Failure> {
    let kept = Path::new(BACKUP).join(KEPT);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(BACKUP);
    made.and_then(|()| write::secret(&kept, file.text.as_bytes()))
        .map_err(|error| Failure::Write { file: kept, error })
}

fn systemctl(arguments: &[&str]) -> Result<(), Failure> {
    let shown = format!("systemctl {}", arguments.join(" "));
    let ran = Command::new("systemctl").args(arguments).current_dir("/").stdin(Stdio::null()).output();
    match ran {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => {
            let complaint = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            Err(Failure::Application(format!("{shown}: {complaint}")))
        }
        Err(error) => Err(Failure::Application(format!("{shown}: {error}"))),
    }
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
        "XCALLY reads it when it starts. Restart it as root, as its vendor documents:\n    service motion \
         stop\n    su - motion -c 'cd {folder} && npm run initialize'\n    service motion start\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Secret;

    const SECRET: &str = "feedfeedfeedfeedfeedfeedfeedfeed";

    fn admin() -> LocalAdmin {
        LocalAdmin { name: "motion-ad".into(), secret: Secret::new(SECRET.into()) }
    }

    fn config() -> Config {
        let text = "names.map_file = \"/dev/null\"\ndomain.name = \"acme.com\"\n".to_owned();
        Config::load_text("config.toml".as_ref(), text, "/nonexistent".as_ref()).unwrap()
    }

    fn apply(text: &str, changes: &[Change]) -> String {
        changes.iter().fold(text.to_owned(), |text, change| {
            set(&text, &name(change.short), change.new.as_deref()).unwrap()
        })
    }

    const FULL: &str = "# AD\nXC_ACTIVEDIRECTORY_STRATEGY=inetOrgPerson\n\
        XC_ACTIVEDIRECTORY_ADMIN='cn=admin,dc=acme,dc=com'\n\
        XC_ACTIVEDIRECTORY_PASSWORD='Hush-1' # secret\nXC_ACTIVEDIRECTORY_BASE_DN='ou=user,dc=acme,dc=com'\n\
        XC_ACTIVEDIRECTORY_URL='ldap://ad.acme.com'\nXC_ACTIVEDIRECTORY_DOMAIN='acme.com'\nXC_PORT=80\n";

    #[test]
    fn of_all_properties_three_change_and_go_back() {
        let changes = changes(FULL, &config(), &admin());
        let new = apply(FULL, &changes);
        let expected = FULL
            .replace("cn=admin,dc=acme,dc=com", "motion-ad")
            .replace("Hush-1", SECRET)
            .replace("ldap://ad.acme.com", URL);
        assert_eq!(new, expected);
        assert_eq!(super::changes(&new, &config(), &admin()), []);
        let back = back(&new, FULL);
        assert_eq!(back.iter().map(|change| change.short).collect::<Vec<_>>(), ["URL", "ADMIN", "PASSWORD"]);
        assert_eq!(apply(&new, &back), FULL);
        // Other changes of the file stay.
        assert_eq!(apply(&new.replace("=80", "=81"), &back), FULL.replace("=80", "=81"));
        for change in changes.iter().chain(&back) {
            let said = format!("{} {}", change.was, change.becomes);
            assert!(!said.contains("Hush") && !said.contains(SECRET), "{said}");
        }
    }

    #[test]
    fn without_an_administrator_one_line_changes_and_what_is_missing_is_added() {
        let page = "XC_ACTIVEDIRECTORY_BASE_DN='dc=acme,dc=com'\n\
            XC_ACTIVEDIRECTORY_URL='ldap://ad.acme.com'\n\
            XC_ACTIVEDIRECTORY_DOMAIN='acme.com'\n";
        let new = apply(page, &changes(page, &config(), &admin()));
        assert_eq!(new, page.replace("ldap://ad.acme.com", URL));
        let new = apply(
            "XC_ACTIVEDIRECTORY_DOMAIN=''",
            &changes("XC_ACTIVEDIRECTORY_DOMAIN=''", &config(), &admin()),
        );
        let expected = format!(
            "XC_ACTIVEDIRECTORY_DOMAIN='acme.com'\nXC_ACTIVEDIRECTORY_URL='{URL}'\n\
             XC_ACTIVEDIRECTORY_BASE_DN='dc=acme,dc=com'\n"
        );
        assert_eq!(new, expected);
        assert_eq!(
            apply(&new, &back(&new, "XC_ACTIVEDIRECTORY_DOMAIN=''")),
            "XC_ACTIVEDIRECTORY_DOMAIN=''\n"
        );
    }

    #[test]
    fn a_new_secret_is_a_change_of_the_password_alone() {
        let new = apply(FULL, &changes(FULL, &config(), &admin()));
        let other = LocalAdmin { secret: Secret::new(b"beefbeefbeefbeefbeefbeef".to_vec()), ..admin() };
        let changes = changes(&new, &config(), &other);
        assert_eq!(changes.iter().map(|change| change.short).collect::<Vec<_>>(), ["PASSWORD"]);
    }
}
