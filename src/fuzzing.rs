//! The fuzz targets: oracles that hold for any bytes from outside.
//!
//! Each target is a function that takes arbitrary bytes and panics if an oracle fails. `make fuzz` runs it on
//! random bytes (`fuzz/`), and the test at the end of this file on every file of its corpus. Compiled for
//! tests and for the fuzzer (`cfg(fuzzing)`), never into what is shipped.

// A failed oracle is a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{CStr, CString};
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_resolver::proto::op::Message as DnsMessage;
use ldap3::asn1::{ASNTag, PL, StructureTag, TagClass};
use netlink_packet_sock_diag::inet::SocketId;
use parking_lot::Mutex;
use redis::FromRedisValue;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bridge;
use crate::bridge::message::{self, Message, Request as BridgeRequest};
use crate::broker;
use crate::config::admin::LocalAdmin;
use crate::config::command::Command;
use crate::config::file::File;
use crate::config::join::{Access, Join};
use crate::config::keys::{KEYS, TABLES};
use crate::config::redis::Redis as RedisUrl;
use crate::config::sssd::Sssd;
use crate::config::xcally::{self, change};
use crate::config::{Base, Config, samba, text};
use crate::directory::controllers::dns::{Resolv, Srv};
use crate::directory::controllers::netlogon;
use crate::directory::controllers::roster::Listed;
use crate::directory::entry::Entry;
use crate::directory::forest::Forest;
use crate::directory::lookup::filter::{Filter, FilterError};
use crate::directory::machine::{Place as Partition, RootDse};
use crate::directory::passwords::{change as changed, effective, refusal};
use crate::directory::people::account::Account;
use crate::directory::people::find::{choose, named_explicitly, named_implicitly};
use crate::directory::people::groups::group_of;
use crate::directory::people::person::{people_of, people_search};
use crate::directory::people::standing::standing_of;
use crate::directory::sid::Sid;
use crate::directory::survey::{Certificate, Root};
use crate::directory::trust::points::named_by;
use crate::dn::{Dn, Place};
use crate::doctor::stack::{Kind, Rule, Service, Value, decide};
use crate::helper::log::line;
use crate::kerberos;
use crate::kerberos::krb5::change::ChangeExchange;
use crate::kerberos::krb5::changepw;
use crate::kerberos::krb5::refused::Refused;
use crate::kerberos::sasl::{self, LdapService};
use crate::kerberos::sealing::{self, Layer};
use crate::ldap;
use crate::libpam;
use crate::log::Line;
use crate::module::arguments::{ArgumentError, Arguments};
use crate::name::{Form, Known, NameError, NameMap, Principal, Rules, fold};
use crate::protocol::search::MAX_FOUND;
use crate::protocol::{
    Decoder, FrameError, MAX_FRAME, Passwords, Reply, Request, Secret, encode_up_to, report,
};
use crate::sessions;
use crate::sessions::redis::{Text, event_cursor, session_of};
use crate::verdict::Outcome;

/// A fuzz target. Its corpus is the folder `fuzz/corpus/NAME`.
pub struct Target {
    pub name: &'static str,
    /// Panics if an oracle fails.
    pub run: fn(&[u8]),
}

/// Returns the target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "request", run: request },
    Target { name: "reply", run: reply },
    Target { name: "ldap_answer", run: ldap_answer },
    Target { name: "sealed", run: sealed },
    Target { name: "entry", run: entry },
    Target { name: "attributes", run: attributes },
    Target { name: "sid", run: sid },
    Target { name: "netlogon", run: ping },
    Target { name: "kdc_error", run: kdc_error },
    Target { name: "edata", run: edata },
    Target { name: "kpasswd", run: kpasswd },
    Target { name: "refusal", run: refused },
    Target { name: "certificate", run: certificate },
    Target { name: "dns", run: dns },
    Target { name: "names_map", run: names_map },
    Target { name: "name", run: name },
    Target { name: "dn", run: dn },
    Target { name: "filter", run: filter },
    Target { name: "bridge", run: bridge_message },
    Target { name: "config", run: config },
    Target { name: "sssd", run: sssd },
    Target { name: "env", run: env },
    Target { name: "pam_service", run: pam_service },
    Target { name: "metrics", run: metrics },
    Target { name: "redis", run: redis },
    Target { name: "record", run: record },
    Target { name: "kernel", run: kernel },
    Target { name: "words", run: words },
    Target { name: "log", run: log },
];

// Frames between module and broker.

/// The result of reading a frame.
#[derive(Debug, PartialEq)]
enum Frame<T> {
    Message(T, Vec<u8>),
    Refused(String),
    Unfinished,
}

