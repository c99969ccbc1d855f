//! LDAP messages: the requests of a client and the replies to it (RFC 4511, 4). Pure: no I/O.

use std::fmt;

use ldap3::asn1::{PL, StructureTag, TagClass};

use super::ber::{
    self, Elements, Malformed, application, context, context_of, enumerated, integer, octets, sequence, set,
};
use super::filter;
use crate::protocol::Secret;
use crate::protocol::search::{FoundEntry, Scope};

/// Control for simple paged results (RFC 2696).
pub const PAGED: &str = "1.2.840.113556.1.4.319";
/// Control ManageDsaIT (RFC 3296): the client wants no referrals. The bridge never sends any.
const MANAGE_DSA_IT: &str = "2.16.840.1.113730.3.4.2";
/// Extended operation "Who am I?" (RFC 4532).
pub const WHO_AM_I: &str = "1.3.6.1.4.1.4203.1.11.3";
/// Extended operation StartTLS (RFC 4511, 4.14).
pub const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// Notice of Disconnection (RFC 4511, 4.4.1).
const DISCONNECTION: &str = "1.3.6.1.4.1.1466.20036";
/// Maximum number of controls in a message.
pub const CONTROLS: usize = 16;

/// Result codes (RFC 4511, 4.1.9).
pub mod code {
    pub use crate::protocol::search::code::*;

    /// The operation is not possible in the connection's present state.
    pub const OPERATIONS_ERROR: u8 = 1;
    /// The bind uses SASL.
    pub const AUTH_METHOD_NOT_SUPPORTED: u8 = 7;
    /// The request has a critical control that the bridge does not support.
    pub const UNAVAILABLE_CRITICAL_EXTENSION: u8 = 12;
    /// The name or the password is wrong, or the account may not log in.
    pub const INVALID_CREDENTIALS: u8 = 49;
    /// The server does not perform this operation.
    pub const UNWILLING_TO_PERFORM: u8 = 53;
}

/// One message of a client.
#[derive(Debug)]
pub struct Message {
    /// Message number, which the reply repeats.
    pub id: u32,
    /// The operation.
    pub request: Request,
    /// The controls.
    pub controls: Vec<Control>,
}

/// An operation that a client requests.
#[derive(Debug)]
pub enum Request {
    /// Authenticates the client.
    Bind(Bind),
    /// Ends the connection.
    Unbind,
    /// A search.
    Search(Search),
    /// Cancels an earlier message.
    Abandon,
    /// An extended operation and its name, an OID.
    Extended(String),
    /// An operation that would change or compare data, with the number of its reply.
    Refused(u64),
}

/// A bind.
#[derive(Debug)]
pub struct Bind {
    /// Protocol version.
    pub version: u32,
    /// The name, as it was sent.
    pub name: Vec<u8>,
    /// The password; `None` if the bind uses SASL.
    pub password: Option<Secret>,
}

/// A search.
#[derive(Clone, PartialEq, Eq)]
pub struct Search {
    /// Distinguished name of the base.
    pub base: String,
    /// Depth of the search below the base.
    pub scope: Scope,
    /// Maximum number of entries that the client wants; 0 for no limit.
    pub size_limit: u32,
    /// Maximum time in seconds that the client waits; 0 for no limit.
    pub time_limit: u32,
    /// True if the client wants only the names of attributes.
    pub types_only: bool,
    /// The filter as text (RFC 4515).
    pub filter: String,
    /// The attributes that the client wants.
    pub attributes: Vec<String>,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Search({:?}, {:?}, {})", self.base, self.scope, self.filter)
    }
}

/// A control of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Name of the control.
    pub oid: String,
    /// True if the server must reject the operation unless it supports the control.
    pub is_critical: bool,
    /// Value of the control.
    pub value: Vec<u8>,
}

impl Message {
    /// Decodes one whole message.
    ///
    /// # Errors
    /// Returns [`Malformed`] if the bytes are not a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        ber::length(bytes)?;
        let mut parts = Elements::of(ber::decode(bytes)?, "the message")?;
        let id = parts.integer()?;
        let request = Request::of(parts.any()?)?;
        let controls = match parts.optional() {
            None => Vec::new(),
            Some(tag) if (tag.class, tag.id) == (TagClass::Context, 0) => controls(tag)?,
            Some(_) => return Err(Malformed::Operation("the message")),
        };
        Ok(Message { id, request, controls })
    }

    /// Returns the first critical control that this operation does not support.
    pub fn unknown_control(&self) -> Option<&str> {
        let is_known = |control: &Control| match self.request {
            Request::Search(_) => [PAGED, MANAGE_DSA_IT].contains(&control.oid.as_str()),
            // These operations have no reply that could carry an error.
            Request::Unbind | Request::Abandon => true,
            Request::Bind(_) | Request::Extended(_) | Request::Refused(_) => false,
        };
        let unknown = |control: &&Control| control.is_critical && !is_known(control);
        self.controls.iter().find(unknown).map(|control| control.oid.as_str())
    }

    /// Returns the number of the reply to this message, or `None` if the operation has no reply.
    pub fn answer(&self) -> Option<u64> {
        match self.request {
            Request::Bind(_) => Some(answer::BIND),
            Request::Search(_) => Some(answer::SEARCH),
            Request::Extended(_) => Some(answer::EXTENDED),
            Request::Refused(answer) => Some(answer),
            Request::Unbind | Request::Abandon => None,
        }
    }
}

