use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use super::tried::{CONFIRMATION, WARNING};
use super::*;
use crate::config::{Config, Join, Login};
use crate::directory::entry::Entry;
use crate::directory::machine::MachineError;
use crate::directory::passwords::pool::PoolError;
use crate::directory::people::Directory;
use crate::directory::scripted::{self, Answer, Scripted, Slow, unreachable};
use crate::kerberos::CheckError;
use crate::name::NameMap;
use crate::verdict::Verdict;

/// The expected checks, in order, each with its name and its answer.
struct Expected {
    method: Method,
    /// The method that the check really uses.
    by: Method,
    /// True if AD decides before it has a proof of the password.
    before_proof: bool,
    /// The reason of each answer.
    reason: &'static str,
    /// Duration of the check's connection.
    connect: Option<Duration>,
    checks: Mutex<VecDeque<(&'static str, Result<Outcome, Refusal>)>>,
    unanswered: Vec<String>,
}

/// The KDC's answer for an account that may not log in, without the reason.
const REVOKED: Outcome = Outcome::Refused;

impl Passwords for Expected {
    fn method(&self, _: &Person) -> Method {
        self.method
    }

    fn binds_only(&self) -> bool {
        false
    }

    async fn check(&self, person: &Person, password: &str, _: Instant) -> Result<Checked, Refusal> {
        assert_eq!(password, "secret");
        let (expected, answer) = self.checks.lock().unwrap().pop_front().expect("one check too many");
        let name = match self.by {
            Method::Ldap => &person.dn,
            Method::Kerberos => &person.sam,
        };
        assert_eq!(name, expected);
        // Lets a concurrent search come first.
        tokio::task::yield_now().await;
        answer.map(|outcome| Checked {
            method: self.by,
            outcome,
            reason: self.reason.to_owned(),
            unexplained: self.by == Method::Kerberos
                && (outcome == REVOKED
                    || outcome == Outcome::AccountRestriction
                    || outcome.wants_new_password()),
            before_proof: self.before_proof,
            dc: "ad.acme.com".into(),
            proven: true,
            unanswered: self.unanswered.clone(),
            connect: self.connect,
            took: Duration::from_millis(4),
        })
    }
}

/// The time of every test, years before the present.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_100_000_000)
}

/// A time as AD writes it: units of 100 ns since 1601.
fn ticks(time: SystemTime) -> String {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    ((since_1970 + 11_644_473_600) * 10_000_000).to_string()
}

fn config(login: Login) -> Config {
    let join = Join { domain: Some("acme.com".into()), ..Join::default() };
    let mut config = Config { login, ..Config::of_join(&join).unwrap() };
    config.names.map = NameMap::parse("jd = john@acme.com").unwrap();
    config
}

/// Creates the settings of an empty file.
fn plain() -> Login {
    let join = Join { domain: Some("acme.com".into()), ..Join::default() };
    Config::of_join(&join).unwrap().login
}

