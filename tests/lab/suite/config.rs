//! Effects of the configuration: groups, further domains, the name map, and malformed files.

use std::time::Duration;

use crate::lab::{Lab, wait};
use crate::pam::patiently;
use crate::people::CLASH;
use crate::report::{Report, contains, equal};
use crate::row::{Acct, Auth, AuthAcct, Of, Right, Row, Wrong, row, run};

/// `allow_groups = ["XCALLY Agents"]`, in each notation of the group.
#[rustfmt::skip]
pub const ALLOWED: &[Row] = &[
    row("john",  "john.doe",      Right, AuthAcct, "success",        0, "PAM_SUCCESS"),
    row("john",  "john.doe",      Right, Acct,     "success",        0, "PAM_SUCCESS"),
    row("nina",  "nina.nested",   Right, AuthAcct, "success",        0, "PAM_SUCCESS"),
    row("nina",  "nina.nested",   Right, Acct,     "success",        0, "PAM_SUCCESS"),
    row("greta", "greta.groups",  Right, AuthAcct, "success",        0, "PAM_SUCCESS"),
    row("dean",  "dean.denied",   Right, Auth,     "success",        0, "PAM_SUCCESS"),
    row("otto",  "otto.outsider", Right, AuthAcct, "not_allowed",    0, "PAM_PERM_DENIED").reason("login.allow_groups"),
    row("otto",  "otto.outsider", Right, Acct,     "not_allowed",    0, "PAM_PERM_DENIED").reason("login.allow_groups"),
    // Without the right password, group membership is not revealed.
    row("otto",  "otto.outsider", Wrong, Auth,     "wrong_password", 1, "PAM_AUTH_ERR"),
    row("dora",  "dora.disabled", Right, Auth,     "disabled",       0, "PAM_PERM_DENIED").kdc_first(),
    row("",      "nobody.here",   Wrong, Auth,     "unknown_user",   0, "PAM_USER_UNKNOWN"),
];

/// With `deny_groups = ["XCALLY Denied"]` in addition, which takes precedence.
#[rustfmt::skip]
pub const DENIED: &[Row] = &[
    row("dean",  "dean.denied",   Right, AuthAcct, "denied",         0, "PAM_PERM_DENIED").reason("login.deny_groups"),
    row("dean",  "dean.denied",   Right, Acct,     "denied",         0, "PAM_PERM_DENIED").reason("login.deny_groups"),
    row("dean",  "dean.denied",   Wrong, Auth,     "wrong_password", 1, "PAM_AUTH_ERR"),
    row("john",  "john.doe",      Right, AuthAcct, "success",        0, "PAM_SUCCESS"),
    row("nina",  "nina.nested",   Right, AuthAcct, "success",        0, "PAM_SUCCESS"),
    row("otto",  "otto.outsider", Right, Auth,     "not_allowed",    0, "PAM_PERM_DENIED"),
];

/// Only `deny_groups`.
#[rustfmt::skip]
const ONLY_DENIED: &[Row] = &[
    row("dean",  "dean.denied",   Right, Auth,     "denied",         0, "PAM_PERM_DENIED"),
    row("otto",  "otto.outsider", Right, AuthAcct, "success",        0, "PAM_SUCCESS"),
    row("greta", "greta.groups",  Right, Acct,     "success",        0, "PAM_SUCCESS"),
];

/// `expired=account`, and only another group is allowed: a change of the password leads to access, so the
/// group decides before it.
#[rustfmt::skip]
const RENEWED: &[Row] = &[
    row("max",   "max.mustchange", Right, AuthAcct, "not_allowed",    0, "PAM_PERM_DENIED").reason("login.allow_groups"),
    row("max",   "max.mustchange", Right, Acct,     "not_allowed",    0, "PAM_PERM_DENIED").reason("login.allow_groups"),
    row("max",   "max.mustchange", Wrong, Auth,     "wrong_password", 1, "PAM_AUTH_ERR"),
    row("petra", "petra.expired",  Right, Auth,     "not_allowed",    0, "PAM_PERM_DENIED").reason("login.allow_groups"),
    row("petra", "petra.expired",  Right, Acct,     "not_allowed",    0, "PAM_PERM_DENIED").reason("login.allow_groups"),
];

