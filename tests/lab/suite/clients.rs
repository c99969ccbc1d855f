//! Third-party applications as user motion on the host. Each rejects the users that must not log in,
//! whichever PAM calls it makes. A wrong password counts once, and no application writes a password down.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cast::person;
use crate::lab::{Lab, repository, wait};
use crate::pam::TEXTS;
use crate::ready::{john, ready};
use crate::register;
use crate::report::{Check, Report, equal};
use crate::row::{Counts, fields};
use crate::secrets;
use crate::talk::Talk;

/// Folder on the host for the applications' files from this repository.
pub const HOME: &str = "/opt/clients";
/// The folders that are copied to the host.
const PARTS: [&str; 7] = ["node", "npm", "python", "web", "motion-login", "ldap", "xcally-login"];
const NODE: &str = "/opt/clients/node/login.js";
pub const PYTHON: &str = "/opt/clients/python/login.py";

/// A service with texts, which some conversation functions answer with the password, and one for applications
/// that offer a password change.
const TALKATIVE: &str = "motion-messages";
const OFFERING: &str = "motion-expired";
const SERVICES: &[(&str, &str)] = &[(TALKATIVE, "messages"), (OFFERING, "expired=account")];

/// Maximum duration of a login: the module's timeout of 5 s, and a margin for the application and a busy
/// machine.
const WAITED: Duration = Duration::from_secs(8);
const BACK: Duration = Duration::from_secs(20);

/// Form in which an application reports a login.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// The text of libpam.
    Text,
    /// The HTTP status.
    Status,
}

struct Application {
    name: &'static str,
    /// The command that logs in.
    command: &'static [&'static str],
    /// The command of the server, if there is one.
    server: &'static [&'static str],
    says: Speech,
}

const APPLICATIONS: &[Application] = &[
    Application {
        name: "node-linux-pam",
        command: &["node", NODE, "node-linux-pam"],
        server: &[],
        says: Speech::Text,
    },
    // It never calls acct_mgmt, and answers every message with the password.
    Application {
        name: "authenticate-pam",
        command: &["node", NODE, "authenticate-pam"],
        server: &[],
        says: Speech::Text,
    },
    Application {
        name: "python-pam",
        command: &["python3", PYTHON, "python-pam"],
        server: &[],
        says: Speech::Text,
    },
    Application { name: "pamela", command: &["python3", PYTHON, "pamela"], server: &[], says: Speech::Text },
    Application {
        name: "apache",
        command: &["python3", PYTHON, "http", "http://127.0.0.1:8081"],
        server: &["/usr/sbin/apache2", "-d", "/opt/clients/web", "-f", "apache.conf", "-D", "FOREGROUND"],
        says: Speech::Status,
    },
    Application {
        name: "nginx",
        command: &["python3", PYTHON, "http", "http://127.0.0.1:8082"],
        server: &["/usr/sbin/nginx", "-p", "/run/clients-nginx", "-c", "/opt/clients/web/nginx.conf"],
        says: Speech::Status,
    },
];

/// Users that get access. They have an ordinary password, one with every special character, a non-ASCII name,
/// or a long password.
const ALLOWED: &[&str] = &["john", "quentin", "joerg", LONG];
const LONG: &str = "lydia";
/// The application that cuts passwords at 127 bytes.
const CUTS: &str = "authenticate-pam";

/// Users that are rejected although the password is right, with PAM's code.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    ("dora",  "PAM_PERM_DENIED"),
    ("ed",    "PAM_ACCT_EXPIRED"),
    ("petra", "PAM_NEW_AUTHTOK_REQD"),
    ("max",   "PAM_NEW_AUTHTOK_REQD"),
    ("nora",  "PAM_PERM_DENIED"),
    ("walt",  "PAM_PERM_DENIED"),
    ("lou",   "PAM_MAXTRIES"),
    // The broker's group rules reject these; AD accepts them.
    ("otto",  "PAM_PERM_DENIED"),
    ("dean",  "PAM_PERM_DENIED"),
];
const GROUPS: &str = "[login]\nallow_groups = [\"XCALLY Agents\"]\ndeny_groups = [\"XCALLY Denied\"]\n";
const WRONG: &str = "W3ndy-waters-weeds";

/// One login, with the expected PAM code.
struct Login {
    service: &'static str,
    user: String,
    password: String,
    code: &'static str,
}

impl Login {
    fn new(service: &'static str, who: &str, code: &'static str) -> Self {
        let person = person(who);
        Login { service, user: person.sam.to_owned(), password: person.password.to_owned(), code }
    }

