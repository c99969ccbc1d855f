//! The configuration of the broker and the helper: `config.toml`, completed from the realm join.
//!
//! On a joined host an empty file is enough. Every error names the file, the line and the expected value, and
//! denies every login until it is fixed.

pub mod admin;
pub(crate) mod command;
mod explain;
pub(crate) mod file;
pub(crate) mod join;
pub mod kept;
pub mod keys;
pub(crate) mod redis;
pub(crate) mod samba;
pub mod shown;
mod sources;
pub(crate) mod sssd;
mod stricter;
pub mod text;
pub mod xcally;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use command::{Command, Field, Piece};
pub(crate) use explain::distance;
pub use explain::mended;
pub use file::Base;
pub use join::{Access, Join};
pub use keys::{Method, OnStoreFailure, Policy, TlsMode};
pub use redis::{DEFAULT_USER, RIGHTS, Redis, RedisAt, SENTINEL_RIGHTS, Server};
pub use sources::{Credentials, KEYTAB, Source, Sources};
pub use sssd::JoinError;

use crate::name::{NameMap, Rules};

/// Path of `config.toml`.
pub const CONFIG: &str = "/etc/motion-ad/config.toml";

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The domain that this host is joined to, and its domain controllers.
    pub domain: Domain,
    /// TLS for users' binds.
    pub tls: Tls,
    /// The rules for names, including the name map.
    pub names: Rules,
    /// The file that [`Config::names`] was completed from.
    pub map_file: PathBuf,
    /// The check of passwords, and the groups that may log in.
    pub login: Login,
    /// The users that may query the broker, and its bounds.
    pub broker: Broker,
    /// Connections for users' binds.
    pub pool: Pool,
    /// The register of sessions.
    pub sessions: Sessions,
    /// The LDAP bridge.
    pub bridge: Bridge,
}

/// The domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// DNS name.
    pub name: String,
    /// Kerberos realm.
    pub realm: String,
    /// Domain controllers by DNS name, in order; `_srv_` stands for those of DNS. Empty: only those of DNS.
    pub servers: Vec<String>,
    /// Backup domain controllers, used if none of the others works.
    pub backup: Vec<String>,
    /// The site of this host; `None`: the broker queries a domain controller.
    pub site: Option<String>,
    /// The base of searches.
    pub base_dn: String,
}

impl Domain {
    /// Returns the distinguished name of the domain itself.
    pub fn root(&self) -> String {
        root_of(&self.name)
    }
}

/// Returns the distinguished name of the domain with this DNS name (RFC 2247, 2).
pub(crate) fn root_of(domain: &str) -> String {
    domain.split('.').map(|label| format!("dc={label}")).collect::<Vec<_>>().join(",")
}

/// TLS for users' binds. No setting turns verification off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// LDAPS, StartTLS, or the first that works.
    pub mode: TlsMode,
    /// PEM file of the trusted roots. `None`: the system's store.
    pub ca_file: Option<PathBuf>,
}

/// The check of passwords, and the groups that may log in: names, `DOMAIN\name`, distinguished names or SIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The method for checking passwords.
    pub method: Method,
    /// Groups whose members may log in, nested members included. Empty: all users may.
    pub allow_groups: Vec<String>,
    /// Groups whose members may not log in, nested members included.
    pub deny_groups: Vec<String>,
    /// Time before the expiry of a password in which the user is warned; zero is never.
    pub warn: Duration,
}

/// The users that may query the broker, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// The users that applications run as, in addition to root.
    pub users: Vec<String>,
    /// Maximum number of connections from applications.
    pub connections: usize,
}

/// Connections for users' binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Maximum number of connections to domain controllers.
    pub connections: usize,
    /// Time for which an unused connection is kept; AD itself closes it after 15 minutes.
    pub idle: Duration,
}

