//! The protocol between module, helper and broker on the Unix socket: one request, one reply.
//!
//! A frame is two big-endian `u32` lengths (of the JSON, of the secret), then the JSON, then the secret as
//! raw bytes. The password is never inside the JSON, because escaping would copy it. A frame is at most
//! [`MAX_FRAME`] bytes long, its header included.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::io::{self, IoSlice, Read, Write};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::peer::Peer;
use crate::verdict::Verdict;

/// The version of this protocol. Module and broker come from one package, but a long-lived application keeps
/// the old module loaded over an upgrade.
pub const VERSION: u32 = 2;

/// The longest frame, header included, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// The length of a frame's header in bytes.
pub const HEADER: usize = 8;

/// The longest password in bytes. AD allows 256 UTF-16 units (MS-SAMR 3.1.1.7.2).
pub const MAX_PASSWORD: usize = 1024;

/// The longest name that a user may type, in bytes.
pub const MAX_USER: usize = 256;

/// Path of the broker's socket.
pub const SOCKET: &str = "/run/motion-ad/broker.sock";

/// Path of the socket on which the broker serves its metrics by HTTP.
pub const METRICS_SOCKET: &str = "/run/motion-ad/metrics.sock";

/// A password on its way: wiped when dropped, and not shown by `Debug`.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes` without copying them.
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Zeroizing::new(bytes))
    }

    /// Two passwords in one: the present one and the new one.
    ///
    /// # Errors
    /// Returns [`PasswordError::TooLong`] if the present one is longer than [`MAX_PASSWORD`].
    pub fn pair(present: &Secret, new: &Secret) -> Result<Self, PasswordError> {
        let length =
            u16::try_from(present.0.len()).ok().filter(|length| usize::from(*length) <= MAX_PASSWORD);
        let length = length.ok_or(PasswordError::TooLong)?;
        // Of this size from the start: growing would leave copies behind.
        let mut both = Vec::with_capacity(present.0.len().saturating_add(new.0.len()).saturating_add(2));
        both.extend_from_slice(&length.to_be_bytes());
        both.extend_from_slice(&present.0);
        both.extend_from_slice(&new.0);
        Ok(Secret::new(both))
    }

    /// The two passwords of a [`Secret::pair`]; `None` where it is none.
    pub fn split(&self) -> Option<(Secret, Secret)> {
        let (length, both) = self.0.split_first_chunk()?;
        let (present, new) = both.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        Some((Secret::new(present.to_vec()), Secret::new(new.to_vec())))
    }

    /// The password itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The password as text.
    ///
    /// # Errors
    /// Returns [`PasswordError`] if it is empty, is too long, holds a NUL byte or is not UTF-8.
    pub fn password(&self) -> Result<&str, PasswordError> {
        match self.bytes() {
            [] => Err(PasswordError::Empty),
            bytes if bytes.len() > MAX_PASSWORD => Err(PasswordError::TooLong),
            bytes if bytes.contains(&0) => Err(PasswordError::Nul),
            bytes => std::str::from_utf8(bytes).map_err(|_| PasswordError::NotUtf8),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reason why some bytes can never be a password. Nothing is sent to AD for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// An empty password would make the bind an unauthenticated one, which succeeds (RFC 4513, 5.1.2).
    #[error("the password is empty")]
    Empty,
    /// Longer than [`MAX_PASSWORD`].
    #[error("the password is longer than {MAX_PASSWORD} bytes")]
    TooLong,
    /// Contains a NUL byte.
    #[error("the password contains a NUL byte")]
    Nul,
    /// Not UTF-8, which LDAP's simple bind asks for (RFC 4513, 5.1.3).
    #[error("the password is not UTF-8")]
    NotUtf8,
}

/// Operation that the broker performs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Authenticates the user with the password in the frame's secret. Answered by [`Reply::Verdict`].
    Authenticate,
    /// Checks the access of a user who was authenticated elsewhere. Answered by [`Reply::Verdict`].
    Account,
    /// The account's state as AD has it now. Answered by [`Reply::Check`].
    Check,
    /// The broker's own state. Answered by [`Reply::Status`].
    Status,
    /// Checks if the user could change the password; the frame's secret is the present one. Changes nothing.
    /// Answered by [`Reply::Verdict`].
    ProbePassword,
    /// Changes the password; the frame's secret is a [`Secret::pair`] of the present and the new one.
    /// Answered by [`Reply::Verdict`].
    ChangePassword,
    /// Registers a session of this user, who logged in by the same service. Answered by [`Reply::Verdict`].
    OpenSession,
    /// Ends [`Request::session`], or, if that is empty, the newest session of this user that the same process
    /// and service opened. Answered by [`Reply::Verdict`].
    CloseSession,
    /// A page of the sessions that are open now, after [`Request::cursor`]. Answered by [`Reply::Sessions`].
    ListSessions,
    /// [`Request::session`], open or ended a while ago. Answered by [`Reply::Sessions`] with one or none.
    ShowSession,
    /// Returns the events of sessions after [`Request::cursor`], and waits for one until the deadline if
    /// there are none. Without a cursor, the reply is empty and gives the cursor to start with. Answered by
    /// [`Reply::Events`].
    WatchSessions,
    /// Checks if the users in [`Request::names`] may log in. Answered by [`Reply::Audit`], from the first
    /// name on for as many as fit into a frame, and for at least one.
    Audit,
    /// Performs [`Request::search`] in the directory. Only for root and the LDAP bridge. Answered by
    /// [`Reply::Found`].
    Search,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The operation to perform.
    pub operation: Operation,
    /// The name as the user typed it; empty for [`Operation::Status`].
    #[serde(default)]
    pub user: String,
    /// PAM_SERVICE, or the name of the helper's command.
    #[serde(default)]
    pub service: String,
    /// PAM_RHOST.
    #[serde(default)]
    pub rhost: String,
    /// PAM_TTY.
    #[serde(default)]
    pub tty: String,
    /// Of [`Operation::Account`] and [`Operation::OpenSession`]: [`Verdict::account`] of an earlier answer on
    /// the same PAM handle. The broker rejects the request if the name belongs to another account by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Of [`Operation::Authenticate`]: register a session with a success (the argument `session=auth`).
    #[serde(default)]
    pub register: bool,
    /// True if the application can show a text to the user: the reply then says when the password expires
    /// soon.
    #[serde(default)]
    pub warn: bool,
    /// The id of a session; empty where none is meant or known.
    #[serde(default)]
    pub session: String,
    /// Position from which a list or a watch continues, from an earlier reply.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Of [`Operation::Audit`]: names as users type them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Of [`Operation::Search`]: the search.
    #[cfg(feature = "broker")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Box<search::Search>>,
    /// Time at which the sender stops waiting, in nanoseconds of CLOCK_MONOTONIC (`clock_gettime(2)`).
    pub deadline: u64,
}

