//! The broker: answers the module and the helper.
//!
//! It is started at boot, or by its socket, also on a host that is not joined yet or whose configuration is
//! broken: then it denies every login and says why. When a file that it was started from changes, it finishes what
//! it is doing and ends, and systemd starts it again with fresh credentials.

pub mod cli;
pub mod log;
pub mod login;
pub mod peers;
pub mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::Instant as Deadline;

use self::log::{Level, Line, Log};
use self::login::{Decision, Logins};
use self::peers::Peers;
use crate::config::{self, Config, ConfigError, Credentials, Source, Sources};
use crate::directory::pool::{Bound, Pool, PoolError};
use crate::directory::servers::ServerList;
use crate::directory::trust::{SYSTEM_ROOTS, Trust};
use crate::directory::{Directory, MachineConnection, machine};
use crate::protocol::report::{self, Check};
use crate::protocol::{Operation, Reply, Request, Secret, VERSION};
use crate::verdict::{Outcome, Verdict};

/// The broker waits for AD no longer than this, whatever the deadline of a request says.
const LONGEST: Duration = Duration::from_secs(60);

/// Everything that answers requests.
pub struct Broker {
    service: Result<Service, ConfigError>,
    /// Why the machine account cannot work: there is no keytab.
    no_keytab: Option<String>,
    /// The most connections from applications at once.
    pub connections: usize,
    peers: Peers,
    sources: Sources,
    log: Log,
    begun: Instant,
    counts: Mutex<BTreeMap<Outcome, u64>>,
}

struct Service {
    domain: String,
    servers: Arc<ServerList>,
    pool: Arc<Pool>,
    logins: Logins<MachineConnection, SharedPool>,
}

/// The pool, as the login sees it.
struct SharedPool(Arc<Pool>);

impl login::Binds for SharedPool {
    async fn bind(&self, dn: &str, password: &str, deadline: Deadline) -> Result<Bound, PoolError> {
        self.0.bind(dn, password, deadline).await
    }
}

/// What the broker is started from.
pub struct Start {
    /// `config.toml`.
    pub config: PathBuf,
    /// The join's secrets.
    pub credentials: Credentials,
    /// Where lines go.
    pub log: Log,
}

