//! The LDAP bridge under clients that do it no good, and while what it depends on fails: it stays within its
//! bounds, logs each trouble once, and logins go on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};
use std::time::Duration;

use motion_ad::protocol::report::{EndReason, Ended};

use crate::bridge::{URL, counted_for, disable, enable, lines, logs_in, whoami};
use crate::cast::person;
use crate::clients;
use crate::lab::{Lab, wait};
use crate::ready::{self, john};
use crate::register;
use crate::report::{Check, Report, contains, equal};
use crate::xcally::with_seats;

const HOSTILE: [&str; 2] = ["python3", "/opt/clients/ldap/hostile.py"];
/// Result codes of a bind: success, busy, unavailable.
const SUCCESS: &str = "0";
const BUSY: &str = "51";
const UNAVAILABLE: &str = "52";
/// Time until John logs in again after a fault.
const BACK: Duration = Duration::from_secs(60);

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    clients::install(lab)?;
    lab.configure("")?;
    ready::ready(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    enable(lab)?;
    // Kind, number of connections, and whether the bridge closes them by itself while there is room.
    for (kind, times, closes, reason) in [
        ("silent", 1000, false, ""),
        ("half", 1000, false, ""),
        ("drip", 100, true, "no whole message in time"),
        ("deep", 100, true, "nested"),
        ("filter", 100, true, "longer than"),
    ] {
        report.check(&format!("{times} connections, {kind}"), || attack(lab, kind, times, closes, reason));
    }
    crowd(lab, report);
    broken(lab, report);
    disable(lab)?;
    wait(BACK, || john(lab).map(drop))
}

/// Sessions of binds that no client holds.
pub fn sessions(lab: &Lab, report: &mut Report) -> Check {
    lab.run(&["cast", "reset"]).ok()?;
    enable(lab)?;
    seats(lab, report);
    disable(lab)?;
    lab.configure("")?;
    wait(BACK, || john(lab).map(drop))
}

/// A running `hostile.py`.
struct Hostile {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Hostile {
    fn start(lab: &Lab, arguments: &[&str], input: &str) -> Result<Self, String> {
        let mut child = lab.host_child("motion", &[&HOSTILE[..], arguments].concat())?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let stdin = child.stdin.as_mut().ok_or("no input")?;
        stdin.write_all(input.as_bytes()).map_err(|e| e.to_string())?;
        let mut hostile = Hostile { child, output };
        hostile.line()?;
        Ok(hostile)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|e| e.to_string())?;
        if line.is_empty() {
            Err("the hostile client has ended".to_owned())
        } else {
            Ok(line.trim().to_owned())
        }
    }

    /// Ends its input, and returns its last line.
    fn finish(mut self) -> Result<String, String> {
        drop(self.child.stdin.take());
        let line = self.line();
        let _ = self.child.wait();
        line
    }
}

/// Logs John in while the connections are open. Checks that the log has one line about them, and that the
/// bridge closes them all if `closes` is set.
fn attack(lab: &Lab, kind: &str, times: usize, closes: bool, reason: &str) -> Check {
    lab.host_sh("systemctl restart motion-ad-ldap.service").ok()?;
    logs_in(lab)?;
    let before = lines(lab, "bridge")?.len();
    let mut attack = Hostile::start(lab, &[kind, &times.to_string()], "")?;
    (0..3).try_for_each(|_| logs_in(lab))?;
    let closed = if closes { attack.line()? } else { attack.finish()? };
    if closes {
        equal("closed", closed.as_str(), times.to_string().as_str())?;
    }
    logs_in(lab)?;
    let said: Vec<_> = lines(lab, "bridge")?.split_off(before);
    let about = said.iter().filter(|line| line.contains(reason)).count();
    // A line at most once a minute for each reason. A reset before the whole message has another reason.
    match (about, closes) {
        (1, true) | (0, false) => Ok(()),
        (_, false) if said.len() <= 1 => Ok(()),
        _ => Err(format!("expected one line about it:\n{}", said.join("\n"))),
    }
}

/// Runs binds of John with many threads while `work` runs. Returns the number of answers by their code.
fn binds(
    lab: &Lab,
    threads: usize,
    seconds: u32,
    work: impl FnOnce() -> Check,
) -> Result<BTreeMap<String, u32>, String> {
    let john = person("john");
    let before = lab.everybodys_counters()?;
    let logged = lines(lab, "bind")?.len();
    let arguments = ["binds", &threads.to_string(), &seconds.to_string(), john.upn];
    let running = Hostile::start(lab, &arguments, &format!("{}\n", john.password))?;
    let worked = work();
    let text = running.finish()?;
    worked?;
    let codes: BTreeMap<String, u32> = serde_json::from_str(&text).map_err(|e| format!("{text}: {e}"))?;
    println!("         answers by code: {codes:?}");
    counted_for(&before, &lab.everybodys_counters()?, john.sam, 0)?;
    let total: u32 = codes.values().sum();
    wait(Duration::from_secs(20), || {
        equal(
            "lines of binds",
            lines(lab, "bind")?.len() - logged,
            usize::try_from(total).unwrap_or_default(),
        )
    })?;
    Ok(codes)
}

