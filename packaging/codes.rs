//! Writes `docs/log-and-codes.md`, the meaning of each log line and each PAM code, from the tables that the
//! programs use.

use std::fmt::Write as _;

use motion_ad::module::arguments::Expired;
use motion_ad::module::code::{self, Code, Phase};
use motion_ad::verdict::Outcome;

const HEAD: &str = "\
# Log lines and PAM codes

<!-- Written by `cargo run --example man -- --codes >docs/log-and-codes.md` from the tables of the programs. \
-->

The broker writes one line for each login, account check, password change and session event, facility \
AUTHPRIV:

```sh host says=\"event=\"
journalctl -t motion-ad-broker -n 20
```

```text
event=login user=wendy.wrong principal=wendy.wrong@acme.com outcome=wrong_password reason=\"AD says: the \
password is wrong (data 52e)\" method=ldap dc=ad.acme.com peer=uid:999,pid:412 service=motion ms=5.2
```

A line is a list of fields, `name=value`. A value that is more than a plain word is quoted, and special \
characters in it are
escaped, so that no user name can begin a field or a line. If you have to fix something, the line has the \
level error and
ends with `advice`. `motion-ad log` shows these lines as a table, for one user or for all, with the advice:

```sh host exit=0,1
motion-ad log wendy.wrong --since yesterday
```

To check one user now, and in more detail:

```sh host exit=1 says=\"may not log in: disabled\"
motion-ad check dora.disabled
```

";

/// The fields of a line about a user, in their order.
const FIELDS: &[(&str, &str)] = &[
    ("event", "the kind of request or event, see below"),
    ("user", "the name as the user typed it"),
    ("principal", "the AD account that the name stands for; absent if there is none"),
    ("outcome", "the result, see the next table"),
    ("reason", "the cause, for administrators: AD's own answer if there is one"),
    (
        "text",
        "the text that the user saw instead of the outcome's own text, such as the reason why a new password \
         was rejected; in English, whatever `lang=` says",
    ),
    (
        "mode",
        "`observe` if another module of the PAM stack decided (the module's argument `observe`); absent \
         otherwise",
    ),
    ("method", "`ldap` or `kerberos`, if a password was checked"),
    ("dc", "the domain controller that answered"),
    ("peer", "the process that sent the request: uid and pid of the application"),
    ("service", "the PAM service"),
    ("rhost, tty", "the user's host and terminal, if the application sets them (PAM_RHOST, PAM_TTY)"),
    ("session", "the id of the session that was registered or ended"),
    ("ms", "milliseconds from the complete request to the decision"),
    ("advice", "the fix"),
];