/// Numbers of the replies (RFC 4511, appendix B).
pub mod answer {
    /// BindResponse.
    pub const BIND: u64 = 1;
    /// SearchResultEntry.
    pub const ENTRY: u64 = 4;
    /// SearchResultDone.
    pub const SEARCH: u64 = 5;
    /// ExtendedResponse.
    pub const EXTENDED: u64 = 24;
}

impl Request {
    fn of(tag: StructureTag) -> Result<Self, Malformed> {
        if tag.class != TagClass::Application {
            return Err(Malformed::Operation("the operation"));
        }
        match tag.id {
            0 => bind(tag),
            2 => Ok(Request::Unbind),
            3 => search(tag),
            16 => Ok(Request::Abandon),
            23 => extended(tag),
            // modify, add, delete, modifyDN, compare: the number of each reply is one higher.
            6 | 8 | 10 | 12 | 14 => Ok(Request::Refused(tag.id + 1)),
            _ => Err(Malformed::Operation("the operation")),
        }
    }
}

fn bind(tag: StructureTag) -> Result<Request, Malformed> {
    let mut parts = Elements::of(tag, "the bind")?;
    let (version, name, proof) = (parts.integer()?, parts.octets()?, parts.any()?);
    let password = match (proof.class, proof.id, proof.payload) {
        (TagClass::Context, 0, PL::P(password)) => Some(Secret::new(password)),
        (TagClass::Context, 3, PL::C(_)) => None,
        _ => return Err(Malformed::Operation("the bind")),
    };
    Ok(Request::Bind(Bind { version, name, password }))
}

fn search(tag: StructureTag) -> Result<Request, Malformed> {
    const WRONG: Malformed = Malformed::Operation("the search");
    let mut parts = Elements::of(tag, "the search")?;
    let base = parts.text()?;
    let scope = match parts.enumerated()? {
        0 => Scope::Base,
        1 => Scope::One,
        2 => Scope::Sub,
        _ => return Err(WRONG),
    };
    // Handling of aliases: AD has none.
    parts.enumerated()?;
    let (size_limit, time_limit, types_only) = (parts.integer()?, parts.integer()?, parts.boolean()?);
    let filter = filter::text(parts.any()?)?;
    let attributes = Elements::sequence(parts.any()?, "the search")?.texts()?;
    Ok(Request::Search(Search { base, scope, size_limit, time_limit, types_only, filter, attributes }))
}

fn extended(tag: StructureTag) -> Result<Request, Malformed> {
    const WRONG: Malformed = Malformed::Operation("the extended operation");
    let name = Elements::of(tag, "the extended operation")?.any()?;
    match (name.class, name.id, name.payload) {
        (TagClass::Context, 0, PL::P(name)) => {
            String::from_utf8(name).map(Request::Extended).map_err(|_| WRONG)
        }
        _ => Err(WRONG),
    }
}

fn controls(tag: StructureTag) -> Result<Vec<Control>, Malformed> {
    const WRONG: Malformed = Malformed::Operation("a control");
    let mut list = Elements::of(tag, "a control")?;
    let mut controls = Vec::new();
    while let Some(control) = list.optional() {
        if controls.len() >= CONTROLS {
            return Err(WRONG);
        }
        let mut parts = Elements::sequence(control, "a control")?;
        let oid = parts.text()?;
        let (mut is_critical, mut value) = (false, Vec::new());
        while let Some(part) = parts.optional() {
            match (part.class, part.id, part.payload) {
                (TagClass::Universal, 1, PL::P(flag)) => match flag[..] {
                    [flag] => is_critical = flag != 0,
                    _ => return Err(WRONG),
                },
                (TagClass::Universal, 4, PL::P(bytes)) => value = bytes,
                _ => return Err(WRONG),
            }
        }
        controls.push(Control { oid, is_critical, value });
    }
    Ok(controls)
}