/// Checks that there is no other answer than these.
fn only(codes: &BTreeMap<String, u32>, allowed: &[&str]) -> Check {
    let others: Vec<_> = codes.keys().filter(|code| !allowed.contains(&code.as_str())).collect();
    equal("other answers", others, Vec::new())?;
    equal("successes", codes.contains_key(SUCCESS), true)
}

fn crowd(lab: &Lab, report: &mut Report) {
    report.check("200 clients at once: each is logged in, or gets 51 or 52 in time", || {
        // 52: on a slow machine, the module's time is over before AD has answered all of them.
        only(&binds(lab, 200, 0, || Ok(()))?, &[SUCCESS, BUSY, UNAVAILABLE])?;
        logs_in(lab)
    });
}

fn broken(lab: &Lab, report: &mut Report) {
    report.check("the broker is restarted three times under binds: no wrong answer, no count", || {
        let restarts = || {
            (0..3).try_for_each(|_| {
                std::thread::sleep(Duration::from_secs(2));
                lab.host_sh("systemctl restart motion-ad.service").ok().map(drop)
            })
        };
        only(&binds(lab, 8, 15, restarts)?, &[SUCCESS, BUSY, UNAVAILABLE])?;
        wait(BACK, || logs_in(lab))
    });
    report.check(
        "the domain controller is cut off under binds: 52 or 51, and logins go on when it is back",
        || {
            let cut = || {
                lab.run(&["net", "cut", "dc"]).ok()?;
                std::thread::sleep(Duration::from_secs(8));
                lab.run(&["net", "heal", "dc"]).ok().map(drop)
            };
            let codes = binds(lab, 8, 15, cut)?;
            only(&codes, &[SUCCESS, BUSY, UNAVAILABLE])?;
            equal("answers while it was cut off", codes.contains_key(UNAVAILABLE), true)?;
            wait(BACK, || logs_in(lab))
        },
    );
}

/// Binds as Seth with `session=auth` and `policy = "deny"`: a session without a client would keep him out.
fn seats(lab: &Lab, report: &mut Report) {
    let seth = person("seth");
    let bind = || whoami(lab, "motion", seth.sam, seth.password, &[]);
    let one_session = || equal("sessions", register::of(lab, seth.sam)?.len(), 1);
    // The session was registered, and its application has closed it.
    let is_closed = |cursor: &str| {
        let ended: Vec<_> =
            register::since(lab, cursor)?.into_iter().map(|event| event.session.ended).collect();
        let closed =
            |ended: &Option<Ended>| ended.as_ref().is_some_and(|ended| ended.reason == EndReason::Closed);
        equal(&format!("a session that was closed ({ended:?})"), ended.iter().any(closed), true)
    };
    report.check("a bind that another line of the service rejects leaves no session", || {
        with_seats(lab, "deny")?;
        let reject = "echo 'account required pam_deny.so' >>/etc/pam.d/motion-bridge && \
                      systemctl stop motion-ad-ldap.service";
        lab.host_sh(reject).ok()?;
        let cursor = register::now(lab)?;
        let rejected = bind();
        equal(&format!("exit code ({})", rejected.stderr), rejected.code, 49)?;
        is_closed(&cursor)?;
        with_seats(lab, "deny")?;
        bind().ok()?;
        one_session()
    });
    report.check(
        "a client that gives up before the answer leaves no session, and the next bind succeeds",
        || {
            with_seats(lab, "deny")?;
            bind().ok()?;
            register::clear(lab)?;
            let cursor = register::now(lab)?;
            // The broker answers two seconds late, which is still in time for the module.
            let broker =
                |signal: &str| format!("kill -{signal} $(systemctl show -P MainPID motion-ad.service)");
            lab.host_sh(&broker("STOP")).ok()?;
            let command = ["timeout", "2", "ldapwhoami", "-x", "-H", URL, "-D", seth.sam, "-w"];
            let killed = lab.host("motion", &[&command[..], &[seth.password]].concat(), "");
            lab.host_sh(&broker("CONT")).ok()?;
            let closed = wait(Duration::from_secs(20), || is_closed(&cursor));
            // timeout(1) has ended it.
            equal("exit code of the client", killed.code, 124)?;
            closed?;
            contains("the line", &lines(lab, "bridge")?.pop().unwrap_or_default(), "before the reply")?;
            wait(BACK, || bind().ok().map(drop))?;
            one_session()
        },
    );
    if let Err(error) = register::clear(lab) {
        report.note(&error);
    }
}
