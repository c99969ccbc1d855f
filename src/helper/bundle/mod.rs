//! `motion-ad doctor --bundle`: one archive with all that a support case needs, and without a secret.
//!
//! Each part is a text. Secrets are masked in it, and names replaced if that is requested, before the archive
//! is made.

mod mask;
mod pseudonyms;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::pseudonyms::Pseudonyms;
use super::{Cli, Exit, Failure, Page, show};
use crate::libpam::SERVICES;
use crate::verdict::Outcome;

/// Time limit of one program.
const RUN: Duration = Duration::from_secs(20);
/// Longest part of the bundle, in bytes; the rest of a longer one is left out.
const PART: u64 = 4_194_304;
/// Folder of all parts in the archive.
const FOLDER: &str = "motion-ad-bundle";
/// The program that makes the archive; it is in every Debian.
const TAR: &str = "tar";
/// A word of those PAM services that belong to a bundle.
const MODULE: &str = "pam_motion_ad";

/// A part that another program prints.
struct Output {
    file: &'static str,
    /// The program; empty stands for `motion-ad` itself.
    program: &'static str,
    arguments: &'static [&'static str],
    /// True if it prints settings, which may be secrets.
    is_settings: bool,
    /// True if it may hold names of users that pseudonyms do not find.
    is_personal: bool,
}

const fn output(file: &'static str, program: &'static str, arguments: &'static [&'static str]) -> Output {
    Output { file, program, arguments, is_settings: false, is_personal: false }
}

const UNITS: &[&str] = &[
    "cat",
    "motion-ad.socket",
    "motion-ad.service",
    "motion-ad-metrics.socket",
    "motion-ad-ldap.socket",
    "motion-ad-ldap.service",
];

const OUTPUTS: &[Output] = &[
    output("status.txt", "", &["status"]),
    output("status.json", "", &["status", "--json"]),
    output("metrics.txt", "", &["metrics"]),
    output("config-show.txt", "", &["config", "show"]),
    Output { is_settings: true, ..output("units.txt", "systemctl", UNITS) },
    output(
        "units-state.txt",
        "systemctl",
        &["--no-pager", "--full", "--lines=0", "status", "motion-ad*", "sssd.service", "winbind.service"],
    ),
    output(
        "packages.txt",
        "dpkg-query",
        &[
            "--show",
            "--showformat=${Package} ${Version} ${db:Status-Abbrev}\n",
            "libpam-motion-ad",
            "libpam0g",
            "libkrb5-3",
            "libgssapi-krb5-2",
            "libsqlite3-0",
            "systemd",
            "sssd",
            "winbind",
            "samba-libs",
            "adcli",
            "realmd",
        ],
    ),
    output("kernel.txt", "uname", &["-a"]),
    output("time.txt", "timedatectl", &["show"]),
    output("keytab.txt", "klist", &["-k", "-t", "-e"]),
    output("files.txt", "ls", &["-lan", "/etc/motion-ad", "/run/motion-ad", "/var/lib/motion-ad", SERVICES]),
    output(
        "processes.txt",
        "ps",
        &["-o", "pid,ppid,user,lstart,rss,nlwp,args", "-C", "motion-ad-broker,motion-ad-ldap"],
    ),
    output(
        "log.txt",
        "journalctl",
        &[
            "--no-pager",
            "--quiet",
            "--output=short-iso",
            "--lines=2000",
            "--unit=motion-ad.service",
            "--unit=motion-ad.socket",
            "--unit=motion-ad-ldap.service",
            "--unit=motion-ad-ldap.socket",
        ],
    ),
    Output {
        is_personal: true,
        ..output(
            "log-module.txt",
            "journalctl",
            &["--no-pager", "--quiet", "--output=short-iso", "--lines=500", "--grep=pam_motion_ad\\("],
        )
    },
];

/// Files of the host that hold no secret; a word like `passwd:` in them is no setting.
const FILES: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/os-release", "/etc/hostname"];
/// Settings of the host, apart from motion-ad's own and from PAM's services.
const KRB5: &str = "/etc/krb5.conf";

/// A text of the bundle.
struct Part {
    /// Its path in the archive.
    file: String,
    text: String,
    is_settings: bool,
}

impl Part {
    fn new(file: impl Into<String>, text: impl Into<String>) -> Self {
        Part { file: file.into(), text: text.into(), is_settings: false }
    }
}

