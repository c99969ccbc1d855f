//! Sessions on one host with the register in a file: one seat per user and the other policies, all ways in
//! which a session ends, the notices about it, and the effects of many concurrent logins, crashes and a full
//! disk.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use motion_ad::protocol::report::{EndReason, Session};
use serde_json::Value;

use crate::app::{App, Call, Done, Job, Style};
use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::pam::pam;
use crate::ready::ready;
use crate::register::{self, clear, end_of, ends, of, one_remains, show};
use crate::report::{Check, Report, contains, equal};

/// A service whose authenticate registers, one with messages, and one with a timeout long enough for hundreds
/// of logins.
const BY_AUTH: &str = "motion-auth";
const TALKATIVE: &str = "motion-messages";
pub const PATIENT: &str = "motion-patient";
const SERVICES: &[(&str, &str)] =
    &[(BY_AUTH, "session=auth"), (TALKATIVE, "messages"), (PATIENT, "timeout=60")];
/// Maximum time until an ended process is noticed. The broker checks every half minute.
const SWEPT: Duration = Duration::from_secs(90);
/// The shortest configurable times in seconds, and the maximum time until each takes effect.
const RECHECK: &str = "recheck = 10\nmax_age = 60\n";
const RECHECKED: Duration = Duration::from_secs(60);
/// Maximum time until an event reaches a watcher.
const TOLD: Duration = Duration::from_secs(60);
const AGED: Duration = Duration::from_secs(180);

/// More logins than fit into the register's existing files if these cannot grow.
const ROOM: usize = 2000;

/// A service whose auth line has `session=auth`, but whose session line has not.
const MIXED: &str = "motion-mixed";

const LOGIN: &[Call] = &[Call::Authenticate, Call::Account, Call::Open];
const DONE: &str = "PAM_SUCCESS";

/// Runs the tests of the main suite.
pub fn short(lab: &Lab, report: &mut Report) -> Check {
    begin(lab)?;
    policies(lab, report)?;
    ends_of_all_kinds(lab, report)?;
    storm(lab, report, "60 logins at once", 60, 0);
    storm(lab, report, "60 logins at once, the broker killed twice", 60, 2);
    end(lab)
}

pub fn full(lab: &Lab, report: &mut Report) -> Check {
    begin(lab)?;
    policies(lab, report)?;
    ends_of_all_kinds(lab, report)?;
    too_old(lab, report)?;
    storm(lab, report, "200 logins at once", 200, 0);
    for round in 1..=3 {
        storm(
            lab,
            report,
            &format!("200 logins at once, the broker killed five times, round {round}"),
            200,
            5,
        );
    }
    disk(lab, report)?;
    end(lab)
}

/// Writes the service files that the chapters about sessions use.
pub fn services(lab: &Lab) -> Check {
    for (service, arguments) in SERVICES {
        let ours = format!("required pam_motion_ad.so {arguments}\n");
        let lines = ["auth ", "account ", "password ", "session "].map(|line| format!("{line}{ours}"));
        lab.write(&format!("/etc/pam.d/{service}"), &lines.concat())?;
    }
    let line = |kind: &str, argument: &str| format!("{kind} required pam_motion_ad.so {argument}\n");
    let lines = [line("auth", "session=auth"), line("account", ""), line("session", "")];
    lab.write(&format!("/etc/pam.d/{MIXED}"), &lines.concat())
}

fn begin(lab: &Lab) -> Check {
    services(lab)?;
    ready(lab)?;
    clear(lab)?;
    lab.run(&["cast", "reset"]).ok().map(drop)
}

fn end(lab: &Lab) -> Check {
    clear(lab)?;
    for service in SERVICES.iter().map(|(service, _)| *service).chain([MIXED]) {
        lab.host_sh(&format!("rm /etc/pam.d/{service}")).ok()?;
    }
    lab.configure("")
}

/// Writes a configuration with `[sessions]` and these lines.
fn configure(lab: &Lab, keys: &str) -> Check {
    lab.configure(&format!("[sessions]\n{keys}"))?;
    ready(lab)?;
    clear(lab)
}

/// Returns a login with a session, on a new handle.
pub fn login(handle: &str, who: &str, service: &str) -> Job {
    let person = person(who);
    Job {
        handle: handle.to_owned(),
        service: service.to_owned(),
        user: person.sam.to_owned(),
        rhost: "192.0.2.7".to_owned(),
        tty: "web".to_owned(),
        answers: vec![person.password.to_owned()],
        calls: LOGIN.to_vec(),
        ..Job::default()
    }
}

