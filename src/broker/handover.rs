//! Data that a broker which restarts itself leaves to the next one: its counters and the last good
//! configuration.
//!
//! Only a broker that ends because a file changed leaves it, for the moment until systemd starts the next
//! one. A start by hand, at boot or after a crash finds none, so a configuration that cannot be used denies
//! every login then. One exception: a restart by hand in that very moment takes what was left, because
//! systemd does not tell a service why it is started.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::metrics::Saved;
use crate::config::kept::{Kept, LastGood};
use crate::config::shown;
use crate::config::{Config, ConfigError, Credentials, Problem, Store};
use crate::directory::trust::Trust;
use crate::protocol::monotonic;
use crate::protocol::report::Setting;
use crate::sessions::redis::Redis;

/// Name of the file in the state directory.
const FILE: &str = "handover.json";
/// Maximum age: the next broker starts within this time, and older data belongs to another start.
const AGE: Duration = Duration::from_secs(30);
/// Maximum number of characters of a value in the report.
const LONGEST_VALUE: usize = 500;

/// The data for the next broker.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Handover {
    /// Time of the handover in nanoseconds of CLOCK_MONOTONIC, so that another boot or a changed clock cannot
    /// fake its age.
    at: u64,
    pub(super) counters: Saved,
    pub(super) last_good: Option<LastGood>,
}

impl Handover {
    /// Writes it to `folder`, readable by the broker's user only.
    ///
    /// # Errors
    /// Returns the cause if the file cannot be written.
    pub(super) fn leave(counters: Saved, last_good: Option<LastGood>, folder: &Path) -> io::Result<()> {
        let handover = Handover { at: now(), counters, last_good };
        let new = folder.join(format!("{FILE}.new"));
        // A broker that was killed while it wrote left this file.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&handover)?)?;
        fs::rename(new, folder.join(FILE))
    }

    /// Takes the data that was left in `folder` a moment ago, and removes the file.
    pub(super) fn take(folder: Option<&Path>) -> Self {
        let Some(path) = folder.map(|folder| folder.join(FILE)) else { return Handover::default() };
        let text = fs::read(&path);
        let _ = fs::remove_file(&path);
        let left: Option<Handover> = text.ok().and_then(|text| serde_json::from_slice(&text).ok());
        left.filter(|left| {
            let age = now().checked_sub(left.at).map(Duration::from_nanos);
            age.is_some_and(|age| age <= AGE)
        })
        .unwrap_or_default()
    }
}

fn now() -> u64 {
    u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX)
}

/// The last good configuration in place of unusable files.
pub(super) struct InPlace {
    /// Why the files cannot be used.
    pub(super) problem: Problem,
    /// Each key in force.
    pub(super) settings: Vec<Setting>,
}

/// A configuration to use, and why it differs from the files, if it does.
pub(super) struct Loaded {
    pub(super) config: Result<Config, ConfigError>,
    pub(super) kept: Option<InPlace>,
    /// The last good configuration, for the next broker.
    pub(super) last_good: Option<LastGood>,
    /// Files whose change requires a restart, in addition to those of `config`.
    pub(super) broken: Result<Config, ConfigError>,
}

/// Loads `path`, or keeps `last_good` in force while `path` cannot be used.
pub(super) fn load(path: &Path, credentials: &Credentials, last_good: Option<LastGood>) -> Loaded {
    let loaded = credentials.config(path);
    // A first start finds out as it proceeds.
    let usable = match (&loaded, &last_good) {
        (Ok(config), Some(_)) => check(config),
        _ => Ok(()),
    };
    let error = match (loaded, usable) {
        (Ok(config), Ok(())) => {
            let last_good = LastGood::of(path, &config, seconds());
            return Loaded { broken: Ok(config.clone()), config: Ok(config), kept: None, last_good };
        }
        (Err(error), _) | (_, Err(error)) => error,
    };
    let Some(last) = last_good else {
        return Loaded { broken: Err(error.clone()), config: Err(error), kept: None, last_good: None };
    };
    match last
        .keep(path, &credentials.sssd, |config| check(config).is_ok())
        .and_then(|kept| check(&kept.config).map(|()| kept))
    {
        Ok(kept) => {
            let problem = in_place_of(&error, &kept, last.since);
            let settings = shown::kept(&kept, path).into_iter().map(short).collect();
            let in_place = Some(InPlace { problem, settings });
            Loaded { config: Ok(kept.config), kept: in_place, last_good: Some(last), broken: Err(error) }
        }
        Err(also) => {
            let config = Err(both(&error, &also));
            Loaded { config, kept: None, last_good: None, broken: Err(error) }
        }
    }
}

/// Checks that the files that `config` names can be used, too.
fn check(config: &Config) -> Result<(), ConfigError> {
    Trust::load(config.tls.ca_file.as_deref(), None)?;
    match &config.sessions.store {
        Store::Redis(redis) => {
            let problem = |text| Problem { file: crate::config::CONFIG.into(), line: None, text };
            Ok(Redis::check(redis).map_err(problem)?)
        }
        Store::Sqlite => Ok(()),
    }
}