impl Broker {
    /// A broker for what `start` says. A broken configuration is no error: it denies and is named in every answer.
    pub fn new(start: Start) -> Arc<Self> {
        let Start { config: path, credentials, log } = start;
        // Which files there are, only a reading tells. What counts is read once more, after each was looked at, so
        // that a change in between is seen as one.
        let mut files = vec![path.clone(), "/etc/krb5.conf".into(), "/etc/resolv.conf".into()];
        files.extend(files_of(&Config::load(&path, &credentials.sssd)));
        let files = files.into_iter().map(Source::read).collect::<Vec<_>>();
        let config = Config::load(&path, &credentials.sssd);
        let asked =
            config.as_ref().map_or_else(|_| config::Broker::default(), |config| config.broker.clone());
        let broker = Broker {
            service: config.and_then(Service::new),
            no_keytab: credentials.problem(),
            connections: asked.connections,
            peers: Peers::new(asked.users),
            sources: Sources::new(&credentials, files),
            log,
            begun: Instant::now(),
            counts: Mutex::default(),
        };
        Arc::new(broker)
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The file whose change asks for a new start.
    pub fn stale(&self) -> Option<String> {
        self.sources.stale().map(|path| path.display().to_string())
    }

    /// What is wrong, for people; `None` when nothing is.
    pub fn problem(&self) -> Option<String> {
        let broken = || self.service.as_ref().err().map(ToString::to_string);
        broken().or_else(|| self.no_keytab.clone())
    }

    /// One line of state for `systemctl status`.
    pub fn state(&self) -> String {
        match (&self.service, self.problem()) {
            (_, Some(problem)) => format!("Every login is denied: {problem}"),
            (Ok(service), None) => format!("Serving {}", service.domain),
            (Err(_), None) => String::new(),
        }
    }

    /// Connects to AD ahead of the first login, and says in the log what the broker has to work with.
    pub async fn warm_up(&self) {
        let service = match (&self.service, self.problem()) {
            (Ok(service), None) => service,
            (_, problem) => {
                let line = Line::new("start").with("problem", problem.unwrap_or_default());
                self.log.write(Level::Error, &line.with("consequence", "every login is denied"));
                return;
            }
        };
        let (users, machine) = tokio::join!(
            service.pool.warm_up(),
            service.machine().root(Deadline::now() + Duration::from_secs(20))
        );
        let line = Line::new("start").with("domain", &service.domain);
        match (users, machine) {
            (Ok(dc), Ok(_)) => self.log.write(Level::Info, &line.with("dc", dc)),
            (users, machine) => {
                let problem = |text: String| Some(text).filter(|text| !text.is_empty());
                let problems = [users.err().and_then(problem), machine.err().map(|e| e.to_string())];
                let problems = problems.into_iter().flatten().collect::<Vec<_>>().join("; ");
                self.log.write(Level::Error, &line.with("problem", problems));
            }
        }
    }

    /// Whether the process with the user id `uid` is answered.
    pub async fn allows(&self, uid: u32) -> bool {
        self.peers.allows(uid).await
    }

    /// Answers one request of `peer`.
    pub async fn answer(&self, request: &Request, secret: &Secret, peer: &str) -> Reply {
        if request.version != VERSION {
            let reason = format!("the broker speaks version {VERSION}, not {}", request.version);
            return Reply::Refused(reason);
        }
        let deadline = Deadline::now() + request.remaining().min(LONGEST);
        match request.operation {
            Operation::Status => Reply::Status(Box::new(self.status().await)),
            Operation::Check => Reply::Check(Box::new(self.check(request, deadline).await)),
            Operation::Authenticate | Operation::Account => {
                let begun = Instant::now();
                let decision = self.decide(request, secret, deadline).await;
                self.record(request, &decision, peer, begun.elapsed());
                Reply::Verdict(decision.verdict)
            }
        }
    }

    async fn decide(&self, request: &Request, secret: &Secret, deadline: Deadline) -> Decision {
        let denied = |outcome, reason: String| Decision { verdict: Verdict::new(outcome, reason), dc: None };
        let service = match (&self.service, &self.no_keytab) {
            (Err(error), _) => return Decision::from(error),
            (Ok(_), Some(problem)) => return denied(Outcome::Unavailable, problem.clone()),
            (Ok(service), None) => service,
        };
        if deadline <= Deadline::now() {
            let reason = "the deadline had passed before the request was read; the broker is overloaded";
            return denied(Outcome::Unavailable, reason.to_owned());
        }
        match request.operation {
            Operation::Account => service.logins.account(&request.user, deadline).await,
            _ => match secret.password() {
                Ok(password) => service.logins.authenticate(&request.user, password, deadline).await,
                Err(error) => denied(Outcome::WrongPassword, format!("{error}; AD was not asked")),
            },
        }
    }

    fn record(&self, request: &Request, decision: &Decision, peer: &str, took: Duration) {
        let Decision { verdict, dc } = decision;
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(verdict.outcome).or_default() += 1;
        let event = match request.operation {
            Operation::Account => "account",
            _ => "login",
        };
        let line = Line::new(event)
            .with("user", &request.user)
            .with("principal", verdict.principal.as_deref().unwrap_or_default())
            .with("outcome", verdict.outcome)
            .with("reason", &verdict.reason)
            .with("dc", dc.as_deref().unwrap_or_default())
            .with("peer", peer)
            .with("service", &request.service)
            .with("rhost", &request.rhost)
            .with("tty", &request.tty)
            .with("ms", format!("{:.1}", took.as_secs_f64() * 1000.0));
        let (level, line) = match verdict.outcome {
            Outcome::Unavailable | Outcome::Misconfigured | Outcome::TooManyGroups | Outcome::Refused => {
                (Level::Error, line.with("advice", verdict.outcome.advice()))
            }
            Outcome::Ambiguous => (Level::Warning, line.with("advice", verdict.outcome.advice())),
            _ => (Level::Info, line),
        };
        self.log.write(level, &line);
    }

    async fn check(&self, request: &Request, deadline: Deadline) -> Check {
        let mut check = Check { user: request.user.clone(), ..Check::default() };
        let service = match (&self.service, self.problem()) {
            (Ok(service), None) => service,
            (Ok(_), problem) => {
                check.reason = problem.unwrap_or_default();
                return check;
            }
            (Err(error), _) => {
                let verdict = Decision::from(error).verdict;
                check.outcome = Some(verdict.outcome).filter(|outcome| *outcome != Outcome::Unavailable);
                check.reason = verdict.reason;
                return check;
            }
        };
        let (decision, read) = service.logins.inspect(&request.user, deadline).await;
        let decision = decision.verdict;
        check.outcome = Some(decision.outcome).filter(|outcome| *outcome != Outcome::Unavailable);
        check.reason = decision.reason;
        check.principal = decision.principal;
        check.dc = service.machine().state().dc;
        if let Some((person, account)) = read {
            check.dn = Some(person.dn);
            check.guid = Some(person.guid.to_string());
            check.sam_account_name = Some(person.sam);
            check.user_principal_name = person.upn;
            check.facts = account.facts(SystemTime::now(), &service.logins.host);
            let in_groups = matches!(decision.outcome, Outcome::NotAllowed | Outcome::Denied);
            if service.logins.directory.has_group_rules() {
                let value = if in_groups { check.reason.clone() } else { "allowed".to_owned() };
                check.facts.push(report::Fact { name: "groups".into(), value, refuses: in_groups });
            }
        }
        check
    }

    async fn status(&self) -> report::Status {
        let mut status = report::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.begun.elapsed().as_secs(),
            problems: self.problem().into_iter().collect(),
            logins: {
                let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
                counts.iter().map(|(outcome, count)| (*outcome, *count)).collect()
            },
            ..report::Status::default()
        };
        if let Ok(service) = &self.service {
            service.report(&mut status).await;
        }
        status
    }
}

