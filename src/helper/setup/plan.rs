//! Plans a use for each of XCALLY's properties: a key of `config.toml`, or none, with the reason.
//!
//! Pure. A key that `config.toml` already sets stays, whatever the properties say: it is the administrator's
//! latest decision. Facts that the join knows are not copied, because a copy would become outdated.

use std::net::IpAddr;

use serde::Serialize;

use crate::config::xcally::{Env, Property, Value};
use crate::config::{Base, Config};
use crate::dn::Dn;
use crate::name::{fold, is_domain};

/// Strategy that XCALLY's page names.
const STRATEGY: &str = "inetOrgPerson";

/// Facts about the host.
pub(super) struct Host<'a> {
    /// The settings in force.
    pub(super) config: &'a Config,
    /// Keys that `config.toml` itself sets.
    pub(super) set: Set,
    /// `default_realm` of `krb5.conf`, if set.
    pub(super) realm: Option<String>,
    /// The domain controllers according to DNS.
    pub(super) dns: Dns,
    /// The user that owns the `.env`.
    pub(super) owner: Option<String>,
}

/// Keys that `config.toml` sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// `domain.base_dn`.
    pub(super) base_dn: Option<String>,
    /// True if `domain.servers` is set.
    pub(super) servers: bool,
}

/// The answer of DNS about domain controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dns {
    /// Names of domain controllers.
    Names(Vec<String>),
    /// No domain controllers, although DNS resolves the server that the `.env` names.
    Nothing,
    /// No answer, with the error.
    Silent(String),
}

/// The plan for a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// A finding for each property, in the order of the file; then those on the files.
    pub(super) findings: Vec<Finding>,
    /// The keys to set.
    pub(super) changes: Vec<Change>,
}

/// Finding on a property or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Name of the property; `None` for a finding on a file.
    pub(super) property: Option<String>,
    /// Line of the property in the `.env`.
    pub(super) line: Option<usize>,
    /// Kind of the finding.
    pub(super) kind: Kind,
    /// The reason.
    pub(super) text: String,
}

/// Kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Nothing must be set.
    Known,
    /// It becomes a key.
    Taken,
    /// It contradicts known facts: the administrator must decide.
    Decide,
    /// It is no longer needed.
    Unneeded,
    /// It is a secret that is no longer needed.
    Remove,
    /// A file is not as it should be.
    Warning,
}

/// A key to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Table of the key.
    pub(super) table: &'static str,
    /// Name of the key.
    pub(super) key: &'static str,
    /// New value.
    pub(super) value: Setting,
    /// The reason.
    pub(super) reason: String,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Setting {
    /// A string.
    Text(String),
    /// A list of strings.
    List(Vec<String>),
}

impl Plan {
    /// Makes the plan for `env` on `host`.
    pub(super) fn new(env: &Env, host: &Host<'_>) -> Self {
        let mut plan = Plan::default();
        for property in &env.properties {
            plan.property(property, env, host);
        }
        plan.files(env, host);
        plan
    }

