//! Requests of a client to the broker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(feature = "broker")]
use super::search::Search;
use super::{VERSION, monotonic};
use crate::texts::Language;

/// Operation that the broker performs, with the fields that belong to it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Authenticates the user with the password in the frame's secret. Answered by a verdict.
    Authenticate {
        /// Registers a session with a success (the argument `session=auth`).
        register: bool,
        /// True if the application can show a text to the user: the reply then says when the password expires
        /// soon.
        warn: bool,
    },
    /// Checks the access of a user who was authenticated elsewhere. Answered by a verdict.
    Account {
        /// [`Verdict::account`](crate::verdict::Verdict::account) of an earlier answer on the same PAM
        /// handle. The broker rejects the request if the name belongs to another account by now.
        account: Option<String>,
        /// As for [`Operation::Authenticate`].
        warn: bool,
    },
    /// The account's state as AD has it now. Answered by a check.
    Check,
    /// The broker's own state. Answered by a status.
    Status,
    /// Checks if the user could change the password; the frame's secret is the present one. Changes nothing.
    /// Answered by a verdict.
    ProbePassword,
    /// Changes the password; the frame's secret is that of [`Passwords`](super::Passwords). Answered by a
    /// verdict.
    ChangePassword,
    /// Registers a session of this user, who logged in by the same service. Answered by a verdict.
    OpenSession {
        /// As for [`Operation::Account`].
        account: Option<String>,
    },
    /// Ends a session. Answered by a verdict.
    CloseSession {
        /// Its id. Without it, the newest session of this user ends that the same process and service opened.
        session: Option<String>,
    },
    /// Evicts a session, because an administrator says so. Answered by a verdict.
    KickSession {
        /// Its id.
        session: String,
    },
    /// A page of the sessions that are open now: of the user, or of all. Answered by sessions.
    ListSessions {
        /// Position from which the list continues, from an earlier reply.
        cursor: Option<String>,
    },
    /// One session, open or ended a while ago. Answered by sessions, one or none.
    ShowSession {
        /// Its id.
        session: String,
    },
    /// Returns the events of sessions, and waits for one until the deadline if there are none. Answered by
    /// events.
    WatchSessions {
        /// Position from which the watch continues, from an earlier reply. Without it, the reply is empty and
        /// gives the cursor to start with.
        cursor: Option<String>,
    },
    /// Checks if these users may log in. Answered by an audit, from the first name on for as many as fit into
    /// a frame, and for at least one.
    Audit {
        /// The names as users type them.
        names: Vec<String>,
    },
    /// Searches the directory. Only for root and the LDAP bridge. Answered by what was found.
    #[cfg(feature = "broker")]
    Search(Box<Search>),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub struct Request {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The operation to perform.
    pub operation: Operation,
    /// The name as the user typed it; empty if the operation is about no user.
    pub user: String,
    /// PAM_SERVICE, or the name of the helper's command.
    pub service: String,
    /// PAM_RHOST.
    pub rhost: String,
    /// PAM_TTY.
    pub tty: String,
    /// The language of the reply's text for the user.
    pub language: Language,
    /// True if the login is only observed: another module of the stack decides (the argument `observe`).
    pub observe: bool,
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
            language: Language::default(),
            observe: false,
            deadline: nanoseconds(monotonic().saturating_add(timeout)),
        }
    }

    /// The time left, zero when the deadline has passed.
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.deadline).saturating_sub(monotonic())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A request as JSON: one object with the fields of all operations. An application keeps an old module loaded
/// over an upgrade, so fields and their meaning stay.
#[derive(Clone, Serialize, Deserialize)]
struct Wire {
    version: u32,
    operation: Name,
    #[serde(default)]
    user: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    rhost: String,
    #[serde(default)]
    tty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default)]
    register: bool,
    #[serde(default)]
    warn: bool,
    /// Empty for none.
    #[serde(default)]
    session: String,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[cfg(feature = "broker")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    search: Option<Box<Search>>,
    #[serde(default, skip_serializing_if = "Language::is_default")]
    lang: Language,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    observe: bool,
    deadline: u64,
}

/// The name of an operation.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Authenticate,
    Account,
    Check,
    Status,
    ProbePassword,
    ChangePassword,
    OpenSession,
    CloseSession,
    KickSession,
    ListSessions,
    ShowSession,
    WatchSessions,
    Audit,
    #[cfg(feature = "broker")]
    Search,
}