/// Returns the session of a successful login.
fn session(done: &Done) -> Result<String, String> {
    equal(&done.handle, done.code(), DONE).map_err(|e| format!("{e}\n{:?}", done.said))?;
    done.session.clone().ok_or_else(|| format!("{}: no session was named", done.handle))
}

fn enter(app: &mut App, handle: &str, who: &str) -> Result<String, String> {
    session(&app.run(login(handle, who, "motion"))?)
}

fn close(app: &mut App, handle: &str) -> Check {
    let done =
        app.run(Job { handle: handle.into(), calls: vec![Call::Close], end: true, ..Job::default() })?;
    equal("close_session", done.code(), DONE)
}

fn ids(sessions: &[Session]) -> Vec<&str> {
    sessions.iter().map(|session| session.id.as_str()).collect()
}

fn policies(lab: &Lab, report: &mut Report) -> Check {
    let seth = person("seth").sam;
    let mut app = App::start(lab)?;
    report.check("open_session registers, close_session ends: pamtester", || {
        let cursor = register::now(lab)?;
        let entry_points = ["authenticate", "acct_mgmt", "open_session", "close_session"];
        let answer = pam(lab, "motion", seth, person("seth").password, &entry_points);
        equal("PAM", answer.code.as_str(), DONE).map_err(|e| format!("{e}\n{}", answer.output))?;
        let events = register::since(lab, &cursor)?;
        let ends: Vec<_> =
            events.iter().map(|event| event.session.ended.as_ref().map(|ended| ended.reason)).collect();
        equal("events", ends, vec![None, Some(EndReason::Closed)])
    });
    report.check("a session says who, where and since when", || {
        let id = enter(&mut app, "who", "seth")?;
        let session = show(lab, &id)?;
        let uid = lab.host_sh("id -u motion").ok()?;
        let name = lab.host_sh("hostname").ok()?;
        equal("user", session.user.as_str(), seth)?;
        equal("principal", session.principal, format!("{seth}@acme.com"))?;
        equal("service", session.service.as_str(), "motion")?;
        equal("rhost", session.rhost.as_str(), "192.0.2.7")?;
        equal("tty", session.tty.as_str(), "web")?;
        equal("uid", session.uid.to_string().as_str(), uid.trim())?;
        equal("pid", session.pid, app.pid)?;
        equal("a start of the process", session.started > 0, true)?;
        contains("host", &session.host, name.trim())?;
        close(&mut app, "who")?;
        equal("its end", end_of(lab, &id)?, Some(EndReason::Closed))
    });
    report.check("replace: who logs in takes the place of the one before, who is told", || {
        let first = enter(&mut app, "first", "seth")?;
        let cursor = register::now(lab)?;
        let second = enter(&mut app, "second", "seth")?;
        equal("open", ids(&of(lab, seth)?), vec![second.as_str()])?;
        let events = register::since(lab, &cursor)?;
        let [evicted, opened] = events.as_slice() else { return Err(format!("{events:?}")) };
        let ended = evicted.session.ended.clone().ok_or("the first event is no end")?;
        equal("who was evicted", evicted.session.id.as_str(), first.as_str())?;
        equal("why", (ended.reason, ended.detail.as_str()), (EndReason::Replaced, second.as_str()))?;
        equal("who came", opened.session.id.as_str(), second.as_str())
    });
    report.check("nobody is evicted by a login that does not succeed", || {
        let before = ids(&of(lab, seth)?).join(" ");
        let wrong = Job { answers: vec!["wrong".into()], ..login("wrong", "seth", "motion") };
        equal("PAM", app.run(wrong)?.code(), "PAM_AUTH_ERR")?;
        // Nor by a login that has not yet opened a session.
        let calls = LOGIN[..2].to_vec();
        equal("PAM", app.run(Job { calls, ..login("early", "seth", "motion") })?.code(), DONE)?;
        equal("open", ids(&of(lab, seth)?).join(" "), before)?;
        lab.run(&["cast", "reset", "seth"]).ok().map(drop)
    });
    report.check("one person is one person, whatever name is typed", || {
        let mut before = ids(&of(lab, seth)?).join(" ");
        for (number, name) in ["SETH.SEAT", "seth.seat@acme.com", "ACME\\seth.seat"].into_iter().enumerate() {
            let job = Job { user: name.to_owned(), ..login(&format!("name-{number}"), "seth", "motion") };
            let id = session(&app.run(job)?)?;
            equal("the end of the one before", end_of(lab, &before)?, Some(EndReason::Replaced))?;
            before = id;
        }
        Ok(())
    });
    report.check("opened under a UPN suffix, closed under the sAMAccountName on a fresh handle", || {
        let upn = Job { user: "sven.suffix@brand.example".into(), ..login("suffix", "sven", "motion") };
        let id = session(&app.run(upn)?)?;
        let leave = Job {
            handle: "suffix-leaves".into(),
            service: "motion".into(),
            user: person("sven").sam.into(),
            calls: vec![Call::Close],
            end: true,
            ..Job::default()
        };
        equal("close_session", app.run(leave)?.code(), DONE)?;
        equal("its end", end_of(lab, &id)?, Some(EndReason::Closed))
    });
    report.check("somebody else is somebody else", || {
        let sally = enter(&mut app, "sally", "sally")?;
        enter(&mut app, "beside", "seth")?;
        equal("sally's", end_of(lab, &sally)?, None)
    });
    configure(lab, "policy = \"deny\"\n")?;
    report.check(
        "deny: who is in elsewhere is refused with a text, and comes in when the other has left",
        || {
            let first = enter(&mut app, "in", "seth")?;
            let done = app.run(login("denied", "seth", TALKATIVE))?;
            equal("codes", done.codes, [DONE, DONE, "PAM_PERM_DENIED"].map(str::to_owned).to_vec())?;
            let told: Vec<_> = done.said.iter().filter(|said| said.style == Style::Error).collect();
            equal("texts", told.len(), 1)?;
            contains("the text", &told[0].text, "You are already logged in elsewhere.")?;
            equal("open", ids(&of(lab, seth)?), vec![first.as_str()])?;
            close(&mut app, "in")?;
            enter(&mut app, "in-now", "seth").map(drop)
        },
    );
    report.check("deny: with session=auth on the auth line alone a login does not block itself", || {
        clear(lab)?;
        let id = session(&app.run(login("mixed", "seth", MIXED))?)?;
        equal("open", ids(&of(lab, seth)?), vec![id.as_str()])?;
        let done =
            app.run(Job { handle: "mixed".into(), calls: vec![Call::Close], end: true, ..Job::default() })?;
        equal("close_session", done.code(), DONE)?;
        equal("its end", end_of(lab, &id)?, Some(EndReason::Closed))
    });
    configure(lab, "policy = \"unlimited\"\n")?;
    report.check("unlimited: everybody stays", || {
        let all = ["a", "b", "c"].map(|handle| enter(&mut app, &format!("free-{handle}"), "seth"));
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        equal("open", ids(&of(lab, seth)?), all.iter().map(String::as_str).collect())
    });
    configure(lab, "limit = 2\n")?;
    report.check("limit = 2: the third takes the place of the oldest", || {
        let all = ["a", "b", "c"].map(|handle| enter(&mut app, &format!("two-{handle}"), "seth"));
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        equal("open", ids(&of(lab, seth)?), all[1..].iter().map(String::as_str).collect())
    });
    configure(lab, "exempt_groups = [\"XCALLY Supervisors\"]\n")?;
    report.check("exempt_groups: a member may have any number, others may not", || {
        for handle in ["a", "b", "c"] {
            enter(&mut app, &format!("super-{handle}"), "sophie")?;
            enter(&mut app, &format!("seat-{handle}"), "seth")?;
        }
        equal("sophie's", of(lab, person("sophie").sam)?.len(), 3)?;
        equal("seth's", of(lab, seth)?.len(), 1)
    });
    configure(lab, "exempt_groups = [\"XCALLY Aliens\"]\n")?;
    report.check(
        "exempt_groups with a group that AD does not know: no session, and the log says why",
        || {
            let position = lab.log_position()?;
            let done = app.run(login("alien", "seth", "motion"))?;
            equal("refused", done.code() == DONE, false)?;
            lab.wait_for_log(&position, &["XCALLY Aliens"]).map(drop)
        },
    );
    configure(lab, "")?;
    session_auth(lab, report, &mut app);
    Ok(())
}

