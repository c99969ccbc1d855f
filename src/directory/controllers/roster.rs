//! The hosts that AD itself lists as domain controllers.
//!
//! DNS finds hosts and proves nothing, and a certificate proves a name that DNS chose. So a user's password,
//! and everything else that depends on the identity of the host, goes only to a host of this list or to one
//! that the administrator named. The list is read over the machine connection, which proves its domain
//! controller by Kerberos. The last list is kept on disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ldap3::Scope;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::directory::configuration::{naming_context, search_below};
use crate::directory::controllers::discovery::Role;
use crate::directory::entry::{Entry, EntryError};
use crate::directory::kept;
use crate::directory::machine::{Machine, MachineError};
use crate::net::BoxFuture;

/// File name in the state directory.
const FILE: &str = "controllers.json";
/// Maximum number of domain controllers in a forest.
const CONTROLLERS: usize = 5000;
/// Time after which the list is read from AD again.
const FRESH: Duration = Duration::from_secs(60);
/// The same time while DNS names hosts that are not on the list: one of them may be new.
const PAUSE: Duration = Duration::from_secs(15);
/// Time limit of one reading, which all callers share.
const READING: Duration = Duration::from_secs(10);
/// `NTDSDSA_OPT_IS_GC` in the `options` of a DSA (MS-ADTS 6.1.1.2.2.1.2.1.1): the host holds the global
/// catalogue.
const IS_CATALOGUE: i64 = 1;

/// The domain controllers of a forest by lower-case DNS name, each with whether it holds the global
/// catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed(BTreeMap<String, bool>);

impl Listed {
    /// Returns true if `host` is listed and, for [`Role::GlobalCatalogue`], holds the catalogue.
    pub fn admits(&self, host: &str, role: Role) -> bool {
        match (self.0.get(host), role) {
            (Some(_), Role::Domain) => true,
            (Some(is_catalogue), Role::GlobalCatalogue) => *is_catalogue,
            (None, _) => false,
        }
    }

    /// Number of domain controllers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the list through `machine`: every server below `CN=Sites` of the configuration partition that
    /// has a directory service agent (MS-ADTS 6.1.1.2.2.1.2), including read-only domain controllers.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline` or names no domain controller.
    async fn read<M: Machine>(machine: &M, deadline: Instant) -> Result<Self, MachineError> {
        let base = format!("CN=Sites,{}", naming_context(machine, deadline).await?);
        let search = search_below(
            base.clone(),
            Scope::Subtree,
            "(|(objectClass=server)(objectClass=nTDSDSA))",
            &["dNSHostName", "options"],
            2 * CONTROLLERS,
        );
        let listed = Listed::of(&machine.search(&search, deadline).await?)?;
        match listed.is_empty() {
            true => Err(MachineError::NoSuchObject(format!("of a domain controller below {base}"))),
            false => Ok(listed),
        }
    }

    pub(crate) fn of(entries: &[Entry]) -> Result<Self, EntryError> {
        let mut servers = BTreeMap::new();
        for entry in entries {
            if let Some(host) = entry.text("dNSHostName")? {
                servers.insert(entry.dn().to_lowercase(), host.trim_end_matches('.').to_lowercase());
            }
        }
        let mut listed = BTreeMap::new();
        for entry in entries {
            // The agent is a child of the server, `CN=NTDS Settings`.
            let parent = entry.dn().split_once(',').map(|(_, parent)| parent.to_lowercase());
            if let Some(host) = parent.and_then(|parent| servers.get(&parent)) {
                let options = entry.integer("options")?.unwrap_or_default();
                listed.insert(host.clone(), options & IS_CATALOGUE != 0);
            }
        }
        Ok(Listed(listed))
    }
}

impl<S: Into<String>> FromIterator<(S, bool)> for Listed {
    /// Takes each domain controller with whether it holds the global catalogue.
    fn from_iter<T: IntoIterator<Item = (S, bool)>>(hosts: T) -> Self {
        Listed(
            hosts
                .into_iter()
                .map(|(host, is_catalogue)| (host.into().to_lowercase(), is_catalogue))
                .collect(),
        )
    }
}

