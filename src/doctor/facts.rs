//! Facts that several checks need, each found out once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::sync::OnceCell;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::command::{self, Answer};
use super::stack::Service;
use crate::client::{self, AskError};
use crate::config::{self, Access, Config, ConfigError, Credentials, Front, Join, JoinError, TlsMode};
use crate::directory::controllers::discovery::{Controller, Wanted};
use crate::directory::controllers::dns::{Names, Network};
use crate::directory::controllers::domains::Domains;
use crate::directory::controllers::health::Service as Part;
use crate::directory::controllers::roster::Roster;
use crate::directory::machine::{MachineConnection, MachineError, Server, Servers, Settings};
use crate::directory::machines::Machines;
use crate::directory::people::Directory;
use crate::directory::survey::{Port, Survey, Tls, survey, tls};
use crate::directory::trust::Trust;
use crate::kerberos::krb5::{Keytab, default_realm, keytab};
use crate::kerberos::{Kerberos, KerberosError, LdapService, sealing};
use crate::net::BoxFuture;
use crate::protocol::report::Status;
use crate::protocol::{Operation, Reply, Secret};

/// PAM service of the application.
pub(super) const SERVICE: &str = "motion";
/// User that XCALLY Motion usually runs as.
pub(super) const APPLICATION: &str = "motion";

/// Folder of XCALLY Motion.
pub(super) const HOME: &str = "/var/opt/motion2";

/// Time limit of one query to the broker, which itself waits two seconds for DNS before it reports its state.
const BROKER: Duration = Duration::from_secs(4);
/// Time limit of the machine's connection to one domain controller, its ticket included.
const MACHINE: Duration = Duration::from_secs(4);
/// Time limit for AD's list of domain controllers, after which the checks go on without it.
const ROSTER: Duration = Duration::from_millis(1500);

/// Input of the doctor.
#[derive(Debug)]
pub struct Options {
    /// `config.toml`.
    pub config: PathBuf,
    /// `sssd.conf`, as the realm join wrote it.
    pub sssd: PathBuf,
    /// The broker's socket.
    pub socket: PathBuf,
    /// A user to log in.
    pub login: Option<Login>,
}

/// A user to log in, once.
#[derive(Debug)]
pub struct Login {
    /// The name as the user types it.
    pub name: String,
    /// The password.
    pub password: Secret,
    /// The way of the login.
    pub way: Way,
}

/// The way by which an application logs users in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// PAM, called by the application.
    Pam,
    /// A bind at the LDAP bridge.
    Bridge,
}

/// Facts that the checks share. Each is found out on its first use.
pub struct Facts {
    options: Options,
    deadline: Instant,
    /// Root of the host's files: `/`, or a temporary folder in tests.
    root: PathBuf,
    settings: OnceCell<Configured>,
    service: OnceCell<Service>,
    bridge: OnceCell<Option<UsedBridge>>,
    access: OnceCell<SssdAccess>,
    keytab: OnceCell<Result<Keytab, KerberosError>>,
    status: OnceCell<Result<Status, AskError>>,
    network: Arc<dyn Names>,
    ad: OnceCell<Option<Ad>>,
    controllers: OnceCell<Result<Vec<Arc<Controller>>, String>>,
    silent: OnceCell<String>,
    surveys: OnceCell<Vec<Survey>>,
    trust: OnceCell<Result<Arc<Trust>, String>>,
    tls: OnceCell<Vec<(String, Tls)>>,
    machines: OnceCell<Vec<Bound>>,
}

/// Effect of pam_sss on users.
#[derive(Clone, Copy, Debug)]
pub(super) struct SssdAccess {
    /// pam_sss knows users by the name that they type.
    pub(super) knows: bool,
    /// pam_sss applies an administrator's rules about who may log in.
    pub(super) restricts: bool,
}

/// The LDAP bridge of a host that uses it.
pub(super) struct UsedBridge {
    /// Its settings.
    pub(super) settings: config::Bridge,
    /// The PAM service that decides its binds.
    pub(super) service: Service,
}

/// The settings from config.toml, the join and the name map.
pub(super) struct Configured {
    /// The error that keeps config.toml and the join from giving settings.
    pub(super) error: Option<ConfigError>,
    /// The error that makes the name map unusable.
    pub(super) map: Option<ConfigError>,
    /// The settings; if config.toml is broken, only those of the join. With the map, if it is readable.
    pub(super) config: Option<Config>,
}

