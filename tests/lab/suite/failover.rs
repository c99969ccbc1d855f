//! Logins at a fixed rate with two domain controllers, one of which fails from time to time. No right
//! password is denied, no login exceeds the deadline, and each wrong password counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cast::person;
use crate::lab::{Lab, LogPosition, wait};
use crate::load::{Load, Login};
use crate::ready::{john, ready, while_john_logs_in};
use crate::report::{Check, Report, equal};
use crate::row::{Method, fields};

/// Most logins per second. All logins that waited for a silent domain controller move to the other one at
/// once. By Kerberos, 50 of them are more than a second's work for the two cores that run both domain
/// controllers, the host and the clients.
const fn most(method: Method) -> usize {
    match method {
        Method::Ldap => 50,
        Method::Kerberos => 15,
    }
}
/// Part of the control's throughput that the logins need. The rest is for the domain controllers that start,
/// and for the logins that move to another one at once: this machine carries no more than in the control.
const PART: f64 = 0.3;
/// Logins of the control that measures the throughput, and how many of them run at once.
const CONTROL: (usize, usize) = (200, 8);
/// Seconds of the control at the chosen rate, while nothing fails.
const CALM: usize = 15;

/// The module's deadline in milliseconds.
const WHOLE: f64 = 5000.0;
/// Maximum time of a login. Without a deadline it would wait for the whole outage, which is at least twice as
/// long.
pub const DEADLINE: f64 = WHOLE * 1.5;
/// Time above which a login was slowed by an outage.
const SLOW: f64 = 250.0;
/// Maximum cost of one domain controller that dies, in addition to the slowest login of the control. A login
/// that stays with it waits for its whole deadline. On an idle machine the cost is one second, but here two
/// cores run all machines.
pub const ONCE: f64 = WHOLE / 2.0;

/// Users that log in with the right password, and users that log in only with a wrong one, by key. None has
/// hundreds of groups: such a bind costs Samba 0.1 s of a core, so the rate would measure Samba.
pub const RIGHT: [&str; 4] = ["john", "wendy", "nina", "dean"];
pub const WRONG: [&str; 9] = ["mary", "joerg", "miles", "lydia", "clash-a", "uma", "quentin", "lena", "otto"];
/// Delays of the wrong passwords after each event in milliseconds: during it, and after it.
const WRONG_AFTER: [usize; 2] = [100, 1500];

/// A password that no user has.
pub const NOBODYS: &str = "not the password of anybody";

/// Text in the log about a wrong password that a domain controller received and did not answer.
const DOUBTFUL: &str = "did not answer and may have counted";

/// The time in seconds, and the command of the lab that runs then.
type Event = (u64, &'static [&'static str]);

#[rustfmt::skip]
const FULL: &[Event] = &[
    ( 10, &["dc", "kill", "dc"]),
    ( 30, &["dc", "start", "dc"]),
    ( 50, &["net", "blackhole", "dc"]),
    ( 70, &["net", "heal", "dc"]),
    ( 90, &["dc", "kill", "dc2"]),
    (105, &["dc", "start", "dc2"]),
    (120, &["net", "blackhole", "dc2"]),
    (135, &["net", "heal", "dc2"]),
    (150, &["dc", "hang", "dc"]),
    (165, &["dc", "continue", "dc"]),
];

#[rustfmt::skip]
const SHORT: &[Event] = &[
    ( 5, &["net", "blackhole", "dc"]),
    (15, &["net", "heal", "dc"]),
    (20, &["dc", "kill", "dc2"]),
    (30, &["dc", "start", "dc2"]),
];

/// Runs for three minutes with each method.
pub fn full(lab: &Lab, report: &mut Report) -> Check {
    by_each_method(lab, report, FULL, 180)
}

/// Runs the test of the main suite.
pub fn short(lab: &Lab, report: &mut Report) -> Check {
    run(lab, report, Method::Ldap, SHORT, 40)
}

/// The administrator's password, on the domain controllers.
const PASSWORD: &str = "/usr/local/lib/lab/admin-password";

