//! `motion-ad setup --bridge` and `--no-bridge`: point XCALLY's own integration at the LDAP bridge instead of
//! a domain controller.
//!
//! Only the necessary lines of `.env` change. The original file is kept in a folder for root only, so that
//! `--no-bridge` can restore the old values.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use super::super::{Cli, Exit, Failure, Page, Setup, is_denied, print, show};
use super::env::File;
use super::lines::{Change, URL, back, changes, name, needs_admin};
use super::{config, env_path, read_or_example, write};
use crate::config::admin::{ADMIN, AdminError, LocalAdmin};
use crate::config::xcally::change::has;
use crate::doctor::application::bind_as;

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 3890);
/// Folder of the original files.
const BACKUP: &str = "/etc/motion-ad/backup";
/// Name of the `.env` from before the bridge.
const KEPT: &str = "xcally.env";
const SOCKET: &str = "motion-ad-ldap.socket";
const SERVICE: &str = "motion-ad-ldap.service";

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