/// Cuts a long value, so that the report fits in a frame.
fn short(mut setting: Setting) -> Setting {
    if let Some((end, _)) = setting.value.char_indices().nth(LONGEST_VALUE) {
        setting.value.truncate(end);
        setting.value += " […]";
    }
    setting
}

fn in_place_of(error: &ConfigError, kept: &Kept, since: u64) -> Problem {
    let since =
        i64::try_from(since).ok().and_then(|since| time::OffsetDateTime::from_unix_timestamp(since).ok());
    let since = since
        .map(|at| format!(" of {} {:02}:{:02} UTC", at.date(), at.hour(), at.minute()))
        .unwrap_or_default();
    let mut stricter = kept.stricter.clone();
    if !kept.withheld.is_empty() {
        let (map, names) = (kept.config.map_file.display(), kept.withheld.join(", "));
        stricter.push(format!("changed names of {map} are refused: {names}"));
    }
    let stricter = match stricter.as_slice() {
        [] => String::new(),
        stricter => format!(" (stricter by the new file: {})", stricter.join("; ")),
    };
    let stays = format!("; until that is fixed the last good configuration{since} stays in force{stricter}");
    match error {
        ConfigError::Broken(problem) => Problem { text: problem.text.clone() + &stays, ..problem.clone() },
        ConfigError::NotJoined => {
            Problem { file: crate::config::CONFIG.into(), line: None, text: error.to_string() + &stays }
        }
    }
}

/// Builds the error for two configurations, the present and the last good one, that cannot be used.
fn both(error: &ConfigError, also: &ConfigError) -> ConfigError {
    match (error, also) {
        (ConfigError::Broken(problem), ConfigError::Broken(also)) if problem.text != also.text => {
            Problem { text: format!("{}; {}", problem.text, also.text), ..problem.clone() }.into()
        }
        (error, _) => error.clone(),
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_once_and_only_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let last = LastGood { config: "a".into(), map: "b".into(), since: 7 };
        Handover::leave(Saved::default(), Some(last.clone()), dir.path()).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(dir.path().join(FILE)).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Handover::take(Some(dir.path())).last_good, Some(last.clone()));
        assert_eq!(Handover::take(Some(dir.path())).last_good, None);
        for at in [0, now() - 31_000_000_000, now() + 60_000_000_000] {
            let old = Handover { at, last_good: Some(last.clone()), ..Handover::default() };
            fs::write(dir.path().join(FILE), serde_json::to_vec(&old).unwrap()).unwrap();
            assert_eq!(Handover::take(Some(dir.path())).last_good, None, "{at}");
        }
        fs::write(dir.path().join(FILE), "nonsense").unwrap();
        assert_eq!(Handover::take(Some(dir.path())).last_good, None);
        assert_eq!(Handover::take(None).last_good, None);
    }

    #[test]
    fn a_first_start_denies_and_a_later_one_keeps_what_was_good() {
        let dir = tempfile::tempdir().unwrap();
        let (path, map) = (dir.path().join("config.toml"), dir.path().join("names.map"));
        let good = format!("names.map_file = {map:?}\ndomain.name = \"acme.com\"\n");
        fs::write(&map, "").unwrap();
        fs::write(&path, &good).unwrap();
        let credentials = Credentials::find(Some(dir.path()));
        let first = load(&path, &credentials, None);
        assert!(first.kept.is_none());
        let last = first.last_good.unwrap();

        fs::write(&path, format!("{good}login.alow_groups = []\n")).unwrap();
        let denied = load(&path, &credentials, None);
        assert!(denied.config.is_err() && denied.kept.is_none() && denied.last_good.is_none());
        let kept = load(&path, &credentials, Some(last.clone()));
        assert!(kept.config.is_ok());
        let in_place = kept.kept.unwrap();
        let shown = |key: &str| in_place.settings.iter().find(|setting| setting.key == key).unwrap();
        assert_eq!(
            (shown("domain.name").value.as_str(), shown("domain.name").from.as_str()),
            ("\"acme.com\"", "the last good configuration")
        );
        let text = in_place.problem.to_string();
        assert!(
            text.contains("line 3") && text.contains("alow_groups") && text.contains("stays in force"),
            "{text}"
        );
        assert_eq!(kept.last_good, Some(last.clone()), "it is handed on");

        // A configured file that cannot be read is a typo, too.
        fs::write(&path, format!("{good}tls.ca_file = \"/nonexistent.pem\"\n")).unwrap();
        assert!(load(&path, &credentials, None).config.is_ok(), "a first start finds out as it goes");
        let kept = load(&path, &credentials, Some(last)).config.unwrap();
        assert_eq!(kept.tls.ca_file, None);
    }
}