/// The texts that the doctor itself contributes: file and text.
pub(super) type Texts = Vec<(&'static str, String)>;

/// Writes the bundle with the doctor's `texts` to `file`.
pub(super) fn write(
    cli: &Cli,
    file: &Path,
    has_pseudonyms: bool,
    texts: impl FnOnce() -> Result<Texts, Failure>,
) -> Result<Page, Failure> {
    // First, so that nothing is gathered in vain.
    let archive = create(file)?;
    let made = texts().and_then(|texts| {
        let parts = parts(cli, texts, has_pseudonyms)?;
        pack(&parts, archive, file).map(|()| parts.len())
    });
    let count = made.inspect_err(|_| {
        // This file is ours: it did not exist before.
        let _ = fs::remove_file(file);
    })?;
    let size = fs::metadata(file).map_or(0, |metadata| metadata.len());
    let path = file.display().to_string();
    let path = show::escape(&path);
    let names = match has_pseudonyms {
        true => "pseudonyms for users, but the names of hosts and groups",
        false => "the names of users, hosts and groups",
    };
    let text = format!(
        "{path}: {count} files, {} kB, readable only for you\n{}\n",
        size.div_ceil(1000),
        show::hang(
            &format!("passwords and keys are left out; it holds {names}: look through it before you send it"),
            0,
            show::width()
        )
    );
    Ok(Page { text, exit: Exit::Yes })
}

/// Creates the archive, which must not exist, not even as a symbolic link.
fn create(file: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(|error| {
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure::NotDone(format!("{} exists already: name another file", file.display()))
            }
            _ => Failure::Write { file: file.to_owned(), error },
        }
    })
}

/// Returns all parts, without secrets.
fn parts(cli: &Cli, texts: Texts, has_pseudonyms: bool) -> Result<Vec<Part>, Failure> {
    let mut parts: Vec<_> = texts.into_iter().map(|(file, text)| Part::new(file, text)).collect();
    parts.extend(outputs(cli, has_pseudonyms)?);
    parts.extend(files(cli));
    for part in &mut parts {
        part.text = match part.is_settings {
            true => mask::settings(&part.text),
            false => mask::text(&part.text),
        };
    }
    if has_pseudonyms {
        hide_names(&mut parts);
    }
    let list: String = parts.iter().map(|part| format!("  {}\n", part.file)).collect();
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let names = if has_pseudonyms { "replaced by pseudonyms" } else { "as they are" };
    let readme = format!(
        "motion-ad {}, bundle of {now}\nPasswords and keys: left out. Names of users: {names}.\n\n{list}",
        env!("CARGO_PKG_VERSION")
    );
    parts.insert(0, Part::new("README.txt", readme));
    Ok(parts)
}

/// Replaces the names of users in all parts.
fn hide_names(parts: &mut [Part]) {
    let system = read(Path::new("/etc/passwd")).unwrap_or_default();
    let kept = system.lines().filter_map(|line| line.split(':').next()).map(str::to_owned);
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.name().to_owned());
    let words = ["ldap", "kerberos", "login", "motion-ad", "broker"].map(str::to_owned);
    let mut names = Pseudonyms::new(kept.chain(outcomes).chain(words));
    for part in parts.iter_mut() {
        if part.file.ends_with("names.map") {
            part.text = names.map(&part.text);
        } else if part.file.starts_with("log") {
            part.text = names.log(&part.text);
        }
    }
    for part in parts.iter().filter(|part| part.file != "certificates.txt") {
        names.learn(&part.text);
    }
    for part in parts {
        part.text = names.text(&part.text);
    }
}

/// Runs the programs, several at the same time.
fn outputs(cli: &Cli, has_pseudonyms: bool) -> Result<Vec<Part>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Application(error.to_string()))?;
    let ourselves = std::env::current_exe().map_err(|error| Failure::Application(error.to_string()))?;
    let wanted = OUTPUTS.iter().filter(|output| !(output.is_personal && has_pseudonyms));
    let mut done = runtime.block_on(async {
        let mut running = JoinSet::new();
        for (place, output) in wanted.enumerate() {
            let mut command = match output.program {
                "" => {
                    let mut command = Command::new(&ourselves);
                    command.arg("--config").arg(&cli.config).arg("--sssd").arg(&cli.sssd);
                    command.arg("--socket").arg(&cli.socket);
                    command
                }
                program => Command::new(program),
            };
            command.args(output.arguments);
            running.spawn(async move { (place, output, run(command).await) });
        }
        running.join_all().await
    });
    done.sort_by_key(|(place, ..)| *place);
    Ok(done
        .into_iter()
        .map(|(_, output, text)| Part { is_settings: output.is_settings, ..Part::new(output.file, text) })
        .collect())
}

/// Returns what a program prints, on both outputs; or the reason why it prints nothing.
async fn run(mut command: Command) -> String {
    command.env("LC_ALL", "C.UTF-8").env("SYSTEMD_PAGER", "").kill_on_drop(true);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return format!("could not be run: {error}\n"),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        let out = async {
            if let Some(stdout) = stdout {
                let _ = stdout.take(PART).read_to_end(&mut out).await;
            }
        };
        let err = async {
            if let Some(stderr) = stderr {
                let _ = stderr.take(PART).read_to_end(&mut err).await;
            }
        };
        tokio::join!(out, err);
        child.wait().await
    };
    let end = match timeout(RUN, reading).await {
        Ok(Ok(status)) if status.success() => String::new(),
        Ok(Ok(status)) => format!("({status})\n"),
        Ok(Err(error)) => format!("({error})\n"),
        Err(_) => format!("(ended after {} s)\n", RUN.as_secs()),
    };
    format!("{}{}{end}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err))
}