type Check = (&'static str, Result<Outcome, Refusal>);

fn logins_by(
    method: Method,
    login: Login,
    searches: impl IntoIterator<Item = Answer>,
    checks: impl IntoIterator<Item = Check>,
) -> Logins<Scripted, Expected> {
    let config = config(login);
    let warn = config.login.warn;
    let machine = Scripted::new(searches).with_groups();
    Logins {
        directory: Directory::new(machine, &config),
        names: config.names,
        passwords: Expected {
            method,
            by: method,
            before_proof: false,
            reason: "",
            connect: None,
            checks: Mutex::new(checks.into_iter().collect()),
            unanswered: Vec::new(),
        },
        host: "XCALLY".into(),
        warn,
        clock: noon,
    }
}

fn logins(
    login: Login,
    searches: impl IntoIterator<Item = Answer>,
    binds: impl IntoIterator<Item = Check>,
) -> Logins<Scripted, Expected> {
    logins_by(Method::Ldap, login, searches, binds)
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

async fn authenticate(logins: &Logins<Scripted, Expected>, name: &str) -> Verdict {
    let decision = logins.authenticate(name, "secret", false, soon()).await;
    assert!(logins.passwords.checks.lock().unwrap().is_empty(), "a check was not made");
    decision.verdict
}

#[tokio::test]
async fn what_the_bind_says_is_the_outcome() {
    for outcome in Outcome::ALL {
        // No account was remembered, so no search is repeated.
        let logins = logins(plain(), [found()], [("CN=John", Ok(*outcome))]);
        let verdict = authenticate(&logins, "John").await;
        assert_eq!(verdict.outcome, *outcome);
        assert_eq!(verdict.principal.as_deref(), Some("john@acme.com"));
    }
}

#[tokio::test]
async fn who_may_have_counted_a_wrong_password_as_well_is_named() {
    for (outcome, is_named) in [(Outcome::WrongPassword, true), (Outcome::Success, false)] {
        let mut logins = logins(plain(), [found()], [("CN=John", Ok(outcome))]);
        logins.passwords.unanswered = vec!["ad2.acme.com".into()];
        let verdict = authenticate(&logins, "john").await;
        assert_eq!(verdict.reason.contains("ad2.acme.com did not answer"), is_named, "{verdict:?}");
    }
}

#[tokio::test]
async fn nothing_is_bound_for_a_name_that_means_nobody() {
    let root = Entry::new("").with("configurationNamingContext", ["CN=Configuration,DC=acme,DC=com"]);
    let suffix = Entry::new("CN=Partitions").with("uPNSuffixes", ["brand.example"]);
    let forest =
        || vec![("(objectClass=*)", Ok(vec![root.clone()])), ("CN=Partitions", Ok(vec![suffix.clone()]))];
    let with = |search: Answer| forest().into_iter().chain([search]).collect();
    let branded = "(userPrincipalName=john@brand.example)";
    let cases: [(&str, Vec<Answer>, Outcome); 8] = [
        ("", vec![], Outcome::Unmapped),
        ("john@evil.example", forest(), Outcome::Unmapped),
        ("john@evil.example", vec![("(objectClass=*)", Err(unreachable()))], Outcome::Unavailable),
        ("john@brand.example", with((branded, Ok(vec![]))), Outcome::UnknownUser),
        ("john@brand.example", with((branded, Err(unreachable()))), Outcome::Unavailable),
        ("john", vec![(BY_NAME, Ok(vec![]))], Outcome::UnknownUser),
        ("john", vec![(BY_NAME, Err(unreachable()))], Outcome::Unavailable),
        ("john", vec![(BY_NAME, Err(MachineError::TooMany(8)))], Outcome::Ambiguous),
    ];
    for (name, search, outcome) in cases {
        let logins = logins(plain(), search, []);
        assert_eq!(authenticate(&logins, name).await.outcome, outcome, "{name}");
    }
}

#[tokio::test]
async fn a_directory_that_does_not_answer_the_bind_denies() {
    let silent = Refusal::from(PoolError::Unanswered("ad: refused".into()));
    let logins = logins(plain(), [found()], [("CN=John", Err(silent))]);
    let verdict = authenticate(&logins, "jd").await;
    assert_eq!(verdict.outcome, Outcome::Unavailable);
    assert!(verdict.reason.contains("ad: refused"));
}

const AGAIN_BY_GUID: &str = "<GUID=02020202-0202-0202-0202-020202020202>";

/// Another account that bears John's name.
fn namesake(dn: &str) -> Entry {
    let entry = Entry::new(dn).with("objectGUID", [vec![2; 16]]).with("sAMAccountName", ["john"]);
    entry.with("userAccountControl", ["512"])
}

fn borne_by(entry: Entry) -> Answer {
    (BY_NAME, Ok(vec![entry]))
}

fn guid_of(decision: &Decision) -> Option<u8> {
    decision.person.as_ref().map(|person| person.guid.to_bytes_le()[0])
}

/// John logs in, and the broker remembers his account. These searches and checks follow.
async fn remembered(
    method: Method,
    login: Login,
    first: impl IntoIterator<Item = Answer>,
    searches: impl IntoIterator<Item = Answer>,
    checks: impl IntoIterator<Item = Check>,
) -> Logins<Scripted, Expected> {
    let name = if method == Method::Ldap { "CN=John" } else { "john" };
    let logins = logins_by(method, login, first, [(name, Ok(Outcome::Success))]);
    assert!(logins.authenticate("john", "secret", false, soon()).await.verdict.outcome.is_success());
    logins.directory.machine().is_finished();
    logins.directory.machine().expect(searches);
    logins.passwords.checks.lock().unwrap().extend(checks);
    logins
}

async fn by_ldap(
    searches: impl IntoIterator<Item = Answer>,
    checks: impl IntoIterator<Item = Check>,
) -> Logins<Scripted, Expected> {
    remembered(Method::Ldap, plain(), [found()], searches, checks).await
}

/// One login of John, which makes every expected search and check, and no other.
async fn log_in(logins: &Logins<Scripted, Expected>) -> Decision {
    let decision = logins.authenticate("john", "secret", false, soon()).await;
    assert!(logins.passwords.checks.lock().unwrap().is_empty(), "a check was not made");
    logins.directory.machine().is_finished();
    decision
}

#[tokio::test]
async fn a_remembered_name_is_confirmed_whatever_the_password() {
    for outcome in [Outcome::Success, Outcome::WrongPassword, Outcome::Disabled] {
        let logins = by_ldap([found()], [("CN=John", Ok(outcome))]).await;
        let decision = log_in(&logins).await;
        assert_eq!((decision.verdict.outcome, guid_of(&decision)), (outcome, Some(1)));
    }
}

/// Like [`logins_by`], with a directory that answers each search after `each`.
fn slowly(
    each: Duration,
    method: Method,
    login: Login,
    searches: impl IntoIterator<Item = Answer>,
    checks: impl IntoIterator<Item = Check>,
) -> Logins<Slow, Expected> {
    let machine = Slow(Scripted::new(searches).with_groups(), each);
    let directory = Directory::new(machine, &config(login.clone()));
    let Logins { names, passwords, host, warn, clock, .. } = logins_by(method, login, [], checks);
    Logins { names, directory, passwords, host, warn, clock }
}

/// Password checks that take as long.
struct SlowPasswords(Expected, Duration);

impl Passwords for SlowPasswords {
    fn method(&self, person: &Person) -> Method {
        self.0.method(person)
    }

    fn binds_only(&self) -> bool {
        self.0.binds_only()
    }

    async fn check(&self, person: &Person, password: &str, deadline: Instant) -> Result<Checked, Refusal> {
        tokio::time::sleep(self.1).await;
        self.0.check(person, password, deadline).await
    }
}

#[tokio::test(start_paused = true)]
async fn confirming_a_name_takes_no_time_of_its_own() {
    const EACH: Duration = Duration::from_millis(50);
    let checks = [("CN=John", Ok(Outcome::Success)), ("CN=John", Ok(Outcome::Success))];
    let Logins { names, directory, passwords, host, warn, clock } =
        slowly(EACH, Method::Ldap, plain(), [found(), found()], checks);
    let logins = Logins { names, directory, passwords: SlowPasswords(passwords, EACH), host, warn, clock };
    for (expected, what) in [(2 * EACH, "resolved, then bound"), (EACH, "confirmed beside the bind")] {
        let begun = Instant::now();
        let decision = logins.authenticate("john", "secret", false, soon()).await;
        assert!(decision.verdict.outcome.is_success(), "{what}");
        assert_eq!(begun.elapsed(), expected, "{what}");
    }
    logins.directory.machine().0.is_finished();
}

#[tokio::test]
async fn moved_and_the_dn_reused_the_new_accounts_password_opens_nothing() {
    let moved = || borne_by(john("CN=John,OU=New"));
    let strangers = [("CN=John", Ok(Outcome::Success)), ("CN=John,OU=New", Ok(Outcome::WrongPassword))];
    let decision = log_in(&by_ldap([moved()], strangers).await).await;
    assert_eq!((decision.verdict.outcome, guid_of(&decision)), (Outcome::WrongPassword, Some(1)));
    assert_eq!(decision.person.unwrap().dn, "CN=John,OU=New");

    // John's own password was wrong for the account that has his DN now, and counted there.
    let taken = ("CN=John (objectClass=*)", Ok(vec![Entry::new("CN=John")]));
    let logins = by_ldap([moved(), taken], [("CN=John", Ok(Outcome::WrongPassword))]).await;
    let verdict = log_in(&logins).await.verdict;
    assert_eq!(verdict.outcome, Outcome::WrongPassword);
    assert!(
        verdict.reason.contains("went to CN=John, and the name is now that of CN=John,OU=New"),
        "{verdict:?}"
    );
    // The next login sends it to his own account.
    logins.directory.machine().expect([moved()]);
    logins.passwords.checks.lock().unwrap().push_back(("CN=John,OU=New", Ok(Outcome::Success)));
    assert!(log_in(&logins).await.verdict.outcome.is_success());

    // The answer tells John nothing about the account in his place.
    for other in [Outcome::Disabled, Outcome::LockedOut, Outcome::MustChange] {
        let checks = [("CN=John", Ok(other)), ("CN=John,OU=New", Ok(Outcome::Success))];
        assert!(log_in(&by_ldap([moved()], checks).await).await.verdict.outcome.is_success(), "{other}");
    }
}

#[tokio::test]
async fn a_moved_account_is_bound_again_where_nobody_has_its_old_name() {
    let moved = || borne_by(john("CN=John,OU=New"));
    let gone = ("CN=John (objectClass=*)", Err(MachineError::NoSuchObject("CN=John".into())));
    let checks = [("CN=John", Ok(Outcome::WrongPassword)), ("CN=John,OU=New", Ok(Outcome::Success))];
    let decision = log_in(&by_ldap([moved(), gone], checks).await).await;
    assert!(decision.verdict.outcome.is_success(), "{decision:?}");
    // If AD does not say whether the account is gone, the attempt may have counted.
    let silent = ("CN=John (objectClass=*)", Err(unreachable()));
    let logins = by_ldap([moved(), silent], [("CN=John", Ok(Outcome::WrongPassword))]).await;
    assert_eq!(log_in(&logins).await.verdict.outcome, Outcome::WrongPassword);
}

#[tokio::test]
async fn a_name_that_another_account_bears_by_now_is_that_accounts() {
    // Swapped, or given to a new account: the earlier bearer's password fails, and the present one's
    // succeeds.
    let now = || borne_by(namesake("CN=Other"));
    for outcome in [Outcome::WrongPassword, Outcome::Success] {
        let checks = [("CN=John", Ok(Outcome::Success)), ("CN=Other", Ok(outcome))];
        let decision = log_in(&by_ldap([now()], checks).await).await;
        assert_eq!((decision.verdict.outcome, guid_of(&decision)), (outcome, Some(2)));
    }
    // Rejected once: it counted for the earlier bearer, whose DN is unchanged.
    let there = ("CN=John (objectClass=*)", Ok(vec![Entry::new("CN=John")]));
    let logins = by_ldap([now(), there], [("CN=John", Ok(Outcome::WrongPassword))]).await;
    assert_eq!(log_in(&logins).await.verdict.outcome, Outcome::WrongPassword);
}

#[tokio::test]
async fn made_again_under_the_same_dn_it_is_the_new_account_that_logs_in() {
    let again = || borne_by(namesake("CN=John"));
    let twice = [("CN=John", Ok(Outcome::Success)), ("CN=John", Ok(Outcome::Success))];
    let decision = log_in(&by_ldap([again()], twice).await).await;
    assert_eq!((decision.verdict.outcome, guid_of(&decision)), (Outcome::Success, Some(2)));
    // A wrong password was wrong for the new account, and counted there.
    let logins = by_ldap([again()], [("CN=John", Ok(Outcome::WrongPassword))]).await;
    let decision = log_in(&logins).await;
    assert_eq!((decision.verdict.outcome, guid_of(&decision)), (Outcome::WrongPassword, Some(2)));

    // With group rules, the groups of the new account count.
    let gone = (BY_GUID, Err(MachineError::NoSuchObject("CN=John".into())));
    for (sids, outcome) in [(ALLOWED, Outcome::Success), (DENIED, Outcome::Denied)] {
        let (_, groups) = member_of(&[sids]);
        let first = [found(), member_of(&[ALLOWED])];
        let searches = [again(), gone.clone(), (AGAIN_BY_GUID, groups)];
        let twice = [("CN=John", Ok(Outcome::Success)), ("CN=John", Ok(Outcome::Success))];
        let logins = remembered(Method::Ldap, rules(), first, searches, twice).await;
        assert_eq!(log_in(&logins).await.verdict.outcome, outcome);
    }
}

#[tokio::test]
async fn by_kerberos_too_a_name_is_that_of_its_present_bearer() {
    let first = || [found(), state("description", "fine")];
    let gone = || (BY_GUID, Err(MachineError::NoSuchObject("CN=John".into())));
    let there = || state("description", "fine");
    let now = || borne_by(namesake("CN=Other"));
    let read = || (AGAIN_BY_GUID, Ok(vec![scripted::state(namesake("CN=Other"))]));
    let twice = || [("john", Ok(Outcome::Success)), ("john", Ok(Outcome::Success))];
    for old in [gone(), there()] {
        let searches = [now(), old, read()];
        let logins = remembered(Method::Kerberos, plain(), first(), searches, twice()).await;
        let decision = log_in(&logins).await;
        assert_eq!((decision.verdict.outcome, guid_of(&decision)), (Outcome::Success, Some(2)));
    }
    // A wrong password was checked once, for the name's bearer.
    let wrong = [("john", Ok(Outcome::WrongPassword))];
    let logins = remembered(Method::Kerberos, plain(), first(), [now()], wrong).await;
    assert_eq!(log_in(&logins).await.verdict.outcome, Outcome::WrongPassword);
}

#[tokio::test]
async fn a_name_that_is_nobodys_or_two_accounts_by_now_opens_nothing() {
    let two = || {
        let explicit = |entry: Entry| entry.with("userPrincipalName", ["john@acme.com"]);
        (BY_NAME, Ok(vec![explicit(john("CN=John")), explicit(namesake("CN=Other"))]))
    };
    for (now, outcome) in [((BY_NAME, Ok(vec![])), Outcome::UnknownUser), (two(), Outcome::Ambiguous)] {
        for bound in [Outcome::Success, Outcome::WrongPassword] {
            let logins = by_ldap([now.clone()], [("CN=John", Ok(bound))]).await;
            assert_eq!(log_in(&logins).await.verdict.outcome, outcome);
            // The account is forgotten: no bind is made for it.
            logins.directory.machine().expect([now.clone()]);
            assert_eq!(log_in(&logins).await.verdict.outcome, outcome);
        }
    }
}

#[tokio::test]
async fn a_refusal_stands_while_reading_fails_and_shuts_nobody_out_afterwards() {
    let cut = || (BY_NAME, Err(unreachable()));
    for outcome in [Outcome::WrongPassword, Outcome::Disabled, Outcome::LockedOut, Outcome::Refused] {
        let logins = by_ldap([cut()], [("CN=John", Ok(outcome))]).await;
        let verdict = log_in(&logins).await.verdict;
        assert_eq!(verdict.outcome, outcome);
        assert!(verdict.reason.contains("still bears the name is unknown: "), "{verdict:?}");
        // The account is still remembered, and is confirmed as soon as AD answers.
        logins.directory.machine().expect([found()]);
        logins.passwords.checks.lock().unwrap().push_back(("CN=John", Ok(Outcome::Success)));
        let verdict = log_in(&logins).await.verdict;
        assert!(verdict.outcome.is_success());
        assert!(verdict.steps.iter().any(|step| step.name == "resolve, remembered"), "{verdict:?}");
    }
}

#[tokio::test]
async fn what_may_lead_in_waits_for_the_name_to_be_confirmed() {
    for outcome in [Outcome::Success, Outcome::PasswordExpired, Outcome::MustChange] {
        let logins = by_ldap([(BY_NAME, Err(unreachable()))], [("CN=John", Ok(outcome))]).await;
        let verdict = log_in(&logins).await.verdict;
        assert_eq!(verdict.outcome, Outcome::Unavailable);
        assert!(verdict.reason.contains("CN=John still bears the name"), "{verdict:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_wait_long_for_a_silent_directory() {
    let silent = (BY_NAME, Err(MachineError::Timeout("john".into())));
    let logins = by_ldap([silent], [("CN=John", Ok(Outcome::WrongPassword))]).await;
    let begun = Instant::now();
    assert_eq!(log_in(&logins).await.verdict.outcome, Outcome::WrongPassword);
    assert_eq!(begun.elapsed(), CONFIRMATION);
    // Without an answer to the password, the login waits for nothing.
    let silent = Refusal::from(PoolError::Unanswered("ad: refused".into()));
    let logins =
        by_ldap([(BY_NAME, Err(MachineError::Timeout("john".into())))], [("CN=John", Err(silent))]).await;
    let begun = Instant::now();
    assert_eq!(log_in(&logins).await.verdict.outcome, Outcome::Unavailable);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn an_account_check_and_a_session_are_of_the_present_bearer() {
    let now = || borne_by(namesake("CN=Other"));
    let disabled = || {
        let entry = Entry::new("CN=Other").with("objectGUID", [vec![2; 16]]);
        scripted::state(entry.with("userAccountControl", ["514"]))
    };
    let gone = (BY_GUID, Err(MachineError::NoSuchObject("CN=John".into())));
    let searches = [now(), gone, (AGAIN_BY_GUID, Ok(vec![disabled()]))];
    let logins = by_ldap(searches, []).await;
    let decision = logins.account("john", false, soon()).await;
    assert_eq!(decision.verdict.outcome, Outcome::Disabled);

    let logins = by_ldap([now()], []).await;
    let decision = logins.identify("john", soon()).await;
    assert_eq!((decision.verdict.outcome, guid_of(&decision)), (Outcome::Success, Some(2)));

    let nobody = || (BY_NAME, Ok(vec![]));
    let logins = by_ldap([nobody(), (BY_GUID, Ok(vec![]))], []).await;
    assert_eq!(logins.account("john", false, soon()).await.verdict.outcome, Outcome::UnknownUser);
    let logins = by_ldap([nobody()], []).await;
    assert_eq!(logins.identify("john", soon()).await.verdict.outcome, Outcome::UnknownUser);
}

const ALLOWED: &str = "S-1-5-21-1-2-3-1001";
const DENIED: &str = "S-1-5-21-1-2-3-1002";

fn rules() -> Login {
    Login { allow_groups: vec![ALLOWED.into()], deny_groups: vec![DENIED.into()], ..plain() }
}

fn member_of(sids: &[&str]) -> Answer {
    let binary = |sid: &&str| {
        let id: u32 = sid.rsplit('-').next().unwrap().parse().unwrap();
        let mut bytes = vec![1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
        bytes.extend(id.to_le_bytes());
        bytes
    };
    (BY_GUID, Ok(vec![scripted::state(john("CN=John")).with("tokenGroups", sids.iter().map(binary))]))
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
        // These lead to access, after a change that judges no groups.
        (vec![ALLOWED], Outcome::MustChange, Outcome::MustChange),
        (vec![ALLOWED, DENIED], Outcome::MustChange, Outcome::Denied),
        (vec![other], Outcome::PasswordExpired, Outcome::NotAllowed),
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
        for bound in [Outcome::Success, Outcome::MustChange] {
            let logins = logins(rules(), [found(), (part, answer.clone())], [("CN=John", Ok(bound))]);
            assert_eq!(authenticate(&logins, "john").await.outcome, outcome, "{bound}");
        }
    }
    let named = Login { allow_groups: vec!["Agents".into()], ..plain() };
    let nowhere = ("(sAMAccountName=Agents)", Ok(vec![]));
    let logins =
        logins(named, [found(), nowhere, member_of(&[ALLOWED])], [("CN=John", Ok(Outcome::Success))]);
    let verdict = authenticate(&logins, "john").await;
    assert_eq!(verdict.outcome, Outcome::Misconfigured);
    assert!(verdict.reason.contains("\"Agents\" does not exist"), "{}", verdict.reason);
}

#[tokio::test]
async fn an_account_check_without_groups_denies_where_rules_need_them() {
    let state = || (BY_GUID, Ok(vec![scripted::state(john("CN=John"))]));
    for (login, outcome) in [(plain(), Outcome::Success), (rules(), Outcome::Unavailable)] {
        let logins = logins(login, [found(), state()], []);
        let verdict = logins.account("john", false, soon()).await.verdict;
        assert_eq!(verdict.outcome, outcome, "{verdict:?}");
        assert_eq!(verdict.reason.contains("may not read tokenGroups"), !outcome.is_success());
    }
}

#[tokio::test]
async fn an_account_check_reads_the_state_and_binds_nothing() {
    let with = |flags: &'static str, set: &'static str| {
        let entry = Entry::new("CN=John").with("userAccountControl", [flags]).with("pwdLastSet", [set]);
        let group = vec![1, 1, 0, 0, 0, 0, 0, 5, 9, 0, 0, 0];
        (BY_GUID, Ok(vec![scripted::state(entry).with("tokenGroups", [group])]))
    };
    const SET: &str = "133700000000000000";
    let cases = [
        (plain(), "512", SET, Outcome::Success),
        (plain(), "514", SET, Outcome::Disabled),
        (plain(), "512", "0", Outcome::MustChange),
        (rules(), "514", SET, Outcome::Disabled),
        (rules(), "512", SET, Outcome::NotAllowed),
        (rules(), "512", "0", Outcome::NotAllowed),
        (rules(), "514", "0", Outcome::Disabled),
    ];
    for (login, flags, set, outcome) in cases {
        let logins = logins(login, [found(), with(flags, set)], []);
        assert_eq!(logins.account("john", false, soon()).await.verdict.outcome, outcome, "{flags} {set}");
    }
}

/// John's state, which the KDC does not report.
fn state(attribute: &'static str, value: &'static str) -> Answer {
    let entry = john("CN=John");
    let kept = entry.attributes().filter(|(name, _)| !name.eq_ignore_ascii_case(attribute));
    let entry = kept.fold(Entry::new("CN=John"), |e, (name, values)| e.with(name, values.to_vec()));
    (BY_GUID, Ok(vec![scripted::state(entry.with(attribute, [value]))]))
}

#[tokio::test]
async fn kerberos_leaves_the_rest_to_the_state_of_the_account() {
    let cases = [
        (Outcome::Success, state("description", "fine"), Outcome::Success),
        (Outcome::Success, state("userWorkstations", "OTHERPC"), Outcome::Workstation),
        (Outcome::Success, state("userAccountControl", "514"), Outcome::Disabled),
        (Outcome::Success, (BY_GUID, Err(unreachable())), Outcome::Unavailable),
        (REVOKED, state("msDS-User-Account-Control-Computed", "16"), Outcome::LockedOut),
        (REVOKED, state("accountExpires", "1"), Outcome::AccountExpired),
        (REVOKED, state("description", "fine"), Outcome::Refused),
        (REVOKED, (BY_GUID, Err(unreachable())), Outcome::Refused),
        // A wrong password reveals nothing.
        (Outcome::WrongPassword, state("userAccountControl", "514"), Outcome::WrongPassword),
        // A KDC's rejection proves nothing, and this one leads to a new password: AD has to confirm it.
        (Outcome::MustChange, state("description", "fine"), Outcome::Unavailable),
        (Outcome::PasswordExpired, state("description", "fine"), Outcome::Unavailable),
        (Outcome::PasswordExpired, (BY_GUID, Err(unreachable())), Outcome::Unavailable),
        (Outcome::PasswordExpired, state("pwdLastSet", "0"), Outcome::MustChange),
        (
            Outcome::MustChange,
            state("msDS-User-Account-Control-Computed", "8388608"),
            Outcome::PasswordExpired,
        ),
        (Outcome::PasswordExpired, state("userAccountControl", "514"), Outcome::Disabled),
    ];
    for (answer, state, outcome) in cases {
        let case = format!("{answer} {state:?}");
        let logins = logins_by(Method::Kerberos, plain(), [found(), state], [("john", Ok(answer))]);
        assert_eq!(authenticate(&logins, "john").await.outcome, outcome, "{case}");
    }
}

#[tokio::test]
async fn before_the_proof_only_the_log_names_the_state() {
    let cases = [
        (REVOKED, state("userAccountControl", "514"), Outcome::NotChecked, "disabled: "),
        (REVOKED, state("accountExpires", "1"), Outcome::NotChecked, "account_expired: "),
        (REVOKED, state("logonHours", "000000000000000000000"), Outcome::NotChecked, "logon_hours: "),
        (
            Outcome::AccountRestriction,
            state("userWorkstations", "OTHERPC"),
            Outcome::NotChecked,
            "workstation: ",
        ),
        // AD itself tells these to every password.
        (REVOKED, state("msDS-User-Account-Control-Computed", "16"), Outcome::LockedOut, ""),
        (Outcome::AccountRestriction, state("description", "fine"), Outcome::AccountRestriction, ""),
        (REVOKED, state("description", "fine"), Outcome::Refused, ""),
    ];
    for (answer, state, outcome, named) in cases {
        let case = format!("{answer} {state:?}");
        let checks = [("john", Ok(answer))];
        let mut logins = logins_by(Method::Kerberos, plain(), [found(), state], checks);
        logins.passwords.before_proof = true;
        let verdict = authenticate(&logins, "john").await;
        assert_eq!(verdict.outcome, outcome, "{case}");
        assert!(verdict.reason.contains(named) && verdict.text.is_none(), "{verdict:?}");
    }
    // Groups are such a state, too.
    let searches = [found(), member_of(&[DENIED])];
    let mut logins = logins_by(Method::Kerberos, rules(), searches, [("john", Ok(REVOKED))]);
    logins.passwords.before_proof = true;
    assert_eq!(authenticate(&logins, "john").await.outcome, Outcome::NotChecked);
}

#[tokio::test]
async fn before_the_proof_the_kdcs_reason_stands_in_the_log_once() {
    let cases = [
        // The account's state is the refusal, and the KDC's reason is added to it.
        (state("userAccountControl", "514"), "disabled: the account's state in AD; KDC_ERR_CLIENT_REVOKED"),
        // The KDC's reason is the refusal.
        (state("description", "fine"), "KDC_ERR_CLIENT_REVOKED"),
    ];
    for (state, reason) in cases {
        let mut logins = logins_by(Method::Kerberos, plain(), [found(), state], [("john", Ok(REVOKED))]);
        logins.passwords.before_proof = true;
        logins.passwords.reason = "KDC_ERR_CLIENT_REVOKED";
        assert_eq!(authenticate(&logins, "john").await.reason, reason);
    }
}

#[tokio::test]
async fn groups_count_by_kerberos_too() {
    for (groups, outcome) in [(vec![ALLOWED], Outcome::Success), (vec![DENIED], Outcome::Denied)] {
        let searches = [found(), member_of(&groups)];
        let logins = logins_by(Method::Kerberos, rules(), searches, [("john", Ok(Outcome::Success))]);
        assert_eq!(authenticate(&logins, "john").await.outcome, outcome, "{groups:?}");
    }
}

#[tokio::test]
async fn groups_count_when_the_method_changes_while_the_account_is_read() {
    for (groups, outcome) in [(vec![ALLOWED], Outcome::Success), (vec![DENIED], Outcome::Denied)] {
        let searches = [found(), member_of(&groups)];
        let checks = [("CN=John", Ok(Outcome::Success))];
        let mut logins = logins_by(Method::Kerberos, rules(), searches, checks);
        logins.passwords.by = Method::Ldap;
        assert_eq!(authenticate(&logins, "john").await.outcome, outcome, "{groups:?}");
    }
}

#[tokio::test]
async fn who_was_renamed_is_asked_for_by_the_new_name() {
    let renamed = || {
        let entry = Entry::new("CN=John").with("objectGUID", [vec![1; 16]]);
        entry.with("sAMAccountName", ["johnny"]).with("userPrincipalName", ["john@acme.com"])
    };
    let now = |entry: Entry| (BY_GUID, Ok(vec![scripted::state(entry)]));
    let first = || ("john", Ok(Outcome::Success));
    let searches = || [found(), state("description", "fine"), (BY_NAME, Ok(vec![renamed()])), now(renamed())];

    // No account has the old name: the next login uses the new one.
    let gone = logins_by(
        Method::Kerberos,
        plain(),
        searches().into_iter().chain([now(renamed())]),
        [first(), ("john", Ok(Outcome::UnknownUser)), ("johnny", Ok(Outcome::Success))],
    );
    assert!(gone.authenticate("john", "secret", false, soon()).await.verdict.outcome.is_success());
    assert_eq!(authenticate(&gone, "john").await.outcome, Outcome::Success);

    // Another account has the name now, with the password that was typed.
    for outcome in [Outcome::WrongPassword, Outcome::Success] {
        let reads = if outcome.is_success() { vec![now(renamed())] } else { vec![] };
        let taken = logins_by(
            Method::Kerberos,
            plain(),
            searches().into_iter().chain(reads),
            [first(), first(), ("johnny", Ok(outcome))],
        );
        taken.authenticate("john", "secret", false, soon()).await;
        assert_eq!(authenticate(&taken, "john").await.outcome, outcome);
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn warned(login: Login) -> Login {
    Login { warn: 3 * DAY, ..login }
}

/// John's account, whose password expires after `left`, and his groups.
fn expires(left: Option<Duration>) -> Answer {
    let (_, groups) = member_of(&[ALLOWED]);
    let entry = groups.unwrap().remove(0);
    // The greatest number means never.
    let at = left.map_or(i64::MAX.to_string(), |left| ticks(noon() + left));
    (BY_GUID, Ok(vec![entry.with(Account::PASSWORD_EXPIRY, [at])]))
}

async fn authenticate_and_warn(logins: &Logins<Scripted, Expected>) -> Verdict {
    let verdict = logins.authenticate("john", "secret", true, soon()).await.verdict;
    logins.directory.machine().is_finished();
    verdict
}

#[tokio::test]
async fn a_password_that_expires_soon_is_told_whatever_checks_it_and_with_and_without_groups() {
    let second = Duration::from_secs(1);
    let cases = [
        (Some(2 * DAY), true),
        (Some(3 * DAY - second), true),
        (Some(3 * DAY), false),
        (Some(4 * DAY), false),
        (None, false),
    ];
    for method in [Method::Ldap, Method::Kerberos] {
        for login in [plain(), rules()] {
            for (left, is_told) in cases {
                let name = if method == Method::Ldap { "CN=John" } else { "john" };
                let searches = [found(), expires(left)];
                let checks = [(name, Ok(Outcome::Success))];
                let logins = logins_by(method, warned(login.clone()), searches, checks);
                let verdict = authenticate_and_warn(&logins).await;
                assert_eq!((verdict.outcome, verdict.reason.as_str()), (Outcome::Success, ""));
                let told = verdict.expires_in.map(|seconds| seconds.div_ceil(86_400));
                let days = left.map(|left| left.as_secs().div_ceil(86_400)).filter(|_| is_told);
                assert_eq!(told, days, "{method} {left:?}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_read_for_a_warning_that_nobody_wants() {
    for (login, warn) in [(plain(), true), (warned(plain()), false)] {
        let logins = logins(login, [found()], [("CN=John", Ok(Outcome::Success))]);
        let verdict = logins.authenticate("john", "secret", warn, soon()).await.verdict;
        assert_eq!((verdict.outcome, verdict.expires_in), (Outcome::Success, None));
    }
}

#[tokio::test]
async fn who_does_not_come_in_is_not_warned() {
    for outcome in [Outcome::WrongPassword, Outcome::Disabled] {
        let searches = [found(), expires(Some(DAY))];
        let logins = logins(warned(plain()), searches, [("CN=John", Ok(outcome))]);
        let verdict = logins.authenticate("john", "secret", true, soon()).await.verdict;
        assert_eq!((verdict.outcome, verdict.expires_in), (outcome, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_warning_that_cannot_be_read_is_a_note_and_no_refusal() {
    let (_, groups) = member_of(&[ALLOWED]);
    let rubbish = groups.unwrap().remove(0).with(Account::PASSWORD_EXPIRY, ["soon"]);
    let cases = [
        (plain(), Err(unreachable()), "DNS does not answer"),
        (plain(), Ok(vec![]), "has no object"),
        (plain(), Ok(vec![rubbish.clone()]), "is not a number"),
        (rules(), Ok(vec![rubbish]), "is not a number"),
        (plain(), Err(MachineError::Timeout("john".into())), "did not answer in time"),
    ];
    for (login, answer, note) in cases {
        let searches = [found(), (BY_GUID, answer)];
        let logins = logins(warned(login), searches, [("CN=John", Ok(Outcome::Success))]);
        let begun = Instant::now();
        let verdict = authenticate_and_warn(&logins).await;
        assert_eq!((verdict.outcome, verdict.expires_in), (Outcome::Success, None));
        assert!(verdict.reason.contains("whether the password expires soon is unknown"), "{verdict:?}");
        assert!(verdict.reason.contains(note), "{verdict:?}");
        // The clock of the test counts whole milliseconds.
        assert!(begun.elapsed() < 2 * WARNING, "{note}: {:?}", begun.elapsed());
    }
}

/// Only a warning may be given up after [`WARNING`]: the state, and the groups that rules name, decide.
#[tokio::test(start_paused = true)]
async fn what_decides_is_waited_for_however_long_the_warning_may_take() {
    const EACH: Duration = Duration::from_secs(1);
    let cases = [
        (Method::Ldap, rules(), member_of(&[ALLOWED]), Outcome::Success),
        (Method::Ldap, rules(), member_of(&[DENIED]), Outcome::Denied),
        (Method::Kerberos, plain(), state("userWorkstations", "OTHERPC"), Outcome::Workstation),
    ];
    for (method, login, read, outcome) in cases {
        let name = if method == Method::Ldap { "CN=John" } else { "john" };
        let checks = [(name, Ok(Outcome::Success))];
        let logins = slowly(EACH, method, warned(login), [found(), read], checks);
        let verdict = logins.authenticate("john", "secret", true, soon()).await.verdict;
        assert_eq!(verdict.outcome, outcome, "{method} {verdict:?}");
    }
}

/// "state, after that" is the time that reading took longer than the check, whose connection counts as a part
/// of it. It is there if AD was read beside the check.
#[tokio::test(start_paused = true)]
async fn the_time_after_the_check_is_a_step_of_its_own() {
    const EACH: Duration = Duration::from_millis(50);
    let twice = [("CN=John", Ok(Outcome::Success)), ("CN=John", Ok(Outcome::Success))];
    let mut logins = slowly(EACH, Method::Ldap, plain(), [found(), found()], twice);
    logins.passwords.connect = Some(Duration::from_millis(20));
    // 50 ms for the present bearer of the name, less 4 ms for the bind and 20 ms for its connection.
    for expected in [None, Some(EACH - Duration::from_millis(24))] {
        let verdict = logins.authenticate("john", "secret", false, soon()).await.verdict;
        let step = verdict.steps.iter().find(|step| step.name == "state, after that");
        assert_eq!(step.map(|step| Duration::from_micros(step.micros)), expected, "{verdict:?}");
    }
    // Also without a memory, where the groups are read.
    let searches = [found(), member_of(&[ALLOWED])];
    let logins = logins_by(Method::Ldap, rules(), searches, [("CN=John", Ok(Outcome::Success))]);
    let verdict = authenticate(&logins, "john").await;
    assert!(verdict.steps.iter().any(|step| step.name == "state, after that"), "{verdict:?}");
}

/// Whether an account is gone is asked after a wrong password, so the question has its own short deadline.
#[tokio::test(start_paused = true)]
async fn whether_a_dn_is_gone_is_asked_for_a_moment() {
    let moved = borne_by(john("CN=John,OU=New"));
    let silent = ("CN=John (objectClass=*)", Err(MachineError::Timeout("CN=John".into())));
    let logins = by_ldap([moved, silent], [("CN=John", Ok(Outcome::WrongPassword))]).await;
    let begun = Instant::now();
    assert_eq!(log_in(&logins).await.verdict.outcome, Outcome::WrongPassword);
    assert_eq!(begun.elapsed(), CONFIRMATION);
}

#[tokio::test]
async fn an_account_check_warns_too() {
    for (login, warn, is_told) in
        [(warned(plain()), true, true), (warned(plain()), false, false), (plain(), true, false)]
    {
        let logins = logins(login, [found(), expires(Some(DAY))], []);
        let verdict = logins.account("john", warn, soon()).await.verdict;
        assert_eq!((verdict.outcome, verdict.expires_in.is_some()), (Outcome::Success, is_told));
    }
}

#[tokio::test]
async fn an_account_expires_by_the_clock_that_was_passed_in() {
    for (at, outcome) in [(noon() + DAY, Outcome::Success), (noon() - DAY, Outcome::AccountExpired)] {
        let account = scripted::state(john("CN=John").with("accountExpires", [ticks(at)]));
        let logins = logins(plain(), [found(), (BY_GUID, Ok(vec![account]))], []);
        let verdict = logins.account("john", false, soon()).await.verdict;
        assert_eq!(verdict.outcome, outcome, "{verdict:?}");
    }
}

/// What an earlier login left behind, its memory of the account and its tickets, opens nothing while no KDC
/// answers.
#[tokio::test]
async fn without_a_kdc_an_earlier_login_opens_nothing() {
    let first = [found(), state("description", "fine")];
    let silent = Refusal::from(CheckError::Unavailable("ad: refused".into()));
    let logins = remembered(Method::Kerberos, plain(), first, [found()], [("john", Err(silent))]).await;
    let verdict = log_in(&logins).await.verdict;
    assert_eq!(verdict.outcome, Outcome::Unavailable, "{verdict:?}");
    assert!(verdict.reason.contains("no KDC answered: ad: refused"), "{verdict:?}");
}