/// With `session=auth`, authenticate registers the session.
fn session_auth(lab: &Lab, report: &mut Report, app: &mut App) {
    let seth = person("seth").sam;
    let auth = |handle: &str, calls: &[Call]| Job { calls: calls.to_vec(), ..login(handle, "seth", BY_AUTH) };
    report.check("session=auth: authenticate alone registers, and takes the place of the one before", || {
        let first = session(&app.run(auth("auth-1", &[Call::Authenticate]))?)?;
        equal("open", ids(&of(lab, seth)?), vec![first.as_str()])?;
        let second = session(&app.run(auth("auth-2", &LOGIN[..2]))?)?;
        equal("open", ids(&of(lab, seth)?), vec![second.as_str()])?;
        equal("the first", end_of(lab, &first)?, Some(EndReason::Replaced))
    });
    report.check("session=auth: open_session adds none, close_session ends it", || {
        let id = session(&app.run(auth("auth-3", LOGIN))?)?;
        equal("open", ids(&of(lab, seth)?), vec![id.as_str()])?;
        close(app, "auth-3")?;
        equal("its end", end_of(lab, &id)?, Some(EndReason::Closed))
    });
    report.check("session=auth: a wrong password registers nothing and evicts nobody", || {
        let id = session(&app.run(auth("auth-4", &[Call::Authenticate]))?)?;
        let wrong = Job { answers: vec!["wrong".into()], ..auth("auth-5", &[Call::Authenticate]) };
        equal("PAM", app.run(wrong)?.code(), "PAM_AUTH_ERR")?;
        equal("open", ids(&of(lab, seth)?), vec![id.as_str()])?;
        lab.run(&["cast", "reset", "seth"]).ok().map(drop)
    });
    report.check("session=auth: motion-ad sessions end ends it", || {
        let id = session(&app.run(auth("auth-6", &[Call::Authenticate]))?)?;
        lab.host("motion", &["motion-ad", "sessions", "end", &id], "").ok()?;
        equal("its end", end_of(lab, &id)?, Some(EndReason::Closed))?;
        equal("open", of(lab, seth)?.len(), 0)
    });
}

