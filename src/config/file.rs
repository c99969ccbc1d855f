//! `config.toml` as it was read, and the settings that follow from it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::explain::{explain, misplaced};
use super::keys::{BridgeKeys, BrokerKeys, DAY, Keys, SQLITE, Wrong};
use super::{
    Bridge, Broker, Command, Config, ConfigError, Domain, Front, Join, Login, Pool, Problem, Redis, Sessions,
    Store, Tls, root_of, text,
};
use crate::dn::{Dn, Place};
use crate::name::{NameMap, Rules, fold, is_domain};

impl From<BrokerKeys> for Broker {
    fn from(keys: BrokerKeys) -> Self {
        Broker { users: keys.users.into_inner(), connections: keys.connections.into_inner() }
    }
}

impl Default for Broker {
    /// Returns the settings for a broker whose settings cannot be read.
    fn default() -> Self {
        BrokerKeys::default().into()
    }
}

impl From<BridgeKeys> for Bridge {
    fn from(keys: BridgeKeys) -> Self {
        Bridge {
            service: keys.service.into_inner(),
            certificate: keys.certificate.into_inner(),
            key: keys.key.into_inner(),
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
        self.keys.domain.name.get_ref().as_deref()
    }

    /// Returns the settings in force; the name map is still empty.
    pub(crate) fn complete(self, join: &Join) -> Result<Config, ConfigError> {
        self.keys.check().map_err(|wrong| self.wrong(wrong))?;
        let domain = self.domain(join)?;
        let rules = self.rules(&domain, join);
        let login = self.login()?;
        let sessions = self.sessions()?;
        let Keys { tls, names, broker, bridge, pool, .. } = self.keys;
        let ca_file = tls.ca_file.into_inner().or_else(|| join.ca_file.clone());
        Ok(Config {
            domain,
            tls: Tls { mode: tls.mode.into_inner(), ca_file },
            names: rules,
            map_file: names.map_file.into_inner(),
            login,
            broker: broker.into(),
            pool: Pool {
                connections: pool.connections.into_inner(),
                // AD closes a connection after 15 minutes (MaxConnIdleTime, MS-ADTS 3.1.1.3.4.6).
                idle: Duration::from_secs(pool.idle.into_inner()),
            },
            sessions,
            bridge: bridge.into(),
        })
    }

    /// Returns the settings of the LDAP bridge, which require no domain.
    pub(super) fn front(self) -> Result<Front, Problem> {
        let Keys { broker, bridge, .. } = &self.keys;
        broker.check().and_then(|()| bridge.check()).map_err(|wrong| self.wrong(wrong))?;
        Ok(Front { users: self.keys.broker.users.into_inner(), bridge: self.keys.bridge.into() })
    }

    fn domain(&self, join: &Join) -> Result<Domain, ConfigError> {
        let keys = &self.keys.domain;
        let named = self.domain_name();
        if let (Some(name), Some(joined)) = (named, &join.domain)
            && fold(name) != fold(joined)
        {
            return Err(self.problem(&keys.name, format!("the host is joined to {joined}")).into());
        }
        let name = fold(named.or(join.domain.as_deref()).ok_or(ConfigError::NotJoined)?);
        if !is_domain(&name) {
            return Err(match named {
                Some(_) => self.problem(&keys.name, format!("{name:?} is no domain")).into(),
                None => ConfigError::NotJoined,
            });
        }
        let (servers, backup) = match keys.servers.get_ref() {
            Some(servers) => (servers.clone(), Vec::new()),
            None => (join.servers.clone(), join.backup.clone()),
        };
        let site = keys.site.get_ref().clone().or_else(|| join.site.clone());
        let root = root_of(&name);
        let base_dn = keys.base_dn.get_ref().clone().unwrap_or_else(|| root.clone());
        if Base::of(&base_dn, &name) == Base::Outside {
            let text = match Dn::parse(&base_dn) {
                Ok(_) => format!("{base_dn:?} is not inside {root}"),
                Err(error) => format!("{base_dn:?} is no distinguished name: {error}"),
            };
            return Err(self.problem(&keys.base_dn, text).into());
        }
        let realm = keys.realm.get_ref().clone().or_else(|| join.realm.clone());
        let realm = realm.unwrap_or_else(|| name.to_uppercase());
        Ok(Domain { name, realm, servers, backup, site, base_dn })
    }

    fn rules(&self, domain: &Domain, join: &Join) -> Rules {
        let domains = self.keys.names.domains.get_ref();
        // adcli and Windows derive the NetBIOS name from the first label by default.
        let first = || domain.name.split('.').next().unwrap_or_default().to_uppercase();
        Rules {
            domain: domain.name.clone(),
            domains: domains.as_ref().unwrap_or(&join.enabled_domains).clone(),
            netbios: self.keys.domain.netbios.get_ref().clone().unwrap_or_else(first),
            refuse: self.keys.names.refuse.get_ref().clone(),
            map: NameMap::default(),
        }
    }

    fn login(&self) -> Result<Login, Problem> {
        let keys = &self.keys.login;
        let (allow, deny) = (keys.allow_groups.get_ref(), keys.deny_groups.get_ref());
        let both = |group: &&String| allow.iter().any(|allowed| fold(allowed) == fold(group));
        if let Some(group) = deny.iter().find(both) {
            return Err(self.problem(&keys.deny_groups, format!("{group:?} is also in login.allow_groups")));
        }
        let warn = *keys.warn_days.get_ref() * Duration::from_secs(DAY);
        let method = *keys.method.get_ref();
        Ok(Login { method, allow_groups: allow.clone(), deny_groups: deny.clone(), warn })
    }

    fn sessions(&self) -> Result<Sessions, Problem> {
        let keys = &self.keys.sessions;
        // Zero means never.
        let time = |seconds: &Spanned<u64>| {
            Some(*seconds.get_ref()).filter(|seconds| *seconds != 0).map(Duration::from_secs)
        };
        let on_evict = Command::parse(keys.on_evict.get_ref());
        Ok(Sessions {
            policy: *keys.policy.get_ref(),
            limit: NonZeroUsize::new(*keys.limit.get_ref()).unwrap_or(NonZeroUsize::MIN),
            exempt_groups: keys.exempt_groups.get_ref().clone(),
            store: self.store()?,
            on_store_failure: *keys.on_store_failure.get_ref(),
            max_age: time(&keys.max_age),
            recheck: time(&keys.recheck),
            on_evict: on_evict.map_err(|text| self.problem(&keys.on_evict, text))?,
        })
    }

    fn store(&self) -> Result<Store, Problem> {
        let keys = &self.keys.sessions;
        // `password_file` and `ca_file` are for a Redis; without one they do no harm.
        if keys.store.get_ref() == SQLITE {
            return Ok(Store::Sqlite);
        }
        let redis = Redis::parse(keys.store.get_ref()).map_err(|text| self.problem(&keys.store, text))?;
        let (password_file, ca_file) = (keys.password_file.get_ref().clone(), keys.ca_file.get_ref().clone());
        if ca_file.is_some() && !redis.tls {
            let text = "only rediss:// and rediss-sentinel:// use TLS";
            return Err(self.problem(&keys.ca_file, text.to_owned()));
        }
        Ok(Store::Redis(Redis { password_file, ca_file, ..redis }))
    }

    fn problem<T>(&self, at: &Spanned<T>, text: String) -> Problem {
        self.wrong((at.span().start, text))
    }

    fn wrong(&self, (place, text): Wrong) -> Problem {
        Problem { file: self.path.clone(), line: Some(line_of(&self.text, place)), text }
    }
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
