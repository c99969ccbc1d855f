//! XCALLY's own integration as it is, before and after the bridge: the service of
//! `tests/clients/xcally-login` with a browser. No file of the service changes between the two, only `.env`,
//! and only by `motion-ad setup`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use motion_ad::protocol::report::EndReason;
use serde_json::json;

use crate::before_after::{Done, GROUPS, Row, Typed, WRONG, rows};
use crate::bridge::{counted_for, lines};
use crate::cast::person;
use crate::clients;
use crate::lab::{Lab, wait};
use crate::login_page::Browser;
use crate::ready::{john, ready};
use crate::register;
use crate::report::{Check, Report, contains, equal};
use crate::row::Counts;
use crate::secrets;

const ENV: &str = "/var/opt/motion2/.env";
/// The service's files and its unit.
const INSTALL: &str = "cp -r /opt/clients/xcally-login/. /var/opt/motion2 && \
    cp /opt/clients/xcally-login/motion.service /etc/systemd/system && \
    systemctl daemon-reload && systemctl start motion.service";
const REMOVE: &str = "systemctl stop motion.service; rm /etc/systemd/system/motion.service; systemctl \
    daemon-reload; cd /var/opt/motion2 && rm -rf .npm $(ls /opt/clients/xcally-login); rm -rf \
    /etc/motion-ad/backup /etc/pam.d/motion-bridge";
/// Hashes of every file of the service, its libraries included.
const HASHES: &str = "cd /var/opt/motion2 && find . -type f ! -name .env ! -path './.npm/*' ! -path \
    './.bash*' -print0 | sort -z | xargs -0 sha256sum";
const URL: &str = "http://127.0.0.1:3000";
const LIBRARIES: [&str; 2] = ["activedirectory", "passport-ldapauth"];
const REJECTED: &str = "The user name or the password is wrong.";
/// The bridge's own PAM service, for one seat per user.
const SEATS: &str = "/etc/pam.d/motion-bridge";
const SEAT_LINES: &str =
    "auth required pam_motion_ad.so outcome session=auth\naccount required pam_motion_ad.so outcome\n";

/// Time until the broker logs in again after a restart of the domain controller.
pub const BACK: Duration = Duration::from_secs(60);
/// Names of the windows of a browser.
const FIRST: &str = "first";
const SECOND: &str = "second";

/// The browser of each library.
type Browsers = BTreeMap<&'static str, Browser>;

/// The server that `.env` names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    DomainController,
    Bridge,
}

impl Server {
    fn text(self) -> &'static str {
        match self {
            Server::DomainController => "with a domain controller",
            Server::Bridge => "with the bridge",
        }
    }

    fn expected(self, row: &Row) -> Done {
        if self == Server::Bridge { row.after } else { row.before }
    }
}

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let rows = rows()?;
    clients::install(lab)?;
    let env = read_env(lab)?;
    // Samba rejects a simple bind without TLS by default, Windows does not.
    lab.run(&["dc", "plain", "on"]).ok()?;
    lab.configure(GROUPS)?;
    // The domain controller was restarted.
    wait(BACK, || john(lab).map(drop))?;
    register::clear(lab)?;
    lab.host_sh(INSTALL).ok()?;
    let done = serves(lab).and_then(|()| before_and_after(lab, report, &rows, &env));
    lab.host_sh(REMOVE).ok()?;
    lab.host_sh("systemctl disable --now motion-ad-ldap.socket; systemctl stop motion-ad-ldap.service")
        .ok()?;
    lab.write(ENV, &env)?;
    lab.run(&["dc", "plain", "off"]).ok()?;
    lab.run(&["cast", "reset"]).ok()?;
    lab.configure("")?;
    done.and_then(|()| wait(BACK, || john(lab).map(drop)))
}

fn read_env(lab: &Lab) -> Result<String, String> {
    fs::read_to_string(lab.path(ENV)).map_err(|e| format!("{ENV}: {e}"))
}

/// Waits until the service listens.
fn serves(lab: &Lab) -> Check {
    let listens = || contains("ss", &lab.host_sh("ss -ltnH 'sport = :3000'").ok()?, "127.0.0.1:3000");
    wait(Duration::from_secs(30), listens)
}