/// Renewals of the machine's password that one domain controller does not learn of. The method is `auto`
/// where the configuration names none.
pub fn not_replicated(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    for (method, behind, other) in [
        ("ldap", "ad.acme.com", "ad2.acme.com"),
        ("kerberos", "ad.acme.com", "ad2.acme.com"),
        ("auto", "ad.acme.com", "ad2.acme.com"),
        ("kerberos", "ad2.acme.com", "ad.acme.com"),
    ] {
        let name =
            format!("by {method}: {behind} does not learn of the machine's new password, and logins go on");
        report.check(&name, || {
            let config = match method {
                "auto" => String::new(),
                method => format!("[login]\nmethod = \"{method}\"\n"),
            };
            let config = format!("[tls]\nca_file = \"/etc/motion-ad/ca.pem\"\n{config}");
            lab.write("/etc/motion-ad/config.toml", &config)?;
            wait(Duration::from_secs(30), || ready(lab))?;
            let replication = |sign: &str| {
                let option = format!("--dsa-option={sign}DISABLE_INBOUND_REPL");
                let command = format!(
                    "PASSWD_FILE={PASSWORD} samba-tool drs options {behind} {option} -U Administrator"
                );
                lab.dc(&["sh", "-c", &command]).ok()
            };
            replication("+")?;
            let seen = renewed_elsewhere(lab, other);
            replication("-")?;
            lab.run(&["dc", "replicate"]).ok()?;
            seen
        });
    }
    lab.configure("")
}

/// Renews the machine's password at `other` while John logs in, until the broker has started with the new
/// keytab and opened a connection with it.
fn renewed_elsewhere(lab: &Lab, other: &str) -> Check {
    let position = lab.log_position()?;
    let (logins, slowest) = while_john_logs_in(lab, || {
        let renew = format!("adcli update --domain-controller={other} --computer-password-lifetime=0");
        lab.host_sh(&renew).ok()?;
        lab.wait_for_log(&position, &["event=restart", "changed=/etc/krb5.keytab"])?;
        lab.wait_for_log(&position, &["event=start", "dc="]).map(|line| println!("         {line}"))
    })?;
    println!("         {logins} logins, the slowest {:.2} s", slowest.as_secs_f64());
    // The broker that has just started.
    (0..3).try_for_each(|_| john(lab).map(drop))
}

fn by_each_method(lab: &Lab, report: &mut Report, events: &[Event], seconds: usize) -> Check {
    for method in [Method::Ldap, Method::Kerberos] {
        report.note(&format!("by {}", method.name()));
        lab.set_method(method);
        let done = lab.configure("").and_then(|()| run(lab, report, method, events, seconds));
        lab.set_method(Method::Ldap);
        lab.configure("").and(done)?;
    }
    Ok(())
}