impl Request {
    /// A request that its sender gives up after `timeout`.
    pub fn new(operation: Operation, user: impl Into<String>, timeout: Duration) -> Self {
        Request {
            version: VERSION,
            operation,
            user: user.into(),
            service: String::new(),
            rhost: String::new(),
            tty: String::new(),
            account: None,
            register: false,
            warn: false,
            session: String::new(),
            cursor: None,
            names: Vec::new(),
            #[cfg(feature = "broker")]
            search: None,
            deadline: nanoseconds(monotonic().saturating_add(timeout)),
        }
    }

    /// The time left, zero when the deadline has passed.
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.deadline).saturating_sub(monotonic())
    }
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Outcome of a login or an account check.
    Verdict(Verdict),
    /// The account's state, for the administrator.
    #[cfg(feature = "broker")]
    Check(Box<report::Check>),
    /// The broker's state, for the administrator.
    #[cfg(feature = "broker")]
    Status(Box<report::Status>),
    /// Sessions, for administrators and applications.
    #[cfg(feature = "broker")]
    Sessions(Box<report::Sessions>),
    /// Events of sessions.
    #[cfg(feature = "broker")]
    Events(Box<report::Events>),
    /// Audit of users' access, for the administrator.
    #[cfg(feature = "broker")]
    Audit(Box<report::Audit>),
    /// Entries of the directory, for the LDAP bridge. The only reply with a frame that may be longer than
    /// [`MAX_FRAME`]: up to [`search::MAX_FOUND`].
    #[cfg(feature = "broker")]
    Found(Box<search::Found>),
    /// The request itself was rejected: the client may not send it, or the broker cannot understand it.
    Refused(String),
}

mod peer;

/// Replies that only the helper reads.
#[cfg(feature = "broker")]
pub mod report;

/// The search of the LDAP bridge and its reply.
#[cfg(feature = "broker")]
pub mod search;

