//! `config.toml`: its keys, and the valid values of each.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::explain::{explain, misplaced};
use super::{
    Bridge, Broker, Command, Config, ConfigError, Domain, Front, Join, Login, Pool, Problem, Redis, Sessions,
    Store, Tls, root_of, text,
};
use crate::dn::{Dn, Place};
use crate::name::{NameMap, Rules, fold, is_domain};

const MAP: &str = "/etc/motion-ad/names.map";
const REFUSE: [&str; 2] = ["root", "motion"];
const USERS: [&str; 1] = ["motion"];
const CONNECTIONS: usize = 4096;
const POOL: usize = 32;
const IDLE: u64 = 300;
const SERVICE: &str = "motion";
const CERTIFICATE: &str = "/etc/motion-ad/ldap.pem";
const KEY: &str = "/etc/motion-ad/ldap.key";
const LIMIT: NonZeroUsize = NonZeroUsize::MIN;
const SQLITE: &str = "sqlite";
const MAX_AGE: u64 = 86_400;
const RECHECK: u64 = 900;
/// Maximum of both, in seconds: a year.
const LONG: u64 = 31_536_000;

/// TLS for users' binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// LDAPS, or StartTLS if the domain controller does not listen on port 636.
    #[default]
    Auto,
    /// TLS from the first byte, port 636.
    Ldaps,
    /// The StartTLS operation (RFC 4511, 4.14), port 389.
    Starttls,
}

/// The method for checking a password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// LDAP if a domain controller offers TLS that can be verified, else Kerberos.
    #[default]
    Auto,
    /// A bind over verified TLS.
    Ldap,
    /// The KDC, whose ticket is verified with the host's keytab.
    Kerberos,
}

/// The rule for a further login of a user who has the maximum number of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The new session replaces the oldest.
    #[default]
    Replace,
    /// The login is denied.
    Deny,
    /// The number of sessions is unlimited.
    Unlimited,
}

