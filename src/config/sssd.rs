//! `sssd.conf` and its snippets, read as SSSD reads them (sssd.conf(5), libini's `ini_parse.c`).
//!
//! Keys and sections ignore case, a section that is given twice is one section, and the last value of a key
//! counts. Snippets come after the file, in the order of their names. An empty value counts as missing.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Problem;
use super::text::{self, Unread};
use crate::name::fold;

/// Reason why the join of this host is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// The file exists, but this process may not read it.
    Denied(Problem),
    /// The file exists, but is malformed.
    Broken(Problem),
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Denied(problem) | JoinError::Broken(problem) => problem,
        }
    }
}

/// Folder of the snippets next to `sssd.conf`.
const FOLDER: &str = "conf.d";
/// The same folder on the host, as systemd reads it for the broker.
pub(super) const SNIPPETS: &str = "/etc/sssd/conf.d";
/// Prefix of the name of a snippet that systemd copied (`LoadCredential=sssd.conf.d:…`, systemd.exec(5)).
pub(super) const COPIED: &str = "sssd.conf.d_";

/// The sections of the file and its snippets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sssd {
    sections: Vec<Section>,
}

/// A section.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    /// Its name as it is first written.
    pub(super) name: String,
    values: HashMap<String, Value>,
}

#[derive(Debug, PartialEq, Eq)]
struct Value {
    text: String,
    file: PathBuf,
    line: usize,
}

impl Sssd {
    /// Reads the file `path` and its snippets; returns `None` if there are none.
    ///
    /// # Errors
    /// Returns [`JoinError`] if one of them exists and cannot be read or parsed.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, JoinError> {
        let mut all = Sssd::default();
        let mut found = all.add(path)?;
        for snippet in snippets(path) {
            found |= all.add(&snippet)?;
        }
        Ok(found.then_some(all))
    }

    /// Returns the section `name`.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        let name = fold(name);
        self.sections.iter().find(|section| fold(&section.name) == name)
    }

    /// Returns the domains that SSSD serves, those of `domains` first: each name, and its section.
    pub(super) fn domains(&self) -> Result<Vec<(&str, &Section)>, Problem> {
        let listed = match self.section("sssd") {
            Some(sssd) => sssd.list("domains")?,
            None => Vec::new(),
        };
        let own =
            |section: &'_ Section| section.name.get(.."domain/".len()).is_some_and(|p| fold(p) == "domain/");
        let domains = self.sections.iter().filter(|section| own(section));
        // A second slash comes before the name of a domain that the first one trusts.
        let domains: Vec<_> = domains
            .filter_map(|section| Some((section.name.get("domain/".len()..)?.trim(), section)))
            .filter(|(name, _)| !name.contains('/'))
            .collect();
        let position = |name: &str| listed.iter().position(|listed| fold(listed) == fold(name));
        let mut served = Vec::new();
        for (name, section) in domains {
            let is_served = match section.get("enabled")? {
                Some(enabled) => fold(enabled) == "true",
                None => position(name).is_some(),
            };
            if is_served {
                // In the spelling of `domains`, which is SSSD's name for it.
                let place = position(name);
                let name = place.and_then(|place| listed.get(place).copied()).unwrap_or(name);
                served.push((place.unwrap_or(usize::MAX), name, section));
            }
        }
        served.sort_by_key(|(place, ..)| *place);
        Ok(served.into_iter().map(|(_, name, section)| (name, section)).collect())
    }

    /// Adds the file `path`; returns false if there is none.
    fn add(&mut self, path: &Path) -> Result<bool, JoinError> {
        match text::read(path) {
            Ok(text) => self.parse(path, &text).map(|()| true).map_err(JoinError::Broken),
            Err(Unread::Io(e)) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) if e.kind() == Some(io::ErrorKind::PermissionDenied) => Err(JoinError::Denied(e.of(path))),
            Err(e) => Err(JoinError::Broken(e.of(path))),
        }
    }

    pub(crate) fn parse(&mut self, file: &Path, text: &str) -> Result<(), Problem> {
        let (mut section, mut in_comment) = (None, false);
        for (line, text) in (1..).zip(text.lines()) {
            if is_comment(text, &mut in_comment) {
                continue;
            }
            let fail =
                |text: &str| Problem { file: file.to_owned(), line: Some(line), text: text.to_owned() };
            if let Some(rest) = text.strip_prefix('[') {
                let name = rest.trim_end().strip_suffix(']').map(str::trim);
                let name = name.filter(|name| !name.is_empty()).ok_or_else(|| fail("expected [section]"))?;
                section = Some(self.place_of(name));
                continue;
            }
            let (key, value) = text.split_once('=').ok_or_else(|| fail("expected key = value"))?;
            if key.trim().is_empty() {
                return Err(fail("expected key = value"));
            }
            let place = section.ok_or_else(|| fail("expected a [section] before the first key"))?;
            let value = Value { text: value.trim().to_owned(), file: file.to_owned(), line };
            if let Some(section) = self.sections.get_mut(place) {
                section.values.insert(fold(key.trim()), value);
            }
        }
        Ok(())
    }

    fn place_of(&mut self, name: &str) -> usize {
        let same = |section: &Section| fold(&section.name) == fold(name);
        self.sections.iter().position(same).unwrap_or_else(|| {
            self.sections.push(Section { name: name.to_owned(), values: HashMap::new() });
            self.sections.len() - 1
        })
    }
}