/// The register of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// The rule for a further login of the same user.
    pub policy: Policy,
    /// Maximum number of sessions of a user.
    pub limit: NonZeroUsize,
    /// Groups whose members may have any number of sessions; groups as in [`Login`].
    pub exempt_groups: Vec<String>,
    /// The store of the register.
    pub store: Store,
    /// The rule for a login that cannot be registered.
    pub on_store_failure: OnStoreFailure,
    /// Maximum age of a session; `None`: unlimited.
    pub max_age: Option<Duration>,
    /// Interval between two rechecks of the accounts behind open sessions; `None`: never.
    pub recheck: Option<Duration>,
    /// The command for each eviction.
    pub on_evict: Option<Command>,
}

/// The LDAP bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The PAM service that decides binds.
    pub service: String,
    /// PEM file of the certificate for TLS. If it or the file of the key is missing, there is no TLS.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// The part of `config.toml` for the LDAP bridge, which requires neither the domain nor the realm join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// The users that applications run as, in addition to root.
    pub users: Vec<String>,
    /// The settings of the bridge.
    pub bridge: Bridge,
}

impl Front {
    /// Reads `config`.
    ///
    /// # Errors
    /// Returns [`ConfigError::Broken`] if the file is unreadable or malformed.
    pub fn load(config: &Path) -> Result<Self, ConfigError> {
        Ok(file::File::load(config)?.front()?)
    }
}

/// The store of the register of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A file of this host, in the broker's state directory.
    Sqlite,
    /// A Redis that several hosts share.
    Redis(Redis),
}

/// Reason why there are no usable settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file is unreadable, malformed or contradicts itself.
    #[error("{0}")]
    Broken(Problem),
    /// Neither `config.toml` nor the realm join names a domain.
    #[error(
        "this host is not joined to a domain: neither {CONFIG} nor {SSSD} names one; run `realm join DOMAIN`",
        SSSD = join::SSSD_CONF
    )]
    NotJoined,
}

/// A problem in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, if there is one.
    pub line: Option<usize>,
    /// The value that was found, and the expected one.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        ConfigError::Broken(problem)
    }
}

impl Config {
    /// Reads `config` and the name map, and completes them from the join's `sssd.conf`.
    ///
    /// # Errors
    /// Returns an error if a file is broken or no domain is known.
    pub fn load(config: &Path, sssd: &Path) -> Result<Self, ConfigError> {
        let text = text::read(config).map_err(|error| error.of(config))?;
        Config::load_text(config, text, sssd)
    }

    /// Reads the same as [`Config::load`] would if `text` were in the file `config`.
    ///
    /// # Errors
    /// Returns the same errors as [`Config::load`].
    pub fn load_text(config: &Path, text: String, sssd: &Path) -> Result<Self, ConfigError> {
        let file = file::File::parse(config, text)?;
        let join = Join::load(sssd, file.domain_name()).map_err(Problem::from)?;
        let mut config = file.complete(&join)?;
        config.read_map()?;
        Ok(config)
    }

    /// Returns the settings for a host without `config.toml`; the name map is still empty.
    ///
    /// # Errors
    /// Returns an error if the join names no domain.
    pub fn of_join(join: &Join) -> Result<Self, ConfigError> {
        file::File::default().complete(join)
    }

    /// Reads the name map.
    ///
    /// # Errors
    /// Returns an error if the map is unreadable or malformed.
    pub fn read_map(&mut self) -> Result<(), ConfigError> {
        self.names.map = load_map(&self.map_file)?;
        Ok(())
    }

    /// Reads the settings for a user who may not read `sssd.conf`. The domain in `config`, else
    /// `default_realm`, then replaces the join. The broker does not use this: it gets a readable copy, and an
    /// unreadable one is an error there.
    ///
    /// # Errors
    /// Returns the same errors as [`Config::load`].
    pub fn load_readable(
        config: &Path,
        sssd: &Path,
        default_realm: impl FnOnce() -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut config = Config::load_readable_settings(config, sssd, default_realm)?;
        config.read_map()?;
        Ok(config)
    }

    /// Reads the same without the name map, which stays empty until [`Config::read_map`].
    ///
    /// # Errors
    /// Returns the same errors as [`Config::load`].
    pub fn load_readable_settings(
        config: &Path,
        sssd: &Path,
        default_realm: impl FnOnce() -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let file = file::File::load(config)?;
        let join = match Join::load(sssd, file.domain_name()) {
            Err(JoinError::Denied(_)) if file.domain_name().is_some() => Join::default(),
            Err(JoinError::Denied(problem)) => default_realm().map(Join::of_realm).ok_or(problem)?,
            other => other.map_err(Problem::from)?,
        };
        file.complete(&join)
    }
}

