//! Password changes through PAM, by users and by applications. A new password that AD accepts is valid at
//! once, and a rejection is explained in words. A wrong current password counts once, and no other counter
//! changes.

use std::time::Duration;

use crate::app::{App, Call, Job, Style};
use crate::cast::{Person, person};
use crate::lab::{Counters, Lab, wait};
use crate::pam::{Answer, authenticate, pam, slowly};
use crate::ready::ready;
use crate::report::{Check, Report, contains, equal};
use crate::row::{Counts, Method};

/// A change as a user types it: the current password, and the new one twice.
struct Change {
    who: &'static str,
    /// Types a wrong current password.
    wrong: bool,
    new: &'static str,
    code: &'static str,
    /// Text shown to the user; empty if none.
    told: &'static str,
}

const fn change(who: &'static str, new: &'static str, code: &'static str, told: &'static str) -> Change {
    Change { who, wrong: false, new, code, told }
}

const DONE: &str = "PAM_SUCCESS";
const REFUSED: &str = "PAM_AUTHTOK_ERR";
const FORBIDDEN: &str = "PAM_PERM_DENIED";

const SHORT: &str = "Your new password must have at least 12 characters.";
const SIMPLE: &str = "Your new password must contain three of these kinds of characters: uppercase letters, \
                      lowercase letters, digits, others.";
const USED_HERE: &str = "Your new password must not be one of your last 5 passwords.";
// Only kpasswd reports how many passwords are remembered. The machine account may not read the policy.
const USED: &str = "Your new password must not be one ";
const PRESENT: &str = "Your new password is the same as your current one.";
const YOUNG: &str = "Your password was changed less than 1 day ago; it may not be changed again yet.";
const UNKNOWN: &str = "It is not certain whether your password was changed. Try to log in with the new one.";

/// All reactions of AD to a new password.
#[rustfmt::skip]
const CHANGES: &[Change] = &[
    change("seth",  "S3th-stands-on-stone",   DONE,      ""),
    change("quentin", " Ü\"b\\er'sp€cial;$HOME% ß\\ ?", DONE, ""),
    change("max",   "M4x-makes-mirrors",      DONE,      ""),
    change("petra", "P3tra-polishes-pans",    DONE,      ""),
    change("wilma", "W1lma-waltzes-west",     DONE,      ""),
    change("polly", "Twelve-letters-1",       DONE,      ""),

    change("polly", "Sh0rt",                  REFUSED,   SHORT),
    change("polly", "all-of-small-letters",   REFUSED,   SIMPLE),
    change("polly", "Tw3lve-is-the-least",    REFUSED,   PRESENT),
    change("neil",  "N3il-needs-none",        REFUSED,   YOUNG),
    change("carl",  "C4rl-cuts-corks",        FORBIDDEN, "You may not change your password."),

    Change { wrong: true, ..change("wendy", "W3ndy-was-wrong", "PAM_AUTHTOK_RECOVERY_ERR", "") },
    Change { wrong: true, ..change("max",   "M4x-was-wrong",   "PAM_AUTHTOK_RECOVERY_ERR", "") },

    // Accounts that the current password does not open.
    change("dora",  "D0ra-dances",            FORBIDDEN,           "Your account is disabled."),
    change("ed",    "3d-enters",              "PAM_ACCT_EXPIRED",  "Your account has expired."),
    change("lou",   "L0u-leaves",             "PAM_MAXTRIES",      "Your account is locked. Try again later or ask your administrator."),

    // Text that can never be a password is not sent.
    change("sally", "",                       REFUSED,   "the password is empty"),
];