impl From<Request> for Wire {
    fn from(request: Request) -> Self {
        let Request { version, operation, user, service, rhost, tty, language, observe, deadline } = request;
        let plain = |operation| Wire {
            version,
            operation,
            user,
            service,
            rhost,
            tty,
            account: None,
            register: false,
            warn: false,
            session: String::new(),
            cursor: None,
            names: Vec::new(),
            #[cfg(feature = "broker")]
            search: None,
            lang: language,
            observe,
            deadline,
        };
        match operation {
            Operation::Authenticate { register, warn } => {
                Wire { register, warn, ..plain(Name::Authenticate) }
            }
            Operation::Account { account, warn } => Wire { account, warn, ..plain(Name::Account) },
            Operation::Check => plain(Name::Check),
            Operation::Status => plain(Name::Status),
            Operation::ProbePassword => plain(Name::ProbePassword),
            Operation::ChangePassword => plain(Name::ChangePassword),
            Operation::OpenSession { account } => Wire { account, ..plain(Name::OpenSession) },
            Operation::CloseSession { session } => {
                Wire { session: session.unwrap_or_default(), ..plain(Name::CloseSession) }
            }
            Operation::KickSession { session } => Wire { session, ..plain(Name::KickSession) },
            Operation::ListSessions { cursor } => Wire { cursor, ..plain(Name::ListSessions) },
            Operation::ShowSession { session } => Wire { session, ..plain(Name::ShowSession) },
            Operation::WatchSessions { cursor } => Wire { cursor, ..plain(Name::WatchSessions) },
            Operation::Audit { names } => Wire { names, ..plain(Name::Audit) },
            #[cfg(feature = "broker")]
            Operation::Search(search) => Wire { search: Some(search), ..plain(Name::Search) },
        }
    }
}

impl TryFrom<Wire> for Request {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        let Wire { version, user, service, rhost, tty, account, register, warn, session, cursor, .. } = wire;
        let (language, observe, deadline) = (wire.lang, wire.observe, wire.deadline);
        let operation = match wire.operation {
            Name::Authenticate => Operation::Authenticate { register, warn },
            Name::Account => Operation::Account { account, warn },
            Name::Check => Operation::Check,
            Name::Status => Operation::Status,
            Name::ProbePassword => Operation::ProbePassword,
            Name::ChangePassword => Operation::ChangePassword,
            Name::OpenSession => Operation::OpenSession { account },
            Name::CloseSession => {
                Operation::CloseSession { session: Some(session).filter(|session| !session.is_empty()) }
            }
            Name::KickSession => Operation::KickSession { session },
            Name::ListSessions => Operation::ListSessions { cursor },
            Name::ShowSession => Operation::ShowSession { session },
            Name::WatchSessions => Operation::WatchSessions { cursor },
            Name::Audit => Operation::Audit { names: wire.names },
            #[cfg(feature = "broker")]
            Name::Search => Operation::Search(wire.search.ok_or("a search says nothing to search for")?),
        };
        Ok(Request { version, operation, user, service, rhost, tty, language, observe, deadline })
    }
}

#[cfg(all(test, feature = "broker"))]
mod tests {
    use super::*;
    use crate::protocol::{Secret, receive, search, send};

