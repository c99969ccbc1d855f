//! The keys of `config.toml`, each in one row: its type, default, description, check, the value in force, and
//! which of two values is the stricter. The parser, the shipped file and the man page follow from this table.

use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Spanned, Table, Value};

use super::stricter::{Empty, deepen, lower, narrow, raise, replace, sooner, widen};
use super::{Command, Config, Redis, Store};
use crate::name::is_domain;

/// Value of `sessions.store` for a file of this host.
pub(super) const SQLITE: &str = "sqlite";
/// Seconds of a day.
pub(super) const DAY: u64 = 86_400;
/// Maximum of `sessions.max_age` and `sessions.recheck`, in seconds: a year.
const LONG: u64 = 31_536_000;

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its table.
    pub table: &'static str,
    /// Its name in the table.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: &'static str,
    /// The source of the default, if the realm join or another key decides; else empty.
    pub otherwise: &'static str,
    /// A value as TOML, if there is [`Key::otherwise`].
    example: &'static str,
    /// Its description.
    pub text: &'static str,
    /// Returns the value in force as TOML; empty if there is none.
    pub(crate) show: fn(&Config) -> String,
    /// Puts the stricter value of a new configuration into the present one; returns false if neither is the
    /// stricter. `None`: the key does not decide about access.
    pub(super) stricter: Option<fn(&mut Config, &Config) -> bool>,
}

impl Key {
    /// Returns its name with its table.
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// Returns the default as TOML, or an example if the realm join or another key decides.
    pub fn value(&self) -> String {
        match self.otherwise {
            "" => {
                let defaults = Table::try_from(Keys::default()).unwrap_or_default();
                let default = defaults.get(self.table).and_then(|table| table.get(self.name));
                default.map(Value::to_string).unwrap_or_default()
            }
            _ => self.example.to_owned(),
        }
    }
}

/// TLS for users' binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// LDAPS, or StartTLS if the domain controller does not listen on port 636.
    Auto,
    /// TLS from the first byte, port 636.
    Ldaps,
    /// The StartTLS operation (RFC 4511, 4.14), port 389.
    Starttls,
}

/// The method for checking a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// LDAP if a domain controller offers TLS that can be verified, else Kerberos.
    Auto,
    /// A bind over verified TLS.
    Ldap,
    /// The KDC, whose ticket is verified with the host's keytab.
    Kerberos,
}

/// The rule for a further login of a user who has the maximum number of sessions; the strictest is the
/// greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The number of sessions is unlimited.
    Unlimited,
    /// The new session replaces the oldest.
    Replace,
    /// The login is denied.
    Deny,
}

/// The rule for a login that cannot be registered; the strictest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreFailure {
    /// The login succeeds without a session.
    Allow,
    /// The login is denied.
    Deny,
}

/// A value that cannot be used: its place in the text, and the expected value.
pub(super) type Wrong = (usize, String);

