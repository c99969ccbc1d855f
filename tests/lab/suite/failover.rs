//! Two domain controllers, logins at a fixed rate, and one of the two away now and then: nobody is denied whose
//! password is right, nobody waits past the deadline, and each wrong password counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cast::person;
use crate::lab::{Lab, LogPosition};
use crate::load::{Load, Login};
use crate::ready::ready;
use crate::report::{Check, Report, equal};
use crate::row::{Method, fields};

/// Logins in a second. Whoever waited for a silent domain controller comes to the other at once: by Kerberos such a
/// second's logins, at 50 of them, are more than a second's work for the two cores that carry both domain controllers,
/// host and clients.
const fn rate(method: Method) -> usize {
    match method {
        Method::Ldap => 50,
        Method::Kerberos => 15,
    }
}
/// The module's deadline.
const WHOLE: f64 = 5000.0;
/// A login that has none waits as long as what it waits for stays away, which is at least twice that.
const DEADLINE: f64 = WHOLE * 1.5;
/// A login that took longer was slowed by what happened.
const SLOW: f64 = 250.0;
/// One domain controller that dies costs a login less than this: one that waits for it waits for all of its deadline. On an idle
/// machine it is a second, and here two cores carry everything.
const ONCE: f64 = WHOLE / 2.0;

/// Who logs in with the right password, and who only with a wrong one; by key. Nobody with hundreds of groups: his
/// bind costs Samba 0.1 s of a core, so the rate would measure Samba.
const RIGHT: [&str; 4] = ["john", "wendy", "nina", "dean"];
const WRONG: [&str; 9] = ["mary", "joerg", "miles", "lydia", "clash-a", "uma", "quentin", "lena", "otto"];
/// Wrong passwords come so long after each event, in milliseconds: into the middle of it, and after it.
const WRONG_AFTER: [usize; 2] = [100, 1500];

/// What the log says of a wrong password that a domain controller got and did not answer.
const DOUBTFUL: &str = "did not answer and may have counted";

/// When, in seconds, and what the lab does then.
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

/// Three minutes.
pub fn full(lab: &Lab, report: &mut Report) -> Check {
    by_each_method(lab, report, FULL, 180)
}

/// What fits into every run of the suite.
pub fn short(lab: &Lab, report: &mut Report) -> Check {
    run(lab, report, Method::Ldap, SHORT, 40)
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
    let rate = rate(method);
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
    let reasons = reasons(lab, &position)?;
    figures(&logins, &right, &wrong, &happened, &reasons);

    report.check("every login was answered", || equal("logins", logins.len(), plan.len()));
    report.check("the load itself was in time", || none(&logins, |login| login.late > ONCE));
    report.check("no login took longer than its deadline", || none(&logins, |login| login.took > DEADLINE));
    report.check("nobody was denied whose password is right", || {
        none(right.iter().copied(), |login| login.code != "PAM_SUCCESS")
    });
    report.check("every wrong password was answered as one", || {
        none(wrong.iter().copied(), |login| login.code != "PAM_AUTH_ERR")
    });
    report.check("a login waits for a domain controller that died at most for half of its deadline", || {
        none(&logins, |login| is_one_away(events, login.due) && login.took > ONCE)
    });
    report.check("each wrong password counted once, no right one did", || counters(lab, &plan, &position));
    report.check("each change is in the log once", || changes(lab, &position, events));
    lab.run(&["cast", "reset"]).ok().map(drop)
}

/// Returns true if the last event before `due`, in milliseconds, took a domain controller away. The start of a Samba needs
/// the cores that the other one runs on, so that logins after it measure the machine.
fn is_one_away(events: &[Event], due: f64) -> bool {
    let last = events.iter().rfind(|(at, _)| Duration::from_secs(*at).as_secs_f64() * 1000.0 <= due);
    last.is_some_and(|(_, what)| matches!(what.get(1), Some(&("kill" | "blackhole" | "hang"))))
}

/// Each login in its turn: who, and what is typed.
fn plan(events: &[Event], rate: usize, seconds: usize) -> Vec<(&'static str, String)> {
    let mut plan: Vec<_> = (0..rate * seconds)
        .map(|number| RIGHT[number % RIGHT.len()])
        .map(|who| (who, person(who).password.to_owned()))
        .collect();
    let moments =
        events.iter().flat_map(|(at, _)| WRONG_AFTER.map(|after| *at as usize * rate + after * rate / 1000));
    for (moment, who) in moments.zip(WRONG.iter().cycle()) {
        plan[moment] = (*who, "not the password of anybody".to_owned());
    }
    plan
}

/// No login may be so; the first few that are.
fn none<'a>(logins: impl IntoIterator<Item = &'a Login>, is_so: impl Fn(&Login) -> bool) -> Check {
    let bad: Vec<_> = logins.into_iter().filter(|login| is_so(login)).collect();
    match bad.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(format!("{} logins, the first: {first:?}", bad.len())),
    }
}

/// badPwdCount is each domain controller's own: the sum is what AD has counted. A domain controller that died before
/// it answered a bind may have counted it or not, and nobody can tell which: those are named in the log.
fn counters(lab: &Lab, plan: &[(&str, String)], position: &LogPosition) -> Check {
    let counted = lab.counted_everywhere()?;
    let lines = lab.log_since(position)?;
    let logins = lines.iter().filter(|line| line.contains(DOUBTFUL)).map(|line| fields(line));
    let doubtful = logins.collect::<Result<Vec<_>, _>>()?;
    let of = |who: &str| counted.get(person(who).sam).copied().unwrap_or_default();
    for who in RIGHT {
        equal(who, of(who), 0)?;
    }
    WRONG.iter().try_for_each(|who| {
        let tried = plan.iter().filter(|(planned, _)| planned == who).count() as u32;
        let is_theirs = |fields: &&BTreeMap<String, String>| fields["user"] == person(who).sam;
        let doubtful = doubtful.iter().filter(is_theirs).count() as u32;
        if doubtful > 0 {
            println!("         {who}: {tried} tried, {doubtful} of them in doubt, {} counted", of(who));
        }
        match (tried..=tried + doubtful).contains(&of(who)) {
            true => Ok(()),
            false => equal(who, of(who), tried),
        }
    })
}

/// How often each reason was given for denying somebody whose password is right.
fn reasons(lab: &Lab, position: &LogPosition) -> Result<BTreeMap<String, usize>, String> {
    let mut reasons = BTreeMap::new();
    for line in lab.log_since(position)?.iter().filter(|line| line.starts_with("event=login ")) {
        let fields = fields(line)?;
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        if !["success", "wrong_password"].contains(&field("outcome").as_str()) {
            *reasons.entry(format!("{}: {}", field("outcome"), field("reason"))).or_insert(0) += 1;
        }
    }
    Ok(reasons)
}

/// A domain controller goes down and comes up once for each time that it was taken away.
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
            // What nobody needed while it was away is not missed.
            if count > taken {
                return Err(format!(
                    "{host}, {service}: down {count} times in the log, {taken} times in truth"
                ));
            }
        }
    }
    Ok(())
}

fn figures(
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
            "         {:6.1} s  {name:<18} recovered after {:.2} s; {} logins over {SLOW:.0} ms, at most {slowest:.0} ms",
            begun / 1000.0,
            last / 1000.0,
            slow.len()
        );
    }
    for (reason, count) in reasons {
        println!("         {count} × {reason}");
    }
}
