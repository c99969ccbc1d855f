//! The order of a login: map, find, bind and read the groups at the same time, decide.
//!
//! Exactly one bind is answered per login, whatever happens: AD counts wrong passwords. What AD does not tell
//! somebody with a wrong password, nobody is told here either, so groups only matter once the bind succeeded.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::ConfigError;
use crate::directory::pool::{Bound, Pool, PoolError};
use crate::directory::sid::Sid;
use crate::directory::{Account, Directory, DirectoryError, Found, GroupRules, Machine, Person};
use crate::name::{NameError, Rules};
use crate::verdict::{Outcome, Step, Verdict};

/// Who checks passwords.
pub trait Binds: Send + Sync {
    /// Binds as `dn`; see [`Pool::bind`].
    fn bind(
        &self,
        dn: &str,
        password: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Bound, PoolError>> + Send;
}

impl Binds for Pool {
    async fn bind(&self, dn: &str, password: &str, deadline: Instant) -> Result<Bound, PoolError> {
        Pool::bind(self, dn, password, deadline).await
    }
}

/// What became of a login, and what the log says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// For the module.
    pub verdict: Verdict,
    /// The domain controller that decided.
    pub dc: Option<String>,
}

/// Decides logins.
pub struct Logins<M, B> {
    /// How names are mapped.
    pub names: Rules,
    /// Who is who, and in which groups.
    pub directory: Directory<M>,
    /// Who checks passwords.
    pub binds: B,
    /// This host's NetBIOS name, for `userWorkstations`.
    pub host: String,
}

/// A refusal before AD has decided.
struct Refusal {
    outcome: Outcome,
    reason: String,
}

impl Refusal {
    fn new(outcome: Outcome, reason: impl ToString) -> Self {
        Refusal { outcome, reason: reason.to_string() }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Refusal::new(Outcome::Unmapped, error)
    }
}

impl From<DirectoryError> for Refusal {
    fn from(error: DirectoryError) -> Self {
        let outcome = match &error {
            DirectoryError::Unknown(_) => Outcome::UnknownUser,
            DirectoryError::Ambiguous { .. } => Outcome::Ambiguous,
            DirectoryError::Group(_) => Outcome::Misconfigured,
            DirectoryError::Machine(_) => Outcome::Unavailable,
        };
        Refusal::new(outcome, error)
    }
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        Refusal::new(Outcome::Unavailable, error)
    }
}

impl From<&ConfigError> for Decision {
    fn from(error: &ConfigError) -> Self {
        let outcome = match error {
            ConfigError::Broken(_) => Outcome::Misconfigured,
            ConfigError::NotJoined => Outcome::Unavailable,
        };
        Decision { verdict: Verdict::new(outcome, error.to_string()), dc: None }
    }
}

/// What is known so far of a login that is being decided.
#[derive(Default)]
struct Progress {
    principal: Option<String>,
    steps: Vec<Step>,
    dc: Option<String>,
    note: Option<String>,
}

impl Progress {
    fn step(&mut self, name: &str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.steps.push(Step { name: name.to_owned(), micros });
    }

    fn decide(self, result: Result<(), Refusal>) -> Decision {
        let (outcome, reason) = match result {
            Ok(()) => (Outcome::Success, String::new()),
            Err(refusal) => (refusal.outcome, refusal.reason),
        };
        let reasons = [Some(reason).filter(|reason| !reason.is_empty()), self.note];
        let reason = reasons.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let verdict = Verdict { outcome, principal: self.principal, reason, steps: self.steps };
        Decision { verdict, dc: self.dc }
    }
}

impl<M: Machine, B: Binds> Logins<M, B> {
    /// Whether the person who typed `name` and `password` may come in.
    pub async fn authenticate(&self, name: &str, password: &str, deadline: Instant) -> Decision {
        let mut progress = Progress::default();
        let result = self.try_authenticate(name, password, deadline, &mut progress).await;
        progress.decide(result)
    }

