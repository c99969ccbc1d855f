//! What other programs send or write: HTTP, Redis, records, the kernel, commands, the log.

use std::ffi::{CStr, CString};
use std::net::{Ipv4Addr, SocketAddr};

use redis::FromRedisValue as _;

use crate::bridge;
use crate::broker;
use crate::config::admin::LocalAdmin;
use crate::config::command::Command;
use crate::config::redis::Redis as RedisUrl;
use crate::helper::log::line;
use crate::log::Line;
use crate::module::arguments::{ArgumentError, Arguments};
use crate::protocol::{Secret, report};
use crate::sessions;
use crate::sessions::redis::connection::accepted;
use crate::sessions::redis::keeper::newest_of;
use crate::sessions::redis::{Text, event_cursor, session_of};

/// Once there is an answer, nothing that follows changes it.
pub(super) fn metrics(data: &[u8]) {
    if let Some(answer) = broker::metrics::http::asked(data).filter(|_| data.len() < 8000) {
        assert_eq!(
            broker::metrics::http::asked(&[data, b"\r\nGET / HTTP/1.1\r\n\r\n"].concat()),
            Some(answer)
        );
    }
}

/// Answers of a Redis in the forms that the scripts and commands have.
pub(super) fn redis(data: &[u8]) {
    assert_eq!(accepted(data).is_ok(), data.starts_with(b"+") && data.ends_with(b"\r\n"));
    let Ok(value) = redis::parse_redis_value(data) else { return };
    let _ = <(bool, String, Vec<String>, Vec<Text>)>::from_redis_value(value.clone());
    let _ = <(Vec<String>, Vec<String>, Vec<Text>)>::from_redis_value(value.clone());
    let _ = <(bool, bool, String, String)>::from_redis_value(value.clone());
    let _ = <Option<(String, u16)>>::from_redis_value(value.clone());
    let _ = u64::from_redis_value(value.clone());
    if let Ok(Some(cursor)) = newest_of(&value) {
        assert!(event_cursor(&cursor).is_ok(), "{cursor}");
    }
    for Text(text) in Vec::<Text>::from_redis_value(value).unwrap_or_default() {
        record(text.as_bytes());
    }
}

/// A record of the register, and a cursor. Both are the same after they were written again.
pub(super) fn record(data: &[u8]) {
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
pub(super) fn kernel(data: &[u8]) {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let id = bridge::owner::socket_id(at(40_000), at(3890));
    if bridge::owner::owner(data, &id).is_ok() {
        // The state, the ports and the inode of the answer.
        assert!(data.len() >= 88 && data[17] == 1 && data[20..24] == [0x9c, 0x40, 0x0f, 0x32]);
        assert_ne!(data[84..88], [0; 4]);
    }
    sessions::process::parse(data);
}

/// Short texts of the configuration, and the arguments of the module. Each is the same after it was written
/// again.
pub(super) fn words(data: &[u8]) {
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
pub(super) fn log(data: &[u8]) {
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