/// The files that a configuration was completed from; of a broken one, the file that must be mended.
fn files_of(config: &Result<Config, ConfigError>) -> Vec<PathBuf> {
    match config {
        Ok(config) => {
            let roots = config.tls.ca_file.clone().unwrap_or_else(|| SYSTEM_ROOTS.into());
            vec![config.map_file.clone(), roots]
        }
        Err(ConfigError::Broken(problem)) => vec![problem.file.clone()],
        Err(ConfigError::NotJoined) => Vec::new(),
    }
}

impl Service {
    fn new(config: Config) -> Result<Self, ConfigError> {
        let servers = Arc::new(ServerList::new(&config.domain.name, &config.domain.servers));
        let trust = Trust::load(config.tls.ca_file.as_deref())?;
        let pool = Pool::new(servers.clone(), trust, config.tls.mode, config.pool.clone());
        let machine = MachineConnection::new(servers.clone(), machine::Settings::default());
        Ok(Service {
            domain: config.domain.name.clone(),
            pool: pool.clone(),
            servers,
            logins: Logins {
                directory: Directory::new(machine, &config),
                names: config.names,
                binds: SharedPool(pool),
                host: netbios_name(),
            },
        })
    }

    fn machine(&self) -> &MachineConnection {
        self.logins.directory.machine()
    }

    async fn report(&self, status: &mut report::Status) {
        // Without a login so far nobody has asked for the domain controllers yet.
        let asked = tokio::time::timeout(Duration::from_secs(2), self.servers.hosts()).await;
        status.problems.extend(match asked {
            Ok(result) => result.err(),
            Err(_) => Some("DNS does not answer".to_owned()),
        });
        let machine = self.machine().state();
        status.domain = Some(self.domain.clone());
        status.servers = self.servers.report().await;
        status.pool = self.pool.report();
        if !machine.connected
            && let Some(error) = &machine.last_error
        {
            status.problems.push(format!("machine account: {error}"));
        }
        status.machine = report::Machine {
            state: match machine.connected {
                true => "connected".to_owned(),
                false => machine.last_error.unwrap_or_else(|| "not connected".to_owned()),
            },
            principal: machine.principal,
            dc: machine.dc,
            ticket: machine.ticket.map(|left| left.as_secs()),
        };
    }
}

/// The name under which this host is a workstation: the first label of its name, cut to 15 characters
/// (MS-NBTE 2.2.1), as adcli and Samba derive it.
fn netbios_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.split('.').next().unwrap_or_default().chars().take(15).collect::<String>().to_uppercase()
}