/// The rule for a login that cannot be registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreFailure {
    /// The login is denied.
    #[default]
    Deny,
    /// The login succeeds without a session.
    Allow,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    domain: DomainKeys,
    tls: TlsKeys,
    names: NamesKeys,
    login: LoginKeys,
    broker: BrokerKeys,
    pool: PoolKeys,
    sessions: SessionsKeys,
    bridge: BridgeKeys,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DomainKeys {
    name: Option<Spanned<String>>,
    realm: Option<String>,
    netbios: Option<String>,
    servers: Option<Spanned<Vec<String>>>,
    site: Option<Spanned<String>>,
    base_dn: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsKeys {
    mode: TlsMode,
    ca_file: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NamesKeys {
    map_file: Option<Spanned<PathBuf>>,
    domains: Option<Spanned<Vec<String>>>,
    refuse: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LoginKeys {
    method: Method,
    allow_groups: Vec<String>,
    deny_groups: Option<Spanned<Vec<String>>>,
    warn_days: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BrokerKeys {
    users: Option<Spanned<Vec<String>>>,
    connections: Option<Spanned<usize>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PoolKeys {
    connections: Option<Spanned<usize>>,
    idle: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SessionsKeys {
    policy: Policy,
    limit: Option<Spanned<usize>>,
    exempt_groups: Vec<String>,
    store: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
    ca_file: Option<Spanned<PathBuf>>,
    on_store_failure: OnStoreFailure,
    max_age: Option<Spanned<u64>>,
    recheck: Option<Spanned<u64>>,
    on_evict: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BridgeKeys {
    service: Option<Spanned<String>>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
}

impl Default for Broker {
    /// Returns the settings for a file without them, and for a broker whose settings cannot be read.
    fn default() -> Self {
        Broker { users: USERS.map(str::to_owned).to_vec(), connections: CONNECTIONS }
    }
}

impl Default for Bridge {
    fn default() -> Self {
        Bridge { service: SERVICE.to_owned(), certificate: CERTIFICATE.into(), key: KEY.into() }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions {
            policy: Policy::default(),
            limit: LIMIT,
            exempt_groups: Vec::new(),
            store: Store::Sqlite,
            on_store_failure: OnStoreFailure::default(),
            max_age: Some(Duration::from_secs(MAX_AGE)),
            recheck: Some(Duration::from_secs(RECHECK)),
            on_evict: None,
        }
    }
}

/// A `config.toml` as it was read; empty if there is none.
#[derive(Debug, Default)]
pub(crate) struct File {
    path: PathBuf,
    text: String,
    keys: Keys,
}

impl File {
    pub(super) fn load(path: &Path) -> Result<Self, Problem> {
        File::parse(path, text::read(path).map_err(|e| e.of(path))?)
    }

    /// Parses `text` as the contents of the file `path`.
    pub(crate) fn parse(path: &Path, text: String) -> Result<Self, Problem> {
        if let Some(flaw) = text::invisible_in_toml(&text) {
            return Err(flaw.of(path));
        }
        let parsed = toml::from_str(&text);
        // The parser accepts a misplaced key. It reports an unknown key, but not the one that was meant.
        let meant = if parsed.is_ok() { misplaced(&text) } else { explain(&text) };
        if let Some((line, text)) = meant {
            return Err(Problem { file: path.to_owned(), line: Some(line), text });
        }
        match parsed {
            Ok(keys) => Ok(File { path: path.to_owned(), text, keys }),
            Err(e) => {
                let line = e.span().map(|span| line_of(&text, span.start));
                // An invisible character between keys and values breaks the syntax, and the parser does not
                // name it.
                let invisible = line.and_then(|line| text::invisible(text.lines().nth(line - 1)?));
                let text = e.message().trim().replace('\n', ", ");
                Err(Problem { file: path.to_owned(), line, text: invisible.map_or(text, |flaw| flaw.text) })
            }
        }
    }

    /// Returns the domain that the file names, if it does.
    pub(crate) fn domain_name(&self) -> Option<&str> {
        self.keys.domain.name.as_ref().map(|name| name.get_ref().as_str())
    }

    /// Returns the settings in force; the name map is still empty.
    pub(crate) fn complete(self, join: &Join) -> Result<Config, ConfigError> {
        let domain = self.domain(join)?;
        let names = self.names(&domain, join)?;
        let map_file = self.path_of(self.keys.names.map_file.as_ref())?;
        let ca_file = self.path_of(self.keys.tls.ca_file.as_ref())?;
        let broker = self.broker()?;
        let sessions = self.sessions()?;
        let bridge = self.bridge()?;
        let pool = Pool {
            connections: self.within(self.keys.pool.connections.as_ref(), POOL, 1..=1024)?,
            // AD closes a connection after 15 minutes (MaxConnIdleTime, MS-ADTS 3.1.1.3.4.6).
            idle: Duration::from_secs(self.within(self.keys.pool.idle.as_ref(), IDLE, 1..=900)?),
        };
        Ok(Config {
            login: self.login()?,
            tls: Tls { mode: self.keys.tls.mode, ca_file: ca_file.or_else(|| join.ca_file.clone()) },
            map_file: map_file.unwrap_or_else(|| MAP.into()),
            domain,
            names,
            broker,
            pool,
            sessions,
            bridge,
        })
    }

    fn domain(&self, join: &Join) -> Result<Domain, ConfigError> {
        let keys = &self.keys.domain;
        if let (Some(name), Some(joined)) = (&keys.name, &join.domain)
            && fold(name.get_ref()) != fold(joined)
        {
            return Err(self.problem(name, format!("the host is joined to {joined}")).into());
        }
        let name = self.domain_name().or(join.domain.as_deref()).ok_or(ConfigError::NotJoined)?;
        let name = fold(name);
        if !is_domain(&name) {
            return Err(match &keys.name {
                Some(at) => self.problem(at, format!("{name:?} is no domain")).into(),
                None => ConfigError::NotJoined,
            });
        }
        let (servers, backup) = match &keys.servers {
            Some(servers) => (self.servers(servers)?, Vec::new()),
            None => (join.servers.clone(), join.backup.clone()),
        };
        let site = match &keys.site {
            // A site is one label of a DNS name (MS-ADTS 6.3.2.3).
            Some(site) if !is_domain(site.get_ref()) || site.get_ref().contains('.') => {
                return Err(self.problem(site, format!("{:?} is no site", site.get_ref())).into());
            }
            Some(site) => Some(site.get_ref().clone()),
            None => join.site.clone(),
        };
        let root = root_of(&name);
        let base_dn = match &keys.base_dn {
            Some(base) if Base::of(base.get_ref(), &name) == Base::Outside => {
                let text = match Dn::parse(base.get_ref()) {
                    Ok(_) => format!("{:?} is not inside {root}", base.get_ref()),
                    Err(error) => format!("{:?} is no distinguished name: {error}", base.get_ref()),
                };
                return Err(self.problem(base, text).into());
            }
            Some(base) => base.get_ref().clone(),
            None => root,
        };
        let realm = keys.realm.clone().or_else(|| join.realm.clone());
        let realm = realm.unwrap_or_else(|| name.to_uppercase());
        Ok(Domain { name, realm, servers, backup, site, base_dn })
    }

    fn servers(&self, servers: &Spanned<Vec<String>>) -> Result<Vec<String>, Problem> {
        for server in servers.get_ref() {
            // The certificate and the Kerberos service principal are checked against the name.
            if server.parse::<IpAddr>().is_ok() {
                return Err(self.problem(servers, format!("{server:?} is an address; expected a DNS name")));
            }
            if !is_domain(server) {
                return Err(self.problem(servers, format!("{server:?} is no host name")));
            }
        }
        Ok(servers.get_ref().clone())
    }

    fn names(&self, domain: &Domain, join: &Join) -> Result<Rules, Problem> {
        let keys = &self.keys.names;
        let domains = match &keys.domains {
            Some(domains) => match domains.get_ref().iter().find(|domain| !is_domain(domain)) {
                Some(wrong) => return Err(self.problem(domains, format!("{wrong:?} is no domain"))),
                None => domains.get_ref().clone(),
            },
            None => join.enabled_domains.clone(),
        };
        // adcli and Windows derive the NetBIOS name from the first label by default.
        let first = domain.name.split('.').next().unwrap_or_default().to_uppercase();
        Ok(Rules {
            domain: domain.name.clone(),
            domains,
            netbios: self.keys.domain.netbios.clone().unwrap_or(first),
            refuse: keys.refuse.clone().unwrap_or_else(|| REFUSE.map(str::to_owned).to_vec()),
            map: NameMap::default(),
        })
    }

    fn login(&self) -> Result<Login, Problem> {
        let allow = &self.keys.login.allow_groups;
        let mut deny = Vec::new();
        if let Some(groups) = &self.keys.login.deny_groups {
            let both = |group: &&String| allow.iter().any(|allowed| fold(allowed) == fold(group));
            if let Some(group) = groups.get_ref().iter().find(both) {
                return Err(self.problem(groups, format!("{group:?} is also in login.allow_groups")));
            }
            deny.clone_from(groups.get_ref());
        }
        let days = self.within(self.keys.login.warn_days.as_ref(), 0, 0..=365)?;
        let warn = days * Duration::from_secs(86_400);
        Ok(Login { method: self.keys.login.method, allow_groups: allow.clone(), deny_groups: deny, warn })
    }

    fn broker(&self) -> Result<Broker, Problem> {
        let keys = &self.keys.broker;
        let users = match &keys.users {
            Some(users) if users.get_ref().is_empty() => {
                return Err(
                    self.problem(users, "the list is empty: the broker would answer only root".into())
                );
            }
            Some(users) => users.get_ref().clone(),
            None => Broker::default().users,
        };
        Ok(Broker { users, connections: self.within(keys.connections.as_ref(), CONNECTIONS, 16..=4096)? })
    }

    /// Returns the settings of the LDAP bridge, which require no domain.
    pub(super) fn front(&self) -> Result<Front, Problem> {
        Ok(Front { users: self.broker()?.users, bridge: self.bridge()? })
    }

    fn bridge(&self) -> Result<Bridge, Problem> {
        let keys = &self.keys.bridge;
        let service = match &keys.service {
            // The service is the name of a file in /etc/pam.d.
            Some(at) if !is_service(at.get_ref()) => {
                return Err(self.problem(at, format!("{:?} is no name of a PAM service", at.get_ref())));
            }
            Some(at) => at.get_ref().clone(),
            None => SERVICE.to_owned(),
        };
        let certificate = self.path_of(keys.certificate.as_ref())?.unwrap_or_else(|| CERTIFICATE.into());
        let key = self.path_of(keys.key.as_ref())?.unwrap_or_else(|| KEY.into());
        Ok(Bridge { service, certificate, key })
    }

    fn sessions(&self) -> Result<Sessions, Problem> {
        let keys = &self.keys.sessions;
        // Zero means never.
        let time = |value: Option<&Spanned<u64>>, default, least| match value {
            Some(value) if *value.get_ref() == 0 => Ok(None),
            value => self.within(value, default, least..=LONG).map(|time| Some(Duration::from_secs(time))),
        };
        let limit = self.within(keys.limit.as_ref(), LIMIT.get(), 1..=1000)?;
        let on_evict = match &keys.on_evict {
            Some(words) => Command::parse(words.get_ref()).map_err(|text| self.problem(words, text))?,
            None => None,
        };
        Ok(Sessions {
            policy: keys.policy,
            limit: NonZeroUsize::new(limit).unwrap_or(LIMIT),
            exempt_groups: keys.exempt_groups.clone(),
            store: self.store()?,
            on_store_failure: keys.on_store_failure,
            max_age: time(keys.max_age.as_ref(), MAX_AGE, 60)?,
            recheck: time(keys.recheck.as_ref(), RECHECK, 10)?,
            on_evict,
        })
    }

    fn store(&self) -> Result<Store, Problem> {
        let keys = &self.keys.sessions;
        let password_file = self.path_of(keys.password_file.as_ref())?;
        let ca_file = self.path_of(keys.ca_file.as_ref())?;
        match &keys.store {
            Some(url) if url.get_ref() != SQLITE => {
                let redis = Redis::parse(url.get_ref()).map_err(|text| self.problem(url, text))?;
                match &keys.ca_file {
                    Some(ca_file) if !redis.tls => {
                        Err(self.problem(ca_file, "only rediss:// and rediss-sentinel:// use TLS".into()))
                    }
                    _ => Ok(Store::Redis(Redis { password_file, ca_file, ..redis })),
                }
            }
            // `password_file` and `ca_file` are for a Redis; without one they do no harm.
            _ => Ok(Store::Sqlite),
        }
    }

    fn path_of(&self, path: Option<&Spanned<PathBuf>>) -> Result<Option<PathBuf>, Problem> {
        match path {
            Some(path) if !path.get_ref().is_absolute() => {
                Err(self.problem(path, "expected an absolute path".into()))
            }
            path => Ok(path.map(|path| path.get_ref().clone())),
        }
    }

    fn within<T: Copy + PartialOrd + std::fmt::Display>(
        &self,
        value: Option<&Spanned<T>>,
        default: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, Problem> {
        match value {
            None => Ok(default),
            Some(value) if range.contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => {
                let text =
                    format!("{} was given, expected {} to {}", value.get_ref(), range.start(), range.end());
                Err(self.problem(value, text))
            }
        }
    }

    fn problem<T>(&self, at: &Spanned<T>, text: String) -> Problem {
        Problem { file: self.path.clone(), line: Some(line_of(&self.text, at.span().start)), text }
    }
}

/// Returns true if `name` can be that of a file in `/etc/pam.d`, which libpam folds to lower case.
fn is_service(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    !name.is_empty() && name.len() <= 64 && name.chars().all(is_plain)
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// Position of the base of searches relative to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The base is the domain.
    Whole,
    /// The base is a part of the domain.
    Below,
    /// The base is elsewhere, or is malformed.
    Outside,
}

impl Base {
    /// Returns the position of the distinguished name `base` relative to the domain with the DNS name
    /// `domain`.
    pub fn of(base: &str, domain: &str) -> Self {
        let (Ok(base), Ok(root)) = (Dn::parse(base), Dn::parse(&root_of(domain))) else {
            return Base::Outside;
        };
        match base.place(&root) {
            Place::Same => Base::Whole,
            Place::Below => Base::Below,
            Place::Outside => Base::Outside,
        }
    }
}
