//! The files that the broker was started from, and whether they have changed since.
//!
//! systemd copies the keytab, `sssd.conf` and its snippets into the unit's credentials when it starts the broker
//! (`LoadCredential=`, systemd.exec(5)), so a changed source asks for a new start. The broker may not read the
//! sources themselves, but everybody may ask for a file's times, so a `stat` before each login is enough.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::join::{Join, SSSD_CONF};
use super::samba::{self, SMB_CONF};
use super::sssd::{COPIED, SNIPPETS};
use super::{Config, ConfigError, Problem};

/// Where the realm join writes the machine's keys.
const KEYTAB: &str = "/etc/krb5.keytab";

/// The join's secrets as this process has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The machine's keys.
    pub keytab: PathBuf,
    /// The join's configuration.
    pub sssd: PathBuf,
    /// The keytab of the host that [`Credentials::keytab`] should be a copy of.
    original: PathBuf,
    /// Whether systemd copied the files for this process.
    is_copied: bool,
    /// Files of the host that these were copied from.
    sources: Vec<Source>,
}

impl Credentials {
    /// The credentials in `directory` (`$CREDENTIALS_DIRECTORY`), else the host's own files.
    pub fn find(directory: Option<&Path>) -> Self {
        Credentials::of(directory, Path::new(KEYTAB), Path::new(SSSD_CONF), Path::new(SNIPPETS))
    }

    fn of(directory: Option<&Path>, keytab: &Path, sssd: &Path, snippets: &Path) -> Self {
        let copy = |name: &str, of: &Path| directory.map_or(of.to_owned(), |directory| directory.join(name));
        let copied = copy("sssd.conf", sssd);
        let named = Join::load(&copied, None).ok().and_then(|join| join.keytab);
        let original = named.unwrap_or_else(|| keytab.to_owned());
        let keytab = match directory {
            Some(directory) => directory.join("keytab"),
            None => original.clone(),
        };
        let mut sources = vec![Source::of(&original, &keytab), Source::of(sssd, &copied)];
        // The folder tells when a snippet comes or goes. It was read when `sssd.conf` was.
        sources.push(Source::of(snippets, &copied));
        let of_snippets = |name: &str| match directory {
            Some(_) => name.strip_prefix(COPIED).map(|name| snippets.join(name)),
            None => Some(snippets.join(name)),
        };
        let entries = std::fs::read_dir(directory.unwrap_or(snippets)).into_iter().flatten().flatten();
        sources.extend(entries.filter_map(|entry| {
            let source = of_snippets(entry.file_name().to_str()?)?;
            source.exists().then(|| Source::of(&source, &entry.path()))
        }));
        Credentials { keytab, sssd: copied, original, is_copied: directory.is_some(), sources }
    }

    /// Reads `config` and the name map, and completes them by the join's `sssd.conf`. On a host that looks as if it were not
    /// joined the error says what else is there.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self, config: &Path) -> Result<Config, ConfigError> {
        let read = Config::load(config, &self.sssd);
        match read {
            Err(ConfigError::NotJoined) => {
                Err(self.unjoined(config, Path::new(SSSD_CONF), Path::new(SMB_CONF)))
            }
            other => other,
        }
    }

    /// Why no domain is known, where `sssd` and `smb` are the host's own files.
    fn unjoined(&self, config: &Path, sssd: &Path, smb: &Path) -> ConfigError {
        if self.is_copied && !is_filled(&self.sssd) && is_filled(sssd) {
            let text = format!("systemd did not hand it over; {WITHHELD}: {}", drop_in(&self.original));
            return Problem { file: sssd.to_owned(), line: None, text }.into();
        }
        let Some(realm) = samba::realm(smb) else { return ConfigError::NotJoined };
        let text = format!(
            "names the realm {realm}, so this host is joined by winbind, and there is no {}; write these two lines into \
             {}: [domain] and name = \"{}\"",
            sssd.display(),
            config.display(),
            realm.to_lowercase()
        );
        Problem { file: smb.to_owned(), line: None, text }.into()
    }

    /// Why the machine account cannot work with them, for people.
    pub fn problem(&self) -> Option<String> {
        let original = self.original.display();
        let there = std::fs::metadata(&self.original).ok().filter(|file| file.len() > EMPTY);
        match (is_filled(&self.keytab), there) {
            (false, Some(_)) if self.is_copied && self.original == Path::new(KEYTAB) => {
                Some(format!("systemd did not hand {original} over; {WITHHELD}: {}", drop_in(&self.original)))
            }
            (false, None) => Some(format!(
                "the keytab {original} is missing or empty; join the domain with `realm join DOMAIN`"
            )),
            (is_filled, Some(file))
                if self.is_copied && !(is_filled && size(&self.keytab) == Some(file.len())) =>
            {
                Some(format!(
                    "sssd.conf names the keytab {original}, and systemd did not hand it over: {}",
                    drop_in(&self.original)
                ))
            }
            _ => None,
        }
    }
}

