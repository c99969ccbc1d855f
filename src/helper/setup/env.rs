//! XCALLY's `.env` as a file that is changed as a whole.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Failure, is_denied};
use super::lines::{Change, name};
use super::write;
use crate::config::xcally::change::set;
use crate::config::{Problem, xcally};

/// The `.env`.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) metadata: fs::Metadata,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
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