    fn wrong(service: &'static str, code: &'static str) -> Self {
        Login { password: WRONG.to_owned(), ..Login::new(service, "wendy", code) }
    }

    fn question(&self) -> Value {
        json!({ "service": self.service, "user": self.user, "password": self.password })
    }
}

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    install(lab)?;
    services(lab)?;
    lab.configure(GROUPS)?;
    ready(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    let mut running = Vec::new();
    for application in APPLICATIONS {
        running.push(Running::start(lab, application)?);
    }
    for running in &mut running {
        report.note(running.application.name);
        for service in ["motion", TALKATIVE] {
            table(lab, report, running, service)?;
        }
        crowd(lab, report, running);
    }
    particular(lab, report, &mut running);
    unreachable(lab, report, &mut running)?;
    drop(running);
    let people = REFUSED.iter().map(|(who, _)| who).chain(ALLOWED).chain(&["wendy"]);
    let passwords: BTreeSet<_> =
        people.map(|who| person(who).password.to_owned()).chain([WRONG.to_owned()]).collect();
    secrets::nowhere(lab, report, &passwords);
    stop(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    lab.configure("")
}

/// Copies the applications' files from the repository to the host.
pub fn install(lab: &Lab) -> Check {
    let from = repository().join("tests/clients");
    for part in PARTS {
        copy(&from.join(part), &lab.path(HOME).join(part)).map_err(|e| format!("{part}: {e}"))?;
    }
    Ok(())
}

/// Copies a folder. Existing files remain.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    // A local node_modules is not copied; the host has its own.
    let entries = fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()?;
    let own = entries.iter().filter(|entry| entry.file_name() != "node_modules");
    own.into_iter().try_for_each(|entry| copy(&entry.path(), &to.join(entry.file_name())))
}

/// Writes the additional PAM services and the content that the web servers serve.
fn services(lab: &Lab) -> Check {
    for (service, arguments) in SERVICES {
        let ours = format!("required pam_motion_ad.so {arguments}\n");
        lab.write(&format!("/etc/pam.d/{service}"), &format!("auth {ours}account {ours}"))?;
    }
    let pages = lab.path(HOME).join("web/pages");
    fs::create_dir_all(&pages).map_err(|e| e.to_string())?;
    for page in ["motion", TALKATIVE, OFFERING, "account"] {
        fs::write(pages.join(page), "in\n").map_err(|e| format!("{page}: {e}"))?;
    }
    Ok(())
}

fn unit(application: &Application) -> String {
    format!("clients-{}", application.name)
}

fn stop(lab: &Lab) -> Check {
    for application in APPLICATIONS.iter().filter(|application| !application.server.is_empty()) {
        lab.host("root", &["systemctl", "stop", &unit(application)], "").ok()?;
    }
    for (service, _) in SERVICES {
        lab.host_sh(&format!("rm /etc/pam.d/{service}")).ok()?;
    }
    Ok(())
}

/// An application that runs across several logins.
struct Running {
    application: &'static Application,
    talk: Talk,
}

impl Running {
    fn start(lab: &Lab, application: &'static Application) -> Result<Self, String> {
        if !application.server.is_empty() {
            let unit = unit(application);
            let folder = format!("--property=RuntimeDirectory={unit}");
            let name = format!("--unit={unit}");
            let run = ["systemd-run", "--quiet", "--property=User=motion", &folder, &name, "--"];
            lab.host("root", &[&run[..], application.server].concat(), "").ok()?;
        }
        let talk = Talk::start(lab, "motion", application.command)?;
        let mut running = Running { application, talk };
        // A server needs a moment to start. It is ready once the connection is no longer refused.
        wait(BACK, || {
            let said = running.say(&[Login { user: "nobody.here".into(), ..Login::wrong("motion", "") }])?;
            if said[0].contains("refused") { Err(said[0].clone()) } else { Ok(()) }
        })?;
        Ok(running)
    }

    /// Logs all users in at once, and returns what the application reported for each.
    fn say(&mut self, logins: &[Login]) -> Result<Vec<String>, String> {
        let answers = self.talk.ask(logins.iter().map(Login::question).collect())?;
        Ok(answers.iter().map(said).collect())
    }