impl Section {
    /// Returns the value of `key`.
    ///
    /// # Errors
    /// Returns [`Problem`] if it holds an invisible character.
    pub(super) fn get(&self, key: &str) -> Result<Option<&str>, Problem> {
        let Some(value) = self.values.get(key).filter(|value| !value.text.is_empty()) else {
            return Ok(None);
        };
        match text::invisible(&value.text) {
            Some(flaw) => Err(text::Flaw { line: value.line, ..flaw }.of(&value.file)),
            None => Ok(Some(&value.text)),
        }
    }

    /// Returns the items of the list `key`, separated by commas.
    ///
    /// # Errors
    /// Returns the same errors as [`Section::get`].
    pub(super) fn list(&self, key: &str) -> Result<Vec<&str>, Problem> {
        let items = self.get(key)?.into_iter().flat_map(|value| value.split(','));
        Ok(items.map(str::trim).filter(|item| !item.is_empty()).collect())
    }
}

/// Returns true for an empty line, and for one of a comment: `#`, `;` or `//` at its beginning, or C's
/// `/* … */`.
fn is_comment(line: &str, inside: &mut bool) -> bool {
    let is_opened = !*inside && line.starts_with("/*");
    if *inside || is_opened {
        let rest = if is_opened { line.get(2..).unwrap_or_default() } else { line };
        *inside = !rest.trim_end().ends_with("*/");
        return true;
    }
    line.trim().is_empty() || line.starts_with(['#', ';']) || line.starts_with("//")
}

/// Returns the snippets of the file `path` that SSSD reads, in its order: from the folder next to it, or as
/// systemd copied them.
fn snippets(path: &Path) -> Vec<PathBuf> {
    snippets_of(path, Path::new(SNIPPETS))
}

/// Returns the same snippets; `source` is the folder that systemd copied from.
pub(super) fn snippets_of(path: &Path, source: &Path) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut found =
        files_of(&folder.join(FOLDER), |name| Some(name.to_owned()), |name| folder.join(FOLDER).join(name));
    let copied = |name: &str| name.strip_prefix(COPIED).map(str::to_owned);
    found.extend(files_of(folder, copied, |name| source.join(name)));
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Returns the snippets in `folder`, each with its name. `source` returns the path from which SSSD reads a
/// snippet.
fn files_of(
    folder: &Path,
    name_of: impl Fn(&str) -> Option<String>,
    source: impl Fn(&str) -> PathBuf,
) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let snippet = |entry: fs::DirEntry| {
        let name = name_of(entry.file_name().to_str()?)?;
        let is_named = name.ends_with(".conf") && name.len() > ".conf".len() && !name.starts_with('.');
        (is_named && is_taken(&source(&name))).then(|| (name, entry.path()))
    };
    entries.filter_map(snippet).collect()
}

/// Returns true if SSSD reads the snippet at `source`. Other users may neither read nor write such a file. If
/// `source` does not exist, the snippet was copied from a subfolder, which SSSD does not read.
fn is_taken(source: &Path) -> bool {
    let is_private = |file: &Metadata| file.is_file() && file.mode() & 0o027 == 0;
    match fs::metadata(source) {
        Ok(file) => is_private(&file),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}
