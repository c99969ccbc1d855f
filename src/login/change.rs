//! The steps of a password change: map the name, find the account, prove the present password, change it, and
//! explain a failure.
//!
//! A change is sent once. If its answer is lost, the change may have been made; if the server that answers
//! has not proved itself, it may not have been made. `pwdLastSet` on the machine connection decides both. If
//! it does not show the change in time, the outcome is unknown.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::decision::{Decision, Progress};
use super::logins::{Logins, Memory};
use super::passwords::{Attempt, Changes};
use super::refusal::Refusal;
use crate::checked::Checked;
use crate::directory::machine::Machine;
use crate::directory::passwords::change::Answer;
use crate::directory::passwords::last_set::LastSet;
use crate::directory::passwords::policy;
use crate::directory::passwords::policy::{Policy, Subject};
use crate::directory::people::person::Person;
use crate::protocol::{PasswordError, Passwords};
use crate::texts::Text;
use crate::verdict::Outcome;

/// Time reserved to read `pwdLastSet` when the answer does not arrive.
const RESERVE: Duration = Duration::from_millis(500);
/// Maximum time spent polling `pwdLastSet`, however much time is left.
const LOOKING: Duration = Duration::from_secs(3);
/// Pause before the second poll; it doubles before each further one.
const PAUSE: Duration = Duration::from_millis(100);

impl<M: Machine, P: Changes> Logins<M, P> {
    /// Checks that `present` is the password of the user who typed `name` and can be changed. Changes
    /// nothing.
    pub async fn probe_password(&self, name: &str, present: &str, deadline: Instant) -> Decision {
        let mut progress = Progress::default();
        let result = self.try_probe(name, present, deadline, &mut progress).await;
        progress.decide(result)
    }

    /// Changes the password of the user who typed `name`.
    pub async fn change_password(&self, name: &str, passwords: &Passwords, deadline: Instant) -> Decision {
        let mut progress = Progress::default();
        let result = self.try_change(name, passwords, deadline, &mut progress).await;
        progress.decide(result)
    }

