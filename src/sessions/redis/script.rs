//! The scripts that Redis runs in one step, their keys and their arguments.
//!
//! A script runs alone on its server, and its changes reach disk and replicas together. All keys have one
//! hash tag, so that a cluster would keep them in one place, too.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Script};

use crate::sessions::store::EVENTS;

/// Version of the layout of the keys; a register with another layout is not used.
const LAYOUT: u32 = 2;
/// The keys of every script, in their order.
const KEYS: [&str; 7] = [
    "motion-ad:{sessions}:birth",
    EVENTS_KEY,
    KNOWN_KEY,
    OPEN_KEY,
    "motion-ad:{sessions}:index",
    "motion-ad:{sessions}:ended",
    "motion-ad:{sessions}:try",
];
/// The stream of events.
pub(super) const EVENTS_KEY: &str = "motion-ad:{sessions}:events";
/// The hash of sessions by id.
pub(super) const KNOWN_KEY: &str = "motion-ad:{sessions}:known";
/// The sorted set of open sessions.
pub(super) const OPEN_KEY: &str = "motion-ad:{sessions}:open";
/// The hash of bookmarks, which no script changes.
pub(super) const BOOKMARKS_KEY: &str = "motion-ad:{sessions}:bookmarks";

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("common.lua"), include_str!($file))))
    };
}

pub(super) static BEGIN: LazyLock<Script> = script!("begin.lua");
pub(super) static OPEN: LazyLock<Script> = script!("open.lua");
pub(super) static CLOSE: LazyLock<Script> = script!("close.lua");
pub(super) static UNDO: LazyLock<Script> = script!("undo.lua");
pub(super) static ASIDE: LazyLock<Script> = script!("aside.lua");
pub(super) static LIST: LazyLock<Script> = script!("list.lua");
pub(super) static READ: LazyLock<Script> = script!("events.lua");

/// Runs `script` with `arguments`. Each call is a separate change with its own mark.
pub(super) async fn run<T: FromRedisValue>(
    script: &Script,
    arguments: &[String],
    connection: &mut MultiplexedConnection,
) -> Result<T, RedisError> {
    let mut call = script.prepare_invoke();
    call.key(&KEYS).arg(LAYOUT).arg(format!("{:016x}", fastrand::u64(..))).arg(EVENTS);
    for argument in arguments {
        call.arg(argument);
    }
    call.invoke_async(connection).await
}
