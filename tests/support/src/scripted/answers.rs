//! Responses of servers, in the words of Active Directory.

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

/// Returns a result with this code and diagnostic message, for any request.
pub fn result(code: i64, text: &str) -> Action {
    send(Message::Result(LdapResult { code, text: text.to_owned(), referral: Vec::new() }))
}

/// Returns the result success.
pub fn success() -> Action {
    result(SUCCESS, "")
}

/// Returns the end of a search.
pub fn done() -> Action {
    success()
}

/// Returns the result of a bind that AD rejects with this Win32 error code (MS-ERREF 2.2), 0x525 to 0x775.
pub fn refused(data: u32) -> Action {
    let text = format!(
        "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {data:x}, v1db1\0"
    );
    result(INVALID_CREDENTIALS, &text)
}

/// Returns the result of an overloaded server.
pub fn busy() -> Action {
    result(BUSY, "00000020: LdapErr: DSID-0C090C3E, comment: The server is busy, data 0, v1db1\0")
}

/// Returns the result of a server that shuts down.
pub fn unavailable() -> Action {
    result(
        UNAVAILABLE,
        "000020EF: LdapErr: DSID-0C0903F5, comment: The server is shutting down, data 0, v1db1\0",
    )
}

/// Returns the result of a server that is unwilling, for example while it is being demoted.
pub fn unwilling() -> Action {
    result(UNWILLING_TO_PERFORM, "0000209A: SvcErr: DSID-031A1021, problem 5003 (WILL_NOT_PERFORM), data 0\0")
}

/// Returns a result that refers the client to another server (RFC 4511, 4.1.10).
pub fn referral(url: &str) -> Action {
    let text = "0000202B: RefErr: DSID-0310082F, data 0, 1 access points\0".to_owned();
    send(Message::Result(LdapResult { code: REFERRAL, text, referral: vec![url.to_owned()] }))
}

/// Returns the notice of disconnection (RFC 4511, 4.4.1). The server that sends it closes the connection
/// next.
pub fn notice(code: i64, text: &str) -> Action {
    send(Message::Notice(LdapResult { code, text: text.to_owned(), referral: Vec::new() }))
}

/// Returns an entry of a search result.
pub fn entry(dn: &str, attributes: &[(&str, &[&[u8]])]) -> Action {
    let owned = |(name, values): &(&str, &[&[u8]])| {
        ((*name).to_owned(), values.iter().map(|value| value.to_vec()).collect())
    };
    send(Message::Entry { dn: dn.to_owned(), attributes: attributes.iter().map(owned).collect() })
}

/// Returns a reference to a place where the search could continue (RFC 4511, 4.5.3).
pub fn reference(url: &str) -> Action {
    send(Message::Reference(vec![url.to_owned()]))
}

/// Returns the answer to a netlogon ping. Use it with [`super::Event::root_dse`] and `DnsDomain`, for
/// example.
pub fn closest(netlogon: &Netlogon) -> [Action; 2] {
    [entry("", &[("Netlogon", &[&netlogon.encode()])]), done()]
}