    /// Returns true if the administrator must decide something.
    pub(super) fn is_undecided(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind == Kind::Decide)
    }

    fn say(&mut self, property: &Property, kind: Kind, text: impl Into<String>) {
        let (name, line) = (Some(property.name.clone()), Some(property.line));
        self.findings.push(Finding { property: name, line, kind, text: text.into() });
    }

    fn property(&mut self, property: &Property, env: &Env, host: &Host<'_>) {
        let value = match &property.value {
            Value::Empty => return self.say(property, Kind::Unneeded, "it is empty"),
            Value::Text(text) => text.trim(),
            Value::Unread => "",
        };
        match property.short() {
            "STRATEGY" => self.strategy(property, value),
            "DOMAIN" => self.domain(property, value, host.config),
            "BASE_DN" => self.base_dn(property, value, host),
            "URL" => self.url(property, value, host),
            "ADMIN" => {
                let text = format!("motion-ad reads AD as this host's own account, not as {value}");
                self.say(property, Kind::Unneeded, text);
            }
            "PASSWORD" => {
                let text = format!(
                    "take the line out and change the password of {} in AD: every user who could read this \
                     file or a copy knows it",
                    admin(env)
                );
                self.say(property, Kind::Remove, text);
            }
            _ => self.say(property, Kind::Unneeded, "motion-ad has no use for it"),
        }
    }

    fn strategy(&mut self, property: &Property, value: &str) {
        if fold(value) == fold(STRATEGY) {
            let text = "accounts are found as AD finds them, by userPrincipalName and then by sAMAccountName";
            return self.say(property, Kind::Known, text);
        }
        let text = format!(
            "{value} is not the strategy of XCALLY's page, {STRATEGY}. How XCALLY found users is not known; \
             `motion-ad audit` says whether each of their names leads to an account"
        );
        self.say(property, Kind::Decide, text);
    }

    fn domain(&mut self, property: &Property, value: &str, config: &Config) {
        let value = value.trim_start_matches('@');
        let joined = &config.domain.name;
        let is_listed = config.names.domains.iter().any(|domain| fold(domain) == fold(value));
        let (kind, text) = if fold(value) == *joined {
            (Kind::Known, format!("{value} is the domain that this host is joined to"))
        } else if is_listed {
            (Kind::Known, format!("{value} is in names.domains already"))
        } else if !is_domain(value) {
            (Kind::Decide, format!("{value:?} is no domain; this host is joined to {joined}"))
        } else {
            let text = format!(
                "{value} is not the domain that this host is joined to, {joined}. A name without a domain \
                 means an account of {joined}, by its userPrincipalName or its sAMAccountName. If {value} is \
                 a UPN suffix or another domain of the forest, `domains = [\"{value}\"]` in [names] lets \
                 users type NAME@{value}. `motion-ad audit` says which names lead to no account, and \
                 suggests lines for names.map"
            );
            (Kind::Decide, text)
        };
        self.say(property, kind, text);
    }

    fn base_dn(&mut self, property: &Property, value: &str, host: &Host<'_>) {
        let domain = &host.config.domain.name;
        let dn = Dn::parse(value);
        let is_same = |other: &String| dn.is_ok() && Dn::parse(other) == dn;
        let (kind, text) = match (Base::of(value, domain), &host.set.base_dn) {
            _ if dn.as_ref().map_or(true, Dn::is_root) => {
                (Kind::Decide, format!("{value:?} is no distinguished name"))
            }
            (Base::Outside, _) => {
                let text =
                    format!("{value} is not inside {domain}: no account of the joined domain is below it");
                (Kind::Decide, text)
            }
            (_, Some(set)) if is_same(set) => {
                (Kind::Known, "config.toml has it as domain.base_dn".to_owned())
            }
            (Base::Below, Some(set)) => {
                (Kind::Decide, format!("config.toml says domain.base_dn = {set:?}, which stays"))
            }
            (Base::Whole, Some(set)) => {
                (Kind::Known, format!("it is the whole domain; config.toml narrows it to {set}, which stays"))
            }
            (Base::Whole, None) => {
                (Kind::Known, format!("it is the whole of {domain}, which is searched anyway"))
            }
            (Base::Below, None) => {
                let reason = "XCALLY found no users above it, and motion-ad rejects them, too";
                self.changes.push(Change {
                    table: "domain",
                    key: "base_dn",
                    value: Setting::Text(value.to_owned()),
                    reason: format!("{}, line {}: {reason}", property.name, property.line),
                });
                (Kind::Taken, "it is a part of the domain and becomes domain.base_dn".to_owned())
            }
        };
        self.say(property, kind, text);
    }

    fn url(&mut self, property: &Property, value: &str, host: &Host<'_>) {
        let mut servers = Vec::new();
        for url in urls(value) {
            let (kind, text) = match Server::of(url) {
                Some(server) => {
                    let (kind, text) = server.end(host);
                    if kind == Kind::Taken {
                        servers.push(server.name());
                    }
                    (kind, text + &server.remarks())
                }
                None => (Kind::Decide, format!("{url} is no URL of an LDAP server")),
            };
            self.say(property, kind, text);
        }
        if !servers.is_empty() {
            let domain = &host.config.domain.name;
            let reason = format!(
                "{}, line {}: DNS names no domain controllers of {domain}",
                property.name, property.line
            );
            self.changes.push(Change {
                table: "domain",
                key: "servers",
                value: Setting::List(servers),
                reason,
            });
        }
    }

    fn files(&mut self, env: &Env, host: &Host<'_>) {
        let mut warn = |text| {
            self.findings.push(Finding { property: None, line: None, kind: Kind::Warning, text });
        };
        if env.properties.iter().any(Property::is_secret) {
            let readers = match env.mode {
                mode if mode & 0o004 != 0 => Some("every user on this host"),
                mode if mode & 0o040 != 0 => Some("its group"),
                _ => None,
            };
            if let Some(readers) = readers {
                warn(format!(
                    "the .env holds a password, and {readers} may read it (mode {:04o}): chmod 600",
                    env.mode
                ));
            }
        }
        let users = &host.config.broker.users;
        let is_answered = |owner: &String| {
            owner == "root" || users.iter().any(|user| user == owner || *user == env.owner.to_string())
        };
        if let Some(owner) = host.owner.as_ref().filter(|owner| !is_answered(owner)) {
            warn(format!(
                "the .env belongs to {owner}, who is not in broker.users ({}): if XCALLY runs as {owner}, \
                 add it there",
                users.join(", ")
            ));
        }
        let realm = &host.config.domain.realm;
        if let Some(other) = host.realm.as_ref().filter(|other| *other != realm) {
            warn(format!(
                "krb5.conf says default_realm = {other}, but the realm of the joined domain is {realm}: \
                 `realm join` writes both"
            ));
        }
    }
}

