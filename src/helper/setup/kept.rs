//! Copies of XCALLY's `.env`: the one from before the bridge, and those of values that a later run replaces.
//!
//! They may hold an AD password, so only root can read them. No copy is ever overwritten.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::super::Failure;
use super::env::File;
use super::write;

/// Folder of the copies.
pub(super) const BACKUP: &str = "/etc/motion-ad/backup";
/// Name of the copy from before the bridge. The others have the time behind it.
const KEPT: &str = "xcally.env";
/// Beginning of the copy's first line; the path of the `.env` follows. dotenv takes the line for a comment.
/// Copies of earlier versions begin with the first line of the `.env`.
const OF: &str = "# Kept by motion-ad setup --bridge: ";

/// The copy of the `.env` from before the bridge.
pub(super) struct Kept {
    /// The file of the copy.
    file: PathBuf,
    /// All of its text.
    whole: String,
    /// Path of the `.env`, unless an earlier version made the copy.
    of: Option<String>,
    /// The text of the `.env`.
    pub(super) text: String,
}

impl Kept {
    /// Reads the copy in `folder`; returns `None` if there is none.
    ///
    /// # Errors
    /// If the copy exists, but cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Failure> {
        let found = File::read_or_none(&path(folder))?;
        let Some(File { path, text, .. }) = found else { return Ok(None) };
        Ok(Some(Kept::parse(path, text)))
    }

    fn parse(file: PathBuf, whole: String) -> Self {
        let marked = whole.strip_prefix(OF).and_then(|rest| rest.split_once('\n'));
        let (of, text) = match marked {
            Some((of, text)) => (Some(of.to_owned()), text.to_owned()),
            None => (None, whole.clone()),
        };
        Kept { file, whole, of, text }
    }

    /// Returns the file that the copy is of, if that is another one than `path`, as far as is known.
    pub(super) fn of_another(&self, path: &str) -> Option<&str> {
        self.of.as_deref().filter(|of| *of != path)
    }

    /// The path of the copy.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

/// Returns the path of the copy from before the bridge.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(KEPT)
}

/// Keeps `text`, the `.env` at `path` from before the bridge, and gives an earlier copy a name with the time.
/// Returns the path of the copy, and that of the earlier one.
///
/// # Errors
/// If a copy cannot be read or written.
pub(super) fn keep(folder: &Path, path: &str, text: &str) -> Result<(PathBuf, Option<PathBuf>), Failure> {
    let earlier = match Kept::read(folder)? {
        Some(copy) if copy.text != text || copy.of_another(path).is_some() => {
            Some(aside(folder, &copy.whole)?)
        }
        _ => None,
    };
    let file = self::path(folder);
    let whole = format!("{OF}{path}\n{text}");
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.and_then(|()| write::secret(&file, whole.as_bytes()))
        .map_err(|error| Failure::Write { file: file.clone(), error })?;
    Ok((file, earlier))
}

/// Writes `text` to a copy with the time in its name. Returns its path.
///
/// # Errors
/// If the copy cannot be written.
pub(super) fn aside(folder: &Path, text: &str) -> Result<PathBuf, Failure> {
    let file = self::path(folder);
    write::backup(&file, text, folder).map_err(|error| Failure::Write { file, error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ENV: &str = "/var/opt/motion2/.env";

    #[test]
    fn a_copy_knows_its_file_and_one_of_an_earlier_version_is_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("backup");
        assert!(Kept::read(&folder).unwrap().is_none());
        let (file, earlier) = keep(&folder, ENV, "A=1\n").unwrap();
        let copy = Kept::read(&folder).unwrap().unwrap();
        assert_eq!((copy.text.as_str(), copy.file(), earlier), ("A=1\n", file.as_path(), None));
        assert_eq!((copy.of_another(ENV), copy.of_another("/opt/other/.env")), (None, Some(ENV)));
        // A copy that was copied back has the line already.
        keep(&folder, ENV, &copy.whole).unwrap();
        assert_eq!(Kept::read(&folder).unwrap().unwrap().text, copy.whole);
        for old in ["# AD\nA=1\n", "", "# Kept by motion-ad setup --bridge: "] {
            fs::write(&file, old).unwrap();
            let copy = Kept::read(&folder).unwrap().unwrap();
            assert_eq!((copy.of.as_deref(), copy.text.as_str()), (None, old));
            assert_eq!(copy.of_another(ENV), None);
        }
    }

    #[test]
    fn no_copy_is_lost_and_only_root_can_read_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("backup");
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(keep(&folder, ENV, "A=1\n").unwrap().1, None);
        assert_eq!(keep(&folder, ENV, "A=1\n").unwrap().1, None);
        assert_eq!(names(), ["xcally.env"]);
        let earlier = keep(&folder, ENV, "A=2\n").unwrap().1.unwrap();
        assert!(fs::read_to_string(&earlier).unwrap().ends_with(&format!("{ENV}\nA=1\n")));
        let other = aside(&folder, "A=3\n").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "A=3\n");
        assert_eq!(names().len(), 3);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&folder), 0o700);
        for name in names() {
            assert_eq!(mode(&folder.join(&name)), 0o600, "{}", name.display());
        }
    }
}