fn load_map(path: &Path) -> Result<NameMap, ConfigError> {
    let text = text::read(path).map_err(|e| e.of(path))?;
    if let Some(flaw) = text::invisible_beside_comments(&text) {
        return Err(flaw.of(path).into());
    }
    NameMap::parse(&text).map_err(|e| {
        Problem { file: path.to_owned(), line: Some(e.line), text: e.problem.to_string() }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(config: &str, sssd: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let map = dir.path().join("names.map");
            std::fs::write(&map, "jd = john.doe@acme.com\n").unwrap();
            let config = config.replace("MAP", &map.display().to_string());
            std::fs::write(dir.path().join("config.toml"), config).unwrap();
            std::fs::write(dir.path().join("sssd.conf"), sssd).unwrap();
            Files(dir)
        }

        fn load(&self) -> Result<Config, ConfigError> {
            Config::load(&self.0.path().join("config.toml"), &self.0.path().join("sssd.conf"))
        }
    }

    const JOINED: &str = "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\n\
                          ad_domain = acme.com\nkrb5_realm = ACME.COM\n";
    const MAPPED: &str = "[names]\nmap_file = \"MAP\"\n";

    #[test]
    fn on_a_joined_host_the_join_says_it_all() {
        let config = Files::new(MAPPED, JOINED).load().unwrap();
        assert_eq!(
            config.domain,
            Domain {
                name: "acme.com".into(),
                realm: "ACME.COM".into(),
                servers: vec![],
                backup: vec![],
                site: None,
                base_dn: "dc=acme,dc=com".into()
            }
        );
        assert_eq!(config.names.netbios, "ACME");
        assert_eq!(config.names.principal("jd").unwrap().to_string(), "john.doe@acme.com");
        assert_eq!(config.broker.users, ["motion"]);
        assert_eq!(config.tls, Tls { mode: TlsMode::Auto, ca_file: None });
    }

    #[test]
    fn the_join_names_servers_and_the_ca() {
        let sssd =
            format!("{JOINED}ad_server = ad.acme.com, ad2.acme.com\nldap_tls_cacert = /etc/ssl/acme.pem\n");
        let config = Files::new(MAPPED, &sssd).load().unwrap();
        assert_eq!(config.domain.servers, ["ad.acme.com", "ad2.acme.com"]);
        assert_eq!(config.tls.ca_file.as_deref(), Some(Path::new("/etc/ssl/acme.pem")));
        let found = Files::new(MAPPED, &format!("{JOINED}ad_server = _srv_\n")).load().unwrap();
        assert_eq!(found.domain.servers, ["_srv_"]);
    }

    #[test]
    fn the_file_wins_over_the_join() {
        let text = format!(
            "{MAPPED}domains = [\"sales.example\"]\n[domain]\nnetbios = \"CORP\"\n\
             servers = [\"dc9.acme.com\"]\n[pool]\nconnections = 3\nidle = 60\n[login]\nwarn_days = 14\n"
        );
        let config = Files::new(&text, JOINED).load().unwrap();
        assert_eq!(config.domain.servers, ["dc9.acme.com"]);
        assert_eq!(config.names.principal("CORP\\x").unwrap().to_string(), "x@acme.com");
        assert!(config.names.principal("x@sales.example").is_ok());
        assert_eq!(config.pool, Pool { connections: 3, idle: Duration::from_secs(60) });
        assert_eq!(config.login.warn, Duration::from_secs(14 * 86_400));
    }

    #[test]
    fn of_sessions_one_is_the_rule_and_zero_is_never() {
        let sessions =
            |text: &str| Files::new(&format!("{MAPPED}[sessions]\n{text}"), JOINED).load().unwrap().sessions;
        let defaults = sessions("");
        assert_eq!((defaults.policy, defaults.limit.get()), (Policy::Replace, 1));
        assert_eq!(defaults.store, Store::Sqlite);
        assert_eq!(defaults.on_store_failure, OnStoreFailure::Deny);
        assert_eq!(defaults.max_age, Some(Duration::from_secs(86_400)));
        assert_eq!(defaults.recheck, Some(Duration::from_secs(900)));
        assert_eq!(defaults.on_evict, None);
        let never = sessions("max_age = 0\nrecheck = 0\n");
        assert_eq!((never.max_age, never.recheck), (None, None));
        let redis = sessions("store = \"rediss://u@r1/2\"\npassword_file = \"/p\"\nca_file = \"/c\"\n");
        let Store::Redis(redis) = redis.store else { panic!("{:?}", redis.store) };
        assert_eq!((redis.tls, redis.user.as_deref(), redis.database), (true, Some("u"), 2));
        assert_eq!(redis.password_file.as_deref(), Some(Path::new("/p")));
        assert_eq!(redis.ca_file.as_deref(), Some(Path::new("/c")));
    }

    #[test]
    fn a_host_that_is_not_joined_says_so() {
        assert_eq!(Files::new(MAPPED, "").load().unwrap_err(), ConfigError::NotJoined);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), "").unwrap();
        let error = Config::load(&dir.path().join("config.toml"), &dir.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("realm join"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            ("[login]\nallow_group = []\n", Some(2), "did you mean `allow_groups`?"),
            ("[pool]\n\nconnections = \"many\"\n", Some(3), "invalid type: string"),
            ("[pool]\nconnections = 0\n", Some(2), "expected 1 to"),
            ("[pool]\nidle = 901\n", Some(2), "expected 1 to 900"),
            ("[tls]\nmode = \"none\"\n", Some(2), "unknown variant `none`"),
            ("[login]\nmethod = \"ntlm\"\n", Some(2), "unknown variant `ntlm`"),
            ("[domain]\nsite = \"a.b\"\n", Some(2), "\"a.b\" is no site"),
            ("[tls]\nca_file = \"ca.pem\"\n", Some(2), "absolute path"),
            ("[names]\ndomains = [\"a\", \"b..c\"]\n", Some(2), "\"b..c\" is no domain"),
            (
                "[names]\nrefuse = [\"root\", \"bob@acme.com\"]\n",
                Some(2),
                "\"bob@acme.com\" is no name alone",
            ),
            ("[names]\nrefuse = ['ACME\\bob']\n", Some(2), "is no name alone: write it without a domain"),
            ("[names]\nrefuse = [' bob']\n", Some(2), "\" bob\" is no name alone"),
            ("[names]\nrefuse = ['']\n", Some(2), "\"\" is no name alone"),
            ("[domain]\nservers = [\"ldap://ad\"]\n", Some(2), "is no host name"),
            ("[domain]\nservers = [\"10.0.0.1\"]\n", Some(2), "is an address"),
            ("[domain]\nbase_dn = \"ou=x,dc=other,dc=com\"\n", Some(2), "is not inside dc=acme,dc=com"),
            (
                "[login]\nallow_groups = [\"A\"]\ndeny_groups = [\"a\"]\n",
                Some(3),
                "also in login.allow_groups",
            ),
            ("[sessions]\npolicy = \"kick\"\n", Some(2), "unknown variant `kick`"),
            ("[sessions]\nlimit = 0\n", Some(2), "expected 1 to 1000"),
            ("[sessions]\nmax_age = 5\n", Some(2), "expected 60 to 31536000"),
            ("[sessions]\nrecheck = -1\n", Some(2), "invalid value: integer `-1`"),
            ("[sessions]\nstore = \"redis://:x@r1\"\n", Some(2), "name that as sessions.password_file"),
            ("[sessions]\nstore = \"redis://r1\"\nca_file = \"/x\"\n", Some(3), "use TLS"),
            ("[sessions]\non_evict = [\"kick\"]\n", Some(2), "absolute path of a program"),
            ("[sessions]\non_evict = [\"/bin/kick\", \"{name}\"]\n", Some(2), "{name} is unknown"),
            ("[login]\nwarn_days = 366\n", Some(2), "expected 0 to 365"),
            ("[broker]\nusers = []\n", Some(2), "answer only root"),
            ("[broker\n", Some(1), "unclosed table"),
        ];
        for (text, line, expected) in cases {
            let error = Files::new(text, JOINED).load().unwrap_err();
            let ConfigError::Broken(problem) = error else { panic!("{text}: {error}") };
            assert_eq!(problem.line, line, "{text}: {problem}");
            assert!(problem.text.contains(expected), "{text}: {problem}");
            assert!(problem.file.ends_with("config.toml"));
        }
    }

    #[test]
    fn a_broken_or_unreadable_map_is_an_error() {
        let files = Files::new(MAPPED, JOINED);
        std::fs::write(files.0.path().join("names.map"), "a = a@acme.com\nnonsense\n").unwrap();
        assert!(files.load().unwrap_err().to_string().contains("names.map, line 2: expected"));
        std::fs::remove_file(files.0.path().join("names.map")).unwrap();
        assert!(files.load().unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn a_byte_order_mark_hides_no_line_of_the_map() {
        let files = Files::new(MAPPED, JOINED);
        let map = files.0.path().join("names.map");
        std::fs::write(&map, "\u{feff}jd = john.doe@acme.com\njane = jane.roe@acme.com\n").unwrap();
        let names = files.load().unwrap().names;
        assert_eq!(names.principal("jd").unwrap().to_string(), "john.doe@acme.com");
        assert_eq!(names.map.lines().len(), 2);
    }

    #[test]
    fn an_invisible_character_in_the_map_or_the_configuration_is_named_with_its_line() {
        let map = |text: &str| {
            let files = Files::new(MAPPED, JOINED);
            std::fs::write(files.0.path().join("names.map"), text).unwrap();
            files.load().unwrap_err().to_string()
        };
        for (text, expected) in [
            ("# x\njd\u{200b} = john.doe@acme.com\n", "names.map, line 2: U+200B"),
            ("jd = john.doe\u{200b}@acme.com\n", "names.map, line 1: U+200B"),
            ("jd = john.doe@acme.com\n\u{feff}jane = x@acme.com\n", "names.map, line 2: U+FEFF"),
            ("jd\u{a0}= john.doe@acme.com\n", "names.map, line 1: U+00A0"),
            ("# people\rjd = john.doe@acme.com\n", "names.map, line 1: U+000D"),
        ] {
            assert!(map(text).contains(expected), "{}", map(text));
        }
        let config = |text: &str| Files::new(text, JOINED).load().unwrap_err().to_string();
        for (text, line, point) in [
            ("[login]\nallow_groups = [\"Agents\",\n  \"Night\u{a0}Shift\"]\n", 3, "U+00A0"),
            ("[login]\nallow_groups = [\"Agents\\u200B\"]\n", 2, "U+200B"),
            ("[names]\nrefuse = [\"root\u{200b}\"]\n", 2, "U+200B"),
            ("[login]\nallow_groups\u{a0}= [\"Agents\"]\n", 2, "U+00A0"),
            ("[login]\n\"allow_groups\u{200b}\" = []\n", 2, "U+200B"),
        ] {
            let expected = format!("config.toml, line {line}: {point}");
            assert!(config(text).contains(&expected), "{}", config(text));
        }
        // Comments may hold any character.
        let files = Files::new(&format!("{MAPPED}# no\u{a0}break\n"), JOINED);
        std::fs::write(files.0.path().join("names.map"), "# no\u{a0}break\njd = john.doe@acme.com\n")
            .unwrap();
        assert_eq!(files.load().unwrap().names.map.lines().len(), 1);
        std::fs::write(files.0.path().join("names.map"), b"j\xf6rg = john.doe@acme.com\n").unwrap();
        assert!(files.load().unwrap_err().to_string().contains("line 1: byte 0xF6 is no UTF-8"));
    }

    #[test]
    fn another_domain_than_the_joined_one_is_a_contradiction() {
        let error = Files::new("[domain]\nname = \"other.com\"\n", JOINED).load().unwrap_err();
        assert!(error.to_string().contains("line 2: the host is joined to acme.com"), "{error}");
    }
}