/// Rules of the domain's policy, which applies to accounts without another one. Each has the option that sets
/// it, and a change of John's that it rejects.
#[rustfmt::skip]
const DOMAIN: &[(&str, Change)] = &[
    ("--min-pwd-length=14",  change("john", "J0hn-rides",           REFUSED, "Your new password must have at least 14 characters.")),
    ("--complexity=on",      change("john", "onlysmalllettershere", REFUSED, SIMPLE)),
    ("--complexity=on",      change("john", "Now-J0hn.Doe-inside",  DONE,    "")),
    ("--min-pwd-age=2",      change("john", "J0hn-rides-a-unicycle", REFUSED, "Your password was changed less than 2 days ago; it may not be changed again yet.")),
];
/// The domain's policy in the lab.
const LAX: &[&str] = &["--min-pwd-length=1", "--complexity=off", LAX_HISTORY, "--min-pwd-age=0"];
const LAX_HISTORY: &str = "--history-length=0";

/// A PAM call of an application, and its return code.
type Step = (Call, &'static str);

/// An application that meets an expired password.
struct Flow {
    name: &'static str,
    /// Value of the argument `expired=`.
    expired: &'static str,
    steps: &'static [Step],
    /// True if the application changes the password.
    changes: bool,
}

const REQUIRED: &str = "PAM_NEW_AUTHTOK_REQD";

#[rustfmt::skip]
const FLOWS: &[Flow] = &[
    Flow { name: "expired=auth, an application without acct_mgmt", expired: "auth", changes: true,
        steps: &[(Call::Authenticate, REQUIRED), (Call::Change, DONE), (Call::Authenticate, DONE)] },
    Flow { name: "expired=auth, an application with acct_mgmt", expired: "auth", changes: true,
        steps: &[(Call::Authenticate, REQUIRED), (Call::Account, REQUIRED), (Call::ChangeExpired, DONE),
            (Call::Authenticate, DONE), (Call::Account, DONE), (Call::Open, DONE), (Call::Close, DONE)] },
    Flow { name: "expired=account, an application with acct_mgmt", expired: "account", changes: true,
        steps: &[(Call::Authenticate, DONE), (Call::Account, REQUIRED), (Call::ChangeExpired, DONE),
            (Call::Account, DONE), (Call::Open, DONE), (Call::Close, DONE)] },
    // The manual warns of this case.
    Flow { name: "expired=account, an application without acct_mgmt", expired: "account", changes: false,
        steps: &[(Call::Authenticate, DONE)] },
    Flow { name: "expired=auth, an application that only asks for the account", expired: "auth", changes: false,
        steps: &[(Call::Account, REQUIRED)] },
];

/// Runs all tests by LDAP, and by Kerberos only the changes that LDAP cannot make.
pub fn short(lab: &Lab, report: &mut Report) -> Check {
    begin(lab)?;
    table(lab, report, CHANGES);
    stacks(lab, report);
    applications(lab, report, &["max"])?;
    lost(lab, report);
    helper(lab, report);
    end(lab)
}

pub fn full(lab: &Lab, report: &mut Report) -> Check {
    begin(lab)?;
    for method in [Method::Ldap, Method::Kerberos] {
        report.note(&format!("by {}", method.name()));
        lab.set_method(method);
        lab.configure("")?;
        ready(lab)?;
        table(lab, report, CHANGES);
        policies(lab, report)?;
        stacks(lab, report);
        applications(lab, report, &["max", "petra"])?;
        lost(lab, report);
    }
    lab.set_method(Method::Ldap);
    lab.configure("")?;
    cut(lab, report, &[100, 300, 500, 700, 900, 1100, 1500, 2000]);
    helper(lab, report);
    end(lab)
}

/// Runs the tests with two domain controllers, so that the second is available when the first one dies.
pub fn failover(lab: &Lab, report: &mut Report) -> Check {
    begin(lab)?;
    cut(lab, report, &[300, 600, 900, 1200, 1500, 2000]);
    end(lab)
}

fn begin(lab: &Lab) -> Check {
    ready(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    for expired in ["auth", "account"] {
        let ours = format!("required pam_motion_ad.so expired={expired}\n");
        let lines = ["auth ", "account ", "password ", "session "].map(|line| format!("{line}{ours}"));
        lab.write(&format!("/etc/pam.d/{}", service(expired)), &lines.concat())?;
    }
    Ok(())
}

fn end(lab: &Lab) -> Check {
    lab.host_sh("rm -f /etc/pam.d/motion-expired-* /etc/pam.d/motion-stack").ok()?;
    lab.run(&["cast", "reset"]).ok().map(drop)
}

fn service(expired: &str) -> String {
    format!("motion-expired-{expired}")
}

fn table(lab: &Lab, report: &mut Report, changes: &[Change]) {
    for change in changes {
        report.check(&change.label(), || change.check(lab));
    }
}

impl Change {
    fn label(&self) -> String {
        let present = if self.wrong { "wrong" } else { "right" };
        let told = if self.told.is_empty() { String::new() } else { format!(" {:?}", self.told) };
        format!(
            "{}, present password {present}, new one {:?}: {}{told}",
            person(self.who).sam,
            self.new,
            self.code
        )
    }

    fn check(&self, lab: &Lab) -> Check {
        let person = person(self.who);
        let (before, set) = (lab.everybodys_counters()?, last_set(lab, &person)?);
        let present = if self.wrong { "not the password of anybody" } else { person.password };
        let answer = typed(lab, "motion", &person, present, self.new);
        let after = lab.everybodys_counters()?;
        let changed = last_set(lab, &person)? != set;
        let in_force = if self.code == DONE { Some(self.in_force(lab, &person)) } else { None };
        if changed {
            lab.run(&["cast", "restore", person.sam]).ok()?;
        }
        let all = |text: String| format!("{text}\npamtester said:\n{}", answer.output);
        equal("PAM", answer.code.as_str(), self.code).map_err(all)?;
        equal("whether AD has a new password", changed, self.code == DONE).map_err(all)?;
        told(&answer, self.told).map_err(all)?;
        let asked = answer.output.contains("New password: ");
        equal("whether a new password was asked for", asked, self.reaches_the_new_one()).map_err(all)?;
        self.counters(&person, &before, &after).map_err(all)?;
        in_force.unwrap_or(Ok(()))
    }

    /// Returns true if the module prompts for a new password. AD first decides if the current one may be
    /// changed at all.
    fn reaches_the_new_one(&self) -> bool {
        [DONE, REFUSED].contains(&self.code) || self.who == "carl"
    }

    fn counters(&self, person: &Person, before: &Counts, after: &Counts) -> Check {
        let mut expected = before.clone();
        let own = expected.get_mut(person.sam).ok_or("AD does not know the person")?;
        if self.wrong {
            own.bad_passwords += 1;
        } else if !own.locked {
            *own = Counters { bad_passwords: 0, locked: false };
        }
        same(after, &expected)
    }

    fn in_force(&self, lab: &Lab, person: &Person) -> Check {
        equal("the new password", authenticate(lab, person.sam, self.new).code.as_str(), DONE)?;
        equal(
            "the old password",
            authenticate(lab, person.sam, person.password).code.as_str(),
            "PAM_AUTH_ERR",
        )?;
        equal("badPwdCount after the old one", lab.counters(person.sam)?.bad_passwords, 1)
    }
}

fn same(seen: &Counts, expected: &Counts) -> Check {
    let other = |counts: &Counts| -> Counts {
        let differs = |sam: &String| seen.get(sam) != expected.get(sam);
        counts.iter().filter(|(sam, _)| differs(sam)).map(|(sam, c)| (sam.clone(), *c)).collect()
    };
    equal("AD's counters", other(seen), other(expected))
}

/// Makes one change at pamtester's prompts.
pub fn typed(lab: &Lab, service: &str, person: &Person, present: &str, new: &str) -> Answer {
    pam(lab, service, person.sam, &format!("{present}\n{new}\n{new}"), &["chauthtok"])
}

/// Checks that the user saw this text, and none of the other texts.
fn told(answer: &Answer, text: &str) -> Check {
    let texts = CHANGES.iter().chain(DOMAIN.iter().map(|(_, change)| change)).map(|change| change.told);
    let mut others = texts.chain([UNKNOWN]).filter(|other| !other.is_empty() && *other != text);
    match others.find(|other| answer.output.contains(other)) {
        Some(other) => Err(format!("the person was told {other:?}")),
        None => contains("what the person was told", &answer.output, text),
    }
}

/// Returns `pwdLastSet`, which changes only with the password.
fn last_set(lab: &Lab, person: &Person) -> Result<String, String> {
    let filter = format!("(sAMAccountName={})", person.sam);
    let found = lab.dc(&["ldbsearch", "-H", "/var/lib/samba/private/sam.ldb", &filter, "pwdLastSet"]).ok()?;
    let value = found.lines().find_map(|line| line.strip_prefix("pwdLastSet: "));
    value.map(str::to_owned).ok_or_else(|| format!("no pwdLastSet in {found}"))
}

/// Tests the domain's policy, one rule at a time.
fn policies(lab: &Lab, report: &mut Report) -> Check {
    let set = |rules: &[&str]| {
        let command = ["samba-tool", "domain", "passwordsettings", "set"];
        lab.dc(&[&command, rules].concat()).ok().map(drop)
    };
    for (rule, change) in DOMAIN {
        report.check(&format!("{rule}: {}", change.label()), || {
            // History and age count only for a password that was set under the rule.
            set(&[rule])?;
            lab.run(&["cast", "restore", person(change.who).sam]).ok()?;
            let checked = change.check(lab);
            set(LAX).and(checked)
        });
    }
    lab.run(&["cast", "restore", "john"]).ok().map(drop)
}

/// Tests the interaction with other lines of the stack.
fn stacks(lab: &Lab, report: &mut Report) {
    let stack = |text: &str| lab.write("/etc/pam.d/motion-stack", text);
    let seth = person("seth");
    let new = "S3th-swims-in-soup";
    report.check(
        "the first phase changes nothing: a later line refuses, and AD has the old password",
        || {
            stack("password requisite pam_motion_ad.so\npassword requisite pam_deny.so\n")?;
            let set = last_set(lab, &seth)?;
            let answer = typed(lab, "motion-stack", &seth, seth.password, new);
            equal("PAM", answer.code == DONE, false)?;
            equal("prompts for a new password", answer.output.contains("New password: "), false)?;
            equal("pwdLastSet", last_set(lab, &seth)?, set)
        },
    );
    report.check("use_authtok without a new password of an earlier line asks nobody", || {
        stack("password requisite pam_motion_ad.so use_authtok\n")?;
        let answer = typed(lab, "motion-stack", &seth, seth.password, new);
        equal("PAM", answer.code.as_str(), REFUSED).map_err(|e| format!("{e}\n{}", answer.output))?;
        equal("prompts for a new password", answer.output.contains("New password: "), false)
    });
    report.check("use_authtok takes the new password of an earlier line", || {
        // A local user of the same name. pam_unix changes its password as root, without the current one.
        let (add, remove) =
            (format!("useradd -M {0} && chpasswd", seth.sam), format!("userdel {}", seth.sam));
        lab.host("root", &["sh", "-c", &add], &format!("{}:{}\n", seth.sam, seth.password)).ok()?;
        stack("password requisite pam_unix.so\npassword requisite pam_motion_ad.so use_authtok\n")?;
        let input = format!("{}\n{new}\n{new}\n", seth.password);
        let ran = lab.host("root", &["pamtester", "motion-stack", seth.sam, "chauthtok"], &input);
        lab.host_sh(&remove).ok()?;
        let said = ran.stdout + &ran.stderr;
        let in_force = authenticate(lab, seth.sam, new).code;
        lab.run(&["cast", "restore", seth.sam]).ok()?;
        let all = |text: String| format!("{text}\npamtester said:\n{said}");
        equal("exit code", ran.code, 0).map_err(all)?;
        equal("prompts for a new password", said.matches("New password: ").count(), 1).map_err(all)?;
        equal("the new password", in_force.as_str(), DONE).map_err(all)
    });
    report.check("pamtester authenticate chauthtok: in one go, and a second time back", || {
        for (present, new) in [(seth.password, new), (new, "S3th-sits-again-1")] {
            let input = format!("{present}\n{present}\n{new}\n{new}");
            let answer = pam(lab, "motion", seth.sam, &input, &["authenticate", "chauthtok"]);
            equal("PAM", answer.code.as_str(), DONE).map_err(|e| format!("{e}\n{}", answer.output))?;
        }
        lab.run(&["cast", "restore", seth.sam]).ok().map(drop)
    });
    report.check(
        "expired=account: pamtester authenticate chauthtok lets somebody in who must change",
        || {
            let max = person("max");
            let new = "M4x-mixes-mortar";
            let input = format!("{0}\n{0}\n{new}\n{new}", max.password);
            let entry_points = ["authenticate", "chauthtok", "acct_mgmt", "open_session", "close_session"];
            let answer = pam(lab, &service("account"), max.sam, &input, &entry_points);
            lab.run(&["cast", "restore", max.sam]).ok()?;
            equal("PAM", answer.code.as_str(), DONE).map_err(|e| format!("{e}\n{}", answer.output))
        },
    );
    report.check("an earlier password is refused, by the person's own policy, and by the domain's", || {
        let history = |rule| lab.dc(&["samba-tool", "domain", "passwordsettings", "set", rule]).ok();
        for (who, between, told) in
            [("polly", "Tw3lve-letters-again", USED), ("john", "J0hn-runs", USED_HERE)]
        {
            let person = person(who);
            history("--history-length=5")?;
            lab.run(&["cast", "restore", who]).ok()?;
            let first = typed(lab, "motion", &person, person.password, between);
            let back = typed(lab, "motion", &person, between, person.password);
            history(LAX_HISTORY)?;
            lab.run(&["cast", "restore", who]).ok()?;
            equal("the first change", first.code.as_str(), DONE)?;
            equal("the change back", back.code.as_str(), REFUSED)?;
            contains("what the person was told", &back.output, told)?;
        }
        Ok(())
    });
    report.check("typed differently the second time: nothing is sent", || {
        let set = last_set(lab, &seth)?;
        let input = format!("{}\n{new}\n{new}!", seth.password);
        let answer = pam(lab, "motion", seth.sam, &input, &["chauthtok"]);
        equal("PAM", answer.code.as_str(), "PAM_TRY_AGAIN")?;
        equal("pwdLastSet", last_set(lab, &seth)?, set)
    });
}

/// Tests applications that offer a change, and applications that do not.
fn applications(lab: &Lab, report: &mut Report, people: &[&str]) -> Check {
    let mut app = App::start(lab)?;
    for (number, flow) in FLOWS.iter().enumerate() {
        for who in people {
            let person = person(who);
            report.check(&format!("{}: {}", person.sam, flow.name), || {
                let done = flow.follow(&mut app, &format!("{who}-{number}"), &person);
                let changed = authenticate(lab, person.sam, NEW).code;
                lab.run(&["cast", "restore", person.sam]).ok()?;
                done?;
                equal("the new password is in force", changed == DONE, flow.changes)
            });
        }
    }
    report.check(
        "PAM_CHANGE_EXPIRED_AUTHTOK leaves a password alone that has not expired, and asks nobody",
        || {
            let john = person("john");
            let done = app.run(Job {
                handle: "john".into(),
                service: service("account"),
                user: john.sam.into(),
                calls: vec![Call::ChangeExpired],
                end: true,
                ..Job::default()
            })?;
            equal("PAM", done.code(), DONE)?;
            equal("what was said", done.said, Vec::new())
        },
    );
    Ok(())
}

/// The new password in the applications' tests.
const NEW: &str = "Ch0sen-in-an-application";

impl Flow {
    fn follow(&self, app: &mut App, handle: &str, person: &Person) -> Check {
        let mut password = person.password;
        for (call, code) in self.steps {
            let answers = match call {
                Call::Authenticate => vec![password.to_owned()],
                Call::Change | Call::ChangeExpired => [password, NEW, NEW].map(str::to_owned).to_vec(),
                _ => Vec::new(),
            };
            let done = app.run(Job {
                handle: handle.to_owned(),
                service: service(self.expired),
                user: person.sam.to_owned(),
                answers,
                calls: vec![*call],
                ..Job::default()
            })?;
            equal(&format!("{call:?}"), done.code(), code).map_err(|e| format!("{e}\n{:?}", done.said))?;
            if matches!(call, Call::Change | Call::ChangeExpired) {
                equal("prompts", done.said(Style::Prompt).len(), 3)?;
                password = NEW;
            }
        }
        Ok(())
    }
}

/// The domain controller makes the change, but its answer is lost. (kpasswd has a separate port, and serves
/// the accounts that cannot bind.) If AD is still readable, pwdLastSet shows that the password changed.
fn lost(lab: &Lab, report: &mut Report) {
    let read = "the answer of kpasswd is lost, and AD shows that it was changed: success";
    report.check(read, || lose(lab, false, DONE, "", "pwdLastSet shows that"));
    let silent = "the answer of kpasswd is lost, and then AD cannot be read: unknown, try the new one";
    report.check(silent, || lose(lab, true, "PAM_AUTHINFO_UNAVAIL", UNKNOWN, "outcome=change_unknown"));
}

fn lose(lab: &Lab, silent: bool, code: &str, text: &str, logged: &str) -> Check {
    let position = lab.log_position()?;
    let (max, new) = (person("max"), "M4x-may-have-moved");
    let lines = format!("{}\n{new}\n{new}", max.password);
    let answer = std::thread::scope(|scope| {
        if silent {
            scope.spawn(|| {
                // With a connection to kpasswd, the account was read; the new password follows at once.
                let sent = || match lab.host_sh("ss -Htn state established 'dport = :464'").ok()?.trim() {
                    "" => Err("no connection to kpasswd".to_owned()),
                    _ => Ok(()),
                };
                wait(Duration::from_secs(30), sent)?;
                lab.run(&["net", "swallow", "dc", "389"]).ok()
            });
        }
        slowly(lab, max.sam, "chauthtok", &lines, || lab.run(&["net", "mute", "dc", "464"]).ok().map(drop))
    });
    lab.run(&["net", "heal", "dc"]).ok()?;
    let answer = answer?;
    wait(Duration::from_secs(30), || ready(lab))?;
    let works = authenticate(lab, max.sam, new).code;
    let counted = lab.counters(max.sam)?.bad_passwords;
    lab.run(&["cast", "restore", max.sam]).ok()?;
    let all = |text: String| format!("{text}\npamtester said:\n{}", answer.output);
    equal("PAM", answer.code.as_str(), code).map_err(all)?;
    told(&answer, text).map_err(all)?;
    equal("the new password", works.as_str(), DONE).map_err(all)?;
    lab.wait_for_log(&position, &["event=password ", "the answer is lost", logged])?;
    equal("badPwdCount", counted, 0)
}

/// The domain controller dies during a change, at each of `moments`, in milliseconds from the start. The text
/// that the user sees must be true in each case.
fn cut(lab: &Lab, report: &mut Report, moments: &[u64]) {
    for who in ["seth", "max"] {
        for milliseconds in moments {
            report.check(&format!("{who}: the DC is gone {milliseconds} ms after the beginning"), || {
                let checked = cut_at(lab, &person(who), Duration::from_millis(*milliseconds));
                heal(lab)?;
                lab.run(&["cast", "restore", who]).ok()?;
                checked
            });
        }
    }
}

fn cut_at(lab: &Lab, person: &Person, moment: Duration) -> Check {
    let new = "N3w-at-the-last-moment";
    // A delay that puts some of the moments between request and answer.
    for dc in lab.dcs() {
        lab.run(&["net", "delay", dc, "100"]).ok()?;
    }
    wait(Duration::from_secs(30), || ready(lab))?;
    let answer = std::thread::scope(|scope| {
        let typed = scope.spawn(|| typed(lab, "motion", person, person.password, new));
        std::thread::sleep(moment);
        let cut = lab.run(&["net", "blackhole", "dc"]).ok();
        let answer = typed.join().map_err(|_| "the change's thread ended".to_owned());
        cut.and(answer)
    })?;
    heal(lab)?;
    is_true(lab, person, new, &answer)
}

/// Checks that a change to `new` had the result that its answer promises, and counted no wrong password. All
/// domain controllers must know what the others do.
pub fn is_true(lab: &Lab, person: &Person, new: &str, answer: &Answer) -> Check {
    let all = |text: String| format!("{text}\npamtester said:\n{}", answer.output);
    equal("wrong passwords", lab.counted_everywhere()?.get(person.sam), Some(&0)).map_err(all)?;
    // The code for the old password also shows that it is right: it must still be changed.
    let right = |password| authenticate(lab, person.sam, password).code != "PAM_AUTH_ERR";
    let (new, old) = (right(new), right(person.password));
    println!("         {}; the new one works: {new}", answer.code);
    equal("either the new or the old one works", new != old, true).map_err(all)?;
    match (answer.code.as_str(), answer.output.contains(UNKNOWN)) {
        (DONE, _) => equal("the new one works", new, true),
        ("PAM_AUTHINFO_UNAVAIL", true) => Ok(()),
        // After a reported failure, the old password is valid.
        (_, false) => equal("the old one works", old, true),
        (code, true) => Err(format!("{code} with a doubt")),
    }
    .map_err(all)
}

/// Reconnects all domain controllers, and waits until they have replicated.
fn heal(lab: &Lab) -> Check {
    for dc in lab.dcs() {
        lab.run(&["net", "heal", dc]).ok()?;
    }
    lab.run(&["dc", "replicate"]).ok()?;
    wait(Duration::from_secs(20), || ready(lab))
}

/// A run of `motion-ad passwd`: the user, the two typed lines, the exit code, and a part of the output.
type Passwd = (&'static str, &'static str, &'static str, i32, &'static str);

#[rustfmt::skip]
const PASSWD: &[Passwd] = &[
    ("seth",  "S3th-sits-on-sand", "S3th-skates-on-snow",  0, "the password of seth.seat was changed"),
    ("seth",  "S3th-sits-on-sand", "S3th-skis-on-snow",    1, "outcome    wrong_password"),
    ("seth",  "S3th-skates-on-snow", "S3th-sits-on-sand",  0, "the password of seth.seat was changed"),
    ("max",   "M4x-mends-mittens", "M4x-melts-metal",      0, "the password of max.mustchange was changed"),
    ("polly", "Tw3lve-is-the-least", "Sh0rt",              1, SHORT),
    ("carl",  "C4rl-carves-canoes", "C4rl-cooks-crabs",    1, "You may not change your password."),
    ("dora",  "D0ra-drums-at-dawn", "D0ra-dives-deep",     1, "Your account is disabled."),
];

fn helper(lab: &Lab, report: &mut Report) {
    for (who, present, new, code, says) in PASSWD {
        let sam = person(who).sam;
        report.check(&format!("motion-ad passwd {sam}: exit code {code}, {says:?}"), || {
            let command = ["motion-ad", "passwd", "--password-stdin", sam];
            let ran = lab.host("motion", &command, &format!("{present}\n{new}\n"));
            let all = |text: String| format!("{text}\nit said:\n{}{}", ran.stdout, ran.stderr);
            contains("standard output", &ran.stdout, says).map_err(all)?;
            equal("exit code", ran.code, *code).map_err(all)?;
            let counted = u32::from(says.contains("wrong_password"));
            equal("badPwdCount", lab.counters(sam)?.bad_passwords, counted)
        });
    }
    report.check("they get their old passwords again", || {
        ["seth", "max"].iter().try_for_each(|who| lab.run(&["cast", "restore", who]).ok().map(drop))
    });
}
