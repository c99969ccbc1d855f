//! The files that the broker was started from, and a check whether they have changed since.
//!
//! When systemd starts the broker, it copies the keytab, `sssd.conf` and its snippets into the unit's
//! credentials (`LoadCredential=`, systemd.exec(5)). So a changed source requires a new start. The broker may
//! not read these sources, but every user may read a file's times, so a `stat` before each login is enough.
//!
//! A start of SSSD touches `krb5.conf` and sets the modes of its own files. So a file that this process may
//! read counts as changed only if its contents differ, and another one not if only its owner or mode does,
//! unless that makes it readable.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};

use super::join::{Join, SSSD_CONF};
use super::samba::{self, SMB_CONF};
use super::sssd::{COPIED, SNIPPETS};
use super::{Config, ConfigError, Problem};

/// Path of the machine's keys, which the realm join writes.
pub const KEYTAB: &str = "/etc/krb5.keytab";

/// The secrets of the join, as this process has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The machine's keys.
    pub keytab: PathBuf,
    /// The join's configuration.
    pub sssd: PathBuf,
    /// The keytab of the host that [`Credentials::keytab`] should be a copy of.
    original: PathBuf,
    /// True if systemd copied the files for this process.
    is_copied: bool,
    /// Files of the host that were copied.
    sources: Vec<Source>,
}

impl Credentials {
    /// Finds the credentials in `directory` (`$CREDENTIALS_DIRECTORY`), else the host's own files.
    pub fn find(directory: Option<&Path>) -> Self {
        Credentials::of(directory, Path::new(KEYTAB), Path::new(SSSD_CONF), Path::new(SNIPPETS))
    }

    /// Returns the keytab of the host: the one that `sssd` names, else the usual one.
    pub fn keytab_of(sssd: &Path) -> PathBuf {
        named_keytab(sssd).unwrap_or_else(|| KEYTAB.into())
    }

    fn of(directory: Option<&Path>, keytab: &Path, sssd: &Path, snippets: &Path) -> Self {
        let copy = |name: &str, of: &Path| directory.map_or(of.to_owned(), |directory| directory.join(name));
        let copied = copy("sssd.conf", sssd);
        let original = named_keytab(&copied).unwrap_or_else(|| keytab.to_owned());
        let keytab = match directory {
            Some(directory) => directory.join("keytab"),
            None => original.clone(),
        };
        let mut sources = vec![Source::of(&original, &keytab), Source::of(sssd, &copied)];
        // The folder changes when a snippet is added or removed. It was read together with `sssd.conf`.
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

    /// Reads `config` and the name map, and completes them from the join's `sssd.conf`. If the host does not
    /// seem to be joined, the error describes other signs of a join.
    ///
    /// # Errors
    /// Returns the same errors as [`Config::load`].
    pub fn config(&self, config: &Path) -> Result<Config, ConfigError> {
        let read = Config::load(config, &self.sssd);
        match read {
            Err(ConfigError::NotJoined) => {
                Err(self.unjoined(config, Path::new(SSSD_CONF), Path::new(SMB_CONF)))
            }
            other => other,
        }
    }

    /// Returns the reason why no domain is known; `sssd` and `smb` are the host's own files.
    fn unjoined(&self, config: &Path, sssd: &Path, smb: &Path) -> ConfigError {
        if self.is_copied && !is_filled(&self.sssd) && is_filled(sssd) {
            let text = format!("systemd did not hand it over; {WITHHELD}: {}", drop_in(&self.original));
            return Problem { file: sssd.to_owned(), line: None, text }.into();
        }
        let Some(realm) = samba::realm(smb) else { return ConfigError::NotJoined };
        let text = format!(
            "names the realm {realm}, so this host is joined by winbind, and there is no {}; write these two \
             lines into {}: [domain] and name = \"{}\"",
            sssd.display(),
            config.display(),
            realm.to_lowercase()
        );
        Problem { file: smb.to_owned(), line: None, text }.into()
    }

    /// Returns the reason why the machine account cannot work with them, for administrators.
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

/// Reason why systemd may omit a file.
const WITHHELD: &str = "a drop-in that empties LoadCredential= does that, as images of LXC and Incus have \
    one (`systemctl cat motion-ad.service` shows it); remove it, or add one with a later name";

/// Returns the keytab that the join's configuration names, if any.
fn named_keytab(sssd: &Path) -> Option<PathBuf> {
    Join::load(sssd, None).ok()?.keytab
}

/// Returns the command that makes systemd copy `keytab` and SSSD's files.
fn drop_in(keytab: &Path) -> String {
    const FOLDER: &str = "/etc/systemd/system/motion-ad.service.d";
    format!(
        "`mkdir -p {FOLDER} && printf \
         '[Service]\\nLoadCredential=%s\\nLoadCredential=%s\\nLoadCredential=%s\\n' keytab:{} \
         sssd.conf:{SSSD_CONF} sssd.conf.d:{SNIPPETS} >{FOLDER}/zzzzz-keytab.conf && systemctl daemon-reload \
         && systemctl restart motion-ad.service`",
        keytab.display()
    )
}

/// A file, and its state when the broker read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    seen: Look,
    /// The contents; `None` if the process may not read the file, or reads a copy.
    contents: Option<Contents>,
    /// True if the process reads a copy.
    is_copied: bool,
}

/// Digest of a file's contents.
type Contents = [u8; 32];

/// The result of a `stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Absent,
    /// The broker has read an earlier state of the file.
    Past,
    There(Stamp),
}