/// Tests the ends of sessions that no application closes, and the notices about them.
fn ends_of_all_kinds(lab: &Lab, report: &mut Report) -> Check {
    let logger = "on_evict = [\"/usr/bin/logger\", \"-t\", \"evicted\", \"--\", \"{id} {user} {reason}\"]\n";
    configure(lab, &format!("{RECHECK}{logger}"))?;
    let mut app = App::start(lab)?;
    report.check("on_evict: the command is run with the session's values", || {
        let first = enter(&mut app, "evicted", "seth")?;
        enter(&mut app, "evicting", "seth")?;
        let line = format!("{first} {} replaced", person("seth").sam);
        wait(TOLD, || {
            let journal = lab.host_sh("journalctl -q -t evicted -o cat").ok()?;
            contains("the journal", &journal, &line)
        })
    });
    report.check("an administrator evicts a user: the application is told, and the log says by whom", || {
        let sam = person("seth").sam;
        let id = enter(&mut app, "kicked", "seth")?;
        let cursor = register::now(lab)?;
        let said = lab.host("root", &["motion-ad", "sessions", "kick", &id[..8]], "").ok()?;
        equal("kick", said, format!("{id}: evicted\n"))?;
        let events = register::since(lab, &cursor)?;
        let ended = events.first().and_then(|event| event.session.ended.clone()).ok_or("no event")?;
        equal("the reason", ended.reason, EndReason::Kicked)?;
        contains("the detail", &ended.detail, "by uid:0,pid:")?;
        wait(TOLD, || {
            let journal = lab.host_sh("journalctl -q -t evicted -o cat").ok()?;
            contains("the command", &journal, &format!("{id} {sam} kicked"))?;
            let log = lab.host_sh("motion-ad log seth.seat --json").ok()?;
            contains("the log", &log, &format!("\"session\": \"{id}\""))?;
            contains("the log", &log, "\"reason\": \"kicked\"")
        })?;
        // Nothing keeps the user from a new login; all of them end by the name.
        let next = enter(&mut app, "kicked-again", "seth")?;
        let said =
            lab.host("root", &["motion-ad", "sessions", "kick", "--user", "ACME\\SETH.SEAT"], "").ok()?;
        equal("kick --user", said, format!("{next}: evicted\n"))?;
        equal("open", of(lab, sam)?.len(), 0)
    });
    report.check("a restart of the broker ends nobody's session", || {
        let id = enter(&mut app, "stays", "seth")?;
        lab.host_sh("systemctl restart motion-ad.service").ok()?;
        ready(lab)?;
        equal("its end", end_of(lab, &id)?, None)?;
        close(&mut app, "stays")?;
        equal("its end", end_of(lab, &id)?, Some(EndReason::Closed))
    });
    report.check("a watcher that was away gets what it missed, in order", || {
        let cursor = register::now(lab)?;
        let mut all = Vec::new();
        for handle in ["missed-1", "missed-2", "missed-3"] {
            all.push(enter(&mut app, handle, "seth")?);
            lab.host_sh("systemctl restart motion-ad.service").ok()?;
        }
        let events = register::since(lab, &cursor)?;
        let opened = events.iter().filter(|event| event.session.ended.is_none());
        equal("opened", opened.map(|event| event.session.id.clone()).collect::<Vec<_>>(), all.clone())?;
        let ended = events.iter().filter(|event| event.session.ended.is_some());
        equal("ended", ended.map(|event| event.session.id.clone()).collect::<Vec<_>>(), all[..2].to_vec())
    });
    report.check("disabled in AD: the session ends within the recheck time, and the event says why", || {
        let sally = person("sally");
        let id = enter(&mut app, "disabled", "sally")?;
        let cursor = register::now(lab)?;
        lab.dc(&["samba-tool", "user", "disable", sally.sam]).ok()?;
        let seen = ends(lab, &id, EndReason::Refused, RECHECKED);
        let events = register::since(lab, &cursor)?;
        lab.run(&["cast", "restore", sally.sam]).ok()?;
        seen?;
        let event = events.iter().find(|event| event.session.id == id).ok_or("no event")?;
        let ended = event.session.ended.clone().ok_or("the event is no end")?;
        contains("the event's reason", &ended.detail, "disabled")
    });
    report.check("an application that is killed: its session ends", || {
        let mut crashing = App::start(lab)?;
        let id = enter(&mut crashing, "crash", "sally")?;
        crashing.kill(lab)?;
        ends(lab, &id, EndReason::ProcessGone, SWEPT)
    });
    helper(lab, report, &mut app)?;
    configure(lab, "")
}