/// Declares the keys as one table, so that no column can be forgotten. A row has the text, the name, the
/// type, the default, the kind of the value, and the value in force (`show`). Optional are the source of the
/// default with an example (`or`, `like`), a check of the value by itself (`check`), and the choice of the
/// stricter value (`stricter`).
macro_rules! keys {
    ($(
        $(#[doc = $subject:literal])+
        $table:ident: $keys:ident {$(
            $(#[doc = $text:literal])+
            $name:ident: $type:ty = $default:expr,
                $kind:literal $(or $otherwise:literal like $example:literal)?,
                $(check $check:expr,)? show $show:expr $(, stricter $stricter:expr)?;
        )+}
    )+) => {
        /// The values of a file. A default has no place in it.
        #[derive(Debug, Default, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct Keys {
            $(pub(super) $table: $keys,)+
        }

        impl Keys {
            /// Checks each value by itself.
            pub(super) fn check(&self) -> Result<(), Wrong> {
                $(self.$table.check()?;)+
                Ok(())
            }
        }

        $(
            #[derive(Debug, Deserialize, Serialize)]
            #[serde(deny_unknown_fields, default)]
            pub(super) struct $keys {
                $(pub(super) $name: Spanned<$type>,)+
            }

            impl Default for $keys {
                fn default() -> Self {
                    $keys { $($name: Spanned::new(0..0, $default),)+ }
                }
            }

            impl $keys {
                /// Checks each value by itself.
                pub(super) fn check(&self) -> Result<(), Wrong> {
                    $($(check(&self.$name, $check)?;)?)+
                    Ok(())
                }
            }
        )+

        /// The tables, each with its subject.
        pub const TABLES: &[(&str, &str)] = &[$((stringify!($table), concat!($($subject),+).trim_ascii()),)+];

        /// Every key, in the order of the shipped file.
        pub const KEYS: &[Key] = &[$($(
            Key {
                table: stringify!($table),
                name: stringify!($name),
                kind: $kind,
                otherwise: concat!($($otherwise)?),
                example: concat!($($example)?),
                text: concat!($($text),+).trim_ascii(),
                show: $show,
                stricter: optional!($($stricter)?),
            },
        )+)+];
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

keys! {
    /// The domain that this host is joined to.
    domain: DomainKeys {
        /// The joined domain. Any other domain is an error.
        name: Option<String> = None, "DNS name" or "ad_domain in sssd.conf" like r#""acme.com""#,
            show |config| toml(&config.domain.name), stricter |kept, new| kept.domain.name == new.domain.name;
        /// The domain's Kerberos realm.
        realm: Option<String> = None, "Kerberos realm"
            or "krb5_realm in sssd.conf, else the domain in capitals" like r#""ACME.COM""#,
            show |config| toml(&config.domain.realm);
        /// The domain's short name, for users who type DOMAIN\user.
        netbios: Option<String> = None,
            "NetBIOS name" or "the first label of the domain in capitals" like r#""ACME""#,
            show |config| toml(&config.names.netbios);
        /// The domain controllers, in the order to try; "_srv_" stands for those that DNS knows. An empty
        /// list queries DNS.
        servers: Option<Vec<String>> = None, "list of DNS names"
            or "ad_server in sssd.conf, else found by DNS SRV" like r#"["ad.acme.com", "ad2.acme.com"]"#,
            check given(hosts),
            show |config| toml(&config.domain.servers),
            stricter |kept, new| narrow(&mut kept.domain.servers, &new.domain.servers, Empty::Everything);
        /// The site of this host. Those domain controllers of DNS that serve it are tried first.
        site: Option<String> = None, "AD site"
            or "ad_site in sssd.conf, else what a domain controller answers" like r#""Berlin""#,
            check given(site), show |config| toml(&config.domain.site);
        /// Only accounts below it are found. It must be inside the domain.
        base_dn: Option<String> = None, "distinguished name" or "the whole domain" like r#""dc=acme,dc=com""#,
            show |config| toml(&config.domain.base_dn),
            stricter |kept, new| deepen(&mut kept.domain.base_dn, &new.domain.base_dn);
    }
    /// How the connections that carry users' passwords are verified. There is no switch to turn that off.
    tls: TlsKeys {
        /// LDAPS is port 636, StartTLS port 389; auto takes StartTLS where nothing listens on 636.
        mode: TlsMode = TlsMode::Auto, r#""auto", "ldaps" or "starttls""#,
            show |config| toml(config.tls.mode);
        /// PEM file of the only certificate authorities that may vouch for a domain controller. The user
        /// motion-ad must be able to read it.
        ca_file: Option<PathBuf> = None, "absolute path"
            or "ldap_tls_cacert in sssd.conf, else the system's store and the root CAs that the forest trusts"
            like r#""/etc/motion-ad/ca.pem""#,
            check given(absolute),
            show |config| toml(&config.tls.ca_file),
            stricter |kept, new| replace(&mut kept.tls.ca_file, &new.tls.ca_file);
    }
    /// How a name that a user types at the login page becomes an AD account, user@domain.
    names: NamesKeys {
        /// Names that do not follow the rule username + domain; see names.map(5).
        map_file: PathBuf = "/etc/motion-ad/names.map".into(), "absolute path",
            check absolute, show |config| toml(&config.map_file);
        /// Further domains of the forest whose users may log in, as the users type them after the @. The UPN
        /// suffixes that the forest publishes are accepted anyway.
        domains: Option<Vec<String>> = None,
            "list of domains" or "ad_enabled_domains in sssd.conf" like r#"["emea.acme.com"]"#,
            check given(domains),
            show |config| toml(&config.names.domains),
            stricter |kept, new| narrow(&mut kept.names.domains, &new.names.domains, Empty::Nothing);
        /// Names that are never logged in, whatever their domain and whatever the name map says: what stands
        /// before the @, or after the backslash.
        refuse: Vec<String> = list(&["root", "motion"]), "list of names without a domain",
            check names_alone,
            show |config| toml(&config.names.refuse),
            stricter |kept, new| widen(&mut kept.names.refuse, &new.names.refuse);
    }
    /// How passwords are checked, and which users may log in. Nested membership counts; groups are compared
    /// by SID.
    login: LoginKeys {
        /// How a password is checked: by an LDAP bind over verified TLS, or by the KDC, whose ticket is
        /// verified with the host's keytab. auto takes LDAP where a domain controller offers TLS that can be
        /// verified, else Kerberos; also if domain controllers take no simple binds (NTLM is off), and for
        /// members of Protected Users, because such a bind checks no password. No password is ever checked by
        /// both. Accounts without Kerberos pre-authentication are checked by LDAP also with kerberos, where a
        /// domain controller offers TLS: AD would not count a wrong password otherwise.
        method: Method = Method::Auto, r#""auto", "ldap" or "kerberos""#,
            show |config| toml(config.login.method);
        /// Only members of at least one of these get access; an empty list gives every user access. A group
        /// is a name, DOMAIN\name, a distinguished name or a SID. One that AD does not know denies every
        /// login. A BUILTIN group, S-1-5-32-…, counts for accounts of its own domain: every domain has one
        /// with that SID.
        allow_groups: Vec<String> = list(&[]), "list of groups",
            show |config| toml(&config.login.allow_groups),
            stricter |kept, new|
                narrow(&mut kept.login.allow_groups, &new.login.allow_groups, Empty::Everything);
        /// Members of any of these are rejected, whatever other groups they are in. With a domain local or
        /// BUILTIN group here, no account of another domain gets access: its own domain does not show if it
        /// is a member.
        deny_groups: Vec<String> = list(&[]), "list of groups",
            show |config| toml(&config.login.deny_groups),
            stricter |kept, new| widen(&mut kept.login.deny_groups, &new.login.deny_groups);
        /// Users whose password expires within this many days are warned when they log in, if the module's
        /// line has the argument messages; 0 warns no user.
        warn_days: u32 = 0, "0 to 365",
            check |days| within(days, 0..=365), show |config| toml(config.login.warn.as_secs() / DAY);
    }
    /// The users that the broker answers, and the number of their connections.
    broker: BrokerKeys {
        /// The users that applications run as. The broker answers only them and root.
        users: Vec<String> = list(&["motion"]), "list of local users, by name or uid",
            check some_user,
            show |config| toml(&config.broker.users),
            stricter |kept, new| narrow(&mut kept.broker.users, &new.broker.users, Empty::Nothing);
        /// Maximum number of connections from applications at once; more wait.
        connections: usize = 4096, "16 to 4096",
            check |count| within(count, 16..=4096), show |config| toml(config.broker.connections);
    }
    /// The LDAP server on loopback, for applications that only speak LDAP (motion-ad-ldap.socket, which must
    /// be enabled).
    bridge: BridgeKeys {
        /// The PAM service that decides whether a bind is a login.
        service: String = "motion".to_owned(), "name of a file in /etc/pam.d",
            check service, show |config| toml(&config.bridge.service);
        /// PEM file of the host's own certificate, and of those that lead to its authority, for applications
        /// that insist on StartTLS or ldaps://localhost:3890. If neither this file nor the key's exists,
        /// there is no TLS; over loopback the password crosses no network.
        certificate: PathBuf = "/etc/motion-ad/ldap.pem".into(), "absolute path",
            check absolute, show |config| toml(&config.bridge.certificate);
        /// PEM file of the key of that certificate. The user motion-ad-ldap must be able to read it, but not
        /// every user: chown root:motion-ad-ldap, chmod 640.
        key: PathBuf = "/etc/motion-ad/ldap.key".into(), "absolute path",
            check absolute, show |config| toml(&config.bridge.key);
    }
    /// The connections to domain controllers that check passwords.
    pool: PoolKeys {
        /// Maximum number of connections to domain controllers at once, each for one login at a time; more
        /// logins wait.
        connections: usize = 32, "1 to 1024",
            check |count| within(count, 1..=1024), show |config| toml(config.pool.connections);
        /// An unused connection is closed after this time. AD cuts it after 15 minutes.
        idle: u64 = 300, "1 to 900 seconds",
            check |seconds| within(seconds, 1..=900), show |config| toml(config.pool.idle.as_secs());
    }
    /// The register of logged-in users. A session begins where the application opens a PAM session, or with a
    /// login where the module has the argument session=auth. Sessions are counted per account, whatever name
    /// the user types.
    sessions: SessionsKeys {
        /// What happens to a further login of a user who has as many sessions as sessions.limit allows:
        /// replace ends the oldest session in its place; deny rejects the login; unlimited sets no limit.
        policy: Policy = Policy::Replace, r#""replace", "deny" or "unlimited""#,
            show |config| toml(config.sessions.policy),
            stricter |kept, new| raise(&mut kept.sessions.policy, new.sessions.policy);
        /// How many sessions a user may have.
        limit: usize = 1, "1 to 1000",
            check |count| within(count, 1..=1000),
            show |config| toml(config.sessions.limit),
            stricter |kept, new| lower(&mut kept.sessions.limit, new.sessions.limit);
        /// Members of any of these may have any number of sessions. A group is written as in
        /// login.allow_groups. One that AD does not know denies every login that would open a session.
        exempt_groups: Vec<String> = list(&[]), "list of groups",
            show |config| toml(&config.sessions.exempt_groups),
            stricter |kept, new|
                narrow(&mut kept.sessions.exempt_groups, &new.sessions.exempt_groups, Empty::Nothing);
        /// Where the register is kept: in a file in /var/lib/motion-ad, or for several servers in a Redis,
        /// redis://[USER@]HOST[:PORT][/DB] or, by its Sentinels,
        /// redis-sentinel://[USER@]HOST[:PORT],…/SERVICE[/DB]; with rediss in place of redis by TLS. HOST is
        /// a whole DNS name or an address. The URL holds no password: see sessions.password_file. How the
        /// Redis has to be set up is in motion-ad.toml(5).
        store: String = SQLITE.to_owned(), r#""sqlite" or a URL"#,
            show |config| redis(config).map_or_else(|| toml(SQLITE), |redis| toml(redis.to_string()));
        /// File whose first line is the password for the Redis. The user motion-ad must be able to read it,
        /// but not every user: chown root:motion-ad, chmod 640. It is read again for each connection.
        password_file: Option<PathBuf> = None,
            "absolute path" or "no password" like r#""/etc/motion-ad/redis.password""#,
            check given(absolute),
            show |config| toml(redis(config).and_then(|redis| redis.password_file.as_ref()));
        /// PEM file of the only certificate authorities that may vouch for the Redis and its Sentinels. The
        /// user motion-ad must be able to read it.
        ca_file: Option<PathBuf> = None,
            "absolute path" or "the system's store" like r#""/etc/motion-ad/redis-ca.pem""#,
            check given(absolute), show |config| toml(redis(config).and_then(|redis| redis.ca_file.as_ref()));
        /// What happens to a login whose session cannot be registered, because the disk is full or the Redis
        /// does not answer: deny rejects it; allow grants access without a session, with a line in the log.
        on_store_failure: OnStoreFailure = OnStoreFailure::Deny, r#""deny" or "allow""#,
            show |config| toml(config.sessions.on_store_failure),
            stricter |kept, new| raise(&mut kept.sessions.on_store_failure, new.sessions.on_store_failure);
        /// A session that is older ends. One whose process is gone ends anyway, within half a minute.
        max_age: u64 = 86_400, "60 to 31536000 seconds, or 0 for never",
            check |seconds| never_or_within(seconds, 60),
            show |config| toml(config.sessions.max_age.unwrap_or_default().as_secs()),
            stricter |kept, new| sooner(&mut kept.sessions.max_age, new.sessions.max_age);
        /// How often the accounts of users with a session on this server are read again. A session ends when
        /// its account was deleted, disabled, has expired, or may no longer log in by login.allow_groups and
        /// login.deny_groups. It does not end because the account is locked out, which anyone can cause with
        /// wrong passwords, nor because the password has expired or its logon hours are over: AD, too, checks
        /// them only at a logon. While AD does not answer, no session ends.
        recheck: u64 = 900, "10 to 31536000 seconds, or 0 for never",
            check |seconds| never_or_within(seconds, 10),
            show |config| toml(config.sessions.recheck.unwrap_or_default().as_secs()),
            stricter |kept, new| sooner(&mut kept.sessions.recheck, new.sessions.recheck);
        /// A command that is run for each session of this server that ended without its application's doing:
        /// replaced, no longer allowed, too old, or ended by an administrator. {id} {user} {principal}
        /// {service} {rhost} {tty} {pid} {host} {reason} {at} {detail} in its arguments stand for what the
        /// session has; {at} is when it ended, in seconds since 1970. It is run at least once: after a crash
        /// of the broker up to 100 evictions of the last hour are run again, and more where the Redis lost
        /// what it held while the broker was away. A session is evicted once, so its {id} tells a repeat.
        /// What happened before the command was set is not run. No shell reads it. A "-" with which such a
        /// value would begin an argument becomes "_", so that no name becomes an option of the program. It is
        /// run as the user motion-ad in the broker's sandbox: without privileges, with read-only files,
        /// without a home, without memory that is both written and executed, which Node.js and Java need; a
        /// program like curl, or a script of sh, works. It has 10 seconds, no input, and its output is lost.
        on_evict: Vec<String> = list(&[]), "list: an absolute path and arguments",
            show |config| toml(config.sessions.on_evict.as_ref().map(Command::words).unwrap_or_default());
    }
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn toml(value: impl Serialize) -> String {
    Value::try_from(value).map(|value| value.to_string()).unwrap_or_default()
}

fn redis(config: &Config) -> Option<&Redis> {
    match &config.sessions.store {
        Store::Redis(redis) => Some(redis),
        Store::Sqlite => None,
    }
}

fn check<T>(value: &Spanned<T>, check: impl Fn(&T) -> Result<(), String>) -> Result<(), Wrong> {
    check(value.get_ref()).map_err(|text| (value.span().start, text))
}

/// Checks a value that the file may leave to the realm join.
fn given<T>(check: impl Fn(&T) -> Result<(), String>) -> impl Fn(&Option<T>) -> Result<(), String> {
    move |value| value.as_ref().map_or(Ok(()), &check)
}

fn within<T: PartialOrd + Display>(value: &T, range: RangeInclusive<T>) -> Result<(), String> {
    expect(range.contains(value), || {
        format!("{value} was given, expected {} to {}", range.start(), range.end())
    })
}

fn never_or_within(seconds: &u64, least: u64) -> Result<(), String> {
    if *seconds == 0 { Ok(()) } else { within(seconds, least..=LONG) }
}

fn absolute(path: &impl AsRef<Path>) -> Result<(), String> {
    expect(path.as_ref().is_absolute(), || "expected an absolute path".to_owned())
}

fn hosts(hosts: &impl AsRef<[String]>) -> Result<(), String> {
    hosts.as_ref().iter().try_for_each(|host| {
        // The certificate and the Kerberos service principal are checked against the name.
        let is_address = host.parse::<IpAddr>().is_ok();
        expect(!is_address, || format!("{host:?} is an address; expected a DNS name"))?;
        expect(is_domain(host), || format!("{host:?} is no host name"))
    })
}

fn domains(domains: &impl AsRef<[String]>) -> Result<(), String> {
    let wrong = domains.as_ref().iter().find(|domain| !is_domain(domain));
    wrong.map_or(Ok(()), |wrong| Err(format!("{wrong:?} is no domain")))
}

/// A name with a domain would be compared with what a user types, and so refuse one spelling of many.
fn names_alone(names: &impl AsRef<[String]>) -> Result<(), String> {
    let is_alone = |name: &String| !name.is_empty() && name.trim() == name && !name.contains(['@', '\\']);
    let wrong = names.as_ref().iter().find(|name| !is_alone(name));
    wrong.map_or(Ok(()), |wrong| {
        Err(format!("{wrong:?} is no name alone: write it without a domain, and it counts for every domain"))
    })
}

/// A site is one label of a DNS name (MS-ADTS 6.3.2.3).
fn site(site: &impl AsRef<str>) -> Result<(), String> {
    let site = site.as_ref();
    expect(is_domain(site) && !site.contains('.'), || format!("{site:?} is no site"))
}

fn some_user(users: &impl AsRef<[String]>) -> Result<(), String> {
    let is_empty = users.as_ref().is_empty();
    expect(!is_empty, || "the list is empty: the broker would answer only root".to_owned())
}

/// The service is the name of a file in `/etc/pam.d`, which libpam folds to lower case.
fn service(name: &impl AsRef<str>) -> Result<(), String> {
    let name = name.as_ref();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    let is_name = !name.is_empty() && name.len() <= 64 && name.chars().all(is_plain);
    expect(is_name, || format!("{name:?} is no name of a PAM service"))
}

fn expect(is_right: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(text()) }
}

const HEAD: &str = "\
# motion-ad: Active Directory login for XCALLY Motion. See motion-ad.toml(5).
#
# On a joined host nothing needs to be set here: the domain and the trusted roots are known from the realm \
join. Every
# key is listed with its default; where the realm join decides, with an example.
# To set a key, take the # before it away, and the # before the [table] above it. A block of a document may \
be put at
# the end as it is, where its [table] is still a comment here; else its keys belong below that [table].
# The broker notices a change by itself. To check the file, run as root:
#   /usr/libexec/motion-ad/motion-ad-broker --check-config
";

/// Maximum width of a line in the shipped file.
const WIDTH: usize = 118;

/// Returns the file that is shipped: every key, commented out.
pub fn example() -> String {
    let mut file = HEAD.to_owned();
    for (table, text) in TABLES {
        let _ = writeln!(file);
        comment(&mut file, text);
        let _ = writeln!(file, "#[{table}]");
        for key in KEYS.iter().filter(|key| key.table == *table) {
            let _ = writeln!(file);
            comment(&mut file, key.text);
            let default = match key.otherwise {
                "" => String::new(),
                otherwise => format!(" Default: {otherwise}."),
            };
            comment(&mut file, &format!("{}.{default}", capital(key.kind)));
            let _ = writeln!(file, "#{} = {}", key.name, key.value());
        }
    }
    file
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Writes `text` in comment lines of at most [`WIDTH`].
fn comment(file: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(file, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(file, "{line}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::file::File;
    use super::super::{Config, ConfigError, Join, Problem};
    use super::*;

    const SHIPPED: &str = include_str!("../../packaging/config.toml");

    fn load(text: &str, join: &Join) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        File::load(file.path())?.complete(join)
    }

    /// Creates the join of the examples.
    fn join() -> Join {
        Join {
            domain: Some("acme.com".into()),
            realm: Some("ACME.COM".into()),
            servers: vec!["ad.acme.com".into(), "ad2.acme.com".into()],
            site: Some("Berlin".into()),
            enabled_domains: vec!["emea.acme.com".into()],
            ca_file: Some("/etc/motion-ad/ca.pem".into()),
            ..Join::default()
        }
    }

    fn uncommented(text: &str) -> String {
        let keys = |line: &str| {
            line.strip_prefix('#').filter(|key| !key.is_empty() && !key.starts_with(' ')).map(str::to_owned)
        };
        text.lines().map(|line| keys(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
    }

    #[test]
    fn the_shipped_file_is_this_table() {
        assert!(
            SHIPPED == example(),
            "write it anew: cargo run --example man -- --config >packaging/config.toml"
        );
    }

    #[test]
    fn the_shipped_file_says_nothing_as_it_is_and_the_defaults_when_uncommented() {
        let defaults = load("", &join()).unwrap();
        assert_eq!(load(SHIPPED, &join()).unwrap(), defaults);
        let all = uncommented(SHIPPED);
        assert_eq!(
            all.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count(),
            KEYS.len()
        );
        assert_eq!(load(&all, &join()).unwrap(), defaults);
    }

    /// Returns the names that the parser would have accepted.
    fn expected(text: &str) -> BTreeSet<String> {
        let Err(ConfigError::Broken(Problem { text, .. })) = load(text, &join()) else {
            panic!("{text} is accepted")
        };
        let (_, names) = text.split_once("expected ").unwrap();
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_table_and_the_parser_know_the_same_keys() {
        let tables: BTreeSet<_> = TABLES.iter().map(|(table, _)| (*table).to_owned()).collect();
        assert_eq!(expected("[unheard_of]\n"), tables);
        for table in tables {
            let keys = KEYS.iter().filter(|key| key.table == table).map(|key| key.name.to_owned()).collect();
            assert_eq!(expected(&format!("[{table}]\nunheard_of = 1\n")), keys, "{table}");
        }
    }
}