fn run(lab: &Lab, report: &mut Report, method: Method, events: &[Event], seconds: usize) -> Check {
    ready(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    let rate = carried(lab, method)?;
    let control = Control::at(lab, rate)?;
    let plan = plan(events, rate, seconds);
    let position = lab.log_position()?;
    let load =
        Load::start(lab, rate, plan.iter().map(|(who, password)| (person(who).sam, password.as_str())))?;
    let mut happened = Vec::new();
    for (at, command) in events {
        load.wait_until(Duration::from_secs(*at));
        happened.push((load.elapsed().as_secs_f64() * 1000.0, command.join(" ")));
        lab.run(command).ok()?;
    }
    let logins = load.finish()?;
    let is_wrong = |login: &Login| WRONG.contains(&plan[login.number].0);
    let (wrong, right): (Vec<_>, Vec<_>) = logins.iter().partition(|login| is_wrong(login));
    let reasons = reasons(&lab.log_since(&position)?)?;
    figures(&logins, &right, &wrong, &happened, &reasons);

    report.check("every login was answered", || equal("logins", logins.len(), plan.len()));
    report.check("the load itself was in time", || none(&logins, |login| login.late > control.latest + ONCE));
    report.check("no login took longer than its deadline", || none(&logins, |login| login.took > DEADLINE));
    report.check("nobody was denied whose password is right", || {
        none(right.iter().copied(), |login| login.code != "PAM_SUCCESS")
    });
    report.check("every wrong password was answered as one", || {
        none(wrong.iter().copied(), |login| login.code != "PAM_AUTH_ERR")
    });
    report.check("a login waits for a domain controller that died at most for half of its deadline", || {
        none(&logins, |login| is_one_away(events, login.due) && login.took > control.slowest + ONCE)
    });
    report.check("each wrong password counted once, no right one did", || {
        counters(
            lab,
            RIGHT.iter().chain(&WRONG),
            &Tried::of(wrong.iter().copied()),
            &lab.log_since(&position)?,
        )
    });
    report.check("each change is in the log once", || changes(lab, &position, events));
    lab.run(&["cast", "reset"]).ok().map(drop)
}

/// Returns logins of users with the right password.
pub fn right(count: usize) -> impl Iterator<Item = (&'static str, &'static str)> {
    (0..count).map(|number| person(RIGHT[number % RIGHT.len()])).map(|person| (person.sam, person.password))
}

/// Returns the number of logins per second for a test on this machine, as busy as it is now.
pub fn carried(lab: &Lab, method: Method) -> Result<usize, String> {
    let (count, at_once) = CONTROL;
    let throughput = Load::throughput(lab, at_once, right(count))?;
    let rate = most(method).min((throughput * PART) as usize);
    println!(
        "         control: {throughput:.0} logins per second, {at_once} at a time; the test makes {rate}"
    );
    match rate {
        0 => Err(format!("this machine carries only {throughput:.1} logins per second")),
        rate => Ok(rate),
    }
}

/// Logins at the rate of the test while nothing fails, just before it. Times are in milliseconds.
#[derive(Clone, Copy)]
pub struct Control {
    pub slowest: f64,
    pub latest: f64,
}

impl Control {
    pub fn at(lab: &Lab, rate: usize) -> Result<Self, String> {
        let logins = Load::start(lab, rate, right(rate * CALM))?.finish()?;
        none(&logins, |login| login.code != "PAM_SUCCESS").map_err(|e| format!("without a fault: {e}"))?;
        let most = |of: fn(&Login) -> f64| logins.iter().map(of).fold(0.0, f64::max);
        let control = Control { slowest: most(|login| login.took), latest: most(|login| login.late) };
        let Control { slowest, latest } = control;
        println!("         control: the slowest took {slowest:.0} ms, the latest began {latest:.0} ms late");
        match slowest < ONCE {
            true => Ok(control),
            false => Err(format!("without a fault a login took {slowest:.0} ms: this machine is too busy")),
        }
    }
}

/// Returns true if the last event before `due`, in milliseconds, took a domain controller away. The start of
/// a Samba needs the cores that the other one runs on, so logins after it would measure the machine.
fn is_one_away(events: &[Event], due: f64) -> bool {
    let last = events.iter().rfind(|(at, _)| Duration::from_secs(*at).as_secs_f64() * 1000.0 <= due);
    last.is_some_and(|(_, what)| matches!(what.get(1), Some(&("kill" | "blackhole" | "hang"))))
}

/// Returns all logins in order, each with its user and password.
fn plan(events: &[Event], rate: usize, seconds: usize) -> Vec<(&'static str, String)> {
    let mut plan: Vec<_> = (0..rate * seconds)
        .map(|number| RIGHT[number % RIGHT.len()])
        .map(|who| (who, person(who).password.to_owned()))
        .collect();
    let moments =
        events.iter().flat_map(|(at, _)| WRONG_AFTER.map(|after| *at as usize * rate + after * rate / 1000));
    for (moment, who) in moments.zip(WRONG.iter().cycle()) {
        plan[moment] = (*who, NOBODYS.to_owned());
    }
    plan
}

/// Checks that no login has this property. The error contains the number of such logins and the first one.
pub fn none<'a>(logins: impl IntoIterator<Item = &'a Login>, is_so: impl Fn(&Login) -> bool) -> Check {
    let bad: Vec<_> = logins.into_iter().filter(|login| is_so(login)).collect();
    match bad.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(format!("{} logins, the first: {first:?}", bad.len())),
    }
}

/// Number of one user's wrong passwords, by their answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Answered as wrong.
    pub wrong: u32,
    /// Answered otherwise. AD may have received them.
    pub otherwise: u32,
}

impl Tried {
    /// Binds or exchanges that one login sends at most, see `BINDS` and `EXCHANGES` in ARCHITECTURE.md.
    const SENT: u32 = 3;

    /// Counts these logins, all with a wrong password, by sAMAccountName.
    pub fn of<'a>(logins: impl Iterator<Item = &'a Login>) -> BTreeMap<String, Tried> {
        let mut all: BTreeMap<String, Tried> = BTreeMap::new();
        for login in logins {
            let tried = all.entry(login.user.clone()).or_default();
            match login.code == "PAM_AUTH_ERR" {
                true => tried.wrong += 1,
                false => tried.otherwise += 1,
            }
        }
        all
    }
}