/// Returns the URLs in a value.
fn urls(value: &str) -> impl Iterator<Item = &str> {
    value.split([' ', '\t', ',']).filter(|url| !url.is_empty())
}

/// Returns the first server in the URLs that has a name instead of an address.
pub(super) fn first_named(value: &str) -> Option<String> {
    urls(value).filter_map(Server::of).find(|server| !server.is_address()).map(|server| server.name())
}

/// Returns the account of the password, or a phrase for it if the file names none.
fn admin(env: &Env) -> &str {
    let admin = env.properties.iter().find(|property| property.short() == "ADMIN");
    match admin.map(|admin| &admin.value) {
        Some(Value::Text(admin)) => admin,
        _ => "that account",
    }
}

/// Server of a URL (RFC 4516, 2).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    is_plain: bool,
    host: String,
    port: Option<u16>,
}

impl Server {
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let is_plain = match fold(scheme).as_str() {
            "ldap" => true,
            "ldaps" => false,
            _ => return None,
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            // An IPv6 address is in brackets.
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_owned();
        (!host.is_empty()).then_some(Server { is_plain, host, port })
    }

    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    fn name(&self) -> String {
        fold(&self.host)
    }

    /// Returns the finding on the server. DNS is preferred, because it knows more than one domain controller.
    fn end(&self, host: &Host<'_>) -> (Kind, String) {
        let (server, domain) = (&self.host, &host.config.domain.name);
        let is_address = self.is_address();
        let is_domain_itself = self.name() == *domain;
        if !is_address && !is_domain(&self.host) {
            return (Kind::Decide, format!("{server} is no host name"));
        }
        if host.set.servers {
            return (Kind::Known, "config.toml names the domain controllers (domain.servers)".to_owned());
        }
        if !host.config.domain.servers.is_empty() {
            return (Kind::Known, "sssd.conf names the domain controllers (ad_server)".to_owned());
        }
        let address = "no certificate and no Kerberos ticket is made out to an address";
        match &host.dns {
            Dns::Names(names) => {
                let known = format!("DNS names the domain controllers of {domain} ({})", names.join(", "));
                if is_address {
                    (Kind::Known, format!("{known}; {server} could not be used, because {address}"))
                } else if names.contains(&self.name()) {
                    (Kind::Known, format!("{known}; if one fails, the broker uses another"))
                } else if is_domain_itself || self.name().ends_with(&format!(".{domain}")) {
                    (Kind::Known, format!("{known}, so that {server} is not needed"))
                } else {
                    let text = format!(
                        "{server} is no domain controller of {domain}: {known}. Users of another domain of \
                         the forest need that domain in names.domains"
                    );
                    (Kind::Decide, text)
                }
            }
            Dns::Nothing if is_address => {
                let text = format!(
                    "DNS names no domain controllers of {domain}, and {server} cannot stand in for them: \
                     {address}. Fix DNS, or set domain.servers to the names of the domain controllers"
                );
                (Kind::Decide, text)
            }
            Dns::Nothing if is_domain_itself => {
                let text = format!(
                    "DNS names no domain controllers of {domain}, and {domain} is the name of none. Fix \
                     DNS, or set domain.servers to their names"
                );
                (Kind::Decide, text)
            }
            Dns::Nothing => (
                Kind::Taken,
                format!("DNS names no domain controllers of {domain}: it becomes domain.servers"),
            ),
            Dns::Silent(cause) => {
                let text = format!(
                    "domain controllers are found by DNS, which did not answer just now ({cause}); the \
                     broker queries it again"
                );
                (Kind::Known, text)
            }
        }
    }

