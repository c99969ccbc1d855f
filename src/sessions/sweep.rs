//! Ends the sessions of this server whose process is gone or that are too old.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::process::{Process, is_gone};
use super::store::{StoreError, Which};
use super::{CALL, Register, identity, now};
use crate::protocol::report::{EndReason, Ended, Session};
use crate::supervise;

/// Interval between two sweeps, the first of which is at the start.
const EVERY: Duration = Duration::from_secs(30);

/// Sweeps until the broker stops.
pub(super) async fn keep(register: Arc<Register>) -> supervise::Ended {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        register.identity.is_certain().await;
        // The register has logged any error already.
        let _ = sweep(&register, now()).await;
    }
}

/// Ends the sessions that are over at `now`.
pub(super) async fn sweep(register: &Register, now: u64) -> Result<(), StoreError> {
    let deadline = || Instant::now() + CALL;
    if register.store.is_shared() {
        let server = &register.identity.server;
        let of_machine = register.all(&Which::Machine(server.machine.clone()), deadline()).await?;
        let names: BTreeSet<_> = of_machine.into_iter().map(|session| session.host).collect();
        let names = names.into_iter().filter(|name| *name != server.name).collect();
        identity::look_back(register, names).await?;
    }
    let sessions = register.mine(deadline()).await?;
    // One process may have many sessions.
    let mut seen = HashMap::new();
    let look = |pid, seen: &mut HashMap<u32, Process>| *seen.entry(pid).or_insert_with(|| Process::look(pid));
    for session in sessions {
        let reason = match is_gone(&session, &register.boot, |pid| look(pid, &mut seen)) {
            true => EndReason::ProcessGone,
            false if is_old(&session, register.settings.max_age, now) => EndReason::TooOld,
            false => continue,
        };
        let ended = Ended { at: now, reason, detail: String::new() };
        register.close(&session.id, &ended, deadline()).await?;
    }
    Ok(())
}

fn is_old(session: &Session, max_age: Option<Duration>, now: u64) -> bool {
    max_age.is_some_and(|age| u128::from(now.saturating_sub(session.since)) >= age.as_millis())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::store::suite::{ONE, session, soon};
    use super::super::tests::{register, settings};
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn sessions_end_with_their_process_or_with_their_time() {
        let (register, _folder) = register(settings());
        let boot = register.boot.clone();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let alive = |id: &str, pid: u32, since: u64| {
            let started = Process::look(pid).started();
            Session { host: "here".into(), pid, started, boot: boot.clone(), ..session(id, id, since) }
        };
        let me = std::process::id();
        let begun = now();
        let day = 86_400_000;
        let sessions = [
            alive("mine", me, begun),
            alive("child's", child.id(), begun),
            Session { started: 1, ..alive("somebody's before me", me, begun) },
            Session { boot: "another".into(), ..alive("before the boot", me, begun) },
            alive("old", me, begun - day),
            Session {
                host: "then".into(),
                ..alive("of this host when it had another name", 4_000_000, begun)
            },
        ];
        for session in &sessions {
            register.store.open(session, ONE, soon()).await.unwrap();
        }
        let open = async || {
            let open = register.all(&Which::All, soon()).await.unwrap();
            open.into_iter().map(|session| session.id).collect::<Vec<_>>()
        };
        let reason = async |id: &str| {
            let session = register.store.get(id, soon()).await.unwrap().unwrap();
            session.ended.map(|ended| ended.reason)
        };
        sweep(&register, begun).await.unwrap();
        assert_eq!(open().await, ["mine", "child's"]);
        assert_eq!(reason("of this host when it had another name").await, Some(EndReason::ProcessGone));
        assert_eq!(reason("somebody's before me").await, Some(EndReason::ProcessGone));
        assert_eq!(reason("before the boot").await, Some(EndReason::ProcessGone));
        assert_eq!(reason("old").await, Some(EndReason::TooOld));
        child.kill().unwrap();
        child.wait().unwrap();
        sweep(&register, begun + 1).await.unwrap();
        assert_eq!(open().await, ["mine"]);
        sweep(&register, begun + day).await.unwrap();
        assert_eq!(open().await, [""; 0]);
    }

    #[test]
    fn zero_is_never() {
        let session = session("a", "john", 1000);
        for (max_age, now, old) in
            [(None, u64::MAX, false), (Some(5), 5999, false), (Some(5), 6000, true), (Some(5), 0, false)]
        {
            assert_eq!(is_old(&session, max_age.map(Duration::from_secs), now), old, "{max_age:?} {now}");
        }
    }
}