/// The machine's sealed connection to one domain controller.
pub(super) struct Bound {
    pub(super) host: String,
    /// The error, if there is no connection.
    pub(super) error: Option<MachineError>,
    /// True if the domain controller rejects unsigned connections; `None` if that could not be tested.
    pub(super) signed: Option<bool>,
}

/// The domain, queried as the broker queries it.
pub(super) struct Ad {
    pub(super) domains: Arc<Domains>,
    pub(super) kerberos: Arc<Kerberos>,
    pub(super) machine: MachineConnection,
    pub(super) directory: Directory<Machines>,
}

impl Facts {
    /// Makes the facts. Nothing is queried before a check needs it, or after `deadline`.
    pub fn new(options: Options, deadline: Instant) -> Self {
        Facts {
            options,
            deadline,
            root: PathBuf::from("/"),
            settings: OnceCell::new(),
            service: OnceCell::new(),
            bridge: OnceCell::new(),
            access: OnceCell::new(),
            keytab: OnceCell::new(),
            status: OnceCell::new(),
            network: Arc::new(Network::default()),
            ad: OnceCell::new(),
            controllers: OnceCell::new(),
            silent: OnceCell::new(),
            surveys: OnceCell::new(),
            trust: OnceCell::new(),
            tls: OnceCell::new(),
            machines: OnceCell::new(),
        }
    }

    /// The same for a host whose files begin at `root`.
    #[cfg(test)]
    pub(super) fn at_root(options: Options, root: &Path) -> Self {
        let deadline = Instant::now() + crate::protocol::DEADLINE;
        Facts { root: root.to_owned(), ..Facts::new(options, deadline) }
    }

    /// The time by which all checks must be done.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The files to check.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// The user to log in, if any.
    pub fn login(&self) -> Option<&Login> {
        self.options.login.as_ref()
    }

    /// Returns the path of a file of the host.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns true if the doctor runs as root and so may read everything on this host.
    pub(super) fn is_root(&self) -> bool {
        Uid::effective().is_root()
    }

    /// The settings in force.
    pub(super) async fn settings(&self) -> &Configured {
        self.settings
            .get_or_init(|| async {
                let (config, sssd) = (self.options.config.clone(), self.options.sssd.clone());
                let read = spawn_blocking(move || configured(&config, &sssd)).await;
                read.unwrap_or(Configured { error: Some(ConfigError::NotJoined), map: None, config: None })
            })
            .await
    }

    /// The settings, if there are any.
    pub(super) async fn config(&self) -> Option<&Config> {
        self.settings().await.config.as_ref()
    }

    /// The domain's name for a command, or a placeholder.
    pub(super) async fn domain(&self) -> String {
        if let Some(config) = self.config().await {
            return config.domain.name.clone();
        }
        let realm = spawn_blocking(default_realm).await.ok().and_then(Result::ok);
        realm.map_or_else(|| "DOMAIN".to_owned(), |realm| realm.to_lowercase())
    }

    /// The application's PAM service.
    pub(super) async fn service(&self) -> &Service {
        self.service
            .get_or_init(|| async { Service::load(SERVICE, &|path| fs::read_to_string(self.path(path))) })
            .await
    }

    /// The LDAP bridge, if this host uses it and its settings can be read.
    pub(super) async fn bridge(&self, is_used: impl Future<Output = bool>) -> Option<&UsedBridge> {
        let bridge = self.bridge.get_or_init(|| async {
            if !is_used.await {
                return None;
            }
            let settings = Front::load(&self.options.config).ok()?.bridge;
            let service = Service::load(&settings.service, &|path| fs::read_to_string(self.path(path)));
            Some(UsedBridge { settings, service })
        });
        bridge.await.as_ref()
    }

    /// The effect of pam_sss. If sssd.conf cannot be read, it is assumed to know and restrict users.
    pub(super) async fn access(&self) -> SssdAccess {
        let access = self.access.get_or_init(|| async {
            let domain = self.config().await.map(|config| config.domain.name.clone());
            let sssd = self.options.sssd.clone();
            match spawn_blocking(move || Access::load(&sssd, domain.as_deref())).await {
                Ok(Ok(Some(access))) => SssdAccess { knows: !access.full_names, restricts: access.restricts },
                Ok(Ok(None)) => SssdAccess { knows: false, restricts: false },
                _ => SssdAccess { knows: true, restricts: true },
            }
        });
        *access.await
    }