    /// Returns further remarks on the URL.
    fn remarks(&self) -> String {
        let mut remarks = String::new();
        if self.is_plain {
            remarks += ". With ldap:// passwords crossed the network in the clear; motion-ad checks them by \
                verified TLS or by Kerberos";
        }
        match self.port {
            None | Some(389 | 636) => {}
            Some(port @ (3268 | 3269)) => {
                remarks += &format!(
                    ". Port {port} is the global catalogue: users of other domains of the forest need their \
                     domain in names.domains"
                );
            }
            Some(port) => {
                remarks += &format!(". Port {port} is not used; domain controllers listen on 389 and 636")
            }
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let text = format!("names.map_file = \"/dev/null\"\n[domain]\nname = \"acme.com\"\n{more}");
        Config::load_text("config.toml".as_ref(), text, "/nonexistent/sssd.conf".as_ref()).unwrap()
    }

    fn env(properties: &[(&str, &str)]) -> Env {
        let property = |(number, (name, value)): (usize, &(&str, &str))| Property {
            name: format!("XC_ACTIVEDIRECTORY_{name}"),
            line: number + 1,
            value: match *value {
                "" => Value::Empty,
                "…" => Value::Unread,
                value => Value::Text(value.to_owned()),
            },
        };
        let properties = properties.iter().enumerate().map(property).collect();
        Env { properties, mode: 0o600, owner: 4711 }
    }

    fn dcs() -> Dns {
        Dns::Names(vec!["ad.acme.com".into(), "ad2.acme.com".into()])
    }

    fn plan(properties: &[(&str, &str)], more: &str, set: Set, dns: Dns) -> Plan {
        let config = config(more);
        Plan::new(&env(properties), &Host { config: &config, set, realm: None, dns, owner: None })
    }

    /// Returns the finding on one property on a host with working DNS.
    fn end(name: &str, value: &str) -> (Kind, String, Option<Setting>) {
        let mut plan = plan(&[(name, value)], "", Set::default(), dcs());
        assert_eq!(plan.findings.len(), 1, "{plan:?}");
        let finding = plan.findings.remove(0);
        (finding.kind, finding.text, plan.changes.pop().map(|change| change.value))
    }

    #[test]
    fn what_the_join_knows_is_not_written_down_once_more() {
        let properties = [
            ("STRATEGY", "inetOrgPerson"),
            ("ADMIN", "cn=Administrator,cn=Users,dc=acme,dc=com"),
            ("PASSWORD", "…"),
            ("BASE_DN", "dc=acme,dc=com"),
            ("URL", "ldap://ad.acme.com"),
            ("DOMAIN", "acme.com"),
        ];
        let plan = plan(&properties, "", Set::default(), dcs());
        let kinds: Vec<_> = plan.findings.iter().map(|finding| finding.kind).collect();
        let known = Kind::Known;
        assert_eq!(kinds, [known, Kind::Unneeded, Kind::Remove, known, known, known]);
        assert_eq!(plan.changes, []);
        assert!(!plan.is_undecided());
        let password = &plan.findings[2].text;
        assert!(
            password.contains("password of cn=Administrator,cn=Users,dc=acme,dc=com in AD"),
            "{password}"
        );
    }

    #[test]
    fn each_property_comes_to_its_end() {
        let taken = |dn: &str| Some(Setting::Text(dn.to_owned()));
        let cases = [
            ("STRATEGY", "INETORGPERSON", Kind::Known, "by userPrincipalName", None),
            ("STRATEGY", "activedirectory", Kind::Decide, "not the strategy of XCALLY's page", None),
            ("DOMAIN", "ACME.com", Kind::Known, "joined to", None),
            ("DOMAIN", "@acme.com", Kind::Known, "joined to", None),
            (
                "DOMAIN",
                "brand.example",
                Kind::Decide,
                "not the domain that this host is joined to, acme.com",
                None,
            ),
            ("DOMAIN", "brand.example", Kind::Decide, "`domains = [\"brand.example\"]` in [names]", None),
            ("DOMAIN", "acme..com", Kind::Decide, "is no domain", None),
            ("BASE_DN", "DC=Acme, DC=com", Kind::Known, "searched anyway", None),
            ("BASE_DN", "ou=user,dc=acme,dc=com", Kind::Taken, "becomes", taken("ou=user,dc=acme,dc=com")),
            (
                "BASE_DN",
                "ou=Agenten\\, Nacht,dc=acme,dc=com",
                Kind::Taken,
                "becomes",
                taken("ou=Agenten\\, Nacht,dc=acme,dc=com"),
            ),
            ("BASE_DN", "ou=user,dc=other,dc=com", Kind::Decide, "is not inside acme.com", None),
            ("BASE_DN", "dc=notacme,dc=com", Kind::Decide, "is not inside acme.com", None),
            ("BASE_DN", "acme.com", Kind::Decide, "is no distinguished name", None),
            ("URL", "ldap://ad.acme.com", Kind::Known, "passwords crossed the network in the clear", None),
            ("URL", "LDAPS://AD.acme.com.:636/", Kind::Known, "if one fails, the broker uses another", None),
            ("URL", "ldaps://10.73.0.10", Kind::Known, "made out to an address", None),
            ("URL", "ldaps://[fd00::1]:636", Kind::Known, "made out to an address", None),
            ("URL", "ldap://acme.com:389", Kind::Known, "acme.com is not needed", None),
            ("URL", "ldap://old.acme.com", Kind::Known, "old.acme.com is not needed", None),
            ("URL", "ldap://ad.other.com", Kind::Decide, "no domain controller of acme.com", None),
            ("URL", "ldaps://ad.acme.com:3269", Kind::Known, "names.domains", None),
            ("URL", "ldaps://ad.acme.com:10636", Kind::Known, "Port 10636 is not used", None),
            ("URL", "https://ad.acme.com", Kind::Decide, "is no URL of an LDAP server", None),
            ("URL", "ad.acme.com", Kind::Decide, "is no URL of an LDAP server", None),
            ("URL", "ldap://", Kind::Decide, "is no URL of an LDAP server", None),
            ("URL", "ldap://ad_acme!", Kind::Decide, "is no host name", None),
            ("ADMIN", "cn=x", Kind::Unneeded, "not as cn=x", None),
            ("PASSWORD", "…", Kind::Remove, "change the password of that account", None),
            ("PASSWORD", "", Kind::Unneeded, "empty", None),
            ("TLS", "…", Kind::Unneeded, "no use for it", None),
        ];
        for (name, value, kind, text, change) in cases {
            let seen = end(name, value);
            assert_eq!((seen.0, &seen.2), (kind, &change), "{name} {value}: {}", seen.1);
            assert!(seen.1.contains(text), "{name} {value}: {}", seen.1);
        }
    }

    #[test]
    fn domain_controllers_are_named_only_where_dns_names_none() {
        let urls = ("URL", "ldap://ad.acme.com,ldap://AD2.acme.com 10.0.0.1");
        let found = plan(&[urls], "", Set::default(), Dns::Nothing);
        let servers = Setting::List(vec!["ad.acme.com".into(), "ad2.acme.com".into()]);
        assert_eq!(found.changes.iter().map(|change| &change.value).collect::<Vec<_>>(), [&servers]);
        assert!(found.is_undecided());
        for url in ["ldaps://10.0.0.1", "ldap://acme.com"] {
            let none = plan(&[("URL", url)], "", Set::default(), Dns::Nothing);
            assert_eq!((none.changes.len(), none.is_undecided()), (0, true), "{url}");
        }
        let set = Set { servers: true, ..Set::default() };
        let silent = Dns::Silent("timed out".into());
        for (more, set, dns, text) in [
            ("servers = [\"x.acme.com\"]\n", set, Dns::Nothing, "config.toml names"),
            ("servers = [\"x.acme.com\"]\n", Set::default(), Dns::Nothing, "sssd.conf names"),
            ("", Set::default(), silent, "did not answer just now (timed out)"),
        ] {
            let plan = plan(&[("URL", "ldaps://ad.acme.com")], more, set, dns);
            assert!(plan.changes.is_empty() && plan.findings[0].text.contains(text), "{text}: {plan:?}");
        }
    }

    #[test]
    fn what_config_toml_says_stands() {
        let set = |dn: &str| Set { base_dn: Some(dn.to_owned()), servers: false };
        let cases = [
            ("ou=user,dc=acme,dc=com", "OU=User, dc=acme,dc=com", Kind::Known, "has it"),
            ("ou=user,dc=acme,dc=com", "ou=staff,dc=acme,dc=com", Kind::Decide, "which stays"),
            ("dc=acme,dc=com", "ou=staff,dc=acme,dc=com", Kind::Known, "which stays"),
        ];
        for (value, present, kind, text) in cases {
            let plan = plan(&[("BASE_DN", value)], "", set(present), dcs());
            assert_eq!((plan.changes.len(), plan.findings[0].kind), (0, kind), "{present}");
            assert!(plan.findings[0].text.contains(text), "{:?}", plan.findings);
        }
        let mut config = config("");
        config.names.domains = vec!["brand.example".into()];
        let host = Host { config: &config, set: Set::default(), realm: None, dns: dcs(), owner: None };
        let listed = Plan::new(&env(&[("DOMAIN", "Brand.example")]), &host);
        assert_eq!(listed.findings[0].kind, Kind::Known);
    }

    #[test]
    fn a_file_that_too_many_may_read_is_said() {
        let config = config("");
        let texts = |properties: &[(&str, &str)], mode, owner: &str, realm: &str| {
            let env = Env { mode, ..env(properties) };
            let (owner, realm) = (Some(owner.to_owned()), Some(realm.to_owned()));
            let plan =
                Plan::new(&env, &Host { config: &config, set: Set::default(), realm, dns: dcs(), owner });
            let warnings = plan.findings.into_iter().filter(|finding| finding.kind == Kind::Warning);
            warnings.map(|finding| finding.text).collect::<Vec<_>>().join("\n")
        };
        let secret = [("PASSWORD", "…")];
        assert_eq!(texts(&secret, 0o600, "motion", "ACME.COM"), "");
        assert!(
            texts(&secret, 0o644, "motion", "ACME.COM")
                .contains("every user on this host may read it (mode 0644)")
        );
        assert!(texts(&secret, 0o640, "root", "ACME.COM").contains("its group may read it"));
        assert_eq!(texts(&[("PASSWORD", "")], 0o644, "motion", "ACME.COM"), "");
        assert!(
            texts(&[], 0o600, "xcally", "ACME.COM")
                .contains("belongs to xcally, who is not in broker.users (motion)")
        );
        assert!(texts(&[], 0o600, "motion", "OTHER.COM").contains("default_realm = OTHER.COM"));
    }
}