/// Reads the files of the configuration, of the join, of PAM and of the host.
fn files(cli: &Cli) -> Vec<Part> {
    let map = cli.config.with_file_name("names.map");
    let settings =
        [cli.config.clone(), map, cli.sssd.clone(), PathBuf::from(KRB5)].into_iter().chain(services());
    let settings = settings.map(|path| Part { is_settings: true, ..copy(&path) });
    settings.chain(FILES.iter().map(|path| copy(Path::new(path)))).collect()
}

/// Returns a part with the content of a file, under its path.
fn copy(path: &Path) -> Part {
    let text = read(path).unwrap_or_else(|error| format!("could not be read: {error}\n"));
    // Of a relative path, nothing that leads out of the bundle's folder.
    let is_name = |part: &Component| matches!(part, Component::Normal(_));
    let inside: PathBuf = path.components().filter(is_name).collect();
    Part::new(format!("files/{}", inside.display()), text)
}

/// Returns PAM's services that name the module, and those that the others include.
fn services() -> Vec<PathBuf> {
    let entries = fs::read_dir(SERVICES).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "motion" || name.starts_with("common-") || read(path).is_ok_and(|text| text.contains(MODULE))
    };
    let mut services: Vec<_> = entries.filter(is_wanted).collect();
    services.sort();
    services
}

/// Reads a regular file, at most [`PART`] bytes of it.
fn read(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(PART).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Packs the parts into `archive`.
fn pack(parts: &[Part], archive: File, file: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Write { file: file.to_owned(), error };
    // Only its owner can enter it, and it is removed with all that is in it.
    let folder = tempfile::Builder::new().prefix("motion-ad-").tempdir().map_err(failed)?;
    for part in parts {
        let path = folder.path().join(FOLDER).join(&part.file);
        let parent = path.parent().unwrap_or(folder.path());
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, &part.text)).map_err(failed)?;
    }
    let mut tar = std::process::Command::new(TAR);
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--mode=u=rwX,go=", "--sort=name", "--file=-"]);
    let ran =
        tar.arg("--directory").arg(folder.path()).arg(FOLDER).stdin(Stdio::null()).stdout(archive).output();
    let ran = ran.map_err(|error| failed(io::Error::new(error.kind(), format!("{TAR}: {error}"))))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(failed(io::Error::other(String::from_utf8_lossy(&ran.stderr).trim().to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn an_archive_is_new_and_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("case.tar.gz");
        let parts = [Part::new("a.txt", "one"), Part::new("files/etc/b", "two")];
        pack(&parts, create(&path).unwrap(), &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let list = std::process::Command::new(TAR).arg("-tzf").arg(&path).output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        let expected =
            ["", "a.txt", "files/", "files/etc/", "files/etc/b"].map(|name| format!("{FOLDER}/{name}"));
        assert_eq!(list.lines().collect::<Vec<_>>(), expected);
        let before = fs::read(&path).unwrap();
        assert!(matches!(create(&path), Err(Failure::NotDone(_))));
        let link = folder.path().join("link");
        symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert!(matches!(create(&link), Err(Failure::NotDone(_))));
        assert!(!folder.path().join("elsewhere").exists());
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(matches!(create(Path::new("/nonexistent/x")), Err(Failure::Write { .. })));
    }

    #[test]
    fn a_file_stays_inside_the_bundle() {
        assert_eq!(copy(Path::new("../../x/../etc/none")).file, "files/x/etc/none");
        assert_eq!(copy(Path::new("/etc/none")).file, "files/etc/none");
        let part = copy(Path::new("/dev/zero"));
        assert!(part.text.contains("no regular file"), "{}", part.text);
    }

    #[test]
    fn names_are_hidden_in_every_part() {
        let mut parts = [
            Part::new("doctor.txt", "jane.roe is the name of two; CN=john.doe,OU=People,DC=acme,DC=com"),
            Part::new("files/etc/motion-ad/names.map", "jr = jane.roe@acme.com\n"),
            Part::new("log.txt", "event=login user=max outcome=unmapped reason=\"max is unknown\"\n"),
            Part::new("certificates.txt", "subject CN=acme-CA,OU=x,DC=acme"),
        ];
        hide_names(&mut parts);
        let text: String = parts.iter().map(|part| part.text.as_str()).collect();
        for name in ["jane", "john", "max", "jr"] {
            assert!(!text.contains(name), "{name}: {text}");
        }
        assert!(text.contains("acme-CA"), "{text}");
    }
}
