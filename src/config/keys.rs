//! The documentation of the keys of `config.toml`: the shipped file and the man page are generated from this
//! table.

use std::fmt::Write as _;

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its table.
    pub table: &'static str,
    /// Its name in the table.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: &'static str,
    /// Its default, as TOML; an example if the realm join decides.
    pub value: &'static str,
    /// The source of the default, if that is not always [`Key::value`].
    pub otherwise: &'static str,
    /// Its description.
    pub text: &'static str,
}

/// The tables, each with its subject.
pub const TABLES: &[(&str, &str)] = &[
    ("domain", "The domain that this host is joined to."),
    (
        "tls",
        "How the connections that carry users' passwords are verified. There is no switch to turn that off.",
    ),
    ("names", "How a name that a user types at the login page becomes an AD account, user@domain."),
    (
        "login",
        "How passwords are checked, and which users may log in. Nested membership counts; groups are compared by SID.",
    ),
    ("broker", "The users that the broker answers, and the number of their connections."),
    (
        "bridge",
        "The LDAP server on loopback, for applications that only speak LDAP (motion-ad-ldap.socket, which must be \
         enabled).",
    ),
    ("pool", "The connections to domain controllers that check passwords."),
    (
        "sessions",
        "The register of logged-in users. A session begins where the application opens a PAM session, or with a login \
         where the module has the argument session=auth. Sessions are counted per account, whatever name the user \
         types.",
    ),
];