/// Decodes the value of the control [`PAGED`]: the size of a page and the cookie.
///
/// # Errors
/// Returns [`Malformed`] if the bytes are not such a value.
pub fn page(value: &[u8]) -> Result<(u32, Vec<u8>), Malformed> {
    let mut parts = Elements::sequence(ber::decode(value)?, "the control for pages")?;
    Ok((parts.integer()?, parts.octets()?))
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Result code, one of [`code`].
    pub code: u8,
    /// Diagnostic message.
    pub text: String,
}

impl Outcome {
    /// Returns a success.
    pub fn success() -> Self {
        Outcome::new(code::SUCCESS, "")
    }

    /// Returns a result with a diagnostic message.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Outcome { code, text: text.into() }
    }

    fn parts(&self) -> Vec<StructureTag> {
        vec![enumerated(self.code), octets(""), octets(self.text.as_str())]
    }
}

fn message(id: u32, operation: StructureTag, controls: Option<StructureTag>) -> Vec<u8> {
    let mut parts = vec![integer(id), operation];
    parts.extend(controls);
    ber::encode(sequence(parts))
}

/// Encodes the reply with number `answer` to the message `id`.
pub fn done(id: u32, answer: u64, outcome: &Outcome) -> Vec<u8> {
    message(id, application(answer, outcome.parts()), None)
}

/// Encodes the end of a page. The client sends `cookie` to get the next page; an empty cookie marks the last
/// page.
pub fn page_done(id: u32, outcome: &Outcome, cookie: &[u8]) -> Vec<u8> {
    let value = ber::encode(sequence(vec![integer(0), octets(cookie)]));
    let control = sequence(vec![octets(PAGED), octets(value)]);
    message(id, application(answer::SEARCH, outcome.parts()), Some(context_of(0, vec![control])))
}

/// Encodes the reply to an extended operation.
pub fn extended_done(id: u32, outcome: &Outcome, name: Option<&str>, value: Option<&[u8]>) -> Vec<u8> {
    let mut parts = outcome.parts();
    parts.extend(name.map(|name| context(10, name)));
    parts.extend(value.map(|value| context(11, value)));
    message(id, application(answer::EXTENDED, parts), None)
}

/// Encodes the notice that tells a client why the connection is closed.
pub fn disconnection(outcome: &Outcome) -> Vec<u8> {
    extended_done(0, outcome, Some(DISCONNECTION), None)
}