/// Reads a frame of which `step` bytes arrive at a time.
fn read_frame<T: DeserializeOwned>(mut bytes: &[u8], limit: usize, step: usize) -> Frame<T> {
    let mut decoder = Decoder::new(limit);
    loop {
        let space = decoder.space();
        assert!(!space.is_empty(), "no room, and the frame is not whole");
        let count = step.min(space.len()).min(bytes.len());
        let (now, later) = bytes.split_at(count);
        space[..count].copy_from_slice(now);
        bytes = later;
        match decoder.read(count) {
            Ok(Some((message, secret))) => return Frame::Message(message, secret.bytes().to_vec()),
            Ok(None) => {}
            Err(FrameError::Closed | FrameError::Io(_)) => return Frame::Unfinished,
            Err(error) => return Frame::Refused(error.to_string()),
        }
    }
}

/// A frame is the same in any pieces; a refused one is refused whatever follows; what is encoded decodes to
/// the same.
fn frame<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8], limit: usize) {
    let Some((step, bytes)) = data.split_first() else { return };
    let whole = read_frame::<T>(bytes, limit, usize::MAX);
    assert_eq!(read_frame(bytes, limit, usize::from(*step).max(1)), whole);
    if !matches!(whole, Frame::Unfinished) {
        assert_eq!(read_frame(&[bytes, &[0x7b; 40]].concat(), limit, usize::MAX), whole);
    }
    if let Frame::Message(message, secret) = whole {
        let secret = Secret::new(secret);
        let mut bytes = encode_up_to(&message, &secret, usize::MAX).unwrap();
        bytes.extend(secret.bytes());
        assert_eq!(
            read_frame(&bytes, usize::MAX, usize::MAX),
            Frame::Message(message, secret.bytes().to_vec())
        );
    }
}

fn request(data: &[u8]) {
    frame::<Request>(data, MAX_FRAME);
    let both = Secret::new(data.to_vec());
    if let Some(passwords) = Passwords::of_secret(&both) {
        assert_eq!(passwords.present.bytes().len() + passwords.new.bytes().len() + 2, data.len());
        if let Ok(again) = passwords.to_secret() {
            assert_eq!(again.bytes(), data);
        }
    }
    if let Ok(password) = both.password() {
        assert!(!password.is_empty() && !password.contains('\0'));
    }
}

fn reply(data: &[u8]) {
    frame::<Reply>(data, MAX_FOUND);
}

// LDAP of a domain controller.

/// Returns true if every tag has a number of one byte: LDAP has no others, and the library writes none.
fn is_written(tag: &StructureTag) -> bool {
    let parts = match &tag.payload {
        PL::C(parts) => parts.as_slice(),
        PL::P(_) => &[],
    };
    tag.id <= 30 && parts.iter().all(is_written)
}

fn ldap_answer(data: &[u8]) {
    const TAILS: [&[u8]; 3] = [b"\0", b"\x30\x84\xff\xff\xff\xff", b"\x30\x05\x02\x01\x01\x42\x00"];
    match ldap::first(data) {
        Ok(Some((length, message))) => {
            for tail in TAILS {
                let (again, same) = ldap::first(&[&data[..length], tail].concat()).unwrap().unwrap();
                assert_eq!((again, &same), (length, &message));
            }
            for cut in [1, 2, length / 2, length - 1].into_iter().filter(|cut| *cut < length) {
                assert!(ldap::first(&data[..cut]).unwrap().is_none());
            }
            if is_written(&message) {
                let encoded = bridge::ber::encode(message.clone());
                assert_eq!(ldap::first(&encoded).unwrap().unwrap(), (encoded.len(), message.clone()));
            }
            for kind in [ldap::BIND_RESPONSE, 5, 7, 24] {
                let Ok(response) = ldap::answer(message.clone(), 1, kind, true) else { continue };
                let decided = refusal::read(response.code, &response.text);
                let succeeded = decided.is_ok_and(|decided| decided.outcome == Outcome::Success);
                assert_eq!(succeeded, response.code == 0);
                if let Ok(token) = sasl::in_progress(response)
                    && let Ok(longest) = sasl::accept(&token)
                {
                    assert!(token[0] & 4 != 0 && longest <= 0x00ff_ffff);
                }
            }
        }
        Ok(None) => {}
        Err(_) => {
            for tail in TAILS {
                assert!(ldap::first(&[data, tail].concat()).is_err());
            }
        }
    }
}

/// Inverts the bits between two brackets, which must come back.
struct Inverted;

impl Layer for Inverted {
    type Buffer = Vec<u8>;
    fn wrap(&mut self, plain: &[u8]) -> Result<Vec<u8>, String> {
        let inner: Vec<u8> = plain.iter().map(|byte| !byte).collect();
        Ok([b"<", &inner[..], b">"].concat())
    }
    fn unwrap(&mut self, token: &[u8]) -> Result<Vec<u8>, String> {
        match token {
            [b'<', inner @ .., b'>'] => Ok(inner.iter().map(|byte| !byte).collect()),
            _ => Err("forged".to_owned()),
        }
    }
}