/// Every event of the log, its meaning, and what an administrator does about it.
pub const EVENTS: &[(&str, &str, &str)] = &[
    ("login", "a password was checked", "see the outcome"),
    (
        "account",
        "an account was checked without its password (acct_mgmt on a fresh handle)",
        "see the outcome",
    ),
    (
        "password_probe",
        "the first half of a password change: the present password was checked",
        "see the outcome",
    ),
    ("password", "the second half: the new password was sent to AD", "see the outcome"),
    (
        "session_open",
        "a session was opened; with `consequence`, a user got access without one",
        "see the outcome, or the problem",
    ),
    ("session_close", "the application closed a session", "nothing"),
    (
        "session_end",
        "a session ended in another way: `reason` is one of `replaced`, `refused`, `process_gone`, \
         `too_old`, `kicked`, `unconfirmed`, `closed`",
        "nothing; the application learns of it from `motion-ad sessions watch` or `sessions.on_evict`. After \
         `kicked`, `detail` names the process of the administrator",
    ),
    (
        "sessions",
        "the register of sessions became available, became unavailable, or has a problem",
        "fix the `problem` or `cause`; `advice` names the steps",
    ),
    (
        "recheck",
        "the accounts of the logged-in users could not be read again; no session ends because of this",
        "as for `dc`",
    ),
    (
        "on_evict",
        "the command of `sessions.on_evict` failed, or events were lost before it ran",
        "run the command by hand as the user motion-ad; after a loss compare with `motion-ad sessions list`",
    ),
    ("audit", "an administrator ran `motion-ad audit`", "nothing"),
    (
        "search",
        "a search of the LDAP bridge got no answer; `problem` and the LDAP result give the cause",
        "as for `dc`; after result 3 or 51 check the application's searches: base DN and filter",
    ),
    (
        "bind",
        "the LDAP bridge answered a bind: `result` is LDAP's code, `data` AD's, `login` the account behind a \
         distinguished name; the broker logs the login in a separate line",
        "see the outcome; `busy`: more than 64 logins were in progress",
    ),
    (
        "bridge",
        "the LDAP bridge disconnected a client; the line has the reason. With `session`, it ended the \
         session of a bind that no client holds",
        "check the messages that the application sends; TLS needs `bridge.certificate`. With `problem`, the \
         session may be open: follow `advice`",
    ),
    (
        "start",
        "the broker has started; with `problem`, every login is denied",
        "fix the problem; the broker notices it by itself",
    ),
    (
        "config",
        "a changed file cannot be used, and the last good configuration stays in force; for the LDAP bridge \
         also its certificate and key, or the admin's file",
        "fix the `problem`; the broker notices it by itself. A restart by hand denies every login until then",
    ),
    (
        "restart",
        "a file that the broker was started from changed, and the broker starts again; with `problem`, \
         without its counters",
        "nothing",
    ),
    (
        "method",
        "passwords are checked by another method than before; the line has the reason",
        "nothing if it is `ldap`; otherwise find out why TLS failed: `motion-ad doctor`",
    ),
    (
        "trust",
        "the trusted roots and CRLs changed, or could not be read: the last known ones stay in use",
        "nothing, or as for `dc`",
    ),
    (
        "dc",
        "one service of one domain controller failed (`state=down`, `cause`) or works again (`state=up`); or \
         DNS names a host that AD does not list as a domain controller (`state=ignored`)",
        "check the domain controller; logins use the others until it works. Remove the DNS records of an \
         ignored host",
    ),
    (
        "dns",
        "a file of DNS changed (`changed`): the broker searches for domain controllers again, and those \
         that are known stay in use until the answer",
        "nothing",
    ),
    (
        "roster",
        "AD's list of domain controllers could not be read or kept (`problem`, `consequence`)",
        "`motion-ad doctor` finds out why the machine account cannot read AD",
    ),
    (
        "refused",
        "a user who is neither root nor in `broker.users` sent a request, or a request was malformed",
        "add the application's user to `broker.users`; after an upgrade restart the application",
    ),
    (
        "unanswered",
        "the application disconnected before its answer came",
        "make `timeout=` shorter than the application's own timeout",
    ),
    (
        "accept",
        "broker or LDAP bridge cannot accept a connection; `problem` has the cause, often no descriptor",
        "follow `advice`; check `broker.connections`, and find the process that opens so many: `ss -xp`",
    ),
    (
        "socket",
        "the socket for logins was removed or replaced: no application reaches the broker",
        "`systemctl restart motion-ad.socket motion-ad.service`; restarting the service alone does not help",
    ),
    (
        "task",
        "a background task failed (`problem`) and is started again; `motion-ad status` counts the failures",
        "nothing if it happens once; if it repeats, report it with the line `panic` before it",
    ),
    (
        "panic",
        "a fault in the program, caught; `place` is its place in the source",
        "report it: the line holds no user's data",
    ),
    (
        "log_overflow",
        "lines were lost because syslog did not accept them in time; the line has their number",
        "check the syslog daemon",
    ),
];

/// Lines that the module logs under the application's name: a part of the line, and what an administrator
/// does about it.
pub const MODULE: &[(&str, &str)] = &[
    (
        "could not be queried",
        "the broker is not running, or does not answer: see the end of the line, or run `motion-ad doctor`",
    ),
    (
        "refused, and every login with it",
        "fix the argument in `/etc/pam.d`; `pam_motion_ad(8)` describes them all",
    ),
    ("ignored", "this version does not know the argument: remove it, or upgrade"),
    ("was left and could not be ended", "`motion-ad sessions end ID`"),
    ("the password was changed, but no session registered", "nothing: acct_mgmt and open_session try again"),
];

