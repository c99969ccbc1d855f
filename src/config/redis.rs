//! The address of a Redis, which `sessions.store` holds as a URL.

use std::fmt;
use std::path::PathBuf;

/// The usual ports of Redis and of its Sentinel.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The rights of the ACL user (redis.io/docs/management/security/acl): exactly those that the register
/// requires.
pub const RIGHTS: &str = "~motion-ad:* resetchannels -@all +ping +select +evalsha +script|load +xread +xadd \
    +xlen +xrange +xrevrange +get +set +del +exists +hget +hset +hdel +hlen +hexists +zadd +zrem +zcard \
    +zscore +zrangebyscore +zrangebylex";

/// The rule that disables the user `default`. Without its rights, a server omits the changes of scripts when
/// it reads its log at its start (redis/redis#14541).
pub const DEFAULT_USER: &str = "user default off ~* &* +@all";

/// The rights of the same user at a Sentinel that requires a password.
pub const SENTINEL_RIGHTS: &str = "-@all +sentinel|get-master-addr-by-name";

/// A Redis, with the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Its address.
    pub at: RedisAt,
    /// True if every connection uses TLS, including those to Sentinels.
    pub tls: bool,
    /// The ACL user; `None`: the default one.
    pub user: Option<String>,
    /// The number of the database.
    pub database: u32,
    /// The file that holds the password, as its first line.
    pub password_file: Option<PathBuf>,
    /// PEM file of the only trusted roots; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// The server to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAt {
    /// This one.
    Server(Server),
    /// The one that Sentinels name.
    Sentinel {
        /// The Sentinels; at least one.
        sentinels: Vec<Server>,
        /// The name by which they know the server.
        service: String,
    },
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// DNS name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Redis {
    /// Parses `redis://[user@]host[:port][/db]` and `redis-sentinel://[user@]host[:port],…/service[/db]`,
    /// with `rediss` for TLS. Nothing in it is percent-encoded.
    ///
    /// # Errors
    /// Returns a description of the mistake that never quotes a password.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let expected = "expected \"sqlite\", redis://HOST, rediss://HOST, redis-sentinel://HOST,HOST/SERVICE \
                        or rediss-sentinel://HOST,HOST/SERVICE";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| expected.to_owned())?;
        let (tls, sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis-sentinel" => (false, true),
            "rediss-sentinel" => (true, true),
            _ => return Err(expected.to_owned()),
        };
        // The last `@`, because a password may hold another.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(
                "every user may read this file: put the password into a file that only motion-ad may read, \
                        and name that as sessions.password_file"
                    .to_owned(),
            );
        }
        if rest.contains(['?', '#']) {
            return Err("the URL takes no options".to_owned());
        }
        let mut parts = rest.split('/');
        let hosts = parts.next().unwrap_or_default();
        let port = if sentinel { SENTINEL_PORT } else { PORT };
        let mut servers = hosts.split(',').map(|host| server(host, port)).collect::<Result<Vec<_>, _>>()?;
        let at = match (sentinel, servers.len()) {
            (true, _) => {
                let service = parts.next().filter(|service| !service.is_empty());
                let service = service.ok_or("the name of the Sentinels' service is missing: …/SERVICE")?;
                RedisAt::Sentinel { sentinels: servers, service: service.to_owned() }
            }
            (false, 1) => RedisAt::Server(servers.remove(0)),
            (false, _) => {
                return Err("several servers need redis-sentinel:// or rediss-sentinel://".to_owned());
            }
        };
        let database = match parts.next() {
            None | Some("") => 0,
            Some(number) => number.parse().map_err(|_| format!("{number:?} is no number of a database"))?,
        };
        if parts.next().is_some() {
            return Err("nothing may follow the number of the database".to_owned());
        }
        let user = user.filter(|user| !user.is_empty()).map(str::to_owned);
        Ok(Redis { at, tls, user, database, password_file: None, ca_file: None })
    }
}