/// Encodes one entry, without values if `types_only` is set.
pub fn entry(id: u32, entry: FoundEntry, types_only: bool) -> Vec<u8> {
    let attributes = entry.attributes.into_iter().map(|(name, values)| {
        let values = if types_only { Vec::new() } else { values };
        sequence(vec![octets(name), set(values.into_iter().map(octets).collect())])
    });
    let parts = vec![octets(entry.dn), sequence(attributes.collect())];
    message(id, application(answer::ENTRY, parts), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::search::Value;

    fn decode(operation: StructureTag, controls: Option<StructureTag>) -> Result<Message, Malformed> {
        Message::decode(&message(7, operation, controls))
    }

    fn a_search() -> Vec<StructureTag> {
        let names = sequence(vec![octets("cn"), octets("mail")]);
        let flag = StructureTag { class: TagClass::Universal, id: 1, payload: PL::P(vec![0xff]) };
        vec![
            octets("dc=acme,dc=com"),
            enumerated(2),
            enumerated(0),
            integer(5),
            integer(10),
            flag,
            context(7, "cn"),
            names,
        ]
    }

    #[test]
    fn a_bind_is_read_and_shows_no_password() {
        let read =
            decode(application(0, vec![integer(3), octets("ACME\\john"), context(0, "hunter2")]), None)
                .unwrap();
        assert!(!format!("{read:?}").contains("hunter2"));
        let Request::Bind(bind) = read.request else { panic!("{:?}", read.request) };
        assert_eq!((read.id, bind.version, bind.name.as_slice()), (7, 3, &b"ACME\\john"[..]));
        assert_eq!(bind.password.unwrap().bytes(), b"hunter2");
        let sasl =
            decode(application(0, vec![integer(3), octets(""), context_of(3, vec![octets("GSSAPI")])]), None);
        assert!(matches!(sasl.unwrap().request, Request::Bind(Bind { password: None, .. })));
    }

    #[test]
    fn a_message_is_a_sequence() {
        let mut bytes = message(7, application(3, a_search()), None);
        assert!(Message::decode(&bytes).is_ok());
        for tag in [0xa2, 0x31, 0x60] {
            bytes[0] = tag;
            assert_eq!(Message::decode(&bytes).err(), Some(Malformed::NoMessage), "{tag:#x}");
        }
    }

    #[test]
    fn a_search_is_read() {
        let Request::Search(search) = decode(application(3, a_search()), None).unwrap().request else {
            panic!()
        };
        let expected = Search {
            base: "dc=acme,dc=com".into(),
            scope: Scope::Sub,
            size_limit: 5,
            time_limit: 10,
            types_only: true,
            filter: "(cn=*)".into(),
            attributes: vec!["cn".into(), "mail".into()],
        };
        assert_eq!(search, expected);
    }

    #[test]
    fn other_operations_have_their_own_answer() {
        for (operation, answer) in [(6, 7), (8, 9), (10, 11), (12, 13), (14, 15)] {
            assert_eq!(decode(application(operation, vec![]), None).unwrap().answer(), Some(answer));
        }
        let unbind = StructureTag { class: TagClass::Application, id: 2, payload: PL::P(vec![]) };
        assert_eq!(decode(unbind, None).unwrap().answer(), None);
        let who = decode(application(23, vec![context(0, WHO_AM_I)]), None).unwrap();
        assert!(matches!(who.request, Request::Extended(name) if name == WHO_AM_I));
    }

    #[test]
    fn what_is_no_operation_is_malformed() {
        let mut no_scope = a_search();
        no_scope[1] = enumerated(3);
        let mut too_few = a_search();
        too_few.pop();
        let with_names = |names| {
            let mut search = too_few.clone();
            search.push(names);
            application(3, search)
        };
        let cases = [
            with_names(set(vec![octets("cn")])),
            with_names(sequence(vec![enumerated(1)])),
            application(0, vec![]),
            application(0, vec![integer(3), octets("x")]),
            application(0, vec![integer(3), octets("x"), context(1, "x")]),
            application(3, no_scope),
            application(3, too_few.clone()),
            application(23, vec![]),
            application(1, vec![]),
            application(25, vec![]),
            octets("x"),
        ];
        for operation in cases {
            assert!(matches!(decode(operation.clone(), None), Err(Malformed::Operation(_))), "{operation:?}");
        }
    }

    #[test]
    fn a_critical_control_that_is_unknown_is_found() {
        let flag = |value| StructureTag { class: TagClass::Universal, id: 1, payload: PL::P(vec![value]) };
        let of = |oid: &str, value| {
            Some(context_of(0, vec![sequence(vec![octets(oid), flag(value), octets("v")])]))
        };
        let unknown = |operation: StructureTag, controls| {
            decode(operation, controls).unwrap().unknown_control().map(str::to_owned)
        };
        let search = || application(3, a_search());
        assert_eq!(unknown(search(), of("1.2.3", 0xff)).as_deref(), Some("1.2.3"));
        assert_eq!(unknown(search(), of("1.2.3", 0)), None);
        assert_eq!(unknown(search(), of(PAGED, 0xff)), None);
        let bind = application(0, vec![integer(3), octets("x"), context(0, "y")]);
        assert_eq!(unknown(bind, of(PAGED, 0xff)).as_deref(), Some(PAGED));
        let many = vec![sequence(vec![octets("1.2.3")]); CONTROLS + 1];
        assert!(decode(search(), Some(context_of(0, many))).is_err());
        let no_flag = StructureTag { payload: PL::P(vec![0, 0xff]), ..flag(0) };
        for control in [set(vec![octets("1.2.3")]), sequence(vec![octets("1.2.3"), no_flag])] {
            assert!(decode(search(), Some(context_of(0, vec![control]))).is_err());
        }
    }

    #[test]
    fn answers_are_what_other_libraries_read() {
        let refused = done(3, answer::BIND, &Outcome::new(code::INVALID_CREDENTIALS, "no"));
        assert_eq!(refused, b"\x30\x0e\x02\x01\x03\x61\x09\x0a\x01\x31\x04\x00\x04\x02no");
        let john = FoundEntry {
            dn: "cn=j".into(),
            login: None,
            attributes: vec![("cn".into(), vec![Value::from(b"j".to_vec())])],
        };
        let whole = entry(2, john.clone(), false);
        assert_eq!(
            whole,
            b"\x30\x18\x02\x01\x02\x64\x13\x04\x04cn=j\x30\x0b\x30\x09\x04\x02cn\x31\x03\x04\x01j"
        );
        assert!(entry(2, john, true).ends_with(b"\x04\x02cn\x31\x00"));
        let page_end = page_done(2, &Outcome::success(), b"c");
        assert!(page_end.ends_with(b"\x30\x06\x02\x01\x00\x04\x01c"));
        assert_eq!(page(b"\x30\x06\x02\x01\x64\x04\x01c").unwrap(), (100, b"c".to_vec()));
    }
}