/// The attributes that change when a file is rewritten or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    /// Time of the last write.
    written: (i64, i64),
    /// Time of the last change of the file or of its owner or mode.
    changed: (i64, i64),
}

impl Source {
    /// Creates the source for a file that is read now.
    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let seen = look(&path).unwrap_or(Look::Absent);
        Source { seen, contents: contents(&path), path, is_copied: false }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the source for the file `path`, whose contents this process reads from `copy`: the file
    /// itself, or the copy that systemd made before this process started. If the file is missing, the copy
    /// holds the unit's empty default.
    pub fn of(path: &Path, copy: &Path) -> Self {
        if path == copy {
            return Source::read(path);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), i64::from(now.subsec_nanos()));
        let filled = is_filled(copy);
        let seen = match (look(path), look(copy)) {
            // A source without contents has nothing to hand over, now or at the next start: it waits for a
            // join.
            (Some(Look::There(source)), _) if !filled && source.size <= EMPTY => Look::There(source),
            // A source with a time in the future shows that the clock was set back, which must not cause
            // endless restarts. Neither must a source that existed before systemd used the default: a new
            // start would do the same.
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
        Source { path: path.to_owned(), seen, contents: None, is_copied: true }
    }

    /// Returns true if the file has changed since its state was `seen`. A file that the broker may not `stat`
    /// counts as unchanged, and one that it may no longer read as changed. If only the state has changed,
    /// `seen` follows.
    fn is_stale(&self, seen: &mut Look) -> bool {
        let Some(now) = look(&self.path).filter(|now| now != seen) else { return false };
        let (Look::There(before), Look::There(after)) = (&*seen, &now) else { return true };
        let is_same = match self.contents {
            Some(known) => contents(&self.path) == Some(known),
            // A file that the process may read now, and could not read before, is a change.
            None => {
                (before.inode, before.size, before.written) == (after.inode, after.size, after.written)
                    && (self.is_copied || contents(&self.path).is_none())
            }
        };
        // A change during the read is noticed next time.
        if is_same && look(&self.path) == Some(now) {
            *seen = now;
        }
        !is_same
    }
}

/// Returns the digest of a file's contents; `None` if the process may not read it, or if it is a folder.
fn contents(path: &Path) -> Option<Contents> {
    let contents = std::fs::read(path).ok()?;
    digest(&SHA256, &contents).as_ref().try_into().ok()
}

/// Returns true if a credential is more than the unit's default for a missing source: a keytab without keys
/// has two bytes, its version, and an empty `sssd.conf` has one line feed.
fn is_filled(credential: &Path) -> bool {
    size(credential).is_some_and(|size| size > EMPTY)
}

/// Maximum size of a default of the unit, in bytes.
const EMPTY: u64 = 2;

fn size(file: &Path) -> Option<u64> {
    std::fs::metadata(file).ok().map(|file| file.len())
}