impl fmt::Display for Redis {
    /// Writes the URL in the form that [`Redis::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sentinel, servers, service) = match &self.at {
            RedisAt::Server(server) => ("", std::slice::from_ref(server), None),
            RedisAt::Sentinel { sentinels, service } => ("-sentinel", sentinels.as_slice(), Some(service)),
        };
        write!(f, "redis{}{sentinel}://", if self.tls { "s" } else { "" })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        let servers: Vec<_> = servers.iter().map(Server::to_string).collect();
        f.write_str(&servers.join(","))?;
        if let Some(service) = service {
            write!(f, "/{service}")?;
        }
        match self.database {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Parses `host`, `host:port`, `[address]` or `[address]:port`.
fn server(text: &str, default: u16) -> Result<Server, String> {
    let wrong = || format!("{text:?} is no host or host:port");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_host =
        |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || (c == ':' && text.starts_with('['));
    if host.is_empty() || !host.chars().all(is_host) {
        return Err(wrong());
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        None => default,
    };
    Ok(Server { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Server {
        Server { host: host.to_owned(), port }
    }

    fn plain(at: RedisAt) -> Redis {
        Redis { at, tls: false, user: None, database: 0, password_file: None, ca_file: None }
    }

    #[test]
    fn a_url_says_where_and_who_and_which() {
        let server = |host, port| plain(RedisAt::Server(at(host, port)));
        let sentinels = |list: &[(&str, u16)]| {
            let sentinels = list.iter().map(|(host, port)| at(host, *port)).collect();
            plain(RedisAt::Sentinel { sentinels, service: "motion".to_owned() })
        };
        let cases = [
            ("redis://r1.acme.com", server("r1.acme.com", 6379)),
            ("redis://10.0.0.1:7000", server("10.0.0.1", 7000)),
            ("redis://[fd00::1]", server("fd00::1", 6379)),
            ("redis://[fd00::1]:7000/", server("fd00::1", 7000)),
            ("redis://r1/5", Redis { database: 5, ..server("r1", 6379) }),
            (
                "rediss://motion@r1:7000/5",
                Redis { tls: true, user: Some("motion".into()), database: 5, ..server("r1", 7000) },
            ),
            ("redis-sentinel://s1,s2:7000/motion", sentinels(&[("s1", 26379), ("s2", 7000)])),
            (
                "rediss-sentinel://motion@s1/motion/3",
                Redis { tls: true, user: Some("motion".into()), database: 3, ..sentinels(&[("s1", 26379)]) },
            ),
        ];
        for (url, redis) in cases {
            assert_eq!(Redis::parse(url).unwrap(), redis, "{url}");
            assert_eq!(Redis::parse(&redis.to_string()).unwrap(), redis, "{redis}");
        }
    }

    #[test]
    fn what_is_no_url_says_why_and_quotes_no_password() {
        let cases = [
            ("mysql", "expected \"sqlite\", redis://HOST"),
            ("http://r1", "expected \"sqlite\", redis://HOST"),
            ("redis://", "\"\" is no host"),
            ("redis://r1:0", "\"r1:0\" is no host"),
            ("redis://r1:70000", "\"r1:70000\" is no host"),
            ("redis://[fd00::1", "is no host"),
            ("redis://fd00::1", "is no host"),
            ("redis://r 1", "is no host"),
            ("redis://r1/five", "\"five\" is no number"),
            ("redis://r1/5/6", "nothing may follow"),
            ("redis://r1?db=5", "takes no options"),
            ("redis://r1,r2", "several servers need redis-sentinel://"),
            ("redis-sentinel://s1", "service is missing"),
            ("redis-sentinel://s1/", "service is missing"),
            ("redis://:hunter2@r1", "sessions.password_file"),
            ("rediss-sentinel://motion:hunter2@at@s1/motion", "sessions.password_file"),
        ];
        for (url, expected) in cases {
            let error = Redis::parse(url).unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }
}
