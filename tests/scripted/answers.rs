//! What servers say, in Active Directory's words.

use super::netlogon::Netlogon;
use super::script::{Action, Manner};
use super::wire::{LdapResult, Message};

/// LDAP result codes (RFC 4511, appendix A).
const SUCCESS: i64 = 0;
const REFERRAL: i64 = 10;
const INVALID_CREDENTIALS: i64 = 49;
const BUSY: i64 = 51;
const UNAVAILABLE: i64 = 52;
const UNWILLING_TO_PERFORM: i64 = 53;

fn send(message: Message) -> Action {
    Action::Send(message, Manner::Whole)
}

/// A result of this code with this diagnostic message, as the answer to whatever was asked.
pub fn result(code: i64, text: &str) -> Action {
    send(Message::Result(LdapResult { code, text: text.to_owned(), referral: Vec::new() }))
}

/// Success.
pub fn success() -> Action {
    result(SUCCESS, "")
}

/// The end of a search.
pub fn done() -> Action {
    success()
}

/// A bind that AD refuses for the reason of this Win32 error code (MS-ERREF 2.2), 0x525 to 0x775.
pub fn refused(data: u32) -> Action {
    let text = format!(
        "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {data:x}, v1db1\0"
    );
    result(INVALID_CREDENTIALS, &text)
}

/// The server has too much to do.
pub fn busy() -> Action {
    result(BUSY, "00000020: LdapErr: DSID-0C090C3E, comment: The server is busy, data 0, v1db1\0")
}

/// The server shuts down.
pub fn unavailable() -> Action {
    result(
        UNAVAILABLE,
        "000020EF: LdapErr: DSID-0C0903F5, comment: The server is shutting down, data 0, v1db1\0",
    )
}

/// The server does not want to: while it is being demoted, for instance.
pub fn unwilling() -> Action {
    result(UNWILLING_TO_PERFORM, "0000209A: SvcErr: DSID-031A1021, problem 5003 (WILL_NOT_PERFORM), data 0\0")
}

/// A result that sends the client elsewhere (RFC 4511, 4.1.10).
pub fn referral(url: &str) -> Action {
    let text = "0000202B: RefErr: DSID-0310082F, data 0, 1 access points\0".to_owned();
    send(Message::Result(LdapResult { code: REFERRAL, text, referral: vec![url.to_owned()] }))
}

/// The notice of disconnection (RFC 4511, 4.4.1). The server that sends it closes the connection next.
pub fn notice(code: i64, text: &str) -> Action {
    send(Message::Notice(LdapResult { code, text: text.to_owned(), referral: Vec::new() }))
}

/// An entry that a search found.
pub fn entry(dn: &str, attributes: &[(&str, &[&[u8]])]) -> Action {
    let owned = |(name, values): &(&str, &[&[u8]])| {
        ((*name).to_owned(), values.iter().map(|value| value.to_vec()).collect())
    };
    send(Message::Entry { dn: dn.to_owned(), attributes: attributes.iter().map(owned).collect() })
}

/// A place where a search could go on (RFC 4511, 4.5.3).
pub fn reference(url: &str) -> Action {
    send(Message::Reference(vec![url.to_owned()]))
}

/// The answer to a netlogon ping, for [`super::Event::root_dse`] with `DnsDomain` or so.
pub fn closest(netlogon: &Netlogon) -> [Action; 2] {
    [entry("", &[("Netlogon", &[&netlogon.encode()])]), done()]
}
