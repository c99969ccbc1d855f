//! The service that a good configuration makes: all parts between a request and the domain controllers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout_at};

use super::recheck;
use crate::checked::Method;
use crate::config::{CONFIG, Config, ConfigError, Problem};
use crate::directory::controllers::discovery::{Controller, Role, Wanted};
use crate::directory::controllers::dns::{Names, Network};
use crate::directory::controllers::domains::{Domains, probe_ldap};
use crate::directory::controllers::health::{Change, Service as Part, State};
use crate::directory::controllers::roster::Roster;
use crate::directory::machine::{MachineConnection, Settings};
use crate::directory::machines::Machines;
use crate::directory::passwords::pool::{Pool, Renew};
use crate::directory::people::Directory;
use crate::directory::trust::{Refreshed, Trust};
use crate::kerberos::{self, Kerberos};
use crate::log::{Level, Line, Log};
use crate::login::logins::Logins;
use crate::login::passwords::{DomainPasswords, Pools};
use crate::net::BoxFuture;
use crate::protocol::DEADLINE;
use crate::sessions::identity::Server;
use crate::sessions::{Register, open_store};
use crate::supervise::{self, Ended};

/// Longest time of the whole warm-up, ahead of the first login.
const WARM_UP: Duration = Duration::from_secs(20);
/// Time between two checks whether the trusted roots are due to be read again.
const LOOK: Duration = Duration::from_secs(5);
/// Longest time of one read of the roots.
const READING: Duration = Duration::from_secs(10);
/// How often it is looked whether the files of DNS have changed.
const NAMES: Duration = Duration::from_secs(2);

/// The parts that answer logins.
pub(super) struct Service {
    /// DNS name of this host's domain.
    pub(super) domain: String,
    pub(super) domains: Arc<Domains>,
    pub(super) trust: Arc<Trust>,
    /// The connection to this host's domain.
    pub(super) machine: MachineConnection,
    pub(super) logins: Arc<Logins<Machines, Arc<DomainPasswords>>>,
    /// The register of sessions.
    pub(super) register: Arc<Register>,
    pub(super) parts: Arc<SetOnce<Parts>>,
}

impl Service {
    /// # Errors
    /// Returns `ConfigError` if the trusted roots or the register of sessions cannot be used.
    pub(super) fn new(config: Config, log: &Arc<Log>) -> Result<Self, ConfigError> {
        let network = Arc::new(Network::default());
        let names: Arc<dyn Names> = network.clone();
        let state = state_directory();
        let trust = Arc::new(Trust::load(config.tls.ca_file.as_deref(), state.as_deref())?);
        let store = open_store(&config.sessions, state.as_deref(), names.clone(), log)
            .map_err(|text| Problem { file: CONFIG.into(), line: None, text })?;
        let parts = Arc::new(SetOnce::new());
        let (told, probed) = (parts.clone(), parts.clone());
        let domains = Domains::new(
            Wanted::from(&config.domain),
            Roster::load(&config.domain.name, state.as_deref()),
            names,
            Arc::new({
                let log = log.clone();
                move |domain, change| changed(&log, &told, domain, change)
            }),
            Arc::new(move |domain, role, controller, part| {
                probe(&probed, domain, role, controller, part, Instant::now() + DEADLINE)
            }),
        );
        let kerberos = Arc::new(Kerberos::of_realm(domains.clone(), &config.domain.realm));
        let machines = Machines::of(&domains, &kerberos, &Settings::default());
        let machine = machines.own().clone();
        let renewal = Renewal {
            trust: trust.clone(),
            machine: machine.clone(),
            parts: parts.clone(),
            log: log.clone(),
            told: Arc::default(),
        };
        let passwords = Arc::new(DomainPasswords::new(
            config.login.method,
            kerberos.clone(),
            pools(&config, &domains, renewal.clone()),
            Arc::new({
                let log = log.clone();
                move |domain, method, reason| chosen(&log, domain, method, reason)
            }),
        ));
        let _ = parts.set(Parts {
            passwords: Arc::downgrade(&passwords),
            kerberos,
            machine: machine.clone(),
            domain: config.domain.name.clone(),
        });
        supervise::spawn("trust", move || keep_trust(renewal.clone()));
        supervise::spawn("names", {
            let (network, domains, log) = (network.clone(), domains.clone(), log.clone());
            move || keep_names(network.clone(), domains.clone(), log.clone())
        });
        supervise::spawn("roster", {
            let (domains, log) = (domains.clone(), log.clone());
            move || keep_roster(domains.clone(), log.clone())
        });
        let register = Register::new(
            store,
            config.sessions.clone(),
            Server::here(host_name()),
            config.broker.connections,
            log.clone(),
        );
        // A host may be joined under a name other than its own.
        let host = kerberos::computer_name(Some(&config.domain.realm)).unwrap_or_else(|_| netbios_name());
        let host = format!("{host}.{}", config.domain.name);
        let logins = Arc::new(Logins {
            directory: Directory::new(machines, &config),
            names: config.names,
            passwords,
            host,
            warn: config.login.warn,
            clock: SystemTime::now,
        });
        register.start();
        supervise::spawn("recheck", {
            let (register, logins) = (register.clone(), logins.clone());
            move || recheck::keep(register.clone(), logins.clone())
        });
        Ok(Service { domain: config.domain.name.clone(), domains, trust, machine, logins, register, parts })
    }