/// The list as it is kept on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// DNS name of the domain of the host that read it.
    domain: String,
    /// Each domain controller, with whether it holds the global catalogue.
    controllers: BTreeMap<String, bool>,
}

/// Reads the list through the machine connection.
type Reader = Box<dyn Fn(Instant) -> BoxFuture<'static, Result<Listed, MachineError>> + Send + Sync>;

/// The list in force, and its refresh.
#[derive(Default)]
pub struct Roster {
    domain: String,
    /// The state directory.
    state: Option<PathBuf>,
    reader: OnceLock<Reader>,
    known: Mutex<Known>,
    /// Held while writing, so that the latest list is the one on disk.
    keeping: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    listed: Option<Arc<Listed>>,
    /// Time of the last successful reading.
    read: Option<Instant>,
    /// The last failure to read or keep the list.
    problem: Option<String>,
    /// The reading under way, while its sender lives.
    asking: Option<watch::Receiver<Option<Answer>>>,
}

type Answer = Result<Arc<Listed>, String>;

impl Roster {
    /// Creates the list for the forest of `domain`; the list kept in the directory `state` is in force at
    /// once.
    pub fn load(domain: &str, state: Option<&Path>) -> Arc<Self> {
        let mut known = Known::default();
        match state.map(|directory| load(directory, domain)) {
            Some(Ok(listed)) => known.listed = listed.map(Arc::new),
            Some(Err(error)) => known.problem = Some(format!("{FILE} is ignored: {error}")),
            None => {}
        }
        Arc::new(Roster {
            domain: domain.to_owned(),
            state: state.map(Path::to_owned),
            known: Mutex::new(known),
            ..Roster::default()
        })
    }

    /// Creates a list that never changes.
    pub fn fixed(listed: Listed) -> Arc<Self> {
        let known = Known { listed: Some(Arc::new(listed)), ..Known::default() };
        Arc::new(Roster { known: Mutex::new(known), ..Roster::default() })
    }

    /// Creates a list that never changes, with a state directory.
    pub fn fixed_in(listed: Listed, state: &Path) -> Arc<Self> {
        let known = Known { listed: Some(Arc::new(listed)), ..Known::default() };
        Arc::new(Roster { known: Mutex::new(known), state: Some(state.to_owned()), ..Roster::default() })
    }