/// Returns `None` if the process may not search the folder of the file.
fn look(path: &Path) -> Option<Look> {
    match std::fs::metadata(path) {
        Ok(file) => Some(Look::There(Stamp::of(&file))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(Look::Absent),
        Err(_) => None,
    }
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Stamp {
            inode: file.ino(),
            size: file.len(),
            written: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// All files that the broker was started from.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
    /// The state of each file when its contents were last found to be the same, in the same order.
    seen: Mutex<Vec<Look>>,
}

impl Sources {
    /// Creates the sources of these files.
    pub fn of(files: impl IntoIterator<Item = Source>) -> Self {
        let files: Vec<_> = files.into_iter().collect();
        let seen = files.iter().map(|file| file.seen).collect();
        Sources { files, seen: Mutex::new(seen) }
    }

    /// Creates the sources of `credentials` and `files`.
    pub fn new(credentials: &Credentials, files: impl IntoIterator<Item = Source>) -> Self {
        Sources::of(credentials.sources.iter().cloned().chain(files))
    }

    /// Returns the first file that has changed since the broker read it.
    pub fn stale(&self) -> Option<&Path> {
        let mut seen = self.seen();
        let mut files = self.files.iter().zip(seen.iter_mut());
        files.find_map(|(file, seen)| file.is_stale(seen).then_some(file.path.as_path()))
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Look>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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
        let sources = || Sources::of([Source::read(&path)]);

        let taken = sources();
        assert_eq!(taken.stale(), None);
        std::fs::write(&path, "longer").unwrap();
        assert_eq!(taken.stale(), Some(path.as_path()));

        let taken = sources();
        std::fs::write(&other, "longer").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(taken.stale(), None, "the same contents");
        std::fs::write(&other, "others").unwrap();
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
        let is_stale = || Sources::of([Source::of(&source, &copy)]).stale().is_some();

        std::fs::write(&copy, "").unwrap();
        assert!(!is_stale(), "no source, and the copy is the empty default");
        std::fs::write(&source, "keys").unwrap();
        assert!(is_stale(), "the source came");
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&copy, "keys").unwrap();
        assert!(!is_stale(), "the copy is younger");
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&source, "new keys").unwrap();
        assert!(is_stale(), "the source is younger");
        std::fs::remove_file(&source).unwrap();
        assert!(is_stale(), "the source went");
    }

    #[test]
    fn what_a_start_of_sssd_does_to_files_is_no_change() {
        use std::fs::{File, Permissions, set_permissions};
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let later = || std::thread::sleep(std::time::Duration::from_millis(20));
        let touch =
            || File::options().append(true).open(&path).unwrap().set_modified(SystemTime::now()).unwrap();
        let mode = |mode| set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        std::fs::write(&path, "one").unwrap();
        let readable = Sources::of([Source::read(&path)]);
        let copy = || Sources::of([Source { contents: None, is_copied: true, ..Source::read(&path) }]);

        later();
        touch();
        assert_eq!(readable.stale(), None, "touched");
        later();
        let (copied, folder) = (copy(), Sources::of([Source::read(dir.path())]));
        mode(0o640);
        set_permissions(dir.path(), Permissions::from_mode(0o751)).unwrap();
        for sources in [&readable, &copied, &folder] {
            assert_eq!(sources.stale(), None, "another mode");
        }
        later();
        touch();
        assert!(copied.stale().is_some(), "written, with contents that nobody can compare");
        assert_eq!(readable.stale(), None);
        // The state that was seen last does not hide a later change.
        later();
        std::fs::write(&path, "two").unwrap();
        assert!(readable.stale().is_some(), "other contents of the same length");
        std::fs::write(&path, "one").unwrap();
        assert_eq!(readable.stale(), None, "and back");
        std::fs::remove_file(&path).unwrap();
        assert!(readable.stale().is_some());
        std::fs::create_dir(&path).unwrap();
        assert!(readable.stale().is_some(), "contents that cannot be read");
    }

    #[test]
    fn a_file_that_becomes_readable_is_a_change() {
        use std::fs::{Permissions, set_permissions};
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "roots").unwrap();
        // As a process sees the file that may not read it.
        let sources = Sources::of([Source { contents: None, ..Source::read(&path) }]);
        assert_eq!(sources.stale(), None);
        std::thread::sleep(std::time::Duration::from_millis(20));
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(sources.stale(), Some(path.as_path()));
    }

    /// Creates copies of a host's files in `directory`, as systemd does; a missing `keytab` has the default
    /// as its copy.
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
    fn a_keytab_without_keys_is_waited_for_and_not_restarted_for() {
        let (host, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (keytab, copy) = (host.path().join("krb5.keytab"), copies.path().join("keytab"));
        let later = || std::thread::sleep(std::time::Duration::from_millis(20));
        for keys in ["", "\x05\x02"] {
            for copied in [None, Some(""), Some("\x05\x02")] {
                let _ = std::fs::remove_file(&copy);
                if let Some(copied) = copied {
                    std::fs::write(&copy, copied).unwrap();
                }
                later();
                // Whichever of the two is younger.
                std::fs::write(&keytab, keys).unwrap();
                let credentials = credentials(host.path(), copies.path());
                let sources = Sources::new(&credentials, []);
                assert_eq!(sources.stale(), None, "{keys:?} {copied:?}");
                assert!(
                    credentials.problem().unwrap().contains("missing or empty"),
                    "{:?}",
                    credentials.problem()
                );
                later();
                std::fs::write(&keytab, "the keys of a join").unwrap();
                assert!(sources.stale().is_some(), "{keys:?} {copied:?}");
            }
        }
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