    /// Connects to AD ahead of the first login, and logs the domain controller in use, or the problems.
    pub(super) async fn warm_up(&self, log: &Log) {
        let deadline = Instant::now() + WARM_UP;
        let (passwords, machine) =
            tokio::join!(self.logins.passwords.warm_up(&self.domain, deadline), self.machine.root(deadline));
        let line = Line::new("start").with("domain", &self.domain);
        let (dc, problems) = match (passwords, machine) {
            (Ok(dc), Ok(root)) => (dc.unwrap_or_else(|| root.dns_host_name.clone()), Vec::new()),
            (passwords, machine) => {
                let problems = [passwords.err(), machine.err().map(|e| e.to_string())];
                (String::new(), problems.into_iter().flatten().collect())
            }
        };
        match problems.is_empty() {
            true => log.write(Level::Info, &line.with("dc", dc)),
            false => log.write(Level::Error, &line.with("problem", problems.join("; "))),
        }
    }
}

/// The parts that a change of state and a probe need. They are created after the parts that report such
/// changes.
pub(super) struct Parts {
    passwords: Weak<DomainPasswords>,
    kerberos: Arc<Kerberos>,
    machine: MachineConnection,
    domain: String,
}

/// Logs that a circuit opened or closed, and puts a part that works again back to use.
fn changed(log: &Log, parts: &SetOnce<Parts>, domain: &str, change: &Change) {
    let Change { host, service, state } = change;
    let line = Line::new("dc").with("host", host).with("service", service);
    match state {
        State::Down(cause) => {
            log.write(Level::Warning, &line.with("state", "down").with("cause", cause));
        }
        State::Up(after) => {
            if let Some(after) = after {
                let after = format!("{:.1}", after.as_secs_f64());
                log.write(Level::Info, &line.with("state", "up").with("seconds", after));
            }
            if let Some(parts) = parts.get() {
                parts.is_up(domain, host, *service);
            }
        }
    }
}

impl Parts {
    /// Puts a part that works again back to use.
    fn is_up(&self, domain: &str, host: &str, part: Part) {
        match part {
            Part::Binds => {
                if let Some(passwords) = self.passwords.upgrade() {
                    passwords.settled(domain, host);
                }
            }
            Part::Reading if domain == self.domain => self.machine.prefer(host),
            Part::Reading | Part::Kdc => {}
        }
    }
}

/// Probes `part` of a domain controller until `deadline`.
pub(super) fn probe(
    parts: &Arc<SetOnce<Parts>>,
    domain: &str,
    role: Role,
    controller: Arc<Controller>,
    part: Part,
    deadline: Instant,
) -> BoxFuture<'static, Result<(), String>> {
    let (parts, domain) = (parts.clone(), domain.to_owned());
    Box::pin(async move {
        // A list that was kept on disk has its first probes due before all parts exist.
        let parts = timeout_at(deadline, parts.wait()).await.map_err(|_| "the broker is starting")?;
        match part {
            Part::Binds => {
                let passwords = parts.passwords.upgrade().ok_or("the broker is ending")?;
                passwords.pool(&domain).probe(&controller, deadline).await
            }
            Part::Reading => probe_ldap(&controller, role, deadline).await,
            Part::Kdc => parts.kerberos.probe(&domain.to_uppercase(), controller.kdc(), deadline).await,
        }
    })
}

/// Returns the function that creates the pool of a domain.
fn pools(config: &Config, domains: &Arc<Domains>, renewal: Renewal) -> Pools {
    let (mode, settings, domains) = (config.tls.mode, config.pool.clone(), domains.clone());
    Box::new(move |domain| {
        let trust = renewal.trust.clone();
        let renewal = renewal.clone();
        let renew: Renew = Box::new(move |deadline| {
            let renewal = renewal.clone();
            Box::pin(async move { renewal.refresh(deadline).await })
        });
        Pool::new(domains.of(domain, Role::Domain), trust, mode, settings.clone(), renew)
    })
}

fn chosen(log: &Log, domain: &str, method: Method, reason: &str) {
    let line = Line::new("method").with("domain", domain).with("method", method).with("reason", reason);
    log.write(Level::Info, &line);
}

/// Reads the trusted roots and CRLs again when they are due.
async fn keep_trust(renewal: Renewal) -> Ended {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let now = Instant::now();
        if renewal.trust.due(now) {
            renewal.refresh(now + READING).await;
        }
        if renewal.trust.lists_due(now) && renewal.trust.fetch_lists().await == Refreshed::Changed {
            renewal.changed();
        }
    }
}

