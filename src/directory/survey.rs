//! Survey of a domain controller as any client sees it: its ports, its rootDSE and its certificate. No
//! password and no key is used, so AD counts no failed attempt for any account.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{Date, Month, PrimitiveDateTime, Time};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::directory::controllers::discovery::{Controller, Role};
use crate::directory::controllers::domains::KERBEROS;
use crate::directory::entry::Entry;
use crate::directory::passwords::bind::{self, BindConnection, READ_ONLY, Unusable};
use crate::directory::trust::Trust;
use crate::kerberos::Skew;
use crate::ldap;
use crate::ldap::{LDAP, LDAPS};
use crate::net::connect_tuned;

/// Time limit for one port, from the first packet to an open connection.
const PORT: Duration = Duration::from_secs(2);
/// Time limit for one answer on an open connection, and for one handshake.
const ANSWER: Duration = Duration::from_secs(2);

/// Attributes read from the rootDSE (MS-ADTS 3.1.1.3.2), which is readable without authentication.
const ATTRIBUTES: [&str; 7] = [
    "currentTime",
    "defaultNamingContext",
    "rootDomainNamingContext",
    "isSynchronized",
    "isGlobalCatalogReady",
    "supportedCapabilities",
    // Only Samba has this one.
    "vendorName",
];

/// A service of a domain controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Kerberos.
    Kdc,
    /// LDAP; StartTLS and the sealed connection of the machine account.
    Ldap,
    /// LDAP over TLS.
    Ldaps,
    /// The change of passwords by Kerberos (RFC 3244).
    Kpasswd,
    /// The global catalogue.
    Catalogue,
}

impl Port {
    /// All ports.
    pub const ALL: [Port; 5] = [Port::Kdc, Port::Ldap, Port::Ldaps, Port::Kpasswd, Port::Catalogue];

    /// Returns the addresses of this port at `controller`.
    fn at(self, controller: &Controller) -> Vec<SocketAddr> {
        controller.addresses.iter().map(|ip| SocketAddr::new(*ip, self.number())).collect()
    }

    /// The port number.
    pub fn number(self) -> u16 {
        match self {
            Port::Kdc => KERBEROS,
            Port::Ldap => LDAP,
            Port::Ldaps => LDAPS,
            Port::Kpasswd => 464,
            Port::Catalogue => Role::GlobalCatalogue.port(),
        }
    }
}

/// Findings about one domain controller.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The domain controller.
    pub controller: Arc<Controller>,
    /// Each port, with the cause if the connection failed.
    ports: Vec<(Port, Result<(), String>)>,
    /// Its rootDSE, or the cause if it could not be read.
    pub root: Result<Root, String>,
}

impl Survey {
    /// Returns the result of the connection to `port`.
    ///
    /// # Errors
    /// Returns a text for the administrator if the connection failed.
    pub fn port(&self, port: Port) -> Result<(), String> {
        let found = self.ports.iter().find(|(known, _)| *known == port);
        found.map_or_else(|| Err("it was not tried".to_owned()), |(_, result)| result.clone())
    }
}

/// A domain controller's report about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// Difference between this host's clock and the domain controller's.
    pub skew: Option<Skew>,
    /// The distinguished name of its domain.
    pub domain: String,
    /// The distinguished name of the forest's root domain.
    pub forest: String,
    /// It has replicated since it started.
    pub is_synchronized: bool,
    /// It is a read-only domain controller.
    pub is_read_only: bool,
    /// It serves the global catalogue.
    pub is_catalogue: bool,
    /// It is Samba, not Windows.
    pub is_samba: bool,
}

impl Root {
    pub(crate) fn of(entry: &Entry, host: &str, now: SystemTime) -> Self {
        let text = |name: &str| entry.text(name).ok().flatten().unwrap_or_default();
        let is = |name: &str, value: &str| text(name).eq_ignore_ascii_case(value);
        Root {
            skew: time_of(text("currentTime")).map(|theirs| Skew::between(now, theirs, host)),
            domain: text("defaultNamingContext").to_owned(),
            forest: text("rootDomainNamingContext").to_owned(),
            // A domain controller that does not report this counts as synchronized.
            is_synchronized: !is("isSynchronized", "FALSE"),
            is_read_only: entry.values("supportedCapabilities").iter().any(|oid| oid == READ_ONLY.as_bytes()),
            is_catalogue: is("isGlobalCatalogReady", "TRUE"),
            is_samba: text("vendorName").starts_with("Samba"),
        }
    }
}