    /// Returns the state directory.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    /// Has the list read through `machine` from here on.
    pub fn read_through<M: Machine + Clone + 'static>(&self, machine: &M) {
        let machine = machine.clone();
        let reader: Reader = Box::new(move |deadline| {
            let machine = machine.clone();
            Box::pin(async move { Listed::read(&machine, deadline).await })
        });
        // The first reader stays.
        let _ = self.reader.set(reader);
    }

    /// Returns the list in force.
    pub fn listed(&self) -> Option<Arc<Listed>> {
        self.known.lock().listed.clone()
    }

    /// Returns the last failure to read or keep the list.
    pub fn problem(&self) -> Option<String> {
        self.known.lock().problem.clone()
    }

    /// Returns true if the list should be read now; sooner if DNS names hosts that are not on it.
    pub fn is_due(&self, now: Instant, has_strangers: bool) -> bool {
        let pause = if has_strangers { PAUSE } else { FRESH };
        self.known.lock().read.is_none_or(|read| now >= read + pause)
    }

    /// Reads the list from AD; concurrent callers share one reading.
    ///
    /// # Errors
    /// Returns the cause if AD did not answer; the previous list stays in force.
    pub async fn refresh(self: &Arc<Self>) -> Answer {
        let mut asking = self.asking();
        let answer = match asking.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None,
        };
        answer.unwrap_or_else(|| Err("the reading of the list was cancelled".to_owned()))
    }

    /// Returns the reading under way, or starts one. It continues if a caller that waits for it gives up.
    fn asking(self: &Arc<Self>) -> watch::Receiver<Option<Answer>> {
        let mut known = self.known.lock();
        if let Some(asking) = known.asking.as_ref().filter(|asking| asking.has_changed().is_ok()) {
            return asking.clone();
        }
        let (sender, receiver) = watch::channel(None);
        known.asking = Some(receiver.clone());
        let roster = Arc::clone(self);
        tokio::spawn(async move {
            let answer = match roster.reader.get() {
                Some(read) => read(Instant::now() + READING).await.map_err(|error| error.to_string()),
                None => Err("there is no machine connection yet".to_owned()),
            };
            let (answer, changed) = roster.take(answer);
            let _ = sender.send(Some(answer));
            if changed {
                roster.keep().await;
            }
        });
        receiver
    }

    /// Puts an answer in force, and returns whether the list has changed.
    fn take(&self, answer: Result<Listed, String>) -> (Answer, bool) {
        let mut known = self.known.lock();
        known.asking = None;
        match answer {
            Ok(listed) => {
                known.read = Some(Instant::now());
                known.problem = None;
                let is_new = known.listed.as_deref() != Some(&listed);
                let listed = match &known.listed {
                    Some(last) if !is_new => last.clone(),
                    _ => Arc::new(listed),
                };
                known.listed = Some(listed.clone());
                (Ok(listed), is_new)
            }
            Err(cause) => {
                known.problem = Some(cause.clone());
                (Err(cause), false)
            }
        }
    }

    /// Writes the list in force to the state directory.
    async fn keep(&self) {
        let _keeping = self.keeping.lock().await;
        let (Some(directory), Some(listed)) = (self.state.clone(), self.listed()) else { return };
        let kept = Kept { domain: self.domain.clone(), controllers: listed.0.clone() };
        let stored = tokio::task::spawn_blocking(move || store(&directory, &kept)).await;
        if let Err(error) = stored.unwrap_or_else(|error| Err(io::Error::other(error))) {
            self.known.lock().problem = Some(format!("{FILE} cannot be written: {error}"));
        }
    }
}

/// Returns the list kept in `directory`; `None` if there is none, or if it was read in another domain.
fn load(directory: &Path, domain: &str) -> io::Result<Option<Listed>> {
    let Some((text, _)) = kept::read(&directory.join(FILE))? else { return Ok(None) };
    let kept: Kept = serde_json::from_slice(&text)?;
    let is_own = kept.domain.eq_ignore_ascii_case(domain) && !kept.controllers.is_empty();
    Ok(is_own.then_some(Listed(kept.controllers)))
}

fn store(directory: &Path, kept: &Kept) -> io::Result<()> {
    kept::write(directory, FILE, &[&serde_json::to_string(kept)?])
}

#[cfg(test)]
pub(in crate::directory) mod tests {
    use super::*;
    use crate::directory::scripted::{Scripted, unreachable};

    const SERVERS: &str = "CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration,DC=acme,DC=com";

    fn server(name: &str, host: &str) -> Entry {
        Entry::new(format!("CN={name},{SERVERS}")).with("dNSHostName", [host])
    }

    fn agent(name: &str, options: &str) -> Entry {
        Entry::new(format!("CN=NTDS Settings,cn={name},{SERVERS}")).with("options", [options])
    }

    fn answers(entries: Vec<Entry>) -> [crate::directory::scripted::Answer; 2] {
        let root = Entry::new("").with("configurationNamingContext", ["CN=Configuration,DC=acme,DC=com"]);
        [
            ("own  (objectClass=*)", Ok(vec![root])),
            ("own CN=Sites,CN=Configuration,DC=acme,DC=com (|(objectClass=server)", Ok(entries)),
        ]
    }