/// Why systemd may hand no file over.
const WITHHELD: &str = "a drop-in that empties LoadCredential= does that, as images of LXC and Incus have one \
    (`systemctl cat motion-ad.service` shows it); remove it, or add one with a later name";

/// The command that has systemd hand `keytab` and SSSD's files over.
fn drop_in(keytab: &Path) -> String {
    const FOLDER: &str = "/etc/systemd/system/motion-ad.service.d";
    format!(
        "`mkdir -p {FOLDER} && printf '[Service]\\nLoadCredential=%s\\nLoadCredential=%s\\nLoadCredential=%s\\n' \
         keytab:{} sssd.conf:{SSSD_CONF} sssd.conf.d:{SNIPPETS} >{FOLDER}/zzzzz-keytab.conf && \
         systemctl daemon-reload && systemctl restart motion-ad.service`",
        keytab.display()
    )
}

/// One file, and how it was when the broker took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    seen: Look,
}

/// What a `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Absent,
    /// Taken from a state of the file that is already past.
    Past,
    There(Stamp),
}

/// What changes when a file is rewritten or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Source {
    /// A file that is read now.
    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Source { seen: look(&path).unwrap_or(Look::Absent), path }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file `path`, of which this process has `copy`: itself, or what systemd made of it before this process began.
    /// Without the file the copy holds the unit's empty default.
    pub fn of(path: &Path, copy: &Path) -> Self {
        if path == copy {
            return Source::read(path);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), i64::from(now.subsec_nanos()));
        let filled = is_filled(copy);
        let seen = match (look(path), look(copy)) {
            // A source from the future is a clock that was set back, and no reason to start again for ever. Nor is one
            // that was there before the default was taken in its place: the next start would bring the same.
            (Some(Look::There(source)), Some(Look::There(copy)))
                if source.changed < copy.changed
                    || (filled && source.changed == copy.changed)
                    || source.changed > now =>
            {
                Look::There(source)
            }
            _ if filled => Look::Past,
            _ => Look::Absent,
        };
        Source { path: path.to_owned(), seen }
    }

    /// Returns true if the file is no longer as it was. One that may not be looked at cannot be told to have changed.
    pub fn is_stale(&self) -> bool {
        look(&self.path).is_some_and(|now| now != self.seen)
    }
}

/// Whether a credential is more than the unit's default for a missing source: a keytab without keys is its two
/// bytes of version, an empty `sssd.conf` one line feed.
fn is_filled(credential: &Path) -> bool {
    size(credential).is_some_and(|size| size > EMPTY)
}

/// The longest default of the unit, in bytes.
const EMPTY: u64 = 2;

fn size(file: &Path) -> Option<u64> {
    std::fs::metadata(file).ok().map(|file| file.len())
}

/// `None` where the file's folder may not be searched.
fn look(path: &Path) -> Option<Look> {
    match std::fs::metadata(path) {
        Ok(file) => Some(Look::There(Stamp::of(&file))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(Look::Absent),
        Err(_) => None,
    }
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Stamp { inode: file.ino(), size: file.len(), changed: (file.ctime(), file.ctime_nsec()) }
    }
}