/// Surveys `controller`, until `deadline` at the latest.
pub async fn survey(controller: Arc<Controller>, deadline: Instant) -> Survey {
    let mut trying = JoinSet::new();
    for port in Port::ALL {
        let controller = Arc::clone(&controller);
        let until = deadline.min(Instant::now() + PORT);
        trying.spawn(async move { (port, connect_tuned(&port.at(&controller), until).await) });
    }
    let (mut ports, mut root) = (Vec::new(), None);
    while let Some(tried) = trying.join_next().await {
        let Ok((port, tried)) = tried else { continue };
        let result = match tried {
            Ok((stream, _)) if port == Port::Ldap => {
                root = Some(read_root(stream, &controller.host, deadline).await);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(cause) => Err(cause),
        };
        ports.push((port, result));
    }
    let mut survey = Survey { controller, ports, root: Err("it was not asked".to_owned()) };
    survey.root = match root {
        Some(root) => root,
        None => Err(survey.port(Port::Ldap).err().unwrap_or_default()),
    };
    survey
}

async fn read_root(mut stream: TcpStream, host: &str, deadline: Instant) -> Result<Root, String> {
    let peer = stream.peer_addr().map(|address: SocketAddr| address.to_string()).unwrap_or_default();
    let asking = async {
        let request = ldap::root_search(1, "(objectClass=*)", &ATTRIBUTES).map_err(|e| e.to_string())?;
        let answer = ldap::search_one(&mut stream, 1, request).await.map_err(|e| e.to_string())?;
        let now = SystemTime::now();
        Entry::decode(answer).map(|entry| Root::of(&entry, host, now)).map_err(|e| e.to_string())
    };
    match timeout_at(deadline.min(Instant::now() + ANSWER), asking).await {
        Ok(answer) => answer.map_err(|cause| format!("{peer}: {cause}")),
        Err(_) => Err(format!("{peer}: it is connected and does not answer")),
    }
}

/// A certificate, as shown to the administrator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Subject.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// DNS names that it is valid for.
    pub names: Vec<String>,
    /// First second of its validity, counted from 1970-01-01 UTC.
    pub not_before: i64,
    /// Last second of its validity, counted from 1970-01-01 UTC.
    pub not_after: i64,
}

impl Certificate {
    /// Reads the DER form; `None` if it is malformed.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|names| &names.value.general_names);
        let dns = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        };
        Some(Certificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names: names.filter_map(dns).collect(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

/// TLS on one port of a domain controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate that it showed, trusted or not.
    pub certificate: Option<Certificate>,
    /// Why no password would be sent over the connection; `None` if one would be.
    pub problem: Option<Unusable>,
}

/// Opens TLS to `controller` as for a user's bind: on port 636, or by StartTLS on port 389.
pub async fn tls(controller: &Controller, port: Port, trust: &Trust, deadline: Instant) -> Tls {
    let unreachable = |cause: String| Tls { certificate: None, problem: Some(Unusable::Unreachable(cause)) };
    let (config, seen) = match trust.watched() {
        Ok(watched) => watched,
        Err(error) => return unreachable(error.to_string()),
    };
    let until = deadline.min(Instant::now() + PORT);
    let stream = match connect_tuned(&port.at(controller), until).await {
        Ok((stream, _)) => stream,
        Err(cause) => return unreachable(cause),
    };
    let until = deadline.min(Instant::now() + ANSWER);
    let opening = BindConnection::open(stream, &controller.host, config, port == Port::Ldap);
    let opened =
        timeout_at(until, opening).await.unwrap_or_else(|_| Err(bind::unreachable(&"no answer in time")));
    let certificate = seen.take().and_then(|der| Certificate::read(&der));
    Tls { certificate, problem: opened.err() }
}

/// Reads a GeneralizedTime as AD writes it, `YYYYMMDDHHMMSS.0Z` (MS-ADTS 3.1.1.2.2.2.10).
fn time_of(text: &str) -> Option<SystemTime> {
    let (digits, zone) = text.split_at_checked(14)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !zone.ends_with('Z') {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to)?.parse::<u8>().ok();
    let month = Month::try_from(number(4, 6)?).ok()?;
    let date = Date::from_calendar_date(digits.get(..4)?.parse().ok()?, month, number(6, 8)?).ok()?;
    let clock = Time::from_hms(number(8, 10)?, number(10, 12)?, number(12, 14)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, clock).assume_utc().unix_timestamp();
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_ad_is_read() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, expected) in [
            ("20240229123456.0Z", at(1_709_210_096)),
            ("19700101000000Z", at(0)),
            ("20240230123456.0Z", None),
            ("20240229123456.0+0100", None),
            ("2024", None),
            ("", None),
            ("2024022912345é.0Z", None),
        ] {
            assert_eq!(time_of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_root_dse_that_says_little_says_nothing_against_itself() {
        let now = UNIX_EPOCH + Duration::from_secs(1_709_210_096);
        let quiet = Root::of(&Entry::new(""), "ad", now);
        assert_eq!(quiet, Root { is_synchronized: true, ..Root::default() });
        let entry = Entry::new("")
            .with("currentTime", ["20240229123356.0Z"])
            .with("isSynchronized", ["FALSE"])
            .with("supportedCapabilities", ["1.2.840.113556.1.4.800", READ_ONLY])
            .with("vendorName", ["Samba Team (https://www.samba.org)"]);
        let root = Root::of(&entry, "ad", now);
        assert_eq!(root.skew, Some(Skew { kdc: "ad".into(), ahead: 60 }));
        assert!(!root.is_synchronized && root.is_read_only && root.is_samba);
    }

    #[test]
    fn a_certificate_tells_whose_it_is_and_until_when() {
        let pem = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ca.pem")).unwrap();
        let der = pem::parse(pem).unwrap();
        let certificate = Certificate::read(der.contents()).unwrap();
        assert!(!certificate.subject.is_empty() && certificate.not_after > certificate.not_before);
        assert_eq!(Certificate::read(b"no certificate"), None);
    }
}
