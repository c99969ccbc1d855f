//! Replaces a file as a whole, so that no reader ever sees a part of it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt, OpenOptionsExt as _, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use time::OffsetDateTime;

/// Mode of a new `config.toml`.
const MODE: u32 = 0o644;

/// Replaces the file `path` by `text`, with the same mode and owner, and keeps the old file next to it.
/// Returns the path of the old file, if there was one. Replaces the target of a symbolic link, not the link.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<Option<PathBuf>> {
    let path = match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_owned(),
        other => other?,
    };
    let old = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some((other?, fs::metadata(&path)?)),
    };
    let like = old.as_ref().map(|(_, like)| like);
    // Both files are complete before either name changes.
    let new = beside(&path, text.as_bytes(), like)?;
    let kept = match &old {
        Some((bytes, like)) => {
            let mut name = path.clone().into_os_string();
            name.push(".bak");
            beside(&path, bytes, Some(like))?.persist(&name)?;
            Some(PathBuf::from(name))
        }
        None => None,
    };
    new.persist(&path)?;
    // A rename is on disk once its folder is synced.
    File::open(folder(&path))?.sync_all()?;
    Ok(kept)
}

/// Replaces the file `path` by `text`, with the same mode and owner. The caller keeps the old file.
pub(in crate::helper) fn put(path: &Path, text: &str) -> io::Result<()> {
    let like = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    beside(path, text.as_bytes(), like.as_ref())?.persist(path)?;
    File::open(folder(path))?.sync_all()
}

/// Replaces the file `path`, or a symbolic link of that name, by `text`, with the mode and owner of `like`.
pub(super) fn put_as(path: &Path, text: &str, like: &Metadata) -> io::Result<()> {
    beside(path, text.as_bytes(), Some(like))?.persist(path)?;
    File::open(folder(path))?.sync_all()
}

/// Replaces the file `path` by `bytes`; only its owner, the current user, can read it.
pub(super) fn secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // tempfile creates it with mode 0600.
    let mut file = NamedTempFile::new_in(folder(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder(path))?.sync_all()
}

/// Copies the text to a file with the time in its name, in a folder for root only; in /etc/pam.d, it would be
/// a service. Returns the path of the copy.
pub(in crate::helper) fn backup(file: &Path, text: &str, folder: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let at = OffsetDateTime::now_utc();
    let (day, time) = (at.date(), at.time());
    let (hour, minute, second) = time.as_hms();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // Two changes within one second get separate copies.
    for number in 0..100 {
        let copy = folder.join(format!("{name}.{day}T{hour:02}{minute:02}{second:02}Z.{number}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
            Ok(mut written) => {
                written.write_all(text.as_bytes())?;
                written.sync_all()?;
                File::open(folder)?.sync_all()?;
                return Ok(copy);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Creates a complete file in the folder of `path`, still under a temporary name.
fn beside(path: &Path, bytes: &[u8], like: Option<&Metadata>) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(folder(path))?;
    file.write_all(bytes)?;
    let mode = like.map_or(MODE, |like| like.mode() & 0o7777);
    if let Some(like) = like {
        fchown(file.as_file(), Some(like.uid()), Some(like.gid()))?;
    }
    // After the owner: a change of the owner clears mode bits.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_file_is_kept_and_mode_and_link_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (link, path, bak) =
            (dir.path().join("config.toml"), dir.path().join("real.toml"), dir.path().join("real.toml.bak"));
        fs::write(&path, "old\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(replace(&link, "new\n").unwrap(), Some(bak.clone()));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        for (file, text) in [(&path, "new\n"), (&bak, "old\n")] {
            assert_eq!(fs::read_to_string(file).unwrap(), text);
            assert_eq!(fs::metadata(file).unwrap().mode() & 0o7777, 0o640, "{}", file.display());
        }
        replace(&path, "newer\n").unwrap();
        assert_eq!(fs::read_to_string(&bak).unwrap(), "new\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_secret_is_its_owners_alone_and_a_link_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("secret"), dir.path().join("other"));
        fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        secret(&path, b"x\n").unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o600);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        put_as(&path, "y\n", &fs::metadata(&other).unwrap()).unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(&other).unwrap()),
            ("y\n".into(), "theirs".into())
        );
    }

    #[test]
    fn a_file_that_was_not_there_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert_eq!(replace(&path, "new\n").unwrap(), None);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        assert!(replace(Path::new("/nonexistent/config.toml"), "x").is_err());
    }

    #[test]
    fn a_copy_has_a_name_of_its_own_and_holds_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (file, copies) = (folder.path().join("motion"), folder.path().join("backup"));
        let one = backup(&file, "one\n", &copies).unwrap();
        let two = backup(&file, "two\n", &copies).unwrap();
        assert_ne!(one, two);
        assert_eq!(fs::read_to_string(one).unwrap() + &fs::read_to_string(two).unwrap(), "one\ntwo\n");
    }
}
