//! The files that the broker was started from, and whether they have changed since.
//!
//! systemd copies the keytab and `sssd.conf` into the unit's credentials when it starts the broker
//! (`LoadCredential=`, systemd.exec(5)), so a changed source asks for a new start. The broker may not read the
//! sources themselves, but everybody may ask for a file's times, so a `stat` before each login is enough.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::join::SSSD_CONF;

/// Where the realm join writes the machine's keys.
const KEYTAB: &str = "/etc/krb5.keytab";

/// The join's secrets as this process has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The machine's keys.
    pub keytab: PathBuf,
    /// The join's configuration.
    pub sssd: PathBuf,
    /// Files of the host that the two were copied from.
    sources: Vec<Source>,
}

impl Credentials {
    /// The credentials in `directory` (`$CREDENTIALS_DIRECTORY`), else the host's own files.
    pub fn find(directory: Option<&Path>) -> Self {
        match directory {
            Some(directory) => {
                let (keytab, sssd) = (directory.join("keytab"), directory.join("sssd.conf"));
                let sources = vec![Source::copied(KEYTAB, &keytab), Source::copied(SSSD_CONF, &sssd)];
                Credentials { keytab, sssd, sources }
            }
            None => Credentials {
                keytab: KEYTAB.into(),
                sssd: SSSD_CONF.into(),
                sources: vec![Source::read(KEYTAB), Source::read(SSSD_CONF)],
            },
        }
    }

    /// Why the machine account cannot work with them, for people.
    pub fn problem(&self) -> Option<String> {
        let filled = is_filled(&self.keytab);
        let text =
            format!("the keytab {KEYTAB} is missing or empty; join the domain with `realm join DOMAIN`");
        (!filled).then_some(text)
    }
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

    /// A file that systemd copied to `copy` before this process began. Without the file the copy holds the
    /// unit's empty default.
    fn copied(path: &str, copy: &Path) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), i64::from(now.subsec_nanos()));
        let filled = is_filled(copy);
        let seen = match (look(Path::new(path)), look(copy)) {
            // A source from the future is a clock that was set back, and no reason to start again for ever.
            (Some(Look::There(source)), Some(Look::There(copy)))
                if filled && (source.changed <= copy.changed || source.changed > now) =>
            {
                Look::There(source)
            }
            _ if filled => Look::Past,
            _ => Look::Absent,
        };
        Source { path: path.into(), seen }
    }

    /// A file that may not be looked at cannot be told to have changed.
    fn is_stale(&self) -> bool {
        look(&self.path).is_some_and(|now| now != self.seen)
    }
}

/// Whether a credential is more than the unit's default for a missing source: a keytab without keys is its two
/// bytes of version, an empty `sssd.conf` one line feed.
fn is_filled(credential: &Path) -> bool {
    std::fs::metadata(credential).is_ok_and(|file| file.len() > 2)
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
        let taken = || Source::copied(source.to_str().unwrap(), &copy);

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
}