/// A run of `motion-ad sessions`: the user, the arguments, the exit code, and a part of the output. OPEN,
/// ENDED and NONE stand for the ids of sessions.
type Command = (&'static str, &'static [&'static str], i32, &'static str);

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    ("root",   &["list"],                            0, " SHORT "),
    ("motion", &["list", "--user", "ACME\\seth.seat"], 0, " SHORT "),
    ("root",   &["show", "SHORT"],                   0, "OPEN"),
    ("root",   &["end", "ffffffff"],                 1, "no such session; one that has ended is known by its whole id"),
    ("root",   &["list", "--user", "sally.seat"],    0, "no session is open"),
    ("root",   &["list", "--json"],                  0, "\"id\": \"OPEN\""),
    ("nobody", &["list"],                            3, "is neither root nor in broker.users"),
    ("motion", &["show", "OPEN"],                    0, "seth.seat@acme.com"),
    ("root",   &["show", "ENDED"],                   1, "replaced"),
    ("root",   &["show", "--json", "ENDED"],         1, "\"detail\": \"OPEN\""),
    ("root",   &["show", "NONE"],                    1, "no such session"),
    ("nobody", &["end", "OPEN"],                     3, "is neither root nor in broker.users"),
    ("root",   &["end", "NONE"],                     1, "no such session"),
    ("nobody", &["kick", "OPEN"],                    3, "is neither root nor in broker.users"),
    ("root",   &["kick", "NONE"],                    1, "no such session"),
    ("root",   &["kick", "--user", "sally.seat"],    1, "sally.seat: no session is open"),
    ("root",   &["kick"],                            3, "--user <NAME>"),
    ("motion", &["end", "SHORT"],                    0, "OPEN: ended\nno user is disconnected"),
    ("root",   &["end", "OPEN", "ENDED"],            0, "had ended already"),
    ("root",   &["show", "OPEN"],                    1, "closed"),
    ("root",   &["list"],                            0, "no session is open"),
];

