//! XCALLY's `.env` as a file that is changed as a whole.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Failure, is_denied};
use super::lines::{Change, name};
use super::write;
use crate::config::xcally::change::set;
use crate::config::{Problem, xcally};

/// The `.env`, or a copy of it.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) metadata: fs::Metadata,
}

impl File {
    /// Reads the file.
    ///
    /// # Errors
    /// If there is no such file, or it cannot be read.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        File::read_or_none(path)?.ok_or_else(|| broken(path, "there is no such file"))
    }

    /// Reads the file; returns `None` if there is none.
    ///
    /// # Errors
    /// If the file exists, but cannot be read or is not UTF-8.
    pub(super) fn read_or_none(path: &Path) -> Result<Option<Self>, Failure> {
        let found = xcally::read(path).map_err(|problem| match is_denied(path) {
            true => Failure::Denied(problem.into()),
            false => Failure::Config(problem.into()),
        })?;
        let Some((bytes, metadata)) = found else { return Ok(None) };
        let text =
            std::str::from_utf8(&bytes).map_err(|_| broken(path, "is not UTF-8: change it by hand"))?;
        Ok(Some(File { path: path.to_owned(), text: text.to_owned(), metadata }))
    }

    /// Returns the absolute path without links, as the copy names the file.
    ///
    /// # Errors
    /// If the path is not text of one line, or the file is gone.
    pub(super) fn place(&self) -> Result<String, Failure> {
        let path = fs::canonicalize(&self.path)
            .map_err(|error| Failure::Write { file: self.path.clone(), error })?;
        let text = path.to_str().filter(|text| !text.contains(char::is_control));
        text.map(str::to_owned).ok_or_else(|| broken(&path, "the path is not UTF-8 on one line"))
    }

    /// Returns the text with `changes`.
    ///
    /// # Errors
    /// Returns an error if the file has a flaw because of which XCALLY would read it otherwise.
    pub(super) fn changed(&self, changes: &[Change]) -> Result<String, Failure> {
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
    pub(super) fn change(&self, changes: &[Change]) -> Result<(), Failure> {
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

fn broken(file: &Path, text: &str) -> Failure {
    Failure::Config(Problem { file: file.to_owned(), line: None, text: text.to_owned() }.into())
}