    /// Requests of every operation, with their JSON after the terminal: old modules send and old brokers read
    /// it.
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
                request(Operation::Authenticate { register: true, warn: true }),
                "authenticate",
                r#""register":true,"warn":true,"session":"","cursor":null"#,
            ),
            (request(Operation::Authenticate { register: false, warn: false }), "authenticate", plain),
            (
                request(Operation::Account { account: account(), warn: true }),
                "account",
                r#""account":"0101-01","register":false,"warn":true,"session":"","cursor":null"#,
            ),
            (request(Operation::Account { account: None, warn: false }), "account", plain),
            (request(Operation::Check), "check", plain),
            (request(Operation::Status), "status", plain),
            (request(Operation::ProbePassword), "probe_password", plain),
            (request(Operation::ChangePassword), "change_password", plain),
            (
                request(Operation::OpenSession { account: account() }),
                "open_session",
                r#""account":"0101-01","register":false,"warn":false,"session":"","cursor":null"#,
            ),
            (request(Operation::OpenSession { account: None }), "open_session", plain),
            (request(Operation::CloseSession { session: Some("s1".into()) }), "close_session", of_one),
            (request(Operation::CloseSession { session: None }), "close_session", plain),
            (request(Operation::KickSession { session: "s1".into() }), "kick_session", of_one),
            (request(Operation::ListSessions { cursor: Some("9".into()) }), "list_sessions", at_nine),
            (request(Operation::ListSessions { cursor: None }), "list_sessions", plain),
            (request(Operation::ShowSession { session: "s1".into() }), "show_session", of_one),
            (request(Operation::WatchSessions { cursor: Some("9".into()) }), "watch_sessions", at_nine),
            (request(Operation::WatchSessions { cursor: None }), "watch_sessions", plain),
            (
                request(Operation::Audit { names: vec!["john".into(), "jane".into()] }),
                "audit",
                r#""register":false,"warn":false,"session":"","cursor":null,"names":["john","jane"]"#,
            ),
            (
                request(Operation::Search(Box::new(search))),
                "search",
                concat!(
                    r#""register":false,"warn":false,"session":"","cursor":null,"#,
                    r#""search":{"base":"DC=acme","scope":"one","filter":"(cn=john)","#,
                    r#""attributes":["cn"],"size_limit":5}"#,
                ),
            ),
        ]
    }

    #[test]
    fn requests_keep_their_bytes() {
        let secret = Secret::new(b"\0\x03oldnew".to_vec());
        for (request, operation, rest) in on_the_wire() {
            let who = r#""user":"john.doe","service":"motion","rhost":"client.example","tty":"tty1""#;
            let json = format!(r#"{{"version":2,"operation":"{operation}",{who},{rest},"deadline":7}}"#);
            let mut wire = Vec::new();
            send(&mut wire, &request, &secret).unwrap();
            let lengths = [u32::try_from(json.len()).unwrap().to_be_bytes(), 8_u32.to_be_bytes()].concat();
            assert_eq!(wire, [lengths.as_slice(), json.as_bytes(), secret.bytes()].concat(), "{json}");
            assert_eq!(receive::<Request>(&mut wire.as_slice()).unwrap().0, request);
        }
    }

    #[test]
    fn a_request_names_its_language_unless_it_is_english() {
        let of = |language| Request {
            language,
            deadline: 7,
            ..Request::new(Operation::ChangePassword, "john", Duration::ZERO)
        };
        let german = serde_json::to_string(&of(Language::German)).unwrap();
        assert!(german.contains(r#""cursor":null,"lang":"de","deadline":7"#), "{german}");
        assert_eq!(serde_json::from_str::<Request>(&german).unwrap(), of(Language::German));
        assert!(!serde_json::to_string(&of(Language::English)).unwrap().contains("lang"));
        // The language of a later version.
        let dutch = german.replace(r#""de""#, r#""nl""#);
        assert_eq!(serde_json::from_str::<Request>(&dutch).unwrap(), of(Language::English));
    }

    #[test]
    fn a_request_says_that_its_login_is_only_observed() {
        let login = Operation::Authenticate { register: false, warn: false };
        let of = |observe| Request { observe, ..Request::new(login.clone(), "john", Duration::ZERO) };
        for observe in [false, true] {
            let json = serde_json::to_string(&of(observe)).unwrap();
            assert_eq!(json.contains(r#""observe":true"#), observe, "{json}");
            assert_eq!(json.contains("observe"), observe, "{json}");
            assert_eq!(serde_json::from_str::<Request>(&json).unwrap().observe, observe);
        }
    }

    #[test]
    fn a_request_that_omits_what_it_does_not_need_is_understood() {
        let short = br#"{"version":2,"operation":"status","deadline":7,"of_a_later_version":[1]}"#;
        let request: Request = serde_json::from_slice(short).unwrap();
        assert_eq!(request, Request { deadline: 7, ..Request::new(Operation::Status, "", Duration::ZERO) });
        for wrong in [
            &br#"{"version":2,"operation":"dance","deadline":7}"#[..],
            br#"{"version":2,"operation":"status"}"#,
            br#"{"version":2,"operation":"search","deadline":7}"#,
        ] {
            assert!(serde_json::from_slice::<Request>(wrong).is_err());
        }
    }
}