const ABSENT: &str = "the group \"XCALLY Aliens\" does not exist in AD";

/// A group that does not exist, in either list. AD has already accepted the password.
#[rustfmt::skip]
const NO_SUCH_GROUP: &[Row] = &[
    row("john",  "john.doe",      Right, AuthAcct, "misconfigured",  0, "PAM_SERVICE_ERR").reason(ABSENT).ad_accepts(),
    row("john",  "john.doe",      Right, Acct,     "misconfigured",  0, "PAM_SERVICE_ERR").reason(ABSENT),
    row("john",  "john.doe",      Wrong, Auth,     "wrong_password", 1, "PAM_AUTH_ERR"),
    row("dora",  "dora.disabled", Right, Auth,     "disabled",       0, "PAM_PERM_DENIED").kdc_first(),
];

/// `names.domains = ["sales.acme.example"]`, and a name map.
#[rustfmt::skip]
const NAMES: &[Row] = &[
    row("uma",   "uma.upn@sales.acme.example", Right, AuthAcct, "success", 0, "PAM_SUCCESS").principal("uma.upn@sales.acme.example"),
    row("uma",   "uma.upn@Sales.Acme.Example", Wrong, Auth, "wrong_password", 1, "PAM_AUTH_ERR").principal("uma.upn@sales.acme.example"),
    row("uma",   "uma.upn",       Right, AuthAcct, "success",        0, "PAM_SUCCESS"),
    row("john",  "john.doe@sales.acme.example", Right, Auth, "unknown_user", 0, "PAM_USER_UNKNOWN").principal("john.doe@sales.acme.example"),
    row("john",  "john.doe@evil.example", Right, Auth, "unmapped",   0, "PAM_USER_UNKNOWN").principal("-"),
    row("john",  "jd",            Right, AuthAcct, "success",        0, "PAM_SUCCESS").principal("john.doe@acme.com"),
    row("john",  "JD",            Right, Acct,     "success",        0, "PAM_SUCCESS").principal("john.doe@acme.com"),
    row("john",  "jd",            Wrong, Auth,     "wrong_password", 1, "PAM_AUTH_ERR").principal("john.doe@acme.com"),
    row("john",  "night desk = 2", Right, Auth,    "success",        0, "PAM_SUCCESS").principal("john.doe@acme.com"),
    row("joerg", "joerg",         Right, AuthAcct, "success",        0, "PAM_SUCCESS").principal("jörg.müller@acme.com"),
    // A line of the map redirects a name, even if an account has it, but makes no rejected name usable.
    row("wendy", "lena.lock",     Right, Auth,     "success",        0, "PAM_SUCCESS").principal("wendy.wrong@acme.com"),
    row("wendy", "lena.lock",     Of("lena"), Auth, "wrong_password", 1, "PAM_AUTH_ERR").principal("wendy.wrong@acme.com"),
    // It decides which of two accounts a name means.
    row("clash-b", "clash",       Right, Auth,     "success",        0, "PAM_SUCCESS").kdc_refuses("ambiguous", "PAM_USER_UNKNOWN", CLASH),
    row("clash-a", "Anna",        Right, Auth,     "success",        0, "PAM_SUCCESS").principal("clash@acme.com"),
    row("john",  "root",          Right, Auth,     "unmapped",       0, "PAM_USER_UNKNOWN").principal("-").reason("names.refuse"),
    row("john",  "ghost",         Right, Auth,     "unknown_user",   0, "PAM_USER_UNKNOWN").principal("no.body@acme.com"),
];

/// A map as a Windows editor saves it. The byte order mark must not hide the first line, whose name is also
/// an account's.
const MAP: &str = "\u{feff}lena.lock = wendy.wrong@acme.com\n# people\n\njd = john.doe@acme.com\n\
    joerg = jörg.müller@acme.com\nnight desk = 2 = john.doe@acme.com\nclash = ACME\\clash\n\
    anna = clash@acme.com\nroot = john.doe@acme.com\nghost = no.body@acme.com\n";