/// Runs a future that never waits.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// The client gets the content of every sound buffer before the first wrong one, and nothing after that one.
fn sealed(data: &[u8]) {
    sealing::is_sealed(data);
    let (mut rest, mut expected) = (data, Vec::new());
    while let Some((length, after)) = rest.split_first_chunk()
        && let Some((token, after)) = after.split_at_checked(u32::from_be_bytes(*length) as usize)
        && let Ok(plain) = Inverted.unwrap(token)
    {
        expected.extend(plain);
        rest = after;
    }
    let (layer, counter) = (Mutex::new(Inverted), AtomicU64::new(0));
    let mut plain = Vec::new();
    assert!(at_once(sealing::unseal(data, &mut plain, &layer, &counter)).is_err(), "it ends with an error");
    assert_eq!(plain, expected);
    let (mut wire, mut back) = (Vec::new(), Vec::new());
    at_once(sealing::seal(data, &mut wire, &layer, 300, usize::MAX)).unwrap();
    assert!(at_once(sealing::unseal(wire.as_slice(), &mut back, &layer, &counter)).is_err());
    assert_eq!(back, data);
}

fn octets(bytes: &[u8]) -> StructureTag {
    StructureTag { class: TagClass::Universal, id: 4, payload: PL::P(bytes.to_vec()) }
}

fn constructed(class: TagClass, id: u64, parts: Vec<StructureTag>) -> StructureTag {
    StructureTag { class, id, payload: PL::C(parts) }
}

/// A datagram or a message with an entry. The entry is the same after it was encoded again.
fn entry(data: &[u8]) {
    let Ok(tag) = ldap::entry_of_datagram(data, 1) else { return };
    let Ok(entry) = Entry::decode(tag) else { return };
    assert!(entry.length() <= data.len());
    let attributes = entry.attributes().map(|(name, values)| {
        let values = values.iter().map(|value| octets(value)).collect();
        let values = constructed(TagClass::Universal, 17, values);
        constructed(TagClass::Universal, 16, vec![octets(name.as_bytes()), values])
    });
    let attributes = constructed(TagClass::Universal, 16, attributes.collect());
    let again = constructed(TagClass::Application, 4, vec![octets(entry.dn().as_bytes()), attributes]);
    assert_eq!(Entry::decode(again).unwrap(), entry);
    if let Ok(Some(answer)) = entry.bytes("Netlogon") {
        ping(answer);
    }
    judge(&[entry]);
}

/// The attributes that the broker reads, for [`attributes`].
const ATTRIBUTES: [&str; 36] = [
    "sAMAccountName",
    "userPrincipalName",
    "objectGUID",
    "userAccountControl",
    "msDS-User-Account-Control-Computed",
    "accountExpires",
    "pwdLastSet",
    "msDS-UserPasswordExpiryTimeComputed",
    "logonHours",
    "userWorkstations",
    "tokenGroups",
    "msDS-AssignedAuthNPolicySilo",
    "msDS-AssignedAuthNPolicy",
    "objectSid",
    "groupType",
    "primaryGroupID",
    "minPwdLength",
    "pwdHistoryLength",
    "minPwdAge",
    "pwdProperties",
    "msDS-MinimumPasswordLength",
    "msDS-PasswordHistoryLength",
    "msDS-MinimumPasswordAge",
    "msDS-PasswordComplexityEnabled",
    "uPNSuffixes",
    "dnsRoot",
    "nETBIOSName",
    "nCName",
    "dNSHostName",
    "options",
    "currentTime",
    "defaultNamingContext",
    "configurationNamingContext",
    "rootDomainNamingContext",
    "isSynchronized",
    "supportedCapabilities",
];

/// Entries with these attributes: bytes of a number, a length, and a value of this length. The number after
/// the last one begins another entry, whose name is the value.
fn attributes(data: &[u8]) {
    let mut entries = vec![Entry::new("CN=John Doe,CN=Users,DC=acme,DC=com")];
    let mut rest = data;
    while let [number, length, after @ ..] = rest {
        let (value, after) = after.split_at_checked(usize::from(*length)).unwrap_or((after, &[]));
        rest = after;
        match ATTRIBUTES.get(usize::from(*number) % (ATTRIBUTES.len() + 1)) {
            Some(attribute) => {
                let entry = entries.pop().unwrap_or_default();
                entries.push(entry.with(attribute, [value]));
            }
            None => entries.push(Entry::new(String::from_utf8_lossy(value))),
        }
    }
    judge(&entries);
}

/// Times at which accounts are judged: the first and the last that there is, and one of today.
fn times() -> [SystemTime; 3] {
    let today = UNIX_EPOCH + Duration::from_secs(1_795_447_800);
    [UNIX_EPOCH, today, UNIX_EPOCH + Duration::from_secs(i64::MAX as u64)]
}