fn before_and_after(lab: &Lab, report: &mut Report, rows: &[Row], env: &str) -> Check {
    let files = lab.host_sh(HASHES).ok()?;
    let mut browsers = Browsers::new();
    for library in LIBRARIES {
        browsers.insert(library, Browser::start(lab, &format!("{URL}/{library}/"))?);
    }
    table(lab, report, rows, &mut browsers, Server::DomainController)?;
    report.check("motion-ad setup --bridge --apply, and the service reads its .env as setup says", || {
        apply(lab, "--bridge")?;
        let new = read_env(lab)?;
        equal("lines", new.lines().count(), env.lines().count())?;
        let changed = env.lines().zip(new.lines()).filter(|(old, new)| old != new);
        equal("changed", changed.map(|(old, _)| name(old)).collect(), vec!["ADMIN", "PASSWORD", "URL"])?;
        equal("owner", lab.host_sh(&format!("stat -c '%U %a' {ENV}")).ok()?.trim(), "motion 600")
    });
    table(lab, report, rows, &mut browsers, Server::Bridge)?;
    seats(lab, report, rows, &mut browsers)?;
    report.check("not one file of the service has changed", || {
        equal("all files of the service and its libraries", files.lines().count() > 500, true)?;
        contains("the hashes", &files, "  ./server.js\n")?;
        equal("hashes", lab.host_sh(HASHES).ok()?.as_str(), files.as_str())
    });
    let passwords = rows.iter().map(|row| person(row.who).password.to_owned());
    secrets::nowhere(lab, report, &passwords.chain([WRONG.to_owned()]).collect::<BTreeSet<_>>());
    report.check("motion-ad setup --no-bridge --apply goes back", || {
        apply(lab, "--no-bridge")?;
        equal(".env", read_env(lab)?.as_str(), env)?;
        let differs = |row: &&Row| row.typed == Typed::Right && row.before.is_in && !row.after.is_in;
        let row = rows.iter().find(differs).ok_or("no such row")?;
        let browser = browsers.get_mut(LIBRARIES[0]).ok_or("no browser")?;
        equal(&row.name(), logs_in(browser, row)?, true)
    });
    Ok(())
}

/// Returns the short name of a property.
fn name(line: &str) -> &str {
    line.trim_start_matches("XC_ACTIVEDIRECTORY_").split('=').next().unwrap_or_default()
}

/// Runs `motion-ad setup`, and then the commands that it prints.
fn apply(lab: &Lab, what: &str) -> Check {
    let said = lab.host("root", &["motion-ad", "setup", what, "--apply", "--yes"], "").ok()?;
    let (_, printed) =
        said.split_once("XCALLY reads the file only").ok_or_else(|| format!("no commands in {said}"))?;
    let commands: Vec<_> = printed.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    equal(&format!("commands in {said}"), commands.len(), 3)?;
    lab.host_sh(&commands.join(" && ")).ok()?;
    serves(lab)
}

/// Performs the document's rows with both libraries.
fn table(lab: &Lab, report: &mut Report, rows: &[Row], browsers: &mut Browsers, server: Server) -> Check {
    for (library, browser) in browsers {
        report.note(&format!("{library}, {}", server.text()));
        lab.run(&["cast", "reset"]).ok()?;
        for row in rows.iter().filter(|row| !(server == Server::Bridge && row.typed == Typed::Twice)) {
            let expected = server.expected(row);
            report.check(&format!("{library}: {}: {}", row.name(), expected.text()), || {
                let (before, logged) = (lab.everybodys_counters()?, lines(lab, "bind")?.len());
                let is_in = logs_in(browser, row)?;
                let after = lab.everybodys_counters()?;
                let counted = counted(&before, &after, row);
                equal("seen", Done { is_in, counted }, expected)?;
                counted_for(&before, &after, person(row.who).sam, counted)?;
                // The bridge has a line for each bind. A domain controller has none.
                let is_logged = lines(lab, "bind")?.len() > logged;
                equal("logged by the bridge", is_logged, server == Server::Bridge)
            });
        }
    }
    Ok(())
}

/// Returns the number that AD counted for the row's user.
pub fn counted(before: &Counts, after: &Counts, row: &Row) -> u32 {
    let count = |counts: &Counts| counts.get(person(row.who).sam).map_or(0, |count| count.bad_passwords);
    count(after).saturating_sub(count(before))
}