/// An unreadable map does not count as an empty one: all users are rejected, mapped or not.
const fn broken(reason: &'static str) -> [Row; 3] {
    [
        row("john", "john.doe", Right, Auth, "misconfigured", 0, "PAM_SERVICE_ERR").reason(reason),
        row("john", "jd", Right, AuthAcct, "misconfigured", 0, "PAM_SERVICE_ERR").reason(reason),
        row("wendy", "wendy.wrong", Wrong, Acct, "misconfigured", 0, "PAM_SERVICE_ERR").reason(reason),
    ]
}

/// Shell commands that damage the map, each with the resulting text in the log.
const BROKEN: &[(&str, &str)] = &[
    ("echo nonsense >>MAP", "MAP, line 2: expected `xcally-name = user@domain`"),
    ("echo 'JD = dora.disabled@acme.com' >>MAP", "MAP, line 2: line 1 maps the same name to another account"),
    ("chmod 600 MAP", "MAP: cannot be read: Permission denied"),
    ("rm MAP", "MAP: cannot be read: No such file"),
    ("printf 'j\\374rgen = john.doe@acme.com\\n' >>MAP", "MAP, line 2: byte 0xFC is no UTF-8"),
    (
        "printf 'j\\342\\200\\213d = john.doe@acme.com\\n' >>MAP",
        "MAP, line 2: U+200B (zero width space) is invisible",
    ),
];

/// Invalid keys of config.toml.
const KEYS: &[(&str, &str)] = &[
    (
        "[login]\nallow_group = [\"XCALLY Agents\"]\n",
        "config.toml, line 5: unknown key `allow_group` in [login]; did you mean `allow_groups`?",
    ),
    (
        "[login]\nallow_groups = [\"a\"]\ndeny_groups = [\"A\"]\n",
        "config.toml, line 6: \"A\" is also in login.allow_groups",
    ),
];

const HAS_JD: &[Row] =
    &[row("john", "jd", Right, AuthAcct, "success", 0, "PAM_SUCCESS").principal("john.doe@acme.com")];

/// Rules that the invalid file adds to the last valid one apply, and the group `a` does not exist.
const STRICTER: &[Row] = &[row("john", "jd", Right, AuthAcct, "misconfigured", 0, "PAM_SERVICE_ERR")
    .principal("john.doe@acme.com")
    .reason("login.allow_groups")];

const JD_REFUSED: &[Row] = &[
    row("john", "jd", Right, Auth, "unmapped", 0, "PAM_USER_UNKNOWN").principal("-").reason("names.refuse"),
    row("john", "john.doe", Right, Auth, "success", 0, "PAM_SUCCESS"),
];

pub fn chapter(lab: &Lab, report: &mut Report) -> Result<(), String> {
    let done = tables(lab, report).and_then(|()| broken_files(lab, report));
    restore(lab)?;
    done
}

/// Runs the tests that depend on the method.
pub fn by_method(lab: &Lab, report: &mut Report) -> Result<(), String> {
    let done = tables(lab, report);
    restore(lab)?;
    done
}

fn tables(lab: &Lab, report: &mut Report) -> Result<(), String> {
    lab.run(&["cast", "reset"]).ok()?;
    patiently(lab, || groups(lab, report).and_then(|()| names(lab, report)))
}

fn restore(lab: &Lab) -> Result<(), String> {
    lab.host_sh("printf '# nobody\\n' >/etc/motion-ad/names.map; chmod 644 /etc/motion-ad/names.map").ok()?;
    lab.configure("")
}