/// Every key, in the order of the parser.
pub const KEYS: &[Key] = &[
    Key {
        table: "domain",
        name: "name",
        kind: "DNS name",
        value: r#""acme.com""#,
        otherwise: "ad_domain in sssd.conf",
        text: "The joined domain. Any other domain is an error.",
    },
    Key {
        table: "domain",
        name: "realm",
        kind: "Kerberos realm",
        value: r#""ACME.COM""#,
        otherwise: "krb5_realm in sssd.conf, else the domain in capitals",
        text: "The domain's Kerberos realm.",
    },
    Key {
        table: "domain",
        name: "netbios",
        kind: "NetBIOS name",
        value: r#""ACME""#,
        otherwise: "the first label of the domain in capitals",
        text: "The domain's short name, for users who type DOMAIN\\user.",
    },
    Key {
        table: "domain",
        name: "servers",
        kind: "list of DNS names",
        value: r#"["ad.acme.com", "ad2.acme.com"]"#,
        otherwise: "ad_server in sssd.conf, else found by DNS SRV",
        text: "The domain controllers, in the order to try; \"_srv_\" stands for those that DNS knows. An \
               empty list queries DNS.",
    },
    Key {
        table: "domain",
        name: "site",
        kind: "AD site",
        value: r#""Berlin""#,
        otherwise: "ad_site in sssd.conf, else what a domain controller answers",
        text: "The site of this host. Those domain controllers of DNS that serve it are tried first.",
    },
    Key {
        table: "domain",
        name: "base_dn",
        kind: "distinguished name",
        value: r#""dc=acme,dc=com""#,
        otherwise: "the whole domain",
        text: "Only accounts below it are found. It must be inside the domain.",
    },
    Key {
        table: "tls",
        name: "mode",
        kind: r#""auto", "ldaps" or "starttls""#,
        value: r#""auto""#,
        otherwise: "",
        text: "LDAPS is port 636, StartTLS port 389; auto takes StartTLS where nothing listens on 636.",
    },
    Key {
        table: "tls",
        name: "ca_file",
        kind: "absolute path",
        value: r#""/etc/motion-ad/ca.pem""#,
        otherwise: "ldap_tls_cacert in sssd.conf, else the system's store and the root CAs that the forest trusts",
        text: "PEM file of the only certificate authorities that may vouch for a domain controller. The user \
               motion-ad must be able to read it.",
    },
    Key {
        table: "names",
        name: "map_file",
        kind: "absolute path",
        value: r#""/etc/motion-ad/names.map""#,
        otherwise: "",
        text: "Names that do not follow the rule username + domain; see names.map(5).",
    },
    Key {
        table: "names",
        name: "domains",
        kind: "list of domains",
        value: r#"["emea.acme.com"]"#,
        otherwise: "ad_enabled_domains in sssd.conf",
        text: "Further domains of the forest whose users may log in, as the users type them after the @. The UPN \
               suffixes that the forest publishes are accepted anyway.",
    },
    Key {
        table: "names",
        name: "refuse",
        kind: "list of names",
        value: r#"["root", "motion"]"#,
        otherwise: "",
        text: "Names that are never logged in, whatever their domain and whatever the name map says.",
    },
    Key {
        table: "login",
        name: "method",
        kind: r#""auto", "ldap" or "kerberos""#,
        value: r#""auto""#,
        otherwise: "",
        text: "How a password is checked: by an LDAP bind over verified TLS, or by the KDC, whose ticket is verified \
               with the host's keytab. auto takes LDAP where a domain controller offers TLS that can be verified, \
               else Kerberos; also if domain controllers take no simple binds (NTLM is off), and for members of \
               Protected Users, because such a bind checks no password. No password is ever checked by both. Accounts without Kerberos pre-authentication are \
               checked by LDAP also with kerberos, where a domain controller offers TLS: AD would not count a wrong \
               password otherwise.",
    },
    Key {
        table: "login",
        name: "allow_groups",
        kind: "list of groups",
        value: "[]",
        otherwise: "",
        text: "Only members of at least one of these get access; an empty list gives every user access. A group is a \
               name, DOMAIN\\name, a distinguished name or a SID. One that AD does not know denies every login. A BUILTIN \
               group, S-1-5-32-…, counts for accounts of its own domain: every domain has one with that SID.",
    },
    Key {
        table: "login",
        name: "deny_groups",
        kind: "list of groups",
        value: "[]",
        otherwise: "",
        text: "Members of any of these are rejected, whatever other groups they are in.",
    },
    Key {
        table: "login",
        name: "warn_days",
        kind: "0 to 365",
        value: "0",
        otherwise: "",
        text: "Users whose password expires within this many days are warned when they log in, if the \
               module's line has the argument messages; 0 warns no user.",
    },
    Key {
        table: "broker",
        name: "users",
        kind: "list of local users, by name or uid",
        value: r#"["motion"]"#,
        otherwise: "",
        text: "The users that applications run as. The broker answers only them and root.",
    },
    Key {
        table: "broker",
        name: "connections",
        kind: "16 to 4096",
        value: "4096",
        otherwise: "",
        text: "Maximum number of connections from applications at once; more wait.",
    },
    Key {
        table: "bridge",
        name: "service",
        kind: "name of a file in /etc/pam.d",
        value: r#""motion""#,
        otherwise: "",
        text: "The PAM service that decides whether a bind is a login.",
    },
    Key {
        table: "bridge",
        name: "certificate",
        kind: "absolute path",
        value: r#""/etc/motion-ad/ldap.pem""#,
        otherwise: "",
        text: "PEM file of the host's own certificate, and of those that lead to its authority, for applications that \
               insist on StartTLS or ldaps://localhost:3890. If neither this file nor the key's exists, there is no TLS; \
               over loopback the password crosses no network.",
    },
    Key {
        table: "bridge",
        name: "key",
        kind: "absolute path",
        value: r#""/etc/motion-ad/ldap.key""#,
        otherwise: "",
        text: "PEM file of the key of that certificate. The user motion-ad-ldap must be able to read it, but not every \
               user: chown root:motion-ad-ldap, chmod 640.",
    },
    Key {
        table: "pool",
        name: "connections",
        kind: "1 to 1024",
        value: "32",
        otherwise: "",
        text: "Maximum number of connections to domain controllers at once, each for one login at a time; more logins \
               wait.",
    },
    Key {
        table: "pool",
        name: "idle",
        kind: "1 to 900 seconds",
        value: "300",
        otherwise: "",
        text: "An unused connection is closed after this time. AD cuts it after 15 minutes.",
    },
    Key {
        table: "sessions",
        name: "policy",
        kind: r#""replace", "deny" or "unlimited""#,
        value: r#""replace""#,
        otherwise: "",
        text: "What happens to a further login of a user who has as many sessions as sessions.limit allows: \
               replace ends the oldest session in its place; deny rejects the login; unlimited sets no \
               limit.",
    },
    Key {
        table: "sessions",
        name: "limit",
        kind: "1 to 1000",
        value: "1",
        otherwise: "",
        text: "How many sessions a user may have.",
    },
    Key {
        table: "sessions",
        name: "exempt_groups",
        kind: "list of groups",
        value: "[]",
        otherwise: "",
        text: "Members of any of these may have any number of sessions. A group is written as in login.allow_groups. \
               One that AD does not know denies every login that would open a session.",
    },
    Key {
        table: "sessions",
        name: "store",
        kind: r#""sqlite" or a URL"#,
        value: r#""sqlite""#,
        otherwise: "",
        text: "Where the register is kept: in a file in /var/lib/motion-ad, or for several servers in a Redis, \
               redis://[USER@]HOST[:PORT][/DB] or, by its Sentinels, redis-sentinel://[USER@]HOST[:PORT],…/SERVICE[/DB]; \
               with rediss in place of redis by TLS. HOST is a whole DNS name or an address. The URL holds no \
               password: see sessions.password_file. How the Redis has to be set up is in motion-ad.toml(5).",
    },
    Key {
        table: "sessions",
        name: "password_file",
        kind: "absolute path",
        value: r#""/etc/motion-ad/redis.password""#,
        otherwise: "no password",
        text: "File whose first line is the password for the Redis. The user motion-ad must be able to read \
               it, but not every user: chown root:motion-ad, chmod 640. It is read again for each connection.",
    },
    Key {
        table: "sessions",
        name: "ca_file",
        kind: "absolute path",
        value: r#""/etc/motion-ad/redis-ca.pem""#,
        otherwise: "the system's store",
        text: "PEM file of the only certificate authorities that may vouch for the Redis and its Sentinels. The user \
               motion-ad must be able to read it.",
    },
    Key {
        table: "sessions",
        name: "on_store_failure",
        kind: r#""deny" or "allow""#,
        value: r#""deny""#,
        otherwise: "",
        text: "What happens to a login whose session cannot be registered, because the disk is full or the \
               Redis does not answer: deny rejects it; allow grants access without a session, with a line \
               in the log.",
    },
    Key {
        table: "sessions",
        name: "max_age",
        kind: "60 to 31536000 seconds, or 0 for never",
        value: "86400",
        otherwise: "",
        text: "A session that is older ends. One whose process is gone ends anyway, within half a minute.",
    },
    Key {
        table: "sessions",
        name: "recheck",
        kind: "10 to 31536000 seconds, or 0 for never",
        value: "900",
        otherwise: "",
        text: "How often the accounts of users with a session on this server are read again. A session ends when \
               its account was deleted, disabled, has expired, or may no longer log in by login.allow_groups and \
               login.deny_groups. It does not end because the account is locked out, which anyone can cause \
               with wrong passwords, nor because the password has expired or its logon hours are over: AD, \
               too, checks them only at a logon. While AD does not answer, no session ends.",
    },
    Key {
        table: "sessions",
        name: "on_evict",
        kind: "list: an absolute path and arguments",
        value: "[]",
        otherwise: "",
        text: "A command that is run for each session of this server that ended without its application's doing: \
               replaced, no longer allowed, too old, or ended by an administrator. {id} {user} {principal} {service} \
               {rhost} {tty} {pid} {host} {reason} {at} {detail} in its arguments stand for what the session has; {at} is when it ended, in \
               seconds since 1970. It is run at least once: after a crash of the broker up to 100 evictions of the \
               last hour are run again, and more where the Redis lost what it held while the broker was away. A \
               session is evicted once, so its {id} tells a repeat. What happened before the command was set is not \
               run. No shell reads it. A \"-\" with which \
               such a value would begin an argument becomes \"_\", so that no name becomes an option of the program. \
               It is run as the user motion-ad in the broker's sandbox: without privileges, with read-only files, \
               without a home, without memory that is both written and executed, which Node.js and Java need; a \
               program like curl, or a script of sh, works. It has 10 seconds, no input, and its output is lost.",
    },
];

const HEAD: &str = "\
# motion-ad: Active Directory login for XCALLY Motion. See motion-ad.toml(5).
#
# On a joined host nothing needs to be set here: the domain and the trusted roots are known from the realm join. Every
# key is listed with its default; where the realm join decides, with an example.
# To set a key, take the # before it away, and the # before the [table] above it. A block of a document may be put at
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
            let _ = writeln!(file, "#{} = {}", key.name, key.value);
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