/// Reads entries in every way in which the broker does.
fn judge(entries: &[Entry]) {
    for entry in entries {
        let account = Account::from_entry(entry);
        if let Ok(account) = &account {
            for now in times() {
                let refusal = account.refusal(now, "XCALLY");
                let facts = account.facts(now, "XCALLY");
                assert_eq!(facts.iter().any(|fact| fact.refuses), refusal.is_some());
                assert_ne!(refusal, Some(Outcome::Success));
                // What ends a session also denies a login.
                assert!(account.expulsion(now).is_none() || refusal.is_some());
            }
            let groups = account.groups.as_deref().unwrap_or_default();
            assert_eq!(account.protected.is_some(), account.groups.is_some());
            assert_eq!(groups.len(), entry.values(Account::GROUPS).len());
        }
        standing_of(entry, "acme.com");
        let _ = group_of("Agents", Partition::Own, std::slice::from_ref(entry));
        for (names, complex) in
            [(effective::FINE, effective::FINE_COMPLEX), (effective::DOMAIN, effective::DOMAIN_PROPERTIES)]
        {
            let _ = effective::policy_of(entry, names, complex);
        }
        let _ = RootDse::from_entry(entry);
        Root::of(entry, "dc.acme.com", times()[1]);
        let _ = netlogon::client_site(entry.bytes("Netlogon").ok().flatten().unwrap_or_default());
    }
    if let Ok(people) = people_of(entries, |_| "acme.com".to_owned()) {
        for name in ["john.doe@acme.com", "ceo@sales.example"] {
            let principal = Principal::parse(name).unwrap();
            if let Ok(found) = choose("ACME", &principal, people.clone()) {
                let person = found.person;
                let has_upn = person.upn.is_some_and(|upn| fold(&upn) == name);
                assert!(has_upn || format!("{}@{}", fold(&person.sam), person.domain) == name);
            }
        }
    }
    if let Ok(forest) = Forest::of(entries) {
        assert!(forest.known().suffixes.iter().all(|suffix| crate::name::is_domain(suffix)));
        forest.of_object("CN=John Doe,CN=Users,DC=acme,DC=com");
    }
    let _ = Listed::of(entries);
}

/// The bytes of a SID, from its text in a filter.
fn bytes_of(sid: &Sid) -> Vec<u8> {
    let digits = sid.in_filter().replace('\\', "");
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// A SID as bytes and as text is the same.
fn sid(data: &[u8]) {
    let of_text = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Sid>().ok());
    for sid in Sid::try_from(data).ok().into_iter().chain(of_text) {
        assert_eq!(sid.to_string().parse(), Ok(sid.clone()));
        assert_eq!(Sid::try_from(bytes_of(&sid).as_slice()), Ok(sid.clone()));
        // Every account's SID has a part below its domain's.
        if bytes_of(&sid).len() > 8 {
            assert!(sid.sibling(513).to_string().ends_with("-513"));
        }
    }
    if let Ok(sid) = Sid::try_from(data) {
        assert_eq!(bytes_of(&sid), data);
    }
}

/// Bytes after an answer do not change it, and a shorter one is never another answer.
fn ping(data: &[u8]) {
    let site = netlogon::client_site(data);
    if let Some(site) = &site {
        assert_eq!(netlogon::client_site(&[data, b"\x03Ulm\0"].concat()).as_ref(), Some(site));
    }
    for cut in [data.len() / 2, data.len().saturating_sub(1)] {
        let shorter = netlogon::client_site(&data[..cut]);
        assert!(shorter.is_none() || shorter == site);
    }
}

// Kerberos.

fn kdc_error(data: &[u8]) {
    let Ok(Some(refused)) = Refused::read(data) else { return };
    for proved in [false, true] {
        let decided = kerberos::refusal::read(refused.code, &refused.data, proved);
        assert_ne!(decided.outcome, Outcome::Success);
    }
}

/// The e-data of an error, whose code is the first byte. It is never a success, and an element counts alike
/// alone and in a list.
fn edata(data: &[u8]) {
    kerberos::refusal::is_armoured(data);
    let Some((code, data)) = data.split_first() else { return };
    let sequence = |content: &[u8]| {
        let mut bytes = Vec::new();
        crate::ber::begin(&mut bytes, 0x30, content.len());
        [&bytes, content].concat()
    };
    let read = |data: &[u8]| kerberos::refusal::read((*code).into(), data, true);
    assert_ne!(read(data).outcome, Outcome::Success);
    let (single, listed) = (sequence(data), sequence(&sequence(data)));
    if read(&listed) != read(b"") {
        assert_eq!(read(&listed), read(&single));
    }
}

/// A reply of kpasswd: the right one with changes, each of two bytes of place and one of value, or any bytes
/// after a byte zero. Only the right reply has a result.
fn kpasswd(data: &[u8]) {
    thread_local! {
        static SERVICE: changepw::Service = changepw::Service::new();
    }
    SERVICE.with(|service| {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (exchange, request) = ChangeExchange::new(service.cache.name(), b"new", local).unwrap();
        let mut reply = service.accept(&request).reply(b"\0\0done");
        match data.split_first() {
            Some((0, any)) => reply = any.to_vec(),
            _ => {
                let length = reply.len();
                for change in data.chunks_exact(3) {
                    reply[usize::from(u16::from_be_bytes([change[0], change[1]])) % length] ^= change[2];
                }
            }
        }
        if let Ok(result) = exchange.read(&reply) {
            assert_eq!(result, (0, b"done".to_vec()), "a reply that the service did not write counts");
        }
    });
}