fn groups(lab: &Lab, report: &mut Report) -> Result<(), String> {
    let search = ["ldbsearch", "-H", "/var/lib/samba/private/sam.ldb", "(cn=XCALLY Agents)", "objectSid"];
    let found = lab.dc(&search).ok()?;
    let sid =
        found.lines().find_map(|line| line.strip_prefix("objectSid: ")).ok_or("the group has no SID")?;
    let forms = [
        "XCALLY Agents",
        "xcally agents",
        "ACME\\\\XCALLY Agents",
        "CN=XCALLY Agents,OU=Groups,DC=acme,DC=com",
        sid,
    ];
    for form in forms {
        report.note(&format!("allow_groups = [\"{form}\"]"));
        lab.configure(&format!("[login]\nallow_groups = [\"{form}\"]\n"))?;
        // The whole table once; afterwards only the users whose groups decide.
        let rows = if form == forms[0] { ALLOWED } else { &ALLOWED[2..9] };
        run(lab, report, "motion", rows)?;
        lab.run(&["cast", "reset", "otto"]).ok()?;
    }
    report.note("allow_groups and deny_groups");
    lab.configure("[login]\nallow_groups = [\"XCALLY Agents\"]\ndeny_groups = [\"XCALLY Denied\"]\n")?;
    run(lab, report, "motion", DENIED)?;
    check_says(lab, report, "dean.denied", 1, "dean.denied may not log in: denied")?;
    check_says(lab, report, "otto.outsider", 1, "otto.outsider may not log in: not_allowed")?;
    check_says(lab, report, "nina.nested", 0, "nina.nested may log in")?;
    report.note("deny_groups alone");
    lab.configure("[login]\ndeny_groups = [\"XCALLY Denied\"]\n")?;
    run(lab, report, "motion", ONLY_DENIED)?;
    report.note("allow_groups, and passwords that must be changed");
    let both =
        "auth required pam_motion_ad.so expired=account\naccount required pam_motion_ad.so expired=account\n";
    lab.write("/etc/pam.d/motion-account", both)?;
    lab.configure("[login]\nallow_groups = [\"XCALLY Supervisors\"]\n")?;
    run(lab, report, "motion-account", RENEWED)?;
    lab.run(&["cast", "reset", "max"]).ok()?;
    lab.host_sh("rm -f /etc/pam.d/motion-account").ok()?;
    for list in ["allow_groups = [\"XCALLY Agents\", \"XCALLY Aliens\"]", "deny_groups = [\"XCALLY Aliens\"]"]
    {
        report.note(list);
        lab.configure(&format!("[login]\n{list}\n"))?;
        run(lab, report, "motion", NO_SUCH_GROUP)?;
        lab.run(&["cast", "reset", "john"]).ok()?;
    }
    check_says(lab, report, "john.doe", 2, ABSENT)
}

fn check_says(lab: &Lab, report: &mut Report, name: &str, code: i32, text: &str) -> Result<(), String> {
    report.check(&format!("motion-ad check {name}: {text}"), || {
        let ran = lab.host("root", &["motion-ad", "check", name], "");
        equal("exit code", ran.code, code)?;
        contains("text", &ran.stdout, text)
    });
    Ok(())
}

fn names(lab: &Lab, report: &mut Report) -> Result<(), String> {
    report.note("names.domains and names.map");
    lab.write("/etc/motion-ad/names.map", MAP)?;
    lab.configure("[names]\ndomains = [\"sales.acme.example\"]\n")?;
    run(lab, report, "motion", NAMES)
}

/// Damages and repairs the files repeatedly. The next login notices each change without a restart.
fn broken_files(lab: &Lab, report: &mut Report) -> Result<(), String> {
    // The default path, and a path that only config.toml names.
    for map in ["/etc/motion-ad/names.map", "/etc/motion-ad/people.map"] {
        let config = format!("[names]\nmap_file = \"{map}\"\n");
        let repair = format!("printf 'jd = john.doe@acme.com\\n' >{map}; chmod 644 {map}");
        lab.host_sh(&repair).ok()?;
        lab.configure(&config)?;
        run(lab, report, "motion", HAS_JD)?;
        for (command, reason) in BROKEN {
            let command = command.replace("MAP", map);
            report.note(&command);
            lab.host_sh(&command).ok()?;
            // A file saved with an error keeps the last valid one in force. Such a file at the start of the
            // broker denies all logins. A name that the invalid map redirects is rejected.
            let row = if command.contains("JD = ") { JD_REFUSED } else { HAS_JD };
            run(lab, report, "motion", row)?;
            kept(lab, report, &reason.replace("MAP", map));
            lab.host_sh("systemctl restart motion-ad.service").ok()?;
            run(lab, report, "motion", &broken(reason.replace("MAP", map).leak()))?;
            helper_says(lab, report, &reason.replace("MAP", map))?;
            lab.host_sh(&repair).ok()?;
            run(lab, report, "motion", HAS_JD)?;
        }
    }
    lab.host_sh("rm /etc/motion-ad/people.map").ok()?;
    for (keys, reason) in KEYS {
        report.note(&keys.replace('\n', " "));
        lab.configure(keys)?;
        match keys.contains("deny_groups") {
            true => run(lab, report, "motion", STRICTER)?,
            false => {
                run(lab, report, "motion", HAS_JD)?;
                kept(lab, report, reason);
            }
        }
        lab.host_sh("systemctl restart motion-ad.service").ok()?;
        run(lab, report, "motion", &broken(reason))?;
        helper_says(lab, report, reason)?;
        lab.configure("")?;
        run(lab, report, "motion", HAS_JD)?;
    }
    stricter(lab, report)?;
    lab.configure("")?;
    run(lab, report, "motion", HAS_JD)
}