/// Performs all logins of a row, the last one in the second window. Returns true if the last one is accepted,
/// and the first window still is logged in then.
fn logs_in(browser: &mut Browser, row: &Row) -> Result<bool, String> {
    let person = person(row.who);
    let mut is_in = false;
    for (number, password) in row.typed.passwords(person.password).into_iter().enumerate() {
        let window = if number == 0 { FIRST } else { SECOND };
        is_in = is_accepted(browser.type_in(window, person.sam, password)?)?;
    }
    for window in [FIRST, SECOND] {
        if is_home(browser, window)? {
            browser.act(window, json!({ "press": "Log out" }))?;
        } else if row.typed == Typed::Twice {
            return Err(format!("the {window} browser is not logged in"));
        }
    }
    Ok(is_in)
}

/// Returns true if the page shows a login, and false if it shows the text of a rejection.
fn is_accepted((view, text): (String, String)) -> Result<bool, String> {
    match (view.as_str(), text.as_str()) {
        ("home", "") => Ok(true),
        ("login", REJECTED) => Ok(false),
        seen => Err(format!("the page shows {seen:?}")),
    }
}

/// Loads the page again. Returns true if the window is logged in.
fn is_home(browser: &mut Browser, window: &str) -> Result<bool, String> {
    Ok(browser.act(window, json!({ "reload": true }))?.0 == "home")
}

/// The row of the second browser, with `session=auth` on the bridge's own service.
fn seats(lab: &Lab, report: &mut Report, rows: &[Row], browsers: &mut Browsers) -> Check {
    let row = rows.iter().find(|row| row.typed == Typed::Twice).ok_or("no row of a second browser")?;
    let (sam, password) = (person(row.who).sam, person(row.who).password);
    for (library, browser) in browsers {
        report.note(&format!("{library}, with session=auth on the bridge's own service"));
        report.check(&format!("{library}, policy = \"deny\": {}: {}", row.name(), row.after.text()), || {
            with_seats(lab, "deny")?;
            equal("the first browser", is_accepted(browser.type_in(FIRST, sam, password)?)?, true)?;
            equal("sessions", register::of(lab, sam)?.len(), 1)?;
            let second = is_accepted(browser.type_in(SECOND, sam, password)?)?;
            equal("the second browser", second, row.after.is_in)?;
            equal("sessions", register::of(lab, sam)?.len(), 1)
        });
        report.check(&format!("{library}: a logout does not free the seat, an administrator does"), || {
            browser.act(FIRST, json!({ "press": "Log out" }))?;
            equal("after the logout", is_accepted(browser.type_in(FIRST, sam, password)?)?, false)?;
            register::clear(lab)?;
            equal("after sessions end", is_accepted(browser.type_in(SECOND, sam, password)?)?, true)
        });
        report.check(
            &format!("{library}, policy = \"replace\": the register has one session, both browsers stay"),
            || {
                with_seats(lab, "replace")?;
                browser.act(SECOND, json!({ "press": "Log out" }))?;
                equal("the first browser", is_accepted(browser.type_in(FIRST, sam, password)?)?, true)?;
                let first = register::of(lab, sam)?.pop().ok_or("no session")?.id;
                equal("the second browser", is_accepted(browser.type_in(SECOND, sam, password)?)?, true)?;
                equal("the first session", register::end_of(lab, &first)?, Some(EndReason::Replaced))?;
                equal("sessions", register::of(lab, sam)?.len(), 1)?;
                equal("the first browser, loaded again", is_home(browser, FIRST)?, true)?;
                browser.act(FIRST, json!({ "press": "Log out" }))?;
                browser.act(SECOND, json!({ "press": "Log out" })).map(drop)
            },
        );
    }
    register::clear(lab)
}

/// Returns the configuration of the bridge's own service, with a policy for sessions.
fn seat_configuration(policy: &str) -> String {
    format!("{GROUPS}[bridge]\nservice = \"motion-bridge\"\n[sessions]\npolicy = \"{policy}\"\n")
}

/// Gives the bridge its own service, with one session per user and this policy.
pub fn with_seats(lab: &Lab, policy: &str) -> Check {
    lab.write(SEATS, SEAT_LINES)?;
    lab.configure(&seat_configuration(policy))?;
    lab.host_sh("systemctl restart motion-ad.service && systemctl stop motion-ad-ldap.service").ok()?;
    ready(lab)?;
    register::clear(lab)
}