    async fn try_probe(
        &self,
        name: &str,
        present: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(), Refusal> {
        let person = self.resolve(name, Memory::Avoided, deadline, progress).await?.1.person;
        let checked = self.passwords.probe(&person, present, deadline).await?;
        progress.password(&checked);
        if checked.is_final() {
            return Err(self.why_closed(&person, checked, deadline).await);
        }
        Ok(())
    }

    async fn try_change(
        &self,
        name: &str,
        passwords: &Passwords,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(), Refusal> {
        let (present, new) = (passwords.present.password()?, passwords.new.password().map_err(impossible)?);
        if present == new {
            let reason = "the new password is the present one; AD was not queried";
            return Err(unacceptable(reason, Text::NewSame));
        }
        let person = self.resolve(name, Memory::Avoided, deadline, progress).await?.1.person;
        let before = self.directory.last_set(&person, deadline).await.ok().flatten();
        let begun = Instant::now();
        let until =
            deadline.checked_sub(RESERVE).filter(|until| *until > begun + RESERVE).unwrap_or(deadline);
        // If a change can be observed, it is sent to the server that will be polled.
        let at = before.as_ref().map(LastSet::host);
        let (present, answer) = match self.passwords.change(&person, present, new, at, until).await? {
            Attempt::Sent { present, answer } => (present, answer),
            Attempt::Closed(checked) => {
                progress.password(&checked);
                return Err(self.why_closed(&person, checked, deadline).await);
            }
        };
        progress.password(&present);
        let rest = present.took + present.connect.unwrap_or_default();
        progress.step("change", begun.elapsed().saturating_sub(rest));
        match answer {
            Answer::Done if present.proven => Ok(()),
            Answer::Done => {
                let said = format!(
                    "{} says that the password was changed, and has not proved that it is a domain \
                     controller (its KDC offers no armour)",
                    present.dc
                );
                Ok(self.look(&person, before, &said, deadline).await?)
            }
            Answer::Refused(outcome, reason) => Err(Refusal::new(outcome, reason)),
            Answer::Policy { said, policy } => {
                Err(self.why_refused(&person, said, policy, new, deadline, progress).await)
            }
            Answer::Lost(cause) => {
                let lost = format!("the new password was sent and the answer is lost ({cause})");
                self.look(&person, before, &lost, deadline).await?;
                progress.notes.push(format!("{lost}, but pwdLastSet shows that it was changed"));
                Ok(())
            }
        }
    }

    /// Explains why the present password does not permit a change.
    async fn why_closed(&self, person: &Person, checked: Checked, deadline: Instant) -> Refusal {
        let before_proof = checked.before_proof;
        let refusal = self.why_rejected(person, checked, deadline).await;
        if before_proof { refusal.before_proof() } else { refusal }
    }

    async fn why_rejected(&self, person: &Person, checked: Checked, deadline: Instant) -> Refusal {
        let Checked { outcome, reason, unexplained, .. } = checked;
        let refusal = Refusal::new(outcome, reason);
        if !unexplained {
            return refusal;
        }
        // The KDC rejects the account without a reason. A password that must be changed is not the reason.
        match self.directory.account(person, deadline).await {
            Ok(account) => {
                let state = account.refusal((self.clock)(), &self.host);
                let reason = state.filter(|outcome| !outcome.wants_new_password());
                Refusal { outcome: reason.unwrap_or(refusal.outcome), ..refusal }
            }
            Err(error) => error.into(),
        }
    }

    /// Explains why AD rejects the new password.
    async fn why_refused(
        &self,
        person: &Person,
        said: String,
        policy: Option<Policy>,
        new: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Refusal {
        let begun = Instant::now();
        let rules = self.directory.password_rules(person, deadline).await;
        progress.step("policy", begun.elapsed());
        let nothing = Subject { sam: person.sam.clone(), ..Subject::default() };
        let (subject, read) = match rules {
            Ok((subject, read)) => {
                let unreadable = |name| format!("the machine account may not read the policy {name}");
                (subject, read.map_err(unreadable))
            }
            Err(error) => (nothing, Err(format!("the policy could not be read: {error}"))),
        };
        let policy = policy.map_or(read, Ok).map_err(|problem| progress.notes.push(problem)).ok();
        let text = policy::refusal(&said, policy.as_ref(), new, &subject, (self.clock)());
        Refusal { text, ..Refusal::new(Outcome::PasswordRefused, said) }
    }

    /// Polls AD until it shows that the password was set since `before`. `cause` says why the answer itself
    /// is not enough.
    ///
    /// # Errors
    /// Returns [`Outcome::ChangeUnknown`] if AD does not show the change in time.
    async fn look(
        &self,
        person: &Person,
        before: Option<LastSet>,
        cause: &str,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let Some(before) = before else {
            let reason = format!("{cause}; pwdLastSet could not be read before the change");
            return Err(Refusal::new(Outcome::ChangeUnknown, reason));
        };
        let until = deadline.min(Instant::now() + LOOKING);
        let mut pause = PAUSE;
        loop {
            let now = self.directory.last_set(person, until).await;
            if now.is_ok_and(|now| now.is_some_and(|now| now.is_after(&before))) {
                return Ok(());
            }
            if Instant::now() + pause >= until {
                let reason = format!("{cause}; pwdLastSet does not show that it was changed");
                return Err(Refusal::new(Outcome::ChangeUnknown, reason));
            }
            sleep(pause).await;
            pause *= 2;
        }
    }
}

/// Builds the refusal of a new password that AD would reject too; `text` is for the user.
fn unacceptable(reason: impl ToString, text: Text) -> Refusal {
    Refusal { text: Some(text), ..Refusal::new(Outcome::PasswordRefused, reason) }
}

/// Builds the refusal of a new password that no account can have.
fn impossible(error: PasswordError) -> Refusal {
    let text = match error {
        PasswordError::Empty => Text::NewEmpty,
        PasswordError::TooLong => Text::NewTooLong,
        PasswordError::Nul | PasswordError::NotUtf8 => Text::NewCharacters,
    };
    unacceptable(format!("of the new one: {error}; AD was not queried"), text)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::time::SystemTime;

    use super::*;
    use crate::checked::Method;
    use crate::directory::entry::Entry;
    use crate::directory::people::Directory;
    use crate::directory::scripted::{Answer as Found, Scripted, config, state as state_of, unreachable};
    use crate::protocol::Secret;

    const BY_NAME: &str = "(userPrincipalName=john@acme.com)(sAMAccountName=john)";
    const BY_GUID: &str = "<GUID=01010101-0101-0101-0101-010101010101>";
    const PRESENT: &str = "0ld-secret";
    const NEW: &str = "N3w-secret";
    /// A new password with the account's name in it.
    const NAMED: &str = "1-John-secret";
    /// The cause of a lost answer.
    const LOST: &str = "ad.acme.com: closed";

    struct Expected {
        /// The answers to the expected attempts, in order.
        attempts: Mutex<VecDeque<Result<Attempt, Refusal>>>,
        /// The duration of each.
        took: Duration,
        /// The new password of each.
        new: &'static str,
    }

    impl Expected {
        fn next(&self) -> Result<Attempt, Refusal> {
            self.attempts.lock().unwrap().pop_front().expect("one attempt too many")
        }
    }

    impl Changes for Expected {
        async fn probe(&self, person: &Person, present: &str, _: Instant) -> Result<Checked, Refusal> {
            assert_eq!((person.sam.as_str(), present), ("john", PRESENT));
            self.next().map(|attempt| match attempt {
                Attempt::Closed(checked) => checked,
                Attempt::Sent { .. } => panic!("a probe sends nothing"),
            })
        }

        async fn change(
            &self,
            person: &Person,
            present: &str,
            new: &str,
            at: Option<&str>,
            deadline: Instant,
        ) -> Result<Attempt, Refusal> {
            assert_eq!((person.sam.as_str(), present, new), ("john", PRESENT, self.new));
            assert!(at.is_none_or(|dc| dc == "ad.acme.com"), "{at:?}");
            let left = deadline - Instant::now();
            assert!(left <= Duration::from_secs(5) - RESERVE, "{left:?} leaves no time for a look");
            sleep(self.took).await;
            self.next()
        }
    }

    fn logins(
        searches: impl IntoIterator<Item = Found>,
        attempts: impl IntoIterator<Item = Result<Attempt, Refusal>>,
    ) -> Logins<Scripted, Expected> {
        let config = config("");
        Logins {
            directory: Directory::new(Scripted::new(searches), &config),
            names: config.names,
            passwords: Expected {
                attempts: Mutex::new(attempts.into_iter().collect()),
                took: Duration::ZERO,
                new: NEW,
            },
            host: "XCALLY".into(),
            warn: Duration::ZERO,
            clock: SystemTime::now,
        }
    }

    fn checked(outcome: Outcome) -> Checked {
        Checked {
            method: Method::Kerberos,
            outcome,
            reason: "said so".into(),
            unexplained: false,
            before_proof: false,
            dc: "ad.acme.com".into(),
            proven: true,
            unanswered: Vec::new(),
            connect: None,
            took: Duration::from_millis(4),
        }
    }

    fn sent(answer: Answer) -> Result<Attempt, Refusal> {
        Ok(Attempt::Sent { present: checked(Outcome::Success), answer })
    }

    /// The answer of a server that has not proved itself.
    fn unproven(answer: Answer) -> Result<Attempt, Refusal> {
        Ok(Attempt::Sent { present: Checked { proven: false, ..checked(Outcome::Success) }, answer })
    }

    fn john() -> Entry {
        Entry::new("CN=John")
            .with("objectGUID", [vec![1; 16]])
            .with("sAMAccountName", ["john"])
            .with("userAccountControl", ["512"])
    }

    fn found() -> Found {
        (BY_NAME, Ok(vec![john()]))
    }

    fn last_set(ticks: &'static str) -> Found {
        (BY_GUID, Ok(vec![Entry::new("CN=John").with("pwdLastSet", [ticks])]))
    }

    fn pair(present: &str, new: &str) -> Passwords {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        Passwords { present: secret(present), new: secret(new) }
    }

    async fn decided(logins: &Logins<Scripted, Expected>, both: &Passwords) -> Decision {
        logins.change_password("john", both, Instant::now() + Duration::from_secs(5)).await
    }

    /// Changes a password; every expected search must have been made.
    async fn change(
        searches: impl IntoIterator<Item = Found>,
        attempts: impl IntoIterator<Item = Result<Attempt, Refusal>>,
    ) -> Decision {
        let logins = logins(searches, attempts);
        let decision = decided(&logins, &pair(PRESENT, NEW)).await;
        logins.directory.machine().is_finished();
        assert!(logins.passwords.attempts.lock().unwrap().is_empty(), "an attempt was not made");
        decision
    }

    #[tokio::test]
    async fn a_change_that_is_made_asks_for_nothing_else() {
        let Decision { verdict, dc, method, .. } =
            change([found(), last_set("100")], [sent(Answer::Done)]).await;
        assert_eq!((verdict.outcome, verdict.reason.as_str(), verdict.text), (Outcome::Success, "", None));
        assert_eq!((dc.as_deref(), method), (Some("ad.acme.com"), Some(Method::Kerberos)));
        assert_eq!(verdict.principal.as_deref(), Some("john@acme.com"));
        let steps: Vec<_> = verdict.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(steps, ["resolve", "kerberos", "change"]);
    }

    /// Some of the time stays for a look at `pwdLastSet`, unless so little is left that the change needs it.
    #[tokio::test(start_paused = true)]
    async fn time_for_a_look_is_kept_back_unless_it_is_short() {
        struct Until(Mutex<Option<Duration>>);
        impl Changes for Until {
            async fn probe(&self, _: &Person, _: &str, _: Instant) -> Result<Checked, Refusal> {
                panic!("nobody probes")
            }
            async fn change(
                &self,
                _: &Person,
                _: &str,
                _: &str,
                _: Option<&str>,
                deadline: Instant,
            ) -> Result<Attempt, Refusal> {
                *self.0.lock().unwrap() = Some(deadline - Instant::now());
                sent(Answer::Done)
            }
        }
        let tick = Duration::from_millis(1);
        let cases = [
            (Duration::from_secs(5), Duration::from_secs(5) - RESERVE),
            (2 * RESERVE + tick, RESERVE + tick),
            (2 * RESERVE, 2 * RESERVE),
            (RESERVE, RESERVE),
        ];
        for (left, expected) in cases {
            let Logins { names, directory, host, warn, clock, .. } = logins([found(), last_set("100")], []);
            let logins = Logins { names, directory, passwords: Until(Mutex::default()), host, warn, clock };
            let decision = logins.change_password("john", &pair(PRESENT, NEW), Instant::now() + left).await;
            assert!(decision.verdict.outcome.is_success(), "{decision:?}");
            assert_eq!(*logins.passwords.0.lock().unwrap(), Some(expected), "{left:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_step_of_the_change_is_without_the_check_and_its_connection() {
        let present = Checked { connect: Some(Duration::from_millis(20)), ..checked(Outcome::Success) };
        let mut logins =
            logins([found(), last_set("100")], [Ok(Attempt::Sent { present, answer: Answer::Done })]);
        logins.passwords.took = Duration::from_millis(100);
        let verdict = decided(&logins, &pair(PRESENT, NEW)).await.verdict;
        let step = verdict.steps.iter().find(|step| step.name == "change");
        // 100 ms less 4 ms for the check and 20 ms for its connection.
        assert_eq!(step.map(|step| step.micros), Some(76_000), "{verdict:?}");
    }

    #[tokio::test]
    async fn nobody_is_remembered() {
        let logins = logins(
            [found(), last_set("100"), found(), last_set("100")],
            [sent(Answer::Done), sent(Answer::Done)],
        );
        for _ in 0..2 {
            assert!(decided(&logins, &pair(PRESENT, NEW)).await.verdict.outcome.is_success());
        }
        logins.directory.machine().is_finished();
    }

    #[tokio::test]
    async fn what_can_never_be_is_sent_nowhere() {
        let long = "x".repeat(1025);
        let own = "Your new password is the same as your current one.";
        let cases = [
            (pair(PRESENT, PRESENT), Outcome::PasswordRefused, Some(own)),
            (pair(PRESENT, ""), Outcome::PasswordRefused, Some("Your new password is empty.")),
            (pair(PRESENT, &long), Outcome::PasswordRefused, Some("Your new password is too long.")),
            (
                pair(PRESENT, "a\0b"),
                Outcome::PasswordRefused,
                Some("Your new password contains characters that are not allowed in a password."),
            ),
            (pair("", NEW), Outcome::WrongPassword, None),
            (pair("a\0b", NEW), Outcome::WrongPassword, None),
        ];
        for (both, outcome, text) in cases {
            let verdict = decided(&logins([], []), &both).await.verdict;
            assert_eq!((verdict.outcome, verdict.text.as_deref()), (outcome, text), "{}", verdict.reason);
        }
    }

    #[tokio::test]
    async fn a_present_password_that_opens_nothing_is_the_outcome() {
        let cases = [Outcome::WrongPassword, Outcome::Disabled, Outcome::LockedOut, Outcome::Refused];
        for outcome in cases {
            let decision = change([found(), last_set("100")], [Ok(Attempt::Closed(checked(outcome)))]).await;
            assert_eq!((decision.verdict.outcome, decision.verdict.reason.as_str()), (outcome, "said so"));
        }
        let silent = Refusal::new(Outcome::Unavailable, "no KDC");
        let decision = change([found(), last_set("100")], [Err(silent)]).await;
        assert_eq!(decision.verdict.outcome, Outcome::Unavailable);
    }

    #[tokio::test]
    async fn why_the_kdc_revokes_an_account_its_state_tells() {
        let unexplained = || Ok(Attempt::Closed(Checked { unexplained: true, ..checked(Outcome::Refused) }));
        let state = |attribute, value: &'static str| {
            (BY_GUID, Ok(vec![state_of(Entry::new("CN=John").with(attribute, [value]))]))
        };
        let cases = [
            (state("msDS-User-Account-Control-Computed", "16"), Outcome::LockedOut),
            (state("accountExpires", "1"), Outcome::AccountExpired),
            // The change exists for this state.
            (state("pwdLastSet", "0"), Outcome::Refused),
            (state("description", "fine"), Outcome::Refused),
            ((BY_GUID, Err(unreachable())), Outcome::Unavailable),
        ];
        for (state, outcome) in cases {
            let decision = change([found(), last_set("100"), state], [unexplained()]).await;
            assert_eq!(decision.verdict.outcome, outcome);
        }
    }

    #[tokio::test]
    async fn a_probe_accepts_expired_passwords() {
        let cases = [
            (Outcome::Success, Outcome::Success),
            (Outcome::PasswordExpired, Outcome::Success),
            (Outcome::MustChange, Outcome::Success),
            (Outcome::WrongPassword, Outcome::WrongPassword),
            (Outcome::Disabled, Outcome::Disabled),
            (Outcome::AccountExpired, Outcome::AccountExpired),
            (Outcome::LockedOut, Outcome::LockedOut),
        ];
        for (said, outcome) in cases {
            let logins = logins([found()], [Ok(Attempt::Closed(checked(said)))]);
            let soon = Instant::now() + Duration::from_secs(5);
            assert_eq!(logins.probe_password("john", PRESENT, soon).await.verdict.outcome, outcome, "{said}");
        }
    }

    fn domain() -> Found {
        let head = Entry::new("DC=acme,DC=com").with("minPwdLength", ["12"]).with("minPwdAge", ["0"]);
        let head = head.with("pwdHistoryLength", ["24"]).with("pwdProperties", ["1"]);
        ("own dc=acme,dc=com", Ok(vec![head]))
    }

    #[tokio::test]
    async fn a_refused_password_is_told_in_words() {
        let refused = |policy| sent(Answer::Policy { said: "0000052D".into(), policy });
        let own = Policy { length: 20, ..Policy::default() };
        let cases = [
            (
                vec![last_set("100"), domain()],
                None,
                Some("Your new password must have at least 12 characters."),
            ),
            // The text of the answer takes precedence.
            (
                vec![last_set("100"), domain()],
                Some(own.clone()),
                Some("Your new password must have at least 20 characters."),
            ),
            (
                vec![(BY_GUID, Err(unreachable()))],
                Some(own),
                Some("Your new password must have at least 20 characters."),
            ),
            (vec![(BY_GUID, Err(unreachable()))], None, None),
        ];
        for (searches, policy, text) in cases {
            let searches = [found(), last_set("100")].into_iter().chain(searches);
            let verdict = change(searches, [refused(policy)]).await.verdict;
            assert_eq!((verdict.outcome, verdict.text.as_deref()), (Outcome::PasswordRefused, text));
            assert!(verdict.reason.starts_with("0000052D"), "{}", verdict.reason);
        }
        // The account's name is known also if AD cannot be read.
        let complex = Policy { complex: true, ..Policy::default() };
        let unread = [found(), last_set("100"), (BY_GUID, Err(unreachable()))];
        let mut logins = logins(unread, [refused(Some(complex))]);
        logins.passwords.new = NAMED;
        let text = decided(&logins, &pair(PRESENT, NAMED)).await.verdict.text;
        assert!(text.as_deref().is_some_and(|text| text.contains("your name")), "{text:?}");
        let forbidden = sent(Answer::Refused(Outcome::ChangeForbidden, "no".into()));
        let verdict = change([found(), last_set("100")], [forbidden]).await.verdict;
        assert_eq!((verdict.outcome, verdict.text), (Outcome::ChangeForbidden, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_or_unproven_answer_is_unknown_unless_the_password_was_seen_to_be_set() {
        let lost = || [sent(Answer::Lost(LOST.into()))];
        // As many polls as time permits: after 0, 100, 300, 700 and 1500 ms.
        let same = || std::iter::repeat_with(|| last_set("100"));
        let cases = [
            (vec![last_set("200")], Outcome::Success),
            (same().take(3).chain([last_set("200")]).collect(), Outcome::Success),
            (same().take(5).collect(), Outcome::ChangeUnknown),
            (same().take(4).chain([(BY_GUID, Err(unreachable()))]).collect(), Outcome::ChangeUnknown),
        ];
        for (looks, outcome) in cases {
            let searches = [found(), last_set("100")].into_iter().chain(looks);
            let verdict = change(searches, lost()).await.verdict;
            assert_eq!(verdict.outcome, outcome, "{}", verdict.reason);
            assert!(verdict.reason.contains(LOST), "{}", verdict.reason);
        }
        // The answer of an unproven server does not count: it may be forged.
        let done = || [unproven(Answer::Done)];
        let cases = [
            (vec![last_set("200")], Outcome::Success),
            (same().take(3).chain([last_set("200")]).collect(), Outcome::Success),
            (same().take(5).collect(), Outcome::ChangeUnknown),
        ];
        for (looks, outcome) in cases {
            let searches = [found(), last_set("100")].into_iter().chain(looks);
            let verdict = change(searches, done()).await.verdict;
            assert_eq!(verdict.outcome, outcome, "{}", verdict.reason);
            assert_eq!(
                verdict.reason.contains("has not proved"),
                !outcome.is_success(),
                "{}",
                verdict.reason
            );
        }
        let verdict = change([found(), (BY_GUID, Err(unreachable()))], done()).await.verdict;
        assert_eq!(verdict.outcome, Outcome::ChangeUnknown);
        // An account that must change its password has a starting value, too.
        let verdict = change([found(), last_set("0"), last_set("200")], lost()).await.verdict;
        assert_eq!(verdict.outcome, Outcome::Success);
        // Without a starting value no change can be observed, and AD is not polled.
        for before in [(BY_GUID, Err(unreachable())), (BY_GUID, Ok(vec![Entry::new("CN=John")]))] {
            let verdict = change([found(), before], lost()).await.verdict;
            assert_eq!(verdict.outcome, Outcome::ChangeUnknown);
        }
    }
}