    fn two() -> Vec<Entry> {
        vec![
            server("AD", "AD.acme.com"),
            agent("AD", "1"),
            server("RODC", "rodc.emea.acme.com."),
            agent("rodc", "37"),
            server("DC3", "dc3.acme.com"),
            Entry::new(format!("CN=NTDS Settings,CN=DC3,{SERVERS}")),
            // A server that is not, or no longer, a domain controller.
            server("FILES", "files.acme.com"),
        ]
    }

    /// A roster that is not read yet; AD will answer with `hosts`.
    pub fn unread(hosts: &[&str]) -> Arc<Roster> {
        let entries = hosts.iter().flat_map(|host| [server(host, host), agent(host, "0")]).collect();
        let roster = Roster::load("acme.com", None);
        roster.read_through(&Shared(Arc::new(Scripted::new(answers(entries)))));
        roster
    }

    #[derive(Clone)]
    struct Shared(Arc<Scripted>);

    impl Machine for Shared {
        async fn search(
            &self,
            search: &crate::directory::machine::Search,
            deadline: Instant,
        ) -> Result<Vec<Entry>, MachineError> {
            self.0.search(search, deadline).await
        }
    }

    #[test]
    fn a_server_without_a_directory_service_agent_is_no_domain_controller() {
        let listed = Listed::of(&two()).unwrap();
        let admitted = |role| {
            let hosts = ["ad.acme.com", "rodc.emea.acme.com", "dc3.acme.com", "files.acme.com", "acme.com"];
            hosts.into_iter().filter(|host| listed.admits(host, role)).collect::<Vec<_>>()
        };
        assert_eq!(admitted(Role::Domain), ["ad.acme.com", "rodc.emea.acme.com", "dc3.acme.com"]);
        assert_eq!(admitted(Role::GlobalCatalogue), ["ad.acme.com", "rodc.emea.acme.com"]);
        assert!(Listed::of(&[agent("AD", "1")]).unwrap().is_empty());
        assert!(Listed::of(&[server("AD", "ad.acme.com"), agent("AD", "many")]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_list_is_kept_on_disk_for_its_own_domain() {
        let state = tempfile::tempdir().unwrap();
        let roster = Roster::load("acme.com", Some(state.path()));
        assert_eq!(roster.listed(), None);
        assert!(roster.is_due(Instant::now(), false));
        let machine = Shared(Arc::new(Scripted::new(answers(two()))));
        roster.read_through(&machine);
        let listed = roster.refresh().await.unwrap();
        assert_eq!(listed.len(), 3);
        assert!(!roster.is_due(Instant::now(), true));
        assert!(roster.is_due(Instant::now() + PAUSE, true) && !roster.is_due(Instant::now() + PAUSE, false));

        // It is written after the callers have the answer.
        while !state.path().join(FILE).exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(Roster::load("ACME.com", Some(state.path())).listed(), Some(listed.clone()));
        assert_eq!(Roster::load("other.example", Some(state.path())).listed(), None);

        // The previous list stays in force while AD does not answer, and is replaced when AD answers.
        machine.0.expect([("own  ", Err(unreachable()))]);
        assert_eq!(roster.refresh().await, Err(unreachable().to_string()));
        assert_eq!(roster.listed(), Some(listed));
        machine.0.expect(answers(vec![server("DC3", "dc3.acme.com"), agent("DC3", "0")]));
        assert!(!roster.refresh().await.unwrap().admits("ad.acme.com", Role::Domain));

        // Another folder, because the first one is still written to.
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(FILE), "{").unwrap();
        let broken = Roster::load("acme.com", Some(state.path()));
        assert_eq!(broken.listed(), None);
        assert!(broken.problem().unwrap().starts_with("controllers.json is ignored: "));
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_without_anybody_is_no_answer() {
        let roster = Roster::load("acme.com", None);
        assert!(roster.refresh().await.is_err());
        roster.read_through(&Shared(Arc::new(Scripted::new(answers(vec![])))));
        let error = roster.refresh().await.unwrap_err();
        assert!(error.contains("CN=Sites,CN=Configuration,DC=acme,DC=com"), "{error}");
        assert_eq!(roster.listed(), None);
    }
}