/// Codes and texts by which a domain controller refuses. Only the code of a success is one.
fn refused(data: &[u8]) {
    let [high, low, rest @ ..] = data else { return };
    let code = u16::from_be_bytes([*high, *low]);
    let said = String::from_utf8_lossy(rest);
    let bind = refusal::read(code.into(), &said);
    assert_eq!(bind.is_ok_and(|decided| decided.outcome == Outcome::Success), code == 0);
    for answer in [changed::Answer::of_modify(code.into(), &said), changed::Answer::of_kpasswd(code, rest)] {
        assert_eq!(answer == changed::Answer::Done, code == 0);
        assert!(!matches!(answer, changed::Answer::Refused(Outcome::Success, _)));
    }
}

// Certificates and DNS.

fn certificate(data: &[u8]) {
    for url in named_by(&CertificateDer::from(data)) {
        assert!(url.len() <= 1024 && url.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(url.to_ascii_lowercase().starts_with("http://"));
    }
    Certificate::read(data);
}

fn dns(data: &[u8]) {
    if let Ok(message) = DnsMessage::from_vec(data) {
        for record in &message.answers {
            if let Some(srv) = Srv::of(&record.data) {
                assert!(!srv.host.is_empty() && !srv.host.ends_with('.'));
                assert_eq!(srv.host, srv.host.to_lowercase());
            }
        }
    }
    Resolv::parse(&String::from_utf8_lossy(data));
}

// Names.

/// The lines of a map, written again, are the same map; and a name of the map leads to its account.
fn names_map(data: &[u8]) {
    let Ok(map) = std::str::from_utf8(data).map(NameMap::parse) else { return };
    let Ok(map) = map else { return };
    let target = |principal: &Principal| match principal.form() {
        Form::Account => format!("{}\\{}", principal.domain(), principal.typed_user()),
        Form::Bare | Form::Full => format!("{}@{}", principal.typed_user(), principal.domain()),
    };
    let lines: Vec<_> = map.lines().into_iter().map(|(_, name, of)| (name.to_owned(), of.clone())).collect();
    let written: String = lines.iter().map(|(name, of)| format!("{name} = {}\n", target(of))).collect();
    let again = NameMap::parse(&written).unwrap_or_else(|error| panic!("{error}: {written:?}"));
    let same: Vec<_> = again.lines().into_iter().map(|(_, name, of)| (name.to_owned(), of.clone())).collect();
    assert_eq!(same, lines);
    let rules = Rules { domain: "acme.com".into(), netbios: "ACME".into(), map, ..Rules::default() };
    for (name, target) in &lines {
        let Ok(target) = rules.target(target, &Known::default()) else {
            assert!(rules.principal(name).is_err());
            continue;
        };
        let principal = rules.principal(name).unwrap();
        assert_eq!(principal, target);
        for name in rules.names(&principal) {
            assert_eq!(rules.principal(&name).unwrap().to_string(), principal.to_string(), "{name:?}");
        }
    }
}

/// How names are read on a host with everything configured.
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    domain: "acme.com".into(),
    domains: vec!["emea.acme.com".into(), "sales.example".into()],
    netbios: "ACME".into(),
    refuse: vec!["administrator".into(), "root".into()],
    map: NameMap::parse("jd = john.doe@acme.com\nboss = ACME\\ceo\nj\u{f6}rg = joerg@sales.example\n")
        .unwrap(),
});