/// Checks the counters of these users, by key, of whom some tried `wrong` passwords. badPwdCount is local to
/// each domain controller, so the sum is AD's count. A domain controller that died before it answered a bind
/// may or may not have counted it. The lines of the log name these logins.
pub fn counters<'a>(
    lab: &Lab,
    users: impl IntoIterator<Item = &'a &'a str>,
    wrong: &BTreeMap<String, Tried>,
    lines: &[String],
) -> Check {
    let counted = lab.counted_everywhere()?;
    let logins = lines.iter().filter(|line| line.contains(DOUBTFUL)).map(|line| fields(line));
    let doubtful = logins.collect::<Result<Vec<_>, _>>()?;
    let of = |sam: &str| counted.get(sam).copied().unwrap_or_default();
    for sam in users.into_iter().map(|who| person(who).sam).filter(|sam| !wrong.contains_key(*sam)) {
        equal(sam, of(sam), 0)?;
    }
    wrong.iter().try_for_each(|(sam, tried)| {
        let doubtful = doubtful.iter().filter(|fields| fields["user"] == *sam).count() as u32;
        let most = tried.wrong + doubtful + tried.otherwise * Tried::SENT;
        if most > tried.wrong {
            println!("         {sam}: {tried:?}, {doubtful} of them in doubt, {} counted", of(sam));
        }
        match (tried.wrong..=most).contains(&of(sam)) {
            true => Ok(()),
            false => equal(sam, of(sam), tried.wrong),
        }
    })
}

/// Returns the number of denied logins with a right password, by reason.
pub fn reasons(lines: &[String]) -> Result<BTreeMap<String, usize>, String> {
    let mut reasons = BTreeMap::new();
    for line in lines.iter().filter(|line| line.starts_with("event=login ")) {
        let fields = fields(line)?;
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        if !["success", "wrong_password"].contains(&field("outcome").as_str()) {
            *reasons.entry(format!("{}: {}", field("outcome"), field("reason"))).or_insert(0) += 1;
        }
    }
    Ok(reasons)
}

/// Checks that each domain controller is reported as down at most once per outage.
fn changes(lab: &Lab, position: &LogPosition, events: &[Event]) -> Check {
    let lines = lab.log_since(position)?;
    for (node, host) in [("dc", "ad.acme.com"), ("dc2", "ad2.acme.com")] {
        let taken = events
            .iter()
            .filter(|(_, command)| ["kill", "blackhole", "hang"].contains(&command[1]) && command[2] == node);
        let down = |line: &&String| {
            line.contains("event=dc ")
                && line.contains(&format!("host={host} "))
                && line.contains("state=down")
        };
        let taken = taken.count();
        for service in ["binds", "kdc"] {
            let named = format!("service={service} ");
            let count = lines.iter().filter(down).filter(|line| line.contains(&named)).count();
            // An outage during which no login needed the service is not reported.
            if count > taken {
                return Err(format!(
                    "{host}, {service}: down {count} times in the log, {taken} times in truth"
                ));
            }
        }
    }
    Ok(())
}

pub fn figures(
    logins: &[Login],
    right: &[&Login],
    wrong: &[&Login],
    happened: &[(f64, String)],
    reasons: &BTreeMap<String, usize>,
) {
    let mut times: Vec<_> = logins.iter().map(|login| login.took).collect();
    times.sort_by(f64::total_cmp);
    let at =
        |share: usize| times.get(times.len().saturating_sub(1) * share / 1000).copied().unwrap_or_default();
    let denied = right.iter().filter(|login| login.code != "PAM_SUCCESS").count();
    let over = logins.iter().filter(|login| login.took > DEADLINE).count();
    println!(
        "         {} logins, {} of them with a wrong password; denied {denied}, over the deadline {over}",
        logins.len(),
        wrong.len()
    );
    println!(
        "         p50 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms, slowest {:.0} ms",
        at(500),
        at(990),
        at(999),
        at(1000)
    );
    let ends = happened.iter().map(|(at, _)| *at).skip(1).chain([f64::INFINITY]);
    for ((begun, name), end) in happened.iter().zip(ends) {
        let within = |login: &&Login| login.due + login.took >= *begun && login.due < end;
        let slow: Vec<_> = logins.iter().filter(within).filter(|login| login.took > SLOW).collect();
        let slowest = slow.iter().map(|login| login.took).fold(0.0, f64::max);
        let last = slow.iter().map(|login| login.due + login.took - begun).fold(0.0, f64::max);
        println!(
            "         {:6.1} s  {name:<18} recovered after {:.2} s; {} logins over {SLOW:.0} ms, at most \
             {slowest:.0} ms",
            begun / 1000.0,
            last / 1000.0,
            slow.len()
        );
    }
    for (reason, count) in reasons {
        println!("         {count} × {reason}");
    }
}
