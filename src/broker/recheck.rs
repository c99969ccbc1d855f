//! Reads the accounts of the users with a session on this server again, and ends the sessions of users
//! without access.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::directory::machine::Machine;
use crate::directory::people::DirectoryError;
use crate::directory::people::standing::{BATCH, Standing};
use crate::log::{Level, Line};
use crate::login::logins::Logins;
use crate::protocol::report::{self, EndReason};
use crate::sessions::store::StoreError;
use crate::sessions::{CALL, Register, now};
use crate::supervise::Ended;
use crate::verdict::Outcome;

/// Maximum time from the start to the first recheck; a shorter `sessions.recheck` applies instead.
const FIRST: Duration = Duration::from_secs(30);
/// Maximum time for one batch of accounts.
const READING: Duration = Duration::from_secs(20);
/// Pause between two batches, so that logins have the connection to themselves.
const PAUSE: Duration = Duration::from_millis(200);
/// Maximum number of searches for the groups of a user at the same time.
const AT_ONCE: usize = 4;

/// Reason why accounts could not be read again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Directory(#[from] DirectoryError),
}

impl Trouble {
    /// Returns the line for the log, which names the part that did not answer.
    fn line(&self) -> Line {
        let until = match self {
            Trouble::Store(_) => "the register of sessions",
            Trouble::Directory(_) => "AD",
        };
        let line = Line::new("recheck").with("problem", self);
        line.with("consequence", format!("all users stay logged in until {until} answers"))
    }
}

/// Repeats the recheck until the broker stops.
pub(super) async fn keep<M, P>(register: Arc<Register>, logins: Arc<Logins<M, P>>) -> Ended
where
    M: Machine + 'static,
    P: Send + Sync + 'static,
{
    let Some(every) = register.settings().recheck else { return Ok(()) };
    let mut next = Instant::now() + every.min(FIRST);
    loop {
        sleep_until(next).await;
        next = Instant::now() + every;
        let done = recheck(&register, &logins).await;
        register.note_recheck(done.as_ref().err().map(ToString::to_string));
        if let Err(trouble) = done {
            register.log().complain(Level::Warning, "recheck", trouble.line());
        }
    }
}

/// Reads all accounts once and ends the sessions of users without access.
async fn recheck<M, P>(register: &Arc<Register>, logins: &Arc<Logins<M, P>>) -> Result<(), Trouble>
where
    M: Machine + 'static,
    P: Send + Sync + 'static,
{
    let mut sessions: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for session in register.mine(Instant::now() + CALL).await? {
        if let Ok(guid) = session.guid.parse() {
            sessions.entry(guid).or_default().push(session.id);
        }
    }
    let guids: Vec<_> = sessions.keys().copied().collect();
    for (turn, batch) in guids.chunks(BATCH).enumerate() {
        if turn > 0 {
            sleep(PAUSE).await;
        }
        for (guid, outcome) in expelled(register, logins, batch.iter().copied().collect()).await? {
            let ended =
                report::Ended { at: now(), reason: EndReason::Refused, detail: outcome.name().to_owned() };
            for id in sessions.get(&guid).into_iter().flatten() {
                register.close(id, &ended, Instant::now() + CALL).await?;
            }
        }
    }
    Ok(())
}

