//! What a domain controller answers, and DNS answers.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_resolver::proto::op::Message as DnsMessage;
use ldap3::asn1::{PL, StructureTag, TagClass};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use super::trust;
use crate::bridge;
use crate::directory::controllers::dns::{Resolv, Srv};
use crate::directory::controllers::netlogon;
use crate::directory::controllers::roster::Listed;
use crate::directory::entry::Entry;
use crate::directory::forest::Forest;
use crate::directory::machine::{Place as Partition, RootDse};
use crate::directory::passwords::{effective, refusal};
use crate::directory::people::account::{Account, time_of};
use crate::directory::people::find::choose;
use crate::directory::people::groups::group_of;
use crate::directory::people::lockout::{self, Until};
use crate::directory::people::many::primary;
use crate::directory::people::person::people_of;
use crate::directory::people::standing::standing_of;
use crate::directory::sid::Sid;
use crate::directory::survey::Root;
use crate::directory::trust::published::values;
use crate::kerberos::sasl;
use crate::kerberos::sealing::{self, Layer};
use crate::ldap;
use crate::name::{Principal, fold};
use crate::verdict::Outcome;

/// Returns true if every tag has a number of one byte: LDAP has no others, and the library writes none.
fn is_written(tag: &StructureTag) -> bool {
    let parts = match &tag.payload {
        PL::C(parts) => parts.as_slice(),
        PL::P(_) => &[],
    };
    tag.id <= 30 && parts.iter().all(is_written)
}

pub(super) fn ldap_answer(data: &[u8]) {
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
pub(super) fn sealed(data: &[u8]) {
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
pub(super) fn entry(data: &[u8]) {
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

/// Further attributes, by the numbers from [`FIRST`] on. So the inputs that the fuzzer kept before keep their
/// meaning when the list grows.
const FURTHER: [&str; 16] = [
    "lockoutTime",
    "lockoutDuration",
    "msDS-LockoutDuration",
    "msDS-ResultantPSO",
    "cACertificate",
    "cACertificate;binary",
    "certificateRevocationList",
    "certificateRevocationList;binary",
    "msDS-KeyVersionNumber",
    "sAMAccountType",
    "displayName",
    "isGlobalCatalogReady",
    "vendorName",
    "Netlogon",
    "uid",
    "mail",
];
/// The number of the first one.
const FIRST: usize = 222;

/// Entries with these attributes: bytes of a number, a length, and a value of this length. The number after
/// the last one begins another entry, whose name is the value.
pub(super) fn attributes(data: &[u8]) {
    let mut entries = vec![Entry::new("CN=John Doe,CN=Users,DC=acme,DC=com")];
    let mut rest = data;
    while let [number, length, after @ ..] = rest {
        let (value, after) = after.split_at_checked(usize::from(*length)).unwrap_or((after, &[]));
        rest = after;
        let number = usize::from(*number);
        let further = number.checked_sub(FIRST).and_then(|at| FURTHER.get(at));
        match further.or_else(|| ATTRIBUTES.get(number % (ATTRIBUTES.len() + 1))) {
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

/// A lock with each duration that the entry has does not end before it begins.
fn locked(entry: &Entry) {
    let Some(since) = entry.integer("lockoutTime").ok().flatten().and_then(time_of) else { return };
    for attribute in ["lockoutDuration", "msDS-LockoutDuration"] {
        if let Ok(Some(ticks)) = entry.integer(attribute)
            && let Until::At(end) = lockout::end(since, ticks)
        {
            assert!(end >= since && ticks != 0 && ticks != i64::MIN);
        }
    }
}

/// Reads entries in every way in which the broker does.
fn judge(entries: &[Entry]) {
    for entry in entries {
        for (attribute, _) in entry.attributes() {
            if let Ok(Some(flags)) = entry.flags(attribute) {
                let number = entry.integer(attribute).unwrap().unwrap();
                assert_eq!(i64::from(flags), number & 0xffff_ffff);
            }
        }
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
        locked(entry);
        if let Ok(Some(primary)) = primary(entry) {
            let own = Sid::try_from(entry.bytes("objectSid").unwrap().unwrap()).unwrap();
            assert_eq!(primary.sibling(513), own.sibling(513));
        }
        for value in values(entry, "cACertificate") {
            trust::root(&CertificateDer::from(value), times()[1]);
        }
        values(entry, "certificateRevocationList").for_each(trust::crl);
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
pub(super) fn sid(data: &[u8]) {
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
pub(super) fn ping(data: &[u8]) {
    let site = netlogon::client_site(data);
    if let Some(site) = &site {
        assert_eq!(netlogon::client_site(&[data, b"\x03Ulm\0"].concat()).as_ref(), Some(site));
    }
    for cut in [data.len() / 2, data.len().saturating_sub(1)] {
        let shorter = netlogon::client_site(&data[..cut]);
        assert!(shorter.is_none() || shorter == site);
    }
}

pub(super) fn dns(data: &[u8]) {
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