    /// Returns what this application reports if PAM returns `code`.
    fn expected(&self, code: &str) -> &'static str {
        match (self.application.says, code) {
            (Speech::Status, "PAM_SUCCESS") => "200",
            (Speech::Status, _) => "401",
            (Speech::Text, "PAM_SUCCESS") => "Success",
            (Speech::Text, _) => TEXTS.iter().find(|(_, known)| *known == code).map_or("", |(text, _)| text),
        }
    }

    fn all_as_expected(&mut self, logins: &[Login]) -> Check {
        let said = self.say(logins)?;
        logins
            .iter()
            .zip(said)
            .try_for_each(|(login, said)| equal(&login.user, said.as_str(), self.expected(login.code)))
    }
}

fn said(answer: &Value) -> String {
    answer["said"].as_str().unwrap_or_default().to_owned()
}

/// Logs in one user of each kind, one after the other.
fn table(lab: &Lab, report: &mut Report, running: &mut Running, service: &'static str) -> Check {
    let name = running.application.name;
    let allowed = ALLOWED.iter().filter(|who| name != CUTS || **who != LONG);
    let mut logins: Vec<_> = allowed.map(|who| Login::new(service, who, "PAM_SUCCESS")).collect();
    logins.push(Login::wrong(service, "PAM_AUTH_ERR"));
    logins.extend(REFUSED.iter().map(|(who, code)| Login::new(service, who, code)));
    logins.push(Login { user: "nobody.here".into(), ..Login::wrong(service, "PAM_USER_UNKNOWN") });
    let position = lab.log_position()?;
    let before = lab.everybodys_counters()?;
    for login in &logins {
        let typed = if login.password == WRONG { "a wrong password" } else { "the right password" };
        report.check(&format!("{name}, {service}, {} with {typed}: {}", login.user, login.code), || {
            running.all_as_expected(std::slice::from_ref(login))
        });
    }
    report.check(&format!("{name}, {service}: one log line for each of these, in order"), || {
        let of_service = |line: &String| {
            line.starts_with("event=login ")
                && fields(line).is_ok_and(|fields| fields.get("service").is_some_and(|seen| seen == service))
        };
        wait(BACK, || {
            let lines = lab.log_since(&position)?;
            let users = lines.iter().filter(|line| of_service(line)).map(|line| fields(line));
            let users = users.collect::<Result<Vec<_>, _>>()?;
            let users: Vec<_> = users.iter().filter_map(|fields| fields.get("user")).collect();
            equal("users", users, logins.iter().map(|login| &login.user).collect())
        })
    });
    report.check(&format!("{name}, {service}: the wrong password counted once, and nothing else"), || {
        counted(lab, &before, 1)
    });
    lab.run(&["cast", "reset", "wendy"]).ok().map(drop)
}

/// Checks that Wendy's counter rose by `times`, and that no other counter changed.
fn counted(lab: &Lab, before: &Counts, times: u32) -> Check {
    let mut expected = before.clone();
    expected.get_mut(person("wendy").sam).ok_or("AD does not know Wendy")?.bad_passwords += times;
    let after = lab.everybodys_counters()?;
    let changed: Vec<_> = after.iter().filter(|(sam, seen)| expected.get(*sam) != Some(seen)).collect();
    equal("AD's counters that are not as expected", changed, Vec::new())
}

/// Makes many logins at once in one process, which loads and unloads the module all the time.
fn crowd(lab: &Lab, report: &mut Report, running: &mut Running) {
    let name = running.application.name;
    report.check(&format!("{name}: 60 logins at once, two of them with a wrong password"), || {
        let before = lab.everybodys_counters()?;
        let mut logins: Vec<_> = (0..58).map(|_| Login::new("motion", "john", "PAM_SUCCESS")).collect();
        for at in [7, 31] {
            logins.insert(at, Login::wrong("motion", "PAM_AUTH_ERR"));
        }
        running.all_as_expected(&logins)?;
        counted(lab, &before, 2)?;
        lab.run(&["cast", "reset", "wendy"]).ok().map(drop)
    });
}