/// Returns those of `guids` that no longer have access, each with the outcome.
async fn expelled<M, P>(
    register: &Register,
    logins: &Arc<Logins<M, P>>,
    guids: BTreeSet<Uuid>,
) -> Result<Vec<(Uuid, Outcome)>, Trouble>
where
    M: Machine + 'static,
    P: Send + Sync + 'static,
{
    let deadline = Instant::now() + READING;
    let complain = |guid: Uuid, problem: &str| {
        let line = Line::new("recheck").with("account", guid).with("problem", problem);
        register.log().complain(Level::Warning, "recheck of one", line);
    };
    let mut expelled = Vec::new();
    let mut judging = JoinSet::new();
    let mut judged = Vec::new();
    for (guid, standing) in logins.directory.standing(&guids, deadline).await? {
        match standing {
            Standing::Gone => expelled.push((guid, Outcome::UnknownUser)),
            Standing::Unreadable(problem) => complain(guid, &problem),
            Standing::There(person, account) => {
                if judging.len() >= AT_ONCE {
                    judged.extend(judging.join_next().await);
                }
                let logins = logins.clone();
                judging.spawn(async move { (guid, logins.expulsion(&person, &account, deadline).await) });
            }
        }
    }
    judged.extend(judging.join_all().await.into_iter().map(Ok));
    for (guid, outcome) in judged.into_iter().flatten() {
        match outcome {
            Ok(outcome) => expelled.extend(outcome.map(|outcome| (guid, outcome))),
            Err(error) => complain(guid, &error.to_string()),
        }
    }
    Ok(expelled)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::directory::entry::Entry;
    use crate::directory::machine::MachineError;
    use crate::directory::people::Directory;
    use crate::directory::scripted::{Answer, Scripted, account, config, forest, guid, unreachable};
    use crate::sessions::rule::Admission;
    use crate::sessions::store::Position;
    use crate::sessions::store::suite::{session, soon};
    use crate::sessions::tests::{register, settings};

    const ROOT: &str = "DC=acme,DC=com";

    /// Rechecks two users, of whom user 1 has two sessions; returns the result and the sessions that ended.
    async fn rechecked(
        config_more: &str,
        answers: impl IntoIterator<Item = Answer>,
    ) -> (Result<(), Trouble>, Vec<(String, String)>) {
        let (register, _folder) = register(settings());
        let config = config(config_more);
        let logins = Arc::new(Logins {
            directory: Directory::new(Scripted::new(answers), &config),
            names: config.names,
            passwords: (),
            host: "XCALLY".into(),
            warn: Duration::ZERO,
            clock: SystemTime::now,
        });
        for (id, number) in [("1a", 1), ("1b", 1), ("2", 2)] {
            let session = session(id, &guid(number).to_string(), now());
            register.store().open(&session, Admission::Unlimited, soon()).await.unwrap();
        }
        let before = register.store().events(&Position::Now, 1, soon()).await.unwrap().cursor;
        let done = recheck(&register, &logins).await;
        logins.directory.machine().is_finished();
        let events = register.store().events(&Position::After(before), 10, soon()).await.unwrap().list;
        let ended = events.into_iter().map(|event| {
            let ended = event.session.ended.unwrap();
            assert_eq!(ended.reason, EndReason::Refused);
            (event.session.id, ended.detail)
        });
        (done, ended.collect())
    }

    fn says(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(id, why)| ((*id).to_owned(), (*why).to_owned())).collect()
    }

    #[test]
    fn the_line_names_the_part_that_did_not_answer() {
        let store = Trouble::from(StoreError::Unavailable("redis.acme.com: no answer".into()));
        let directory = Trouble::from(DirectoryError::from(MachineError::NoServer("none".into())));
        for (trouble, part, other) in [
            (store, "until the register of sessions answers", "AD"),
            (directory, "until AD answers", "register"),
        ] {
            let line = trouble.line();
            assert!(line.text().contains(part) && !line.text().contains(other), "{}", line.text());
        }
    }

    const BOTH: &str = "own dc=acme,dc=com (|(objectGUID=\\01\\01\\01\\01\\01\\01\\01\\01";

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_disabled_or_gone_loses_every_session_on_this_server() {
        let (done, ended) =
            rechecked("", [(BOTH, Ok(vec![account(1, ROOT, "514"), account(2, ROOT, "512")]))]).await;
        done.unwrap();
        assert_eq!(ended, says(&[("1a", "disabled"), ("1b", "disabled")]));

        let alone = || ("<GUID=02020202", Err(MachineError::NoSuchObject("x".into())));
        let none = || ("catalogue  (|(objectGUID=\\02", Ok(vec![]));
        let answers =
            forest().into_iter().chain([(BOTH, Ok(vec![account(1, ROOT, "512")])), none(), alone()]);
        let (done, ended) = rechecked("", answers).await;
        done.unwrap();
        assert_eq!(ended, says(&[("2", "unknown_user")]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn while_ad_is_silent_everybody_stays() {
        let (done, ended) = rechecked("", [(BOTH, Err(unreachable()))]).await;
        assert!(done.unwrap_err().to_string().contains("DNS does not answer"));
        assert_eq!(ended, []);
        // The entry of one account is incomplete.
        let unreadable = Entry::new("CN=1").with("objectGUID", [vec![1; 16]]);
        let (done, ended) = rechecked("", [(BOTH, Ok(vec![unreadable, account(2, ROOT, "514")]))]).await;
        done.unwrap();
        assert_eq!(ended, says(&[("2", "disabled")]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn groups_count_where_they_count_at_a_login() {
        const ALLOWED: [u8; 16] = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
        const OTHER: [u8; 16] = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0];
        let rules = "[login]\nallow_groups = [\"S-1-5-32-544\"]";
        let groups = |number, sid: [u8; 16]| {
            Ok(vec![account(number, ROOT, "512").with("tokenGroups", [sid.to_vec()])])
        };
        let both = || (BOTH, Ok(vec![account(1, ROOT, "512"), account(2, ROOT, "512")]));
        let allowed = || {
            let group = Entry::new("CN=Administrators,CN=Builtin,DC=acme,DC=com");
            let group = group.with("groupType", ["-2147483643"]).with("objectSid", [ALLOWED.to_vec()]);
            ("own dc=acme,dc=com (&(objectCategory=group)", Ok(vec![group]))
        };
        let answers =
            [both(), allowed(), ("<GUID=01010101", groups(1, ALLOWED)), ("<GUID=02020202", groups(2, OTHER))];
        let (done, ended) = rechecked(rules, answers).await;
        done.unwrap();
        assert_eq!(ended, says(&[("2", "not_allowed")]));
        // Groups that cannot be read grant no access and end no session.
        let answers =
            [both(), allowed(), ("<GUID=01010101", Err(unreachable())), ("<GUID=02020202", groups(2, OTHER))];
        let (done, ended) = rechecked(rules, answers).await;
        done.unwrap();
        assert_eq!(ended, says(&[("2", "not_allowed")]));
    }
}