    /// The path of the machine's keytab: the file that systemd hands to the broker.
    pub(super) fn keytab_file(&self) -> PathBuf {
        Credentials::keytab_of(&self.options.sssd)
    }

    /// The machine's keytab.
    pub(super) async fn keytab(&self) -> &Result<Keytab, KerberosError> {
        self.keytab
            .get_or_init(|| async {
                let path = self.path(self.keytab_file());
                let read = spawn_blocking(move || keytab(&path)).await;
                read.unwrap_or_else(|e| Err(KerberosError::Other(e.to_string())))
            })
            .await
    }

    /// The broker's report on its state, as root or a user in `broker.users` gets it.
    pub(super) async fn status(&self) -> &Result<Status, AskError> {
        self.status
            .get_or_init(|| async {
                match self.ask(Operation::Status, "", BROKER).await? {
                    Reply::Status(status) => Ok(*status),
                    _ => Err(AskError::Unexpected),
                }
            })
            .await
    }

    /// Sends one query to the broker, which has this time for the reply, or less near the end of the doctor.
    pub(super) async fn ask(
        &self,
        operation: Operation,
        user: &str,
        time: Duration,
    ) -> Result<Reply, AskError> {
        let (socket, user) = (self.options.socket.clone(), user.to_owned());
        let time = time.min(self.deadline.saturating_duration_since(Instant::now()));
        let asked = spawn_blocking(move || {
            let request = client::request(operation, &user, time);
            client::ask(&socket, &request, &Secret::default())
        });
        asked.await.unwrap_or(Err(AskError::Unexpected))
    }

    /// DNS.
    pub(super) fn names(&self) -> &Arc<dyn Names> {
        &self.network
    }