/// Checks that concern only one of the applications.
fn particular(lab: &Lab, report: &mut Report, running: &mut [Running]) {
    let mut of = |name: &str, question: Value| -> Result<String, String> {
        let running = running.iter_mut().find(|running| running.application.name == name);
        running.ok_or("no such application")?.talk.ask(vec![question]).map(|answers| said(&answers[0]))
    };
    let sam = |who: &str| person(who).sam;
    report.note("what only one of them does");
    for (who, expected) in [("john", "Success"), ("dora", "Permission denied")] {
        report.check(
            &format!("pamela, check_account on a handle that authenticated nobody, {who}: {expected}"),
            || {
                let question = json!({ "call": "check_account", "service": "motion", "user": sam(who) });
                equal("said", of("pamela", question)?.as_str(), expected)
            },
        );
    }
    report.check(
        "pamela, open_session and close_session on handles of their own: one session, which ends",
        || {
            let call = |call: &str| json!({ "call": call, "service": "motion", "user": sam("seth") });
            register::clear(lab)?;
            equal("open_session", of("pamela", call("open_session"))?.as_str(), "Success")?;
            equal("sessions", register::of(lab, sam("seth"))?.len(), 1)?;
            equal("close_session", of("pamela", call("close_session"))?.as_str(), "Success")?;
            equal("sessions", register::of(lab, sam("seth"))?.len(), 0)
        },
    );
    report.check("authenticate-pam cuts a long password, which is a wrong one and counts once", || {
        let question = Login::new("motion", LONG, "").question();
        equal("said", of(CUTS, question)?.as_str(), "Authentication failure")?;
        equal("badPwdCount", lab.counters(sam(LONG))?.bad_passwords, 1)?;
        lab.run(&["cast", "reset", LONG]).ok().map(drop)
    });
    // Apache's user file has the passwords.
    for (who, expected) in [("john", "200"), ("dora", "401"), ("lou", "401")] {
        report.check(&format!("apache, somebody else checked the password, {who}: {expected}"), || {
            let question = json!({ "service": "account", "user": sam(who), "password": "checked-elsewhere" });
            equal("said", of("apache", question)?.as_str(), expected)
        });
    }
    report.check(
        "apache, expired=account: whose password has expired is sent to where it can be changed",
        || {
            let question = Login::new(OFFERING, "petra", "").question();
            equal("said", of("apache", question)?.as_str(), "303 http://127.0.0.1:3000/")
        },
    );
    report.check("apache, expired=account: a wrong password is sent nowhere", || {
        let question = Login { password: WRONG.into(), ..Login::new(OFFERING, "petra", "") }.question();
        equal("said", of("apache", question)?.as_str(), "401")?;
        lab.run(&["cast", "reset", "petra"]).ok().map(drop)
    });
}

/// Isolates the domain controller. All logins fail in time, and none is counted afterwards.
fn unreachable(lab: &Lab, report: &mut Report, running: &mut [Running]) -> Check {
    report.note("no domain controller can be reached");
    let before = lab.everybodys_counters()?;
    lab.run(&["net", "cut", "dc"]).ok()?;
    let mut all_at_once = |login: &Login, took: &mut Vec<Duration>| {
        let begun = Instant::now();
        let asked: Vec<_> =
            running.iter_mut().map(|running| running.talk.begin(vec![login.question()])).collect();
        running
            .iter_mut()
            .zip(asked)
            .map(|(running, asked)| {
                let answers = running.talk.finish(asked?)?;
                took.push(begun.elapsed());
                Ok((running.application.name, said(&answers[0]), running.expected(login.code)))
            })
            .collect::<Result<Vec<_>, String>>()
    };
    let cut = "PAM_AUTHINFO_UNAVAIL";
    for (login, typed) in [
        (Login::new("motion", "john", cut), "the right password"),
        (Login::wrong("motion", cut), "a wrong password"),
    ] {
        let mut took = Vec::new();
        let all = all_at_once(&login, &mut took);
        for (name, said, expected) in all.clone().unwrap_or_default() {
            report.check(&format!("{name}, {} with {typed}: {cut}", login.user), || {
                equal("said", said.as_str(), expected)
            });
        }
        report.check(&format!("all of them, {typed}: within {} s", WAITED.as_secs()), || {
            all.map(drop)?;
            let slowest = took.iter().max().copied().unwrap_or_default();
            println!("         the slowest took {:.1} s", slowest.as_secs_f64());
            if slowest < WAITED { Ok(()) } else { Err(format!("{slowest:?}")) }
        });
    }
    lab.run(&["net", "heal", "dc"]).ok()?;
    wait(BACK, || john(lab).map(drop))?;
    let back = all_at_once(&Login::new("motion", "john", "PAM_SUCCESS"), &mut Vec::new());
    report.check("it is back, and so is John, in all of them", || {
        back?.iter().try_for_each(|(name, said, expected)| equal(name, said.as_str(), expected))
    });
    report.check("nothing was counted meanwhile", || counted(lab, &before, 0));
    Ok(())
}