/// The structure of a filter without the values in it.
fn shape(tag: &StructureTag) -> String {
    let inner = match (&tag.payload, tag.id) {
        (PL::C(parts), 3 | 5 | 6 | 8) => match parts.first().map(|name| &name.payload) {
            Some(PL::P(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        },
        (PL::C(parts), _) => parts.iter().map(shape).collect(),
        (PL::P(_), _) => String::new(),
    };
    format!("({}{inner})", tag.id)
}

/// The shape of the search for an account of this name.
fn search_of(principal: &Principal) -> String {
    let names = named_explicitly(principal) + &named_implicitly(principal);
    let filter = people_search(Partition::Own, "", &names, 2).filter;
    let parsed = ldap3::parse_filter(&filter).unwrap_or_else(|()| panic!("{filter:?}"));
    shape(&parsed.into_structure())
}

/// A name as a user types it. It never yields a filter of another shape, nor a domain that is not accepted,
/// and its letter case does not matter.
fn name(data: &[u8]) {
    let Ok(typed) = std::str::from_utf8(data) else { return };
    assert_eq!(fold(&fold(typed)), fold(typed));
    let known = Known {
        suffixes: vec!["upn.example".into()],
        netbios: vec![("EMEA".into(), "emea.acme.com".into()), ("SUB".into(), "sub.acme.com".into())],
    };
    let principal = RULES.principal_among(typed, &known);
    match RULES.principal_among(&fold(typed), &known) {
        Err(NameError::TooLong) => {}
        folded => match (&principal, folded) {
            (Ok(one), Ok(other)) => assert_eq!(*one, other),
            (one, other) => assert!(one.is_err() && other.is_err(), "{one:?} {other:?}"),
        },
    }
    if let Ok(alone) = RULES.principal(typed) {
        assert_eq!(principal.as_ref(), Ok(&alone));
    }
    let Ok(principal) = principal else { return };
    assert!(!RULES.refuse.contains(&fold(typed)) && !RULES.refuse.contains(&principal.user().to_owned()));
    let accepted = RULES.domains.iter().chain([&RULES.domain]).chain(&known.suffixes);
    assert!(accepted.into_iter().any(|domain| domain == principal.domain()), "{principal}");
    let written = Principal::parse(&principal.to_string());
    assert!(written.is_err() || written.is_ok_and(|written| written.to_string() == principal.to_string()));
    let plain = match principal.form() {
        Form::Bare => "x",
        Form::Full => "x@acme.com",
        Form::Account => "ACME\\x",
    };
    assert_eq!(search_of(&principal), search_of(&RULES.principal(plain).unwrap()), "{typed:?}");
    for service in
        [LdapService::of_domain(typed, "acme.com"), LdapService::of_catalogue("dc", "acme.com", typed)]
    {
        if let Ok(service) = service.principal() {
            assert!(service.matches('/').count() == 2 && service.matches('@').count() == 1, "{service}");
        }
    }
}

/// A distinguished name is the same after it was written.
fn dn(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(dn) = Dn::parse(text) else { return };
    let written = dn.to_string();
    let again = Dn::parse(&written).unwrap_or_else(|error| panic!("{error}: {written:?}"));
    assert_eq!(again, dn, "{written:?}");
    assert_eq!(again.to_string(), written);
    assert_eq!(dn.place(&again), Place::Same);
    assert!(dn.is_root() == written.is_empty());
    let below = Dn::parse(&format!("CN=x,{written}"));
    assert!(dn.is_root() || below.is_ok_and(|below| below.place(&dn) == Place::Below), "{written:?}");
    dn.domain();
    Base::of(text, "acme.com");
}

/// A filter of a client, written again: AD understands it, and it means the same.
fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(filter) = Filter::parse(text) else { return };
    let written = filter.to_string();
    assert!(ldap3::parse_filter(&written).is_ok(), "{written:?}");
    match Filter::parse(&written) {
        Ok(again) => assert_eq!(again.to_string(), written),
        // Longer and deeper than a client may write it.
        Err(error) => assert!(error != FilterError::Malformed, "{written:?}"),
    }
    filter.visit(&mut |attribute, _| assert!(written.contains(attribute)));
}

// The LDAP bridge.

/// The order and the flag `dnAttributes: false` of an extensible match are lost in the text.
fn normal(tag: StructureTag) -> StructureTag {
    let StructureTag { class, id, payload } = tag;
    let payload = match payload {
        PL::C(parts) => {
            let mut parts: Vec<_> = parts.into_iter().map(normal).collect();
            if id == 9 {
                parts.retain(|part| part.id != 4);
                parts.sort_by_key(|part| part.id);
            }
            PL::C(parts)
        }
        value @ PL::P(_) => value,
    };
    StructureTag { class, id, payload }
}

/// A message of a client. Its filter keeps its shape and its values on the way through the text.
fn bridge_message(data: &[u8]) {
    let _ = message::page(data);
    let Ok(message) = Message::decode(data) else { return };
    assert_eq!(bridge::ber::length(data), Ok(Some(data.len())));
    assert!(Message::decode(&[data, b"\0"].concat()).is_err());
    message.unknown_control();
    message.answer();
    let BridgeRequest::Search(search) = message.request else { return };
    let parts = bridge::ber::decode(data).unwrap().expect_constructed().unwrap();
    let fields = parts.into_iter().nth(1).unwrap().expect_constructed().unwrap();
    let original = normal(fields.into_iter().nth(6).unwrap());
    let Ok(parsed) = ldap3::parse_filter(&search.filter) else { panic!("{:?}", search.filter) };
    assert_eq!(normal(parsed.into_structure()), original, "{:?}", search.filter);
    assert_ne!(Filter::parse(&search.filter), Err(FilterError::Malformed), "{:?}", search.filter);
}

// Files of the administrator.

fn join() -> Join {
    Join { domain: Some("acme.com".into()), ..Join::default() }
}

/// A `config.toml`. The values that are shown are a file with the same meaning.
fn config(data: &[u8]) {
    let Ok(text) = text::decode(data) else { return };
    let load = |text: String| -> Result<Config, String> {
        let file = File::parse(Path::new("config.toml"), text).map_err(|problem| problem.to_string())?;
        file.complete(&join()).map_err(|error| error.to_string())
    };
    let Ok(config) = load(text.to_owned()) else { return };
    let mut written = String::new();
    for (table, _) in TABLES {
        written += &format!("[{table}]\n");
        for key in KEYS.iter().filter(|key| key.table == *table) {
            let value = (key.show)(&config);
            if !value.is_empty() {
                written += &format!("{} = {value}\n", key.name);
            }
        }
    }
    assert_eq!(load(written.clone()).as_ref(), Ok(&config), "{written}");
}

/// A `sssd.conf`, and the same text as a `smb.conf`. Comments change nothing.
fn sssd(data: &[u8]) {
    let Ok(text) = text::decode(data) else { return };
    let read = |text: &str| {
        let mut sssd = Sssd::default();
        sssd.parse(Path::new("sssd.conf"), text).map(|()| sssd)
    };
    samba::realm_in(text);
    let Ok(sssd) = read(text) else { return };
    for domain in [None, Some("acme.com")] {
        let join = Join::of(&sssd, domain);
        let _ = Access::of(&sssd, domain);
        if let Ok(commented) = read(&format!("# a comment\n; another\n\n{text}")) {
            match (&join, &Join::of(&commented, domain)) {
                (Ok(one), Ok(other)) => assert_eq!(one, other),
                (one, other) => assert!(one.is_err() && other.is_err()),
            }
        }
    }
}

/// XCALLY's `.env`. A value that is set can be read, and the other lines stay as they are.
fn env(data: &[u8]) {
    let mut bytes = data.to_vec();
    let text = xcally::as_text(&mut bytes);
    for property in xcally::parse(text) {
        if property.is_secret() {
            assert_eq!(property.value, xcally::Value::Unread);
        }
    }
    let name = "XC_ACTIVEDIRECTORY_URL";
    for value in ["ldap://127.0.0.1:3890", "o'brien # x"] {
        let Some(changed) = change::set(text, name, change::quoted(value).as_deref()) else { continue };
        assert!(change::has(&changed, name, value.as_bytes()), "{text:?} -> {changed:?}");
        let others = |text: &str| -> Vec<(String, String)> {
            let all = xcally::assignments(text).filter(|(found, _)| *found != name);
            all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(others(&changed), others(text), "{text:?} -> {changed:?}");
    }
}

/// Modules that do nothing but answer.
const MODULES: [&str; 3] = ["pam_permit", "pam_deny", "pam_debug"];

/// Returns true if libpam loads none but [`MODULES`] because of this text, and reads no other file.
fn is_harmless(text: &str) -> bool {
    let is_known = |(at, _): (usize, &str)| {
        MODULES.iter().any(|known| {
            text[..at]
                .strip_suffix(known)
                .is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t', '\n']))
        })
    };
    text.len() < 1000
        && !text.contains(['/', '\0'])
        && !text.to_ascii_lowercase().contains("include")
        && !text.to_ascii_lowercase().contains("substack")
        && text.match_indices(".so").all(is_known)
}

/// A PAM service: the doctor reads it and decides as libpam does.
fn pam_service(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let service = Service::load("motion", &|path| match path.ends_with("motion") {
        true => Ok(text.to_owned()),
        false => Err(io::ErrorKind::NotFound.into()),
    });
    let answer = |rule: &Rule| match rule.module.as_str() {
        "pam_permit.so" => Value::SUCCESS,
        "pam_deny.so" => Value::AUTH_ERR,
        "pam_debug.so" => rule.arguments.iter().find_map(|word| debugged(word)).unwrap_or(Value::SUCCESS),
        _ => Value::MODULE_UNKNOWN,
    };
    let stack = service.stack(Kind::Auth);
    let decided = decide(&stack, &answer).value;
    if !is_harmless(text) {
        return;
    }
    static FOLDER: LazyLock<(tempfile::TempDir, CString)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("other"),
            "auth required pam_deny.so\naccount required pam_permit.so\n",
        )
        .unwrap();
        let path = CString::new(folder.path().to_str().unwrap()).unwrap();
        (folder, path)
    });
    std::fs::write(FOLDER.0.path().join("motion"), text).unwrap();
    let nothing = Secret::default();
    let application = libpam::Application { folder: Some(&FOLDER.1), ..libpam::Application::new(c"motion") };
    let theirs = libpam::login(&application, c"john", &mut libpam::Talk::new(c"john", &nothing));
    let is_fatal = service.faults.iter().any(|fault| fault.is_fatal);
    match theirs {
        Err(_) => assert!(is_fatal, "libpam does not start: {text:?} {service:?}"),
        // The service `other`.
        Ok(theirs) if stack.is_empty() => assert_eq!(theirs.authenticate, 7, "{text:?}"),
        Ok(theirs) => {
            assert!(!is_fatal, "libpam starts: {text:?} {service:?}");
            assert_eq!(Value::of(theirs.authenticate), Some(decided), "{text:?} {service:?}");
        }
    }
}