/// Now, as time since an arbitrary point that module and broker share (CLOCK_MONOTONIC).
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Reason why a frame was not understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed the connection before the first byte.
    #[error("the connection was closed")]
    Closed,
    /// The frame says that it is longer than its kind may be, [`MAX_FRAME`] as a rule.
    #[error("a frame of {0} bytes is over the limit")]
    TooLong(u64),
    /// The JSON is not what was expected; the text of the error never quotes the frame.
    #[error("the frame holds no valid message (line {line}, column {column})")]
    Malformed {
        /// Line of the JSON.
        line: usize,
        /// Column of the JSON.
        column: usize,
    },
    /// Reading or writing failed, or the frame was cut short.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The lengths at the head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the JSON in bytes.
    pub json: usize,
    /// Length of the secret in bytes.
    pub secret: usize,
}

impl Header {
    /// Reads the header's bytes.
    ///
    /// # Errors
    /// Returns [`FrameError::TooLong`] if the frame would be longer than [`MAX_FRAME`].
    pub fn parse(bytes: [u8; HEADER]) -> Result<Self, FrameError> {
        Header::parse_up_to(bytes, MAX_FRAME)
    }

    /// Reads the header's bytes of a frame that may have `limit` bytes.
    ///
    /// # Errors
    /// Returns [`FrameError::TooLong`] if the frame would be longer than `limit`.
    pub fn parse_up_to(bytes: [u8; HEADER], limit: usize) -> Result<Self, FrameError> {
        let [a, b, c, d, e, f, g, h] = bytes;
        let (json, secret) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let total = u64::from(json).saturating_add(secret.into()).saturating_add(HEADER as u64);
        if total > limit as u64 {
            return Err(FrameError::TooLong(total));
        }
        Ok(Header { json: json as usize, secret: secret as usize })
    }
}

/// Encodes header and JSON; the secret follows separately, uncopied.
///
/// # Errors
/// Returns [`FrameError::TooLong`] if the frame would be longer than [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T, secret: &Secret) -> Result<Vec<u8>, FrameError> {
    encode_up_to(message, secret, MAX_FRAME)
}

/// Encodes header and JSON of a frame that may have `limit` bytes.
///
/// # Errors
/// Returns [`FrameError::TooLong`] if the frame would be longer than `limit`.
pub fn encode_up_to<T: Serialize>(message: &T, secret: &Secret, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message).map_err(io::Error::from)?;
    let total = frame.len().saturating_add(secret.bytes().len());
    let (Ok(json), Ok(length), true) = (
        u32::try_from(frame.len().saturating_sub(HEADER)),
        u32::try_from(secret.bytes().len()),
        total <= limit,
    ) else {
        return Err(FrameError::TooLong(total as u64));
    };
    let lengths = json.to_be_bytes().into_iter().chain(length.to_be_bytes());
    frame.iter_mut().zip(lengths).for_each(|(byte, length)| *byte = length);
    Ok(frame)
}

/// Decodes a frame's JSON.
///
/// # Errors
/// Returns [`FrameError::Malformed`] if it is not a `T`.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(json).map_err(|e| FrameError::Malformed { line: e.line(), column: e.column() })
}