/// All files that the broker was started from.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// These files.
    pub fn of(files: impl IntoIterator<Item = Source>) -> Self {
        Sources(files.into_iter().collect())
    }

    /// The sources of `credentials` and `files`.
    pub fn new(credentials: &Credentials, files: impl IntoIterator<Item = Source>) -> Self {
        Sources(credentials.sources.iter().cloned().chain(files).collect())
    }

    /// The first file that is no longer as the broker took it.
    pub fn stale(&self) -> Option<&Path> {
        self.0.iter().find(|source| source.is_stale()).map(|source| source.path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_rewritten_replaced_removed_or_made_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        std::fs::write(&path, "one").unwrap();
        let sources = || Sources(vec![Source::read(&path)]);

        let taken = sources();
        assert_eq!(taken.stale(), None);
        std::fs::write(&path, "longer").unwrap();
        assert_eq!(taken.stale(), Some(path.as_path()));

        let taken = sources();
        std::fs::write(&other, "longer").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(taken.stale().is_some());

        let taken = sources();
        std::fs::remove_file(&path).unwrap();
        assert!(taken.stale().is_some());

        let taken = sources();
        assert_eq!(taken.stale(), None);
        std::fs::write(&path, "").unwrap();
        assert!(taken.stale().is_some());
    }

    #[test]
    fn a_copy_is_stale_when_its_source_came_went_or_changed_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
        let taken = || Source::of(&source, &copy);

        std::fs::write(&copy, "").unwrap();
        assert!(!taken().is_stale(), "no source, and the copy is the empty default");
        std::fs::write(&source, "keys").unwrap();
        assert!(taken().is_stale(), "the source came");
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&copy, "keys").unwrap();
        assert!(!taken().is_stale(), "the copy is younger");
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&source, "new keys").unwrap();
        assert!(taken().is_stale(), "the source is younger");
        std::fs::remove_file(&source).unwrap();
        assert!(taken().is_stale(), "the source went");
    }

    /// Copies of a host's files in `directory`, as systemd makes them; without `keytab` its copy is the default.
    fn credentials(host: &Path, directory: &Path) -> Credentials {
        Credentials::of(
            Some(directory),
            &host.join("krb5.keytab"),
            &host.join("sssd.conf"),
            &host.join("conf.d"),
        )
    }

    #[test]
    fn a_source_that_is_never_handed_over_does_not_restart_the_broker_for_ever() {
        let (host, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(host.path().join("krb5.keytab"), "many keys").unwrap();
        std::fs::write(host.path().join("sssd.conf"), "[sssd]\n").unwrap();
        let later = || std::thread::sleep(std::time::Duration::from_millis(20));
        later();
        std::fs::write(copies.path().join("keytab"), "\x05\x02").unwrap();
        std::fs::write(copies.path().join("sssd.conf"), "\n").unwrap();
        let sources = || Sources::new(&credentials(host.path(), copies.path()), []);
        assert_eq!(sources().stale(), None, "the next start would bring the same");
        later();
        std::fs::write(host.path().join("krb5.keytab"), "other keys").unwrap();
        assert_eq!(sources().stale(), Some(host.path().join("krb5.keytab").as_path()), "a join in between");
    }

    #[test]
    fn a_host_that_only_looks_unjoined_says_what_is_there() {
        let (host, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (sssd, smb) = (host.path().join("sssd.conf"), host.path().join("smb.conf"));
        std::fs::write(copies.path().join("sssd.conf"), "\n").unwrap();
        let said = || {
            let credentials = credentials(host.path(), copies.path());
            credentials.unjoined(Path::new("/etc/motion-ad/config.toml"), &sssd, &smb).to_string()
        };
        assert_eq!(said(), ConfigError::NotJoined.to_string());
        std::fs::write(&smb, "[global]\nsecurity = ads\nrealm = ACME.COM\n").unwrap();
        assert!(said().contains("joined by winbind") && said().contains("name = \"acme.com\""), "{}", said());
        std::fs::write(&sssd, "[sssd]\n").unwrap();
        assert!(said().contains("sssd.conf: systemd did not hand it over"), "{}", said());
        std::fs::write(host.path().join("krb5.keytab"), "many keys").unwrap();
        let problem = credentials(host.path(), copies.path()).problem().unwrap();
        assert!(problem.contains("did not hand"), "{problem}");
    }

    #[test]
    fn snippets_are_watched_and_so_is_the_keytab_that_sssd_names() {
        let (host, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (host, copies) = (host.path(), copies.path());
        std::fs::create_dir(host.join("conf.d")).unwrap();
        std::fs::write(host.join("conf.d/a.conf"), "").unwrap();
        let elsewhere = host.join("elsewhere.keytab");
        let keys = "the keys";
        std::fs::write(&elsewhere, keys).unwrap();
        let text = format!(
            "[domain/a.b]\nenabled = true\nid_provider = ad\nkrb5_keytab = {}\n",
            elsewhere.display()
        );
        std::fs::write(host.join("sssd.conf"), &text).unwrap();
        let later = || std::thread::sleep(std::time::Duration::from_millis(20));
        let copy = |keytab: &str| {
            later();
            std::fs::write(copies.join("sssd.conf"), &text).unwrap();
            std::fs::write(copies.join("sssd.conf.d_a.conf"), "").unwrap();
            std::fs::write(copies.join("keytab"), keytab).unwrap();
            credentials(host, copies)
        };
        let problem = copy("\x05\x02").problem().unwrap();
        assert!(
            problem.contains("sssd.conf names the keytab") && problem.contains("zzzzz-keytab.conf"),
            "{problem}"
        );
        let taken = copy(keys);
        assert_eq!(taken.problem(), None);
        let sources = Sources::new(&taken, []);
        assert_eq!(sources.stale(), None);
        later();
        std::fs::write(host.join("conf.d/a.conf"), "[sssd]\n").unwrap();
        assert_eq!(sources.stale(), Some(host.join("conf.d/a.conf").as_path()));

        let sources = Sources::new(&copy(keys), []);
        std::fs::write(host.join("conf.d/b.conf"), "").unwrap();
        assert_eq!(sources.stale(), Some(host.join("conf.d").as_path()));

        let sources = Sources::new(&copy(keys), []);
        std::fs::write(&elsewhere, "new keys!").unwrap();
        assert_eq!(sources.stale(), Some(elsewhere.as_path()));
    }
}