/// Returns what an application does about a code.
fn advice(code: Code) -> &'static str {
    match code {
        Code::Success => "grant access",
        Code::AuthErr => {
            "prompt again; show the same text as for PAM_USER_UNKNOWN, or strangers learn which names exist"
        }
        Code::UserUnknown => "as for PAM_AUTH_ERR",
        Code::PermDenied | Code::AcctExpired | Code::MaxTries => {
            "report that the account may not log in; another attempt is of no use"
        }
        Code::NewAuthtokReqd => "offer a password change (chauthtok), or send the user to a page that does",
        Code::AuthinfoUnavail => {
            "report that the login cannot be checked now, and try later; after a change, the new password \
             may be in force"
        }
        Code::ServiceErr | Code::SystemErr => "call the administrator: the log has the cause",
        Code::BufErr => "check the host's memory",
        Code::ConvErr => "fix the application's conversation: it failed, or answered nothing",
        Code::AuthtokErr => "show the text that came with it, and prompt for another new password",
        Code::AuthtokRecoveryErr => "prompt for the present password again",
        Code::TryAgain => "start the change again later",
        Code::SessionErr => "see the log: the register of sessions",
    }
}

/// Returns the whole document.
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    text += "## The fields\n\n";
    table(
        &mut text,
        ["Field", "Content"],
        FIELDS.iter().map(|(name, holds)| [format!("`{name}`"), (*holds).to_owned()]),
    );
    text += "\n## The outcomes\n\n\
        The first code is the result of authenticate and acct_mgmt. If a password change has other codes, \
        they follow: first that of its first call. `expired=account` moves PAM_NEW_AUTHTOK_REQD from \
        authenticate to acct_mgmt. The user sees the text only with the argument `messages`, but always \
        while a password is changed.\n\n";
    let heading = ["`outcome`", "Meaning", "PAM code", "Text for the user", "Action"];
    table(&mut text, heading, Outcome::ALL.iter().map(|outcome| of(*outcome)));
    text += "\n## The PAM codes\n\n\
        For developers of applications: an application gets only the code, and with `messages` a text.\n\n";
    table(
        &mut text,
        ["Code", "Meaning", "Action"],
        Code::ALL
            .iter()
            .map(|code| [code.name().to_owned(), code.text().to_owned(), advice(*code).to_owned()]),
    );
    text += "\nA password that can never be right (empty, over 1024 bytes, not UTF-8) is PAM_AUTH_ERR, and a \
        name that can never be right is PAM_USER_UNKNOWN. The broker logs no line for them, because the \
        module sends no request. An argument with a broken value is PAM_SERVICE_ERR, for sessions \
        PAM_SESSION_ERR. `open_session` and `close_session` return PAM_SUCCESS, PAM_PERM_DENIED for \
        session_denied, and PAM_SESSION_ERR for everything else.\n";
    text += "\n## The events\n\n";
    table(
        &mut text,
        ["`event`", "Cause", "Action"],
        EVENTS.iter().map(|(name, what, todo)| [format!("`{name}`"), (*what).to_owned(), (*todo).to_owned()]),
    );
    text += "\nA complaint that repeats is logged once a minute, with `repeated`.\n\n\
        ## Lines of the module\n\n\
        The module logs under the application's name, with `pam_motion_ad(SERVICE:CALL)` before the text. \
        With the argument `debug` it logs one more line for each call, with its code.\n\n";
    table(
        &mut text,
        ["Part of the line", "Action"],
        MODULE.iter().map(|(part, todo)| [format!("“{part}”"), (*todo).to_owned()]),
    );
    text
}

/// Returns the row of an outcome.
fn of(outcome: Outcome) -> [String; 5] {
    let code = code::authenticate(outcome, Expired::Auth);
    let mut codes = vec![code.name()];
    let changes = [Phase::Probe, Phase::Change].map(|phase| code::change(outcome, phase));
    if changes != [code; 2] {
        codes.extend(changes.map(Code::name));
        codes.dedup();
    }
    let told = outcome.text().map_or("nothing".to_owned(), |text| format!("“{text}”"));
    let advice = if outcome.advice().is_empty() { "nothing" } else { outcome.advice() };
    let code = codes.join(", ");
    [format!("`{outcome}`"), outcome.meaning().to_owned(), code, told, advice.to_owned()]
}

/// Appends a Markdown table to `text`.
fn table<const N: usize>(text: &mut String, heading: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let _ = writeln!(text, "| {} |\n|{}", heading.join(" | "), "---|".repeat(N));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
}
