//! The directory of a test: its configuration, and its answers to searches.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::machine::{MachineError, Search};
use crate::config::Config;
use crate::directory::entry::Entry;
use crate::directory::machine::{Machine, Place};

/// The answer to a search with this text in its `PLACE BASE FILTER`.
pub(crate) type Answer = (&'static str, Result<Vec<Entry>, MachineError>);

/// A machine connection that returns each answer once. After an answer that says that AD was silent, its time
/// is over.
#[derive(Default)]
pub(crate) struct Scripted {
    script: Mutex<VecDeque<Answer>>,
    /// True if every group exists that the configuration names by its SID.
    has_groups: bool,
}

impl Scripted {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Scripted { script: Mutex::new(answers.into_iter().collect()), has_groups: false }
    }

    /// Lets every group exist that the configuration names by its SID.
    pub(crate) fn with_groups(self) -> Self {
        Scripted { has_groups: true, ..self }
    }

    /// Adds answers.
    pub(crate) fn expect(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().extend(answers);
    }

    /// Panics if an answer was not requested.
    pub(crate) fn is_finished(&self) {
        let rest: Vec<_> = self.script.lock().unwrap().iter().map(|(part, _)| *part).collect();
        assert!(rest.is_empty(), "nobody asked for {rest:?}");
    }

    /// Removes and returns the answer to the search `asked`. AD compares without case.
    fn answer(&self, asked: &str) -> Option<Result<Vec<Entry>, MachineError>> {
        let asked = asked.to_lowercase();
        let mut script = self.script.lock().unwrap();
        let at = script.iter().position(|(part, _)| asked.contains(&part.to_lowercase()))?;
        script.remove(at).map(|(_, answer)| answer)
    }

    /// Returns the answer to a search that a test says nothing about: nobody is in Protected Users.
    fn unscripted(&self, filter: &str) -> Option<Vec<Entry>> {
        match filter.contains("-525>)") {
            true => Some(Vec::new()),
            false if self.has_groups => group_of_filter(filter).map(|group| vec![group]),
            false => None,
        }
    }
}

impl Machine for Scripted {
    async fn search(&self, search: &Search, deadline: Instant) -> Result<Vec<Entry>, MachineError> {
        let place = match &search.place {
            Place::Own => "own",
            Place::Domain(name) => name,
            Place::GlobalCatalogue => "catalogue",
        };
        let asked = format!("{place} {} {}", search.base, search.filter);
        let answer = self.answer(&asked).or_else(|| self.unscripted(&search.filter).map(Ok));
        let answer = answer.unwrap_or_else(|| panic!("nobody expected {asked}"));
        if let Err(MachineError::Timeout(_)) = answer {
            tokio::time::sleep_until(deadline).await;
        }
        answer
    }

    fn host(&self, _: &Place) -> Option<String> {
        Some("ad.acme.com".into())
    }
}

/// A directory that takes this time to answer.
pub(crate) struct Slow(pub(crate) Scripted, pub(crate) Duration);

impl Machine for Slow {
    async fn search(&self, search: &Search, deadline: Instant) -> Result<Vec<Entry>, MachineError> {
        tokio::time::sleep(self.1).await;
        self.0.search(search, deadline).await
    }

    fn host(&self, place: &Place) -> Option<String> {
        self.0.host(place)
    }
}

/// The error if no domain controller answers.
pub(crate) fn unreachable() -> MachineError {
    MachineError::NoServer("DNS does not answer".into())
}

/// The configuration of a host in acme.com, with further keys of `[domain]` and then of other tables.
pub(crate) fn config(more: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("names.map_file = \"/dev/null\"\n[domain]\nname = \"acme.com\"\n{more}\n");
    std::fs::write(file.path(), text).unwrap();
    Config::load(file.path(), Path::new("/nonexistent/sssd.conf")).unwrap()
}

/// The account with this number below `dn`, with this `userAccountControl`.
pub(crate) fn account(number: u8, dn: &str, control: &str) -> Entry {
    let entry = Entry::new(format!("CN={number},{dn}")).with("objectGUID", [vec![number; 16]]);
    state(entry.with("sAMAccountName", [format!("u{number}")]).with("userAccountControl", [control]))
}

/// Adds the attributes of a healthy account that `entry` does not have.
pub(crate) fn state(entry: Entry) -> Entry {
    let usual = [
        ("userAccountControl", "512"),
        ("msDS-User-Account-Control-Computed", "0"),
        ("accountExpires", "0"),
        ("pwdLastSet", "133700000000000000"),
    ];
    usual.into_iter().fold(entry, |entry, (name, value)| match entry.values(name) {
        [] => entry.with(name, [value]),
        _ => entry,
    })
}

/// Returns the group with the SID that `filter` searches for, if any: tests name groups by their SIDs.
fn group_of_filter(filter: &str) -> Option<Entry> {
    let (_, sid) = filter.split_once("(objectSid=\\")?;
    let bytes = sid.split_once(')')?.0.split('\\').map(|byte| u8::from_str_radix(byte, 16).unwrap());
    let group = Entry::new("CN=group,DC=acme,DC=com").with("groupType", ["-2147483646"]);
    Some(group.with("objectSid", [bytes.collect::<Vec<_>>()]))
}

/// The objectGUID of the account with this number.
pub(crate) fn guid(number: u8) -> Uuid {
    Uuid::from_bytes_le([number; 16])
}

/// The configuration partition's entries for a forest: acme.com, its child emea.acme.com, other.example, and
/// a suffix.
pub(crate) fn forest() -> [Answer; 2] {
    let root = Entry::new("").with("configurationNamingContext", ["CN=Configuration,DC=acme,DC=com"]);
    let cross_ref = |name: &str, netbios: &str, dn: &str| {
        let entry = Entry::new(format!("CN={netbios},CN=Partitions")).with("dnsRoot", [name]);
        entry.with("nETBIOSName", [netbios]).with("nCName", [dn])
    };
    let partitions = vec![
        Entry::new("CN=Partitions").with("uPNSuffixes", ["Brand.example", "not a domain"]),
        cross_ref("acme.com", "ACME", "DC=acme,DC=com"),
        cross_ref("EMEA.acme.com", "EMEA", "DC=emea,DC=acme,DC=com"),
        cross_ref("other.example", "OTHER", "DC=other,DC=example"),
    ];
    [
        ("own  (objectClass=*)", Ok(vec![root])),
        ("own CN=Partitions,CN=Configuration,DC=acme,DC=com", Ok(partitions)),
    ]
}