    /// The domain, if its name is known.
    pub(super) async fn ad(&self) -> Option<&Ad> {
        self.ad
            .get_or_init(|| async {
                let config = self.config().await?;
                let nobody = Arc::new(|_: &str, _: &_| {});
                // A domain controller that failed once is not probed again.
                let never = Arc::new(|_: &str, _, _, _| -> BoxFuture<'static, Result<(), String>> {
                    Box::pin(async { Err("it is not tried again".to_owned()) })
                });
                let wanted = Wanted::from(&config.domain);
                let roster = Roster::load(&config.domain.name, None);
                let domains = Domains::new(wanted, roster, self.network.clone(), nobody, never);
                let kerberos = Arc::new(Kerberos::of_realm(domains.clone(), &config.domain.realm));
                let machines = Machines::of(&domains, &kerberos, &machine_settings());
                let machine = machines.own().clone();
                Some(Ad { domains, kerberos, machine, directory: Directory::new(machines, config) })
            })
            .await
            .as_ref()
    }

    /// The domain controllers in the broker's order; if DNS does not answer, those that the broker knew last.
    /// If AD's own list can be read, hosts that only DNS names are left out.
    pub(super) async fn controllers(&self) -> &Result<Vec<Arc<Controller>>, String> {
        self.controllers
            .get_or_init(|| async {
                let Some(ad) = self.ad().await else { return Err("the domain is not known".to_owned()) };
                let own = ad.domains.own();
                let named = match own.named(Part::Reading).await {
                    Ok(named) => named,
                    Err(cause) => {
                        let known = self.remembered().await;
                        if known.is_empty() {
                            return Err(cause);
                        }
                        // Set before `controllers` is; `dns_silence` reads it only after that.
                        let _ = self.silent.set(cause);
                        return Ok(known);
                    }
                };
                let until = self.deadline.min(Instant::now() + ROSTER);
                let _ = timeout_at(until, ad.domains.roster().refresh()).await;
                let strangers = own.strangers();
                let listed = named.iter().filter(|controller| !strangers.contains(&controller.host));
                let listed: Vec<_> = listed.cloned().collect();
                Ok(if listed.is_empty() { named } else { listed })
            })
            .await
    }

    /// The domain controllers with the addresses that the broker knew last.
    async fn remembered(&self) -> Vec<Arc<Controller>> {
        let Ok(status) = self.status().await else { return Vec::new() };
        let known = status.servers.list.iter().map(|server| {
            let addresses = server.addresses.iter().filter_map(|address| address.parse().ok()).collect();
            Arc::new(Controller { host: server.host.clone(), addresses, in_site: server.in_site })
        });
        known.filter(|controller| !controller.addresses.is_empty()).collect()
    }

    /// The reason why DNS named no domain controllers, if they come from the broker's memory instead.
    pub(super) async fn dns_silence(&self) -> Option<&str> {
        self.controllers().await.as_ref().ok()?;
        self.silent.get().map(String::as_str)
    }

    /// The survey of each domain controller.
    pub(super) async fn surveys(&self) -> &[Survey] {
        self.surveys
            .get_or_init(|| async {
                let controllers = self.controllers().await.as_deref().unwrap_or_default();
                let with_address = controllers.iter().filter(|controller| !controller.addresses.is_empty());
                beside(with_address.map(|controller| survey(controller.clone(), self.deadline))).await
            })
            .await
    }

    /// The surveys of domain controllers that answer by LDAP.
    pub(super) async fn answering(&self) -> Vec<&Survey> {
        self.surveys().await.iter().filter(|survey| survey.root.is_ok()).collect()
    }

    /// The trusted roots for domain controllers. They include the forest's own roots if the machine can read
    /// them. The broker's copy on disk stays untouched.
    pub(super) async fn trust(&self) -> &Result<Arc<Trust>, String> {
        self.trust
            .get_or_init(|| async {
                let config = self.config().await.ok_or("the configuration cannot be read")?;
                let trust = Trust::load(config.tls.ca_file.as_deref(), None).map_err(|e| e.to_string())?;
                if config.tls.ca_file.is_none()
                    && let Some(ad) = self.ad().await
                {
                    // A failure leaves `refreshed` empty in the report, which the check of TLS reads.
                    let _ = trust.refresh(&ad.machine, self.deadline).await;
                }
                Ok(Arc::new(trust))
            })
            .await
    }

    /// Result of TLS with each domain controller that answers, by the broker's rules.
    pub(super) async fn tls(&self) -> &[(String, Tls)] {
        self.tls
            .get_or_init(|| async {
                let (Ok(trust), Some(config)) = (self.trust().await, self.config().await) else {
                    return Vec::new();
                };
                let ports: &[Port] = match config.tls.mode {
                    TlsMode::Ldaps => &[Port::Ldaps],
                    TlsMode::Starttls => &[Port::Ldap],
                    TlsMode::Auto => &[Port::Ldaps, Port::Ldap],
                };
                let deadline = self.deadline;
                let trying = self.answering().await.into_iter().map(|survey| {
                    let open = ports.iter().copied().filter(|port| survey.port(*port).is_ok());
                    first_tls(survey.controller.clone(), open.collect(), trust.clone(), deadline)
                });
                let tried = beside(trying.collect::<Vec<_>>()).await;
                tried.into_iter().flatten().collect()
            })
            .await
    }

    /// The machine's sealed connection to each domain controller that answers.
    pub(super) async fn machines(&self) -> &[Bound] {
        self.machines
            .get_or_init(|| async {
                let (Some(ad), Some(config)) = (self.ad().await, self.config().await) else {
                    return Vec::new();
                };
                let domain = &config.domain.name;
                let until = self.deadline.min(Instant::now() + MACHINE);
                let connecting = self.answering().await.into_iter().map(|survey| {
                    let one = One::of(&survey.controller, domain);
                    let service = one.0.service.clone();
                    let machine =
                        MachineConnection::new(Arc::new(one), ad.kerberos.clone(), machine_settings());
                    let kerberos = ad.kerberos.clone();
                    async move {
                        let error = machine.root(until).await.err();
                        let address = machine.state().address;
                        machine.close();
                        let signed = match address {
                            Some(at) => asks_to_sign(at, &service, &kerberos, until).await,
                            None => None,
                        };
                        Bound { host: service.host, error, signed }
                    }
                });
                beside(connecting.collect::<Vec<_>>()).await
            })
            .await
    }

    /// The user that the application runs as: the owner of its folder; without the folder `motion`; without
    /// that user the first of `broker.users`.
    pub(super) async fn application(&self) -> Result<User, String> {
        let owner = fs::metadata(self.path(HOME)).ok().map(|found| found.uid()).filter(|uid| *uid != 0);
        if let Some(uid) = owner {
            return match spawn_blocking(move || User::from_uid(uid.into())).await {
                Ok(Ok(Some(user))) => Ok(user),
                _ => Err(format!("{HOME} belongs to uid {uid}, and no user has this uid")),
            };
        }
        let users = self.config().await.map(|config| config.broker.users.clone()).unwrap_or_default();
        match (user(APPLICATION).await, users.iter().find(|name| name.parse::<u32>().is_err())) {
            (Err(_), Some(other)) if other != APPLICATION => user(other).await,
            (found, _) => found,
        }
    }
}