fn helper(lab: &Lab, report: &mut Report, app: &mut App) -> Check {
    clear(lab)?;
    let mut watcher = Watcher::start(lab, &[])?;
    let ready = watcher.line()?;
    let after = ready["cursor"].as_str().ok_or("the first line of the watcher has no cursor")?.to_owned();
    let (first, second) = (enter(app, "helper-1", "seth")?, enter(app, "helper-2", "seth")?);
    for (user, arguments, code, says) in COMMANDS {
        let filled = |text: &str| {
            let text = text.replace("SHORT", &second[..8]).replace("OPEN", &second).replace("ENDED", &first);
            text.replace("NONE", "00000000-0000-4000-8000-000000000000")
        };
        let name = format!("{user}: motion-ad sessions {}: exit code {code}, {says:?}", arguments.join(" "));
        report.check(&name, || {
            let arguments: Vec<_> = arguments.iter().map(|word| filled(word)).collect();
            let mut command = vec!["motion-ad", "sessions"];
            command.extend(arguments.iter().map(String::as_str));
            let ran = lab.host(user, &command, "");
            let said = ran.stdout + &ran.stderr;
            equal("exit code", ran.code, *code).map_err(|e| format!("{e}\nit said:\n{said}"))?;
            contains("what it said", &said, &filled(says))
        });
    }
    let happened = [
        ("opened", &first, false),
        ("ended", &first, true),
        ("opened", &second, false),
        ("ended", &second, false),
    ];
    report.check("motion-ad sessions watch has a line for each event, and says who was evicted", || {
        equal("the first line", ready["event"].as_str(), Some("ready"))?;
        happened.iter().try_for_each(|event| watcher.meets(event))
    });
    report.check("motion-ad sessions watch --after: one that was away gets the same lines", || {
        let mut late = Watcher::start(lab, &["--after", &after])?;
        happened.iter().try_for_each(|event| late.meets(event))
    });
    Ok(())
}

/// A running `motion-ad sessions watch`.
struct Watcher {
    child: Child,
    lines: Receiver<String>,
}