/// Queries DNS for the domain controllers again when a file of DNS has changed. The known ones stay in use
/// until the answer.
async fn keep_names(network: Arc<Network>, domains: Arc<Domains>, log: Arc<Log>) -> Ended {
    let mut look = tokio::time::interval(NAMES);
    loop {
        look.tick().await;
        if let Some(file) = network.changed() {
            let line = Line::new("dns").with("changed", file.display());
            log.write(
                Level::Info,
                &line.with("consequence", "the broker searches for domain controllers again"),
            );
            for list in domains.all() {
                list.ask_again();
            }
        }
    }
}

/// Reads the list of AD's domain controllers again when it is due. Logs each host once that DNS names and AD
/// does not list.
async fn keep_roster(domains: Arc<Domains>, log: Arc<Log>) -> Ended {
    let mut look = tokio::time::interval(LOOK);
    let mut told = BTreeSet::new();
    loop {
        look.tick().await;
        let roster = domains.roster();
        if roster.is_due(Instant::now(), !domains.strangers().is_empty()) {
            // The machine connection logs why the list could not be read.
            let _ = roster.refresh().await;
        }
        if let Some(problem) = roster.problem() {
            let line = Line::new("roster").with("problem", problem);
            let consequence = match roster.listed() {
                Some(_) => "the list that was read last stays in use",
                None => "passwords go only to domain controllers that the configuration names",
            };
            log.complain(Level::Warning, "roster", line.with("consequence", consequence));
        }
        let strangers = domains.strangers();
        for host in strangers.difference(&told) {
            let line = Line::new("dc").with("host", host).with("state", "ignored");
            let cause = "DNS names it and AD does not list it as a domain controller: no password goes there";
            log.write(Level::Warning, &line.with("cause", cause));
        }
        told = strangers;
    }
}

/// The trusted roots, and the parts that depend on them.
#[derive(Clone)]
struct Renewal {
    trust: Arc<Trust>,
    machine: MachineConnection,
    parts: Arc<SetOnce<Parts>>,
    log: Arc<Log>,
    /// The last line that was written: several callers may have waited for the same change.
    told: Arc<Mutex<Option<Line>>>,
}

impl Renewal {
    /// Reads the forest's roots.
    async fn refresh(&self, deadline: Instant) {
        match self.trust.refresh(&self.machine, deadline).await {
            Ok(Refreshed::Changed) => self.changed(),
            Ok(Refreshed::Unchanged | Refreshed::NotAsked) => {}
            Err(error) => {
                let line = Line::new("trust").with("problem", error);
                let line = line.with("consequence", "what was known last stays in use");
                self.log.complain(Level::Warning, "trust", line);
            }
        }
    }

    /// Closes the connections that the former roots verified, and logs the new ones.
    fn changed(&self) {
        if let Some(passwords) = self.parts.get().and_then(|parts| parts.passwords.upgrade()) {
            passwords.reconnect();
        }
        let report = self.trust.report();
        let line = Line::new("trust").with("source", &report.source).with("crls", report.crls);
        let line = line.with("notes", report.notes.join("; "));
        let mut told = self.told.lock();
        if told.as_ref() != Some(&line) {
            self.log.write(Level::Info, &line);
            *told = Some(line);
        }
    }
}

/// Returns the folder in which systemd lets the broker keep its data (`StateDirectory=`, systemd.exec(5)).
pub(super) fn state_directory() -> Option<PathBuf> {
    std::env::var_os("STATE_DIRECTORY").map(PathBuf::from)
}

/// Returns the name of this host, under which its sessions are registered.
fn host_name() -> String {
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns this host's name as a workstation: the first label of its name, cut to 15 characters (MS-NBTE
/// 2.2.1), as adcli and Samba derive it.
fn netbios_name() -> String {
    let name = host_name();
    name.split('.').next().unwrap_or_default().chars().take(15).collect::<String>().to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::controllers::discovery::tests::{names, zone};

    #[tokio::test]
    async fn a_probe_at_the_start_waits_for_the_parts_that_it_needs() {
        let parts = Arc::new(SetOnce::new());
        let wanted = Wanted { domain: "acme.com".into(), ..Wanted::default() };
        let domains = Domains::new(
            wanted,
            Roster::load("acme.com", None),
            names(zone()),
            Arc::new(|_, _| {}),
            Arc::new(|_, _, _, _| Box::pin(async { Ok(()) })),
        );
        let kerberos = Arc::new(Kerberos::of_realm(domains.clone(), "ACME.COM"));
        let machine = Machines::of(&domains, &kerberos, &Settings::default()).own().clone();
        let host = Controller { host: "dc".into(), addresses: Vec::new(), in_site: false };
        let deadline = Instant::now() + DEADLINE;
        let probing =
            tokio::spawn(probe(&parts, "acme.com", Role::Domain, Arc::new(host), Part::Binds, deadline));
        tokio::task::yield_now().await;
        assert!(!probing.is_finished());
        let passwords = Weak::new();
        let _ = parts.set(Parts { passwords, kerberos, machine, domain: "acme.com".into() });
        // It went on with these parts.
        assert_eq!(probing.await.unwrap(), Err("the broker is ending".to_owned()));
    }
}