/// The answer of pam_debug by an argument `auth=NAME`; any other name is a success.
fn debugged(argument: &str) -> Option<Value> {
    let name = argument.strip_prefix("auth=")?;
    let named =
        (0..32).filter_map(Value::of).find(|value| value.name()["PAM_".len()..].to_lowercase() == name);
    Some(named.unwrap_or(Value::SUCCESS))
}

// Sockets and other programs.

/// Once there is an answer, nothing that follows changes it.
fn metrics(data: &[u8]) {
    if let Some(answer) = broker::metrics::http::asked(data).filter(|_| data.len() < 8000) {
        assert_eq!(
            broker::metrics::http::asked(&[data, b"\r\nGET / HTTP/1.1\r\n\r\n"].concat()),
            Some(answer)
        );
    }
}

/// Answers of a Redis in the forms that the scripts have.
fn redis(data: &[u8]) {
    let Ok(value) = redis::parse_redis_value(data) else { return };
    let _ = <(bool, String, Vec<String>, Vec<Text>)>::from_redis_value(value.clone());
    let _ = <(Vec<String>, Vec<String>, Vec<Text>)>::from_redis_value(value.clone());
    let _ = u64::from_redis_value(value.clone());
    for Text(text) in Vec::<Text>::from_redis_value(value).unwrap_or_default() {
        record(text.as_bytes());
    }
}