/// Sends one message, in a single write if `to` takes it whole: then the receiver wakes up only once.
///
/// # Errors
/// Returns [`FrameError`] if the frame is too long or writing failed.
pub fn send<T: Serialize>(to: &mut impl Write, message: &T, secret: &Secret) -> Result<(), FrameError> {
    let (frame, secret) = (encode(message, secret)?, secret.bytes());
    let written = loop {
        match to.write_vectored(&[IoSlice::new(&frame), IoSlice::new(secret)]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    to.write_all(frame.get(written..).unwrap_or_default())?;
    to.write_all(secret.get(written.saturating_sub(frame.len())..).unwrap_or_default())?;
    Ok(to.flush()?)
}

/// Receives one message and its secret.
///
/// # Errors
/// Returns [`FrameError`] if the peer closed or cut the frame, or if the frame is too long or holds no `T`.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<(T, Secret), FrameError> {
    receive_up_to(from, MAX_FRAME)
}

/// Receives one message and its secret, of a frame that may have `limit` bytes.
///
/// # Errors
/// As [`receive`].
pub fn receive_up_to<T: DeserializeOwned>(
    from: &mut impl Read,
    limit: usize,
) -> Result<(T, Secret), FrameError> {
    let mut header = [0; HEADER];
    let first = loop {
        match from.read(&mut header) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Err(FrameError::Closed);
    }
    from.read_exact(header.get_mut(first..).unwrap_or_default())?;
    let header = Header::parse_up_to(header, limit)?;
    let mut json = vec![0; header.json];
    from.read_exact(&mut json)?;
    let mut secret = Secret::new(vec![0; header.secret]);
    from.read_exact(&mut secret.0)?;
    Ok((decode(&json)?, secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Outcome;

    fn request() -> Request {
        Request::new(Operation::Authenticate, "john.doe", Duration::from_secs(5))
    }

    #[test]
    fn a_frame_comes_back_as_it_was_sent() {
        let mut wire = Vec::new();
        send(&mut wire, &request(), &Secret::new(b"pa\"ss\\w\xc3\xb6rd".to_vec())).unwrap();
        let (back, secret): (Request, Secret) = receive(&mut wire.as_slice()).unwrap();
        assert_eq!(back.user, "john.doe");
        assert_eq!(secret.password().unwrap(), "pa\"ss\\wörd");
    }

    /// Requests of every operation, with their JSON after the terminal: old modules send and old brokers read it.
    #[cfg(feature = "broker")]
    fn on_the_wire() -> Vec<(Request, &'static str, &'static str)> {
        let request = |operation| Request {
            service: "motion".into(),
            rhost: "client.example".into(),
            tty: "tty1".into(),
            deadline: 7,
            ..Request::new(operation, "john.doe", Duration::ZERO)
        };
        let account = || Some("0101-01".to_owned());
        let search = search::Search {
            base: "DC=acme".into(),
            scope: search::Scope::One,
            filter: "(cn=john)".into(),
            attributes: vec!["cn".into()],
            size_limit: 5,
        };
        let plain = r#""register":false,"warn":false,"session":"","cursor":null"#;
        let at_nine = r#""register":false,"warn":false,"session":"","cursor":"9""#;
        let of_one = r#""register":false,"warn":false,"session":"s1","cursor":null"#;
        vec![
            (
                Request { register: true, warn: true, ..request(Operation::Authenticate) },
                "authenticate",
                r#""register":true,"warn":true,"session":"","cursor":null"#,
            ),
            (request(Operation::Authenticate), "authenticate", plain),
            (
                Request { account: account(), warn: true, ..request(Operation::Account) },
                "account",
                r#""account":"0101-01","register":false,"warn":true,"session":"","cursor":null"#,
            ),
            (request(Operation::Account), "account", plain),
            (request(Operation::Check), "check", plain),
            (request(Operation::Status), "status", plain),
            (request(Operation::ProbePassword), "probe_password", plain),
            (request(Operation::ChangePassword), "change_password", plain),
            (
                Request { account: account(), ..request(Operation::OpenSession) },
                "open_session",
                r#""account":"0101-01","register":false,"warn":false,"session":"","cursor":null"#,
            ),
            (request(Operation::OpenSession), "open_session", plain),
            (Request { session: "s1".into(), ..request(Operation::CloseSession) }, "close_session", of_one),
            (request(Operation::CloseSession), "close_session", plain),
            (
                Request { cursor: Some("9".into()), ..request(Operation::ListSessions) },
                "list_sessions",
                at_nine,
            ),
            (request(Operation::ListSessions), "list_sessions", plain),
            (Request { session: "s1".into(), ..request(Operation::ShowSession) }, "show_session", of_one),
            (
                Request { cursor: Some("9".into()), ..request(Operation::WatchSessions) },
                "watch_sessions",
                at_nine,
            ),
            (request(Operation::WatchSessions), "watch_sessions", plain),
            (
                Request { names: vec!["john".into(), "jane".into()], ..request(Operation::Audit) },
                "audit",
                r#""register":false,"warn":false,"session":"","cursor":null,"names":["john","jane"]"#,
            ),
            (
                Request { search: Some(Box::new(search)), ..request(Operation::Search) },
                "search",
                r#""register":false,"warn":false,"session":"","cursor":null,"search":{"base":"DC=acme","scope":"one","filter":"(cn=john)","attributes":["cn"],"size_limit":5}"#,
            ),
        ]
    }

    #[cfg(feature = "broker")]
    #[test]
    fn requests_keep_their_bytes() {
        let secret = Secret::new(b"\0\x03oldnew".to_vec());
        for (request, operation, rest) in on_the_wire() {
            let json = format!(
                r#"{{"version":2,"operation":"{operation}","user":"john.doe","service":"motion","rhost":"client.example","tty":"tty1",{rest},"deadline":7}}"#
            );
            let mut wire = Vec::new();
            send(&mut wire, &request, &secret).unwrap();
            let lengths = [u32::try_from(json.len()).unwrap().to_be_bytes(), 8_u32.to_be_bytes()].concat();
            assert_eq!(wire, [lengths.as_slice(), json.as_bytes(), secret.bytes()].concat(), "{json}");
            assert_eq!(receive::<Request>(&mut wire.as_slice()).unwrap().0, request);
        }
    }

    #[test]
    fn a_request_that_omits_what_it_does_not_need_is_understood() {
        let short = br#"{"version":2,"operation":"status","deadline":7,"of_a_later_version":[1]}"#;
        let request: Request = decode(short).unwrap();
        assert_eq!(request, Request { deadline: 7, ..Request::new(Operation::Status, "", Duration::ZERO) });
        for wrong in [
            &br#"{"version":2,"operation":"dance","deadline":7}"#[..],
            br#"{"version":2,"operation":"status"}"#,
        ] {
            assert!(matches!(decode::<Request>(wrong), Err(FrameError::Malformed { .. })));
        }
    }

    #[test]
    fn a_frame_of_four_gigabytes_is_refused_by_its_header() {
        let wire = [0xff; HEADER];
        let error = receive::<Request>(&mut wire.as_slice()).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(n) if n > 8_000_000_000), "{error}");
    }

    #[test]
    fn half_a_frame_and_rubbish_are_errors() {
        let mut wire = Vec::new();
        send(&mut wire, &request(), &Secret::default()).unwrap();
        for length in 1..wire.len() {
            let error = receive::<Request>(&mut &wire[..length]).unwrap_err();
            assert!(matches!(error, FrameError::Io(_)), "{length}: {error}");
        }
        assert!(matches!(receive::<Request>(&mut [].as_slice()), Err(FrameError::Closed)));
        let rubbish = [&[0, 0, 0, 4, 0, 0, 0, 0][..], b"{{{{"].concat();
        assert!(matches!(receive::<Request>(&mut rubbish.as_slice()), Err(FrameError::Malformed { .. })));
    }

    #[test]
    fn too_long_a_message_is_not_sent() {
        let request = Request { user: "x".repeat(MAX_FRAME), ..request() };
        assert!(matches!(encode(&request, &Secret::default()), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn passwords_that_can_never_be_right() {
        let cases: [(&[u8], PasswordError); 4] = [
            (b"", PasswordError::Empty),
            (&[b'x'; MAX_PASSWORD + 1], PasswordError::TooLong),
            (b"a\0b", PasswordError::Nul),
            (b"\xff", PasswordError::NotUtf8),
        ];
        for (bytes, error) in cases {
            assert_eq!(Secret::new(bytes.to_vec()).password(), Err(error));
        }
        assert!(Secret::new(vec![b'x'; MAX_PASSWORD]).password().is_ok());
    }

    #[test]
    fn two_passwords_travel_in_one_secret() {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        for (present, new) in [("old", "new"), ("", "new"), ("old", ""), ("", "")] {
            let (a, b) = Secret::pair(&secret(present), &secret(new)).unwrap().split().unwrap();
            assert_eq!((a.bytes(), b.bytes()), (present.as_bytes(), new.as_bytes()));
        }
        let long = secret(&"x".repeat(MAX_PASSWORD + 1));
        assert_eq!(Secret::pair(&long, &secret("new")).unwrap_err(), PasswordError::TooLong);
        for rubbish in [&b""[..], b"\0", b"\0\x04old"] {
            assert!(Secret::new(rubbish.to_vec()).split().is_none());
        }
    }

    #[test]
    fn debug_shows_no_password() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(…)");
    }

    #[test]
    fn the_deadline_runs_down() {
        let request = Request { deadline: 0, ..request() };
        assert_eq!(request.remaining(), Duration::ZERO);
        let reply = Reply::Verdict(Verdict::new(Outcome::Success, ""));
        let mut wire = Vec::new();
        send(&mut wire, &reply, &Secret::default()).unwrap();
        assert_eq!(receive::<Reply>(&mut wire.as_slice()).unwrap().0, reply);
    }
}