/// Checks that the last valid configuration is in force: users log in, and all status outputs name the cause.
fn kept(lab: &Lab, report: &mut Report, reason: &str) {
    report.check(
        "status, ready, the metrics and systemd name the cause, and users log in all the same",
        || {
            wait(Duration::from_secs(15), || {
                let status = lab.host("root", &["motion-ad", "status"], "");
                equal("status", status.code, 1)?;
                contains("status", &status.stdout, reason)?;
                contains("status", &status.stdout, "stays in force")?;
                contains("status", &status.stdout, "\nusers can still log in\n")?;
                let ready = lab.host("root", &["motion-ad", "ready"], "");
                equal("ready", ready.code, 1)?;
                contains("ready", &ready.stdout, "not well: users can log in, but ")?;
                let metrics = lab.host("root", &["motion-ad", "metrics"], "").ok()?;
                for line in ["motion_ad_serving 1\n", "motion_ad_well 0\n", "motion_ad_config_current 0\n"] {
                    contains("metrics", &metrics, line)?;
                }
                let line = lab.host_sh("systemctl show -P StatusText motion-ad.service").ok()?;
                contains("systemd", &line, "Logins work, but: ")?;
                let shown = lab.host("root", &["motion-ad", "config", "show"], "");
                equal("config show", shown.code, 2)?;
                contains("config show", &shown.stderr, reason)?;
                contains("config show", &shown.stdout, "the last good configuration\n")
            })
        },
    );
}

/// A stricter rule in the invalid file applies although the old file stays in force. The counters continue.
fn stricter(lab: &Lab, report: &mut Report) -> Result<(), String> {
    report.note("a typo, and deny_groups beside it");
    let logins = || {
        let metrics = lab.host("root", &["motion-ad", "metrics"], "").ok()?;
        let line =
            metrics.lines().find(|line| line.starts_with("motion_ad_logins_total{outcome=\"success\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .ok_or("no count of logins".to_owned())
    };
    let before = logins()?;
    lab.configure("[login]\nalow_groups = [\"XCALLY Agents\"]\ndeny_groups = [\"XCALLY Denied\"]\n")?;
    run(lab, report, "motion", &DENIED[..2])?;
    run(lab, report, "motion", HAS_JD)?;
    report.check("status says what is stricter, and counters survive the reload", || {
        let status = lab.host("root", &["motion-ad", "status"], "").stdout;
        contains("status", &status, "stricter by the new file: login.deny_groups")?;
        equal("counted on", logins()? > before, true)
    });
    Ok(())
}

/// Checks that the helper names the same cause, and exits accordingly. As root it can read all files, so the
/// map's mode affects only the broker.
fn helper_says(lab: &Lab, report: &mut Report, reason: &str) -> Result<(), String> {
    report.check("motion-ad status, check and map name the cause", || {
        let status = lab.host("root", &["motion-ad", "status"], "");
        equal("status", status.code, 1)?;
        contains("status", &status.stdout, &format!("problem: {}", first_word(reason)))?;
        let check = lab.host("root", &["motion-ad", "check", "john.doe"], "");
        equal("check", check.code, 2)?;
        contains("check", &check.stdout, reason)?;
        if reason.contains("Permission denied") {
            return Ok(());
        }
        let map = lab.host("root", &["motion-ad", "map", "john.doe"], "");
        equal("map", map.code, 2)?;
        contains("map", &map.stderr, reason)
    });
    Ok(())
}

/// Returns the file that the reason names.
fn first_word(reason: &str) -> &str {
    reason.split([',', ':']).next().unwrap_or_default().trim_start_matches("config.toml")
}