    /// Whether the account of `name`, who proved to be that person elsewhere, may come in.
    pub async fn account(&self, name: &str, deadline: Instant) -> Decision {
        self.inspect(name, deadline).await.0
    }

    /// The same, with the person and the state that it was decided by, as far as they could be read.
    pub async fn inspect(&self, name: &str, deadline: Instant) -> (Decision, Option<(Person, Account)>) {
        let mut progress = Progress::default();
        let mut read = None;
        let result = self.try_account(name, deadline, &mut progress, &mut read).await;
        (progress.decide(result), read)
    }

    async fn try_authenticate(
        &self,
        name: &str,
        password: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(), Refusal> {
        let found = self.resolve(name, deadline, progress).await?;
        let mut person = found.person;
        let mut bound = self.bind(&person, password, deadline, progress).await?;
        if found.remembered && may_be_stale(bound.0.outcome) {
            // The account may have been renamed or moved since its name was remembered. Only where nobody has
            // the old distinguished name can the first bind not have counted against anybody.
            let principal = self.names.principal(name)?;
            let fresh = self.directory.find_afresh(&principal, deadline).await?.person;
            if fresh.dn != person.dn && !self.directory.exists(&person.dn, deadline).await? {
                person = fresh;
                bound = self.bind(&person, password, deadline, progress).await?;
            }
        }
        let (bound, groups) = bound;
        if bound.outcome != Outcome::Success {
            return Err(Refusal::new(bound.outcome, bound.reason));
        }
        match groups {
            Some(groups) => groups,
            None => Ok(()),
        }
    }

    /// Binds, and meanwhile reads the groups where a rule asks for them. A refused bind does not wait for the groups.
    async fn bind(
        &self,
        person: &Person,
        password: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(Bound, Option<Result<(), Refusal>>), Refusal> {
        let begun = Instant::now();
        let bind = self.binds.bind(&person.dn, password, deadline);
        let (bound, groups) = if self.directory.has_group_rules() {
            let groups = self.membership(person, deadline);
            tokio::pin!(bind, groups);
            let (bound, early) = tokio::select! {
                biased;
                bound = &mut bind => (bound, None),
                early = &mut groups => (bind.await, Some(early)),
            };
            match (bound, early) {
                (Ok(bound), None) if bound.outcome == Outcome::Success => (Ok(bound), Some(groups.await)),
                other => other,
            }
        } else {
            (bind.await, None)
        };
        let bound = bound?;
        if let Some(connect) = bound.connect {
            progress.step("connect", connect);
        }
        progress.step("bind", bound.bind);
        let rest = begun.elapsed().saturating_sub(bound.bind + bound.connect.unwrap_or_default());
        if groups.is_some() {
            progress.step("groups, after the bind", rest);
        }
        progress.dc = Some(bound.dc.clone());
        Ok((bound, groups))
    }

    async fn try_account(
        &self,
        name: &str,
        deadline: Instant,
        progress: &mut Progress,
        read: &mut Option<(Person, Account)>,
    ) -> Result<(), Refusal> {
        let person = self.resolve(name, deadline, progress).await?.person;
        let begun = Instant::now();
        let account = self.directory.account(&person, deadline).await?;
        progress.step("state", begun.elapsed());
        let (_, account) = read.insert((person, account));
        if let Some(outcome) = account.refusal(std::time::SystemTime::now(), &self.host) {
            return Err(Refusal::new(outcome, "the account's state in AD"));
        }
        match &account.groups {
            Some(groups) => check_groups(groups, &self.directory.group_rules(deadline).await?),
            None if self.directory.has_group_rules() => {
                Err(Refusal::new(Outcome::Unavailable, "the machine account may not read tokenGroups"))
            }
            None => Ok(()),
        }
    }

    async fn resolve(
        &self,
        name: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<Found, Refusal> {
        let principal = self.names.principal(name)?;
        progress.principal = Some(principal.to_string());
        let begun = Instant::now();
        let found = self.directory.find(&principal, deadline).await?;
        progress.step(if found.remembered { "resolve, remembered" } else { "resolve" }, begun.elapsed());
        progress.note = found
            .hides
            .as_ref()
            .map(|dn| format!("{principal} is also the implicit name of {dn}, which it hides"));
        Ok(found)
    }

    async fn membership(&self, person: &Person, deadline: Instant) -> Result<(), Refusal> {
        let (rules, groups) =
            tokio::try_join!(self.directory.group_rules(deadline), self.directory.groups(person, deadline))?;
        check_groups(&groups, &rules)
    }
}

/// Outcomes that a bind with a distinguished name that no longer exists can have.
fn may_be_stale(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::WrongPassword | Outcome::UnknownUser | Outcome::Refused)
}

fn check_groups(groups: &[Sid], rules: &GroupRules) -> Result<(), Refusal> {
    if let Some(denied) = rules.deny.iter().find(|sid| groups.contains(sid)) {
        return Err(Refusal::new(Outcome::Denied, format!("member of {denied} (login.deny_groups)")));
    }
    if !rules.allow.is_empty() && !rules.allow.iter().any(|sid| groups.contains(sid)) {
        return Err(Refusal::new(Outcome::NotAllowed, "member of none of login.allow_groups"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::config::{Broker, Config, Domain, Login, Pool, Tls, TlsMode};
    use crate::directory::{Entry, MachineError, Search};
    use crate::name::NameMap;

    /// The directory of a test: what each search answers, by a part of its base or filter.
    #[derive(Default)]
    struct Scripted(Mutex<VecDeque<Answer>>);

    type Answer = (&'static str, Result<Vec<Entry>, MachineError>);

    impl Machine for Scripted {
        async fn search(&self, search: &Search, _: Instant) -> Result<Vec<Entry>, MachineError> {
            let mut script = self.0.lock().unwrap();
            let asked = format!("{} {}", search.base, search.filter);
            let at = script.iter().position(|(part, _)| asked.contains(part));
            script.remove(at.unwrap_or_else(|| panic!("nobody expected {asked}"))).unwrap().1
        }
    }

    /// The binds that are expected, in order, and their answers.
    #[derive(Default)]
    struct Expected(Mutex<VecDeque<(&'static str, Result<Outcome, PoolError>)>>);

    impl Binds for Expected {
        async fn bind(&self, dn: &str, password: &str, _: Instant) -> Result<Bound, PoolError> {
            assert_eq!(password, "secret");
            let (expected, answer) = self.0.lock().unwrap().pop_front().expect("one bind too many");
            assert_eq!(dn, expected);
            // Lets a search that runs beside it come first.
            tokio::task::yield_now().await;
            answer.map(|outcome| Bound {
                outcome,
                reason: String::new(),
                dc: "ad.acme.com".into(),
                connect: None,
                bind: Duration::from_millis(4),
            })
        }
    }

    fn config(login: Login) -> Config {
        let names = Rules {
            domain: "acme.com".into(),
            netbios: "ACME".into(),
            map: NameMap::parse("jd = john@acme.com").unwrap(),
            ..Rules::default()
        };
        Config {
            domain: Domain {
                name: "acme.com".into(),
                realm: "ACME.COM".into(),
                servers: vec![],
                base_dn: "dc=acme,dc=com".into(),
            },
            tls: Tls { mode: TlsMode::Auto, ca_file: None },
            names,
            map_file: "/dev/null".into(),
            login,
            broker: Broker { users: vec![], connections: 1 },
            pool: Pool { connections: 1, idle: Duration::from_secs(1) },
        }
    }

    fn logins(
        login: Login,
        searches: impl IntoIterator<Item = Answer>,
        binds: impl IntoIterator<Item = (&'static str, Result<Outcome, PoolError>)>,
    ) -> Logins<Scripted, Expected> {
        let config = config(login);
        let machine = Scripted(Mutex::new(searches.into_iter().collect()));
        Logins {
            directory: Directory::new(machine, &config),
            names: config.names,
            binds: Expected(Mutex::new(binds.into_iter().collect())),
            host: "XCALLY".into(),
        }
    }

    fn john(dn: &str) -> Entry {
        Entry::new(dn)
            .with("objectGUID", [vec![1; 16]])
            .with("sAMAccountName", ["john"])
            .with("userAccountControl", ["512"])
    }

    const BY_NAME: &str = "(userPrincipalName=john@acme.com)(sAMAccountName=john)";
    const BY_GUID: &str = "<GUID=01010101-0101-0101-0101-010101010101>";

    fn found() -> Answer {
        (BY_NAME, Ok(vec![john("CN=John")]))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn unreachable() -> MachineError {
        MachineError::NoServer("DNS does not answer".into())
    }

    async fn authenticate(logins: &Logins<Scripted, Expected>, name: &str) -> Verdict {
        let decision = logins.authenticate(name, "secret", soon()).await;
        assert!(logins.binds.0.lock().unwrap().is_empty(), "a bind was not made");
        decision.verdict
    }

    #[tokio::test]
    async fn what_the_bind_says_is_the_outcome() {
        for outcome in Outcome::ALL {
            // Nothing was remembered, so nothing is looked up again.
            let logins = logins(Login::default(), [found()], [("CN=John", Ok(*outcome))]);
            let verdict = authenticate(&logins, "John").await;
            assert_eq!(verdict.outcome, *outcome);
            assert_eq!(verdict.principal.as_deref(), Some("john@acme.com"));
        }
    }

    #[tokio::test]
    async fn nothing_is_bound_for_a_name_that_means_nobody() {
        let cases = [
            ("", None, Outcome::Unmapped),
            ("john@evil.example", None, Outcome::Unmapped),
            ("john", Some((BY_NAME, Ok(vec![]))), Outcome::UnknownUser),
            ("john", Some((BY_NAME, Err(unreachable()))), Outcome::Unavailable),
            ("john", Some((BY_NAME, Err(MachineError::TooMany(8)))), Outcome::Ambiguous),
        ];
        for (name, search, outcome) in cases {
            let logins = logins(Login::default(), search, []);
            assert_eq!(authenticate(&logins, name).await.outcome, outcome, "{name}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_does_not_answer_the_bind_denies() {
        let silent = PoolError::Unanswered("ad: refused".into());
        let logins = logins(Login::default(), [found()], [("CN=John", Err(silent))]);
        let verdict = authenticate(&logins, "jd").await;
        assert_eq!(verdict.outcome, Outcome::Unavailable);
        assert!(verdict.reason.contains("ad: refused"));
    }

    #[tokio::test]
    async fn a_remembered_name_saves_the_search() {
        let binds = [("CN=John", Ok(Outcome::Success)), ("CN=John", Ok(Outcome::Success))];
        let logins = logins(Login::default(), [found()], binds);
        assert!(logins.authenticate("john", "secret", soon()).await.verdict.outcome.is_success());
        assert!(authenticate(&logins, "john").await.outcome.is_success());
    }

    #[tokio::test]
    async fn a_wrong_password_on_a_remembered_name_is_bound_once() {
        let binds = [("CN=John", Ok(Outcome::Success)), ("CN=John", Ok(Outcome::WrongPassword))];
        let logins = logins(Login::default(), [found(), found()], binds);
        logins.authenticate("john", "secret", soon()).await;
        assert_eq!(authenticate(&logins, "john").await.outcome, Outcome::WrongPassword);
    }

    #[tokio::test]
    async fn a_moved_account_is_bound_again_where_nobody_has_its_old_name() {
        let moved = || (BY_NAME, Ok(vec![john("CN=John,OU=New")]));
        let gone = ("CN=John (objectClass=*)", Err(MachineError::NoSuchObject("CN=John".into())));
        let taken = ("CN=John (objectClass=*)", Ok(vec![Entry::new("CN=John")]));
        let first = || [("CN=John", Ok(Outcome::Success)), ("CN=John", Ok(Outcome::WrongPassword))];

        let again = first().into_iter().chain([("CN=John,OU=New", Ok(Outcome::Success))]);
        let there = logins(Login::default(), [found(), moved(), gone], again);
        there.authenticate("john", "secret", soon()).await;
        assert!(authenticate(&there, "john").await.outcome.is_success());

        let other = logins(Login::default(), [found(), moved(), taken], first());
        other.authenticate("john", "secret", soon()).await;
        assert_eq!(authenticate(&other, "john").await.outcome, Outcome::WrongPassword);
    }

    const ALLOWED: &str = "S-1-5-21-1-2-3-1001";
    const DENIED: &str = "S-1-5-21-1-2-3-1002";

    fn rules() -> Login {
        Login { allow_groups: vec![ALLOWED.into()], deny_groups: vec![DENIED.into()] }
    }

    fn member_of(sids: &[&str]) -> Answer {
        let binary = |sid: &&str| {
            let id: u32 = sid.rsplit('-').next().unwrap().parse().unwrap();
            let mut bytes = vec![1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
            bytes.extend(id.to_le_bytes());
            bytes
        };
        (BY_GUID, Ok(vec![john("CN=John").with("tokenGroups", sids.iter().map(binary))]))
    }

    #[tokio::test]
    async fn groups_decide_only_after_the_right_password() {
        let other = "S-1-5-21-1-2-3-513";
        let cases = [
            (vec![ALLOWED, other], Outcome::Success, Outcome::Success),
            (vec![other], Outcome::Success, Outcome::NotAllowed),
            (vec![ALLOWED, DENIED], Outcome::Success, Outcome::Denied),
            (vec![other], Outcome::WrongPassword, Outcome::WrongPassword),
            (vec![ALLOWED, DENIED], Outcome::Disabled, Outcome::Disabled),
        ];
        for (groups, bound, outcome) in cases {
            let logins = logins(rules(), [found(), member_of(&groups)], [("CN=John", Ok(bound))]);
            assert_eq!(authenticate(&logins, "john").await.outcome, outcome, "{groups:?}");
        }
    }

    #[tokio::test]
    async fn groups_that_cannot_be_read_deny() {
        let cases = [
            (BY_GUID, Err(unreachable()), Outcome::Unavailable),
            (BY_GUID, Ok(vec![john("CN=John")]), Outcome::Unavailable),
            (BY_GUID, Ok(vec![]), Outcome::Unavailable),
        ];
        for (part, answer, outcome) in cases {
            let logins = logins(rules(), [found(), (part, answer)], [("CN=John", Ok(Outcome::Success))]);
            assert_eq!(authenticate(&logins, "john").await.outcome, outcome);
        }
        let named = Login { allow_groups: vec!["Agents".into()], deny_groups: vec![] };
        let nowhere = ("(sAMAccountName=Agents)", Ok(vec![]));
        let logins =
            logins(named, [found(), nowhere, member_of(&[ALLOWED])], [("CN=John", Ok(Outcome::Success))]);
        let verdict = authenticate(&logins, "john").await;
        assert_eq!(verdict.outcome, Outcome::Misconfigured);
        assert!(verdict.reason.contains("\"Agents\" does not exist"), "{}", verdict.reason);
    }

    #[tokio::test]
    async fn an_account_check_reads_the_state_and_binds_nothing() {
        let with = |flags: &'static str| {
            let entry = john("CN=John");
            let kept = Entry::new(entry.dn()).with("userAccountControl", [flags]);
            (BY_GUID, Ok(vec![kept.with("tokenGroups", [vec![1, 1, 0, 0, 0, 0, 0, 5, 9, 0, 0, 0]])]))
        };
        let cases = [
            (Login::default(), "512", Outcome::Success),
            (Login::default(), "514", Outcome::Disabled),
            (rules(), "514", Outcome::Disabled),
            (rules(), "512", Outcome::NotAllowed),
        ];
        for (login, flags, outcome) in cases {
            let logins = logins(login, [found(), with(flags)], []);
            assert_eq!(logins.account("john", soon()).await.verdict.outcome, outcome, "{flags}");
        }
    }
}