/// The local or domain user with this name.
///
/// # Errors
/// Returns a text for the administrator if there is no such user or the lookup fails.
pub(super) async fn user(name: &str) -> Result<User, String> {
    let wanted = name.to_owned();
    match spawn_blocking(move || User::from_name(&wanted)).await {
        Ok(Ok(Some(user))) => Ok(user),
        Ok(Ok(None)) => Err(format!("there is no user {name}")),
        Ok(Err(error)) => Err(format!("the user {name} cannot be looked up: {error}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs all of `futures` concurrently; returns their outputs in order.
pub(super) async fn beside<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut running = JoinSet::new();
    for (number, future) in futures.into_iter().enumerate() {
        running.spawn(async move { (number, future.await) });
    }
    let mut answers = BTreeMap::new();
    while let Some(answer) = running.join_next().await {
        answers.extend(answer);
    }
    answers.into_values().collect()
}

fn configured(config: &Path, sssd: &Path) -> Configured {
    let (mut settings, error) = match Config::load_readable_settings(config, sssd, || default_realm().ok()) {
        Ok(settings) => (Some(settings), None),
        Err(error) => {
            let join = match Join::load(sssd, None) {
                // Without root, only krb5.conf is left, which every user may read.
                Err(JoinError::Denied(_)) => default_realm().ok().map(Join::of_realm),
                other => other.ok(),
            };
            (join.and_then(|join| Config::of_join(&join).ok()), Some(error))
        }
    };
    let map = settings.as_mut().and_then(|settings| settings.read_map().err());
    Configured { error, map, config: settings }
}

/// Tests TLS on each of `ports` until one works; returns the last result.
async fn first_tls(
    controller: Arc<Controller>,
    ports: Vec<Port>,
    trust: Arc<Trust>,
    deadline: Instant,
) -> Option<(String, Tls)> {
    let mut last = None;
    for port in ports {
        let tried = tls(&controller, port, &trust, deadline).await;
        let is_good = tried.problem.is_none();
        last = Some((controller.host.clone(), tried));
        if is_good {
            break;
        }
    }
    last
}

async fn asks_to_sign(
    address: SocketAddr,
    service: &LdapService,
    kerberos: &Kerberos,
    deadline: Instant,
) -> Option<bool> {
    let credential = kerberos.credential(deadline).await.ok()?;
    sealing::asks_to_sign(address, service, kerberos, &credential, deadline).await.ok()
}

fn machine_settings() -> Settings {
    Settings { connect: MACHINE, ..Settings::default() }
}

/// One domain controller, as if it were the only one.
struct One(Server);

impl One {
    fn of(controller: &Controller, domain: &str) -> Self {
        let addresses = controller.addresses.iter().map(|ip| (*ip, Port::Ldap.number()).into()).collect();
        One(Server { service: LdapService::of_domain(&controller.host, domain), addresses })
    }
}

impl Servers for One {
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
        Box::pin(async { Ok(vec![self.0.clone()]) })
    }
}

/// Returns systemd's properties of a unit by their names.
pub(super) async fn unit(name: &str) -> io::Result<BTreeMap<String, String>> {
    const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,UnitFileState,DropInPaths,\
                              FragmentPath,SocketMode,SocketUser,SocketGroup,MainPID,Result";
    let Answer { out, .. } = command::ask("systemctl", &["show", PROPERTIES, name]).await?;
    let pairs = out.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