/// A record of the register, and a cursor. Both are the same after they were written again.
fn record(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok((number, mark)) = event_cursor(text) {
        assert_eq!(format!("{number}-{mark}"), text);
    }
    let Some(session) = session_of(text) else { return };
    let own = report::Session { ended: None, ..session.clone() };
    let mut written = serde_json::to_string(&own).unwrap();
    if let Some(ended) = &session.ended {
        written += &format!("\n{}", serde_json::to_string(ended).unwrap());
    }
    assert_eq!(session_of(&written), Some(session));
}

/// Replies of the kernel about a socket and a process.
fn kernel(data: &[u8]) {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let id = SocketId {
        source_port: 40_000,
        destination_port: 3890,
        source_address: local,
        destination_address: local,
        interface_id: 0,
        cookie: [0xff; 8],
    };
    if bridge::owner::owner(data, &id).is_ok() {
        // The state, the ports and the inode of the answer.
        assert!(data.len() >= 88 && data[17] == 1 && data[20..24] == [0x9c, 0x40, 0x0f, 0x32]);
        assert_ne!(data[84..88], [0; 4]);
    }
    sessions::process::parse(data);
}

/// Short texts of the configuration, and the arguments of the module. Each is the same after it was written
/// again.
fn words(data: &[u8]) {
    let line = Secret::new(data.to_vec());
    if let Ok(Some(admin)) = LocalAdmin::parse(&line) {
        let again = LocalAdmin::parse(&admin.line()).unwrap().unwrap();
        assert_eq!((&again.name, again.secret.bytes()), (&admin.name, admin.secret.bytes()));
        assert!(!admin.name.contains('\n'));
    }
    let parts: Vec<_> = data.split(|byte| *byte == 0).filter_map(|part| CString::new(part).ok()).collect();
    let parts: Vec<&CStr> = parts.iter().map(CString::as_c_str).collect();
    let (_, errors) = Arguments::parse(&parts);
    assert!(errors.len() <= parts.len());
    assert!(errors.iter().all(|error| match error {
        ArgumentError::Unknown(text) => parts.iter().any(|part| part.to_string_lossy() == *text),
        ArgumentError::Malformed { argument, .. } =>
            parts.iter().any(|part| part.to_string_lossy() == *argument),
    }));
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(url) = RedisUrl::parse(text) {
        assert_eq!(RedisUrl::parse(&url.to_string()).as_ref(), Ok(&url), "{url}");
    }
    let list: Vec<_> = text.split('\n').map(str::to_owned).collect();
    if let Ok(Some(command)) = Command::parse(&list) {
        assert_eq!(Command::parse(&command.words()).as_ref(), Ok(&Some(command)));
    }
}

/// A value in the log begins no other line or field, and is read back.
fn log(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else { return };
    let written = Line::new("login").with("user", value).with("ms", 12);
    assert!(!written.text().chars().any(char::is_control), "{:?}", written.text());
    let read = line::parse(written.text());
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    if value.is_empty() {
        assert_eq!(read, [field("event", "login"), field("ms", "12")]);
    } else if value.chars().count() <= 512 {
        assert_eq!(read, [field("event", "login"), field("user", value), field("ms", "12")]);
    } else {
        assert_eq!(read.len(), 3, "{:?}", written.text());
    }
    // Lines of other programs.
    line::parse(value);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn corpus(target: &Target) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        files.map(|file| file.unwrap().path()).collect()
    }

    /// Each file of a corpus was interesting to the fuzzer, or broke an oracle once.
    #[test]
    fn every_oracle_holds_for_its_corpus() {
        for target in TARGETS {
            let files = corpus(target);
            assert!(files.len() > 2, "{} has no corpus", target.name);
            (target.run)(b"");
            for file in files {
                let data = std::fs::read(&file).unwrap();
                let ran = std::panic::catch_unwind(|| (target.run)(&data));
                assert!(ran.is_ok(), "{} fails", file.display());
            }
        }
    }

    #[test]
    fn every_corpus_and_every_dictionary_belongs_to_a_target() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for inside in ["corpus", "dictionary"] {
            for file in std::fs::read_dir(folder.join(inside)).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                assert!(target(name.trim_end_matches(".dict")).is_some(), "{inside}/{name}");
            }
        }
    }
}