impl Watcher {
    fn start(lab: &Lab, arguments: &[&str]) -> Result<Self, String> {
        // It ends with its standard input.
        let command = "motion-ad sessions watch \"$@\" & cat >/dev/null; kill $!";
        let mut child = lab.host_child("motion", &[&["sh", "-c", command, "sh"], arguments].concat())?;
        let printed = BufReader::new(child.stdout.take().ok_or("the watcher has no output")?).lines();
        let (line, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // An error means that the watcher was dropped.
            printed.map_while(Result::ok).for_each(|text| drop(line.send(text)));
        });
        Ok(Watcher { child, lines })
    }

    fn line(&mut self) -> Result<Value, String> {
        let line = self.lines.recv_timeout(TOLD).map_err(|e| format!("the watcher said nothing: {e}"))?;
        serde_json::from_str(&line).map_err(|e| format!("{e}: {line}"))
    }

    fn meets(&mut self, (event, id, evicted): &(&str, &String, bool)) -> Check {
        let line = self.line()?;
        let seen = (line["event"].as_str(), line["session"]["id"].as_str(), line["evicted"].as_bool());
        equal("a line", seen, (Some(event), Some(id.as_str()), Some(*evicted)))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn too_old(lab: &Lab, report: &mut Report) -> Check {
    configure(lab, RECHECK)?;
    report.check("max_age: a session that is older ends", || {
        let mut app = App::start(lab)?;
        let id = enter(&mut app, "old", "seth")?;
        ends(lab, &id, EndReason::TooOld, AGED)
    });
    configure(lab, "")
}

/// Makes `logins` logins of one user at once, and kills the broker `kills` times meanwhile.
fn storm(lab: &Lab, report: &mut Report, name: &str, logins: usize, kills: u32) {
    report.check(&format!("{name}: one session remains, and every other was told"), || {
        clear(lab)?;
        let cursor = register::now(lab)?;
        let mut app = App::start(lab)?;
        let jobs: Vec<_> =
            (0..logins).map(|number| login(&format!("storm-{number}"), "seth", PATIENT)).collect();
        let done = std::thread::scope(|scope| {
            let killing = scope.spawn(|| kill_broker(lab, kills));
            let done = app.begin(&jobs).and_then(|()| app.finish(logins));
            killing
                .join()
                .map_err(|_| "the killing thread ended".to_owned())
                .and_then(|killed| killed)
                .and(done)
        })?;
        let mut known = came_in(&done.into_values().collect::<Vec<_>>(), kills == 0)?;
        println!("         {} of {logins} came in", known.len());
        ready(lab)?;
        // The number of successes between two kills depends on the load. One login after the last kill must
        // succeed.
        known.extend(came_in(&[app.run(login("storm-last", "seth", PATIENT))?], true)?);
        let events = register::since(lab, &cursor)?;
        one_remains(&events, &of(lab, person("seth").sam)?, &known).map(drop)
    });
}

/// Returns the sessions of the successful logins, which are all if `everybody` is set. The others must have
/// failed because the broker was unavailable.
pub fn came_in(done: &[Done], everybody: bool) -> Result<Vec<String>, String> {
    let mut known = BTreeSet::new();
    for done in done {
        match done.code() {
            DONE => {
                if !known.insert(session(done)?) {
                    return Err(format!("two logins have the session {:?}", done.session));
                }
            }
            "PAM_AUTHINFO_UNAVAIL" | "PAM_SESSION_ERR" if !everybody => {}
            code => return Err(format!("{}: {code}: {:?}", done.handle, done.said)),
        }
    }
    match known.is_empty() && everybody {
        true => Err("nobody came in".to_owned()),
        false => Ok(known.into_iter().collect()),
    }
}

/// Kills the broker at random moments.
pub fn kill_broker(lab: &Lab, times: u32) -> Check {
    for _ in 0..times {
        // Sixty logins take half a second.
        std::thread::sleep(Duration::from_millis(fastrand::u64(10..300)));
        lab.host_sh("systemctl kill -s KILL motion-ad.service").ok()?;
    }
    Ok(())
}

/// Logs one user in until a login gets no session. Returns that login and the last session before it, if any.
/// Some logins still fit into the free space of the register's file.
fn logins_until_full(app: &mut App, name: &str) -> Result<(Option<String>, Done), String> {
    let mut before = None;
    for number in 0..ROOM {
        let done = app.run(login(&format!("{name}-{number}"), "seth", TALKATIVE))?;
        match &done.session {
            Some(id) => before = Some(id.clone()),
            None => return Ok((before, done)),
        }
    }
    Err(format!("{ROOM} sessions were registered on a full disk"))
}

/// Tests a full file system of the register.
fn disk(lab: &Lab, report: &mut Report) -> Check {
    let host = lab.host_name();
    let disk = |verb: &str| lab.run(&["disk", verb, host]).ok().map(drop);
    configure(lab, "")?;
    disk("small")?;
    ready(lab)?;
    let mut app = App::start(lab)?;
    let seth = person("seth").sam;
    report.check("a full disk, on_store_failure = deny: refused, with a text and a line in the log", || {
        disk("full")?;
        let position = lab.log_position()?;
        let done = logins_until_full(&mut app, "deny");
        let (logged, open) = (lab.wait_for_log(&position, &["outcome=session_store"]), of(lab, seth));
        disk("free")?;
        let (before, done) = done?;
        equal("PAM", done.code(), "PAM_SESSION_ERR").map_err(|e| format!("{e}\n{:?}", done.said))?;
        contains("texts", &done.said(Style::Error).join(" "), "Your session cannot be registered.")?;
        println!("         {}", logged?);
        equal("open", ids(&open?), before.iter().map(String::as_str).collect())
    });
    report.check("with room again the next login works, and takes the place of the one before", || {
        let before = of(lab, seth)?;
        let id = enter(&mut app, "after", "seth")?;
        equal("open", ids(&of(lab, seth)?), vec![id.as_str()])?;
        for session in before {
            equal("the one before", end_of(lab, &session.id)?, Some(EndReason::Replaced))?;
        }
        Ok(())
    });
    configure(lab, "on_store_failure = \"allow\"\n")?;
    let allow =
        "a full disk, on_store_failure = allow: access was granted without a session, with a line in the log";
    report.check(allow, || {
        disk("full")?;
        let position = lab.log_position()?;
        let done = logins_until_full(&mut app, "allow");
        let logged = lab.wait_for_log(&position, &["access was granted without a session"]);
        disk("free")?;
        let (_, done) = done?;
        equal("PAM", done.code(), DONE).map_err(|e| format!("{e}\n{:?}", done.said))?;
        logged.map(|line| println!("         {line}"))
    });
    report.check("the broker starts on a full disk, and logins without a session go on", || {
        disk("full")?;
        let seen = lab.host_sh("systemctl restart motion-ad.service").ok().and_then(|_| ready(lab));
        disk("free")?;
        seen
    });
    disk("whole")?;
    configure(lab, "")
}
