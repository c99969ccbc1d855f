//! Files of the state directory: AD's last answers, for a broker that starts while AD does not answer.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::SystemTime;

/// Maximum length of a file that is read, in bytes: more than any that is written.
const LONGEST: u64 = 32 << 20;

/// Returns the content of `file` and the time when it was written; `None` if there is no such file.
///
/// # Errors
/// Returns an error if it cannot be read or is longer than any file that is written.
pub(super) fn read(file: &Path) -> io::Result<Option<(Vec<u8>, SystemTime)>> {
    let file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let metadata = file.metadata()?;
    if metadata.len() > LONGEST {
        return Err(io::Error::other("the file is too long"));
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(Some((text, metadata.modified()?)))
}

/// Replaces the file `name` in `directory` by `parts`.
///
/// # Errors
/// Returns an error if it cannot be written; then the old file is unchanged.
pub(super) fn write(directory: &Path, name: &str, parts: &[&str]) -> io::Result<()> {
    // Created with mode 0600, and removed unless it is renamed to its final name.
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    for part in parts {
        file.write_all(part.as_bytes())?;
    }
    file.as_file().sync_all()?;
    file.persist(directory.join(name))?;
    // The new name is on disk only once its directory is.
    File::open(directory)?.sync_all()
}
