//! `docs/log-and-codes.md`: what each line of the log and each PAM code means, of the tables that the programs decide by.

use std::fmt::Write as _;

use motion_ad::module::arguments::Expired;
use motion_ad::module::code::{self, Code, Phase};
use motion_ad::verdict::Outcome;

const HEAD: &str = "\
# Log lines and PAM codes

<!-- Written by `cargo run --example man -- --codes >docs/log-and-codes.md` from the tables of the programs. -->

The broker writes one line for each login, account check, password change and session, facility AUTHPRIV:

```sh host says=\"event=\"
journalctl -t motion-ad-broker -n 20
```

```text
event=login user=wendy.wrong principal=wendy.wrong@acme.com outcome=wrong_password reason=\"AD says: the password is wrong (data 52e)\" method=ldap dc=ad.acme.com peer=uid:999,pid:412 service=motion ms=5.2
```

A line is fields, `name=value`. A value that is more than a plain word stands in quotes with everything odd in it
escaped, so that nobody's name begins a field or a line. Where somebody has to mend something, the line is an error
and ends with `advice`. For one person, now, and with more detail:

```sh host exit=1 says=\"may not log in: disabled\"
motion-ad check dora.disabled
```

";

/// The fields of a line about a person, in their order.
const FIELDS: &[(&str, &str)] = &[
    ("event", "what was asked, see below"),
    ("user", "the name as it was typed"),
    ("principal", "the AD account that the name became; not there where it became none"),
    ("outcome", "what became of it, see the next table"),
    ("reason", "the cause, for administrators: AD's own answer where there is one"),
    (
        "text",
        "what the person was told in place of the outcome's own text, as why a new password was refused",
    ),
    ("method", "`ldap` or `kerberos`, where a password was checked"),
    ("dc", "the domain controller that answered"),
    ("peer", "who asked the broker: uid and pid of the application"),
    ("service", "the PAM service"),
    ("rhost, tty", "where the person sits, if the application says so (PAM_RHOST, PAM_TTY)"),
    ("session", "the id of the session that was registered or ended"),
    ("ms", "milliseconds from the whole request to the decision"),
    ("advice", "what to do"),
];

/// Every event of the log, what its line says, and what to do about it.
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
        "a session was opened; with `consequence`, somebody was let in without one",
        "see the outcome, or the problem",
    ),
    ("session_close", "the application closed a session", "nothing"),
    (
        "session_end",
        "a session ended otherwise: `reason` is one of `replaced`, `refused`, `process_gone`, `too_old`, `unconfirmed`, `closed`",
        "nothing; the application learns of it by `motion-ad sessions watch` or `sessions.on_evict`",
    ),
    (
        "sessions",
        "the register of sessions came, went, or has a problem",
        "mend what `problem` or `cause` names; `advice` says how",
    ),
    (
        "recheck",
        "the accounts of those who are logged in could not be read again: nobody's session ends by it",
        "as for `dc`",
    ),
    (
        "on_evict",
        "the command of `sessions.on_evict` failed, or events were lost before it ran",
        "run it by hand as the user motion-ad; after a loss compare with `motion-ad sessions list`",
    ),
    ("audit", "somebody ran `motion-ad audit`", "nothing"),
    (
        "search",
        "a search of the LDAP bridge had no answer: `problem` and the LDAP result say why",
        "as for `dc`; after result 3 or 51 see what the application asks for: its base DN and its filter",
    ),
    (
        "bind",
        "the LDAP bridge answered a bind: `result` is LDAP's code, `data` AD's, `login` the account behind a distinguished name; \
         the broker's own line of the login stands beside it",
        "see the outcome; `busy`: more than 64 logins were on their way",
    ),
    (
        "bridge",
        "the LDAP bridge cut a client off, for the reason",
        "see what the application sends; `bridge.certificate` is needed for TLS",
    ),
    (
        "start",
        "the broker has started; with `problem`, every login is denied",
        "mend the problem; the broker notices it by itself",
    ),
    (
        "config",
        "a changed file cannot be used, and the last good configuration stays in force",
        "mend what `problem` names; the broker notices it by itself. A restart by hand denies every login until then",
    ),
    (
        "restart",
        "a file that the broker was started from changed, and it starts again; with `problem`, without its counters",
        "nothing",
    ),
    (
        "method",
        "passwords are checked by another method than before, and why",
        "nothing where it is `ldap`; else see why TLS failed: `motion-ad doctor`",
    ),
    (
        "trust",
        "the trusted roots and CRLs changed, or could not be read: what was known last stays in use",
        "nothing, or as for `dc`",
    ),
    (
        "dc",
        "one service of one domain controller failed (`state=down`, `cause`) or works again (`state=up`); or DNS names a \
         host that AD does not list as a domain controller (`state=ignored`)",
        "look at the domain controller; logins go to the others meanwhile. Remove the DNS records of an ignored host",
    ),
    (
        "dns",
        "a file of DNS changed (`changed`): the domain controllers are looked for again, and those that are known stay in use \
         until the answer",
        "nothing",
    ),
    (
        "roster",
        "AD's list of domain controllers could not be read or kept (`problem`, `consequence`)",
        "`motion-ad doctor`: why the machine account cannot read AD",
    ),
    (
        "refused",
        "a user who is neither root nor in `broker.users` asked, or a request that cannot be understood came",
        "add the application's user to `broker.users`; after an upgrade restart the application",
    ),
    (
        "unanswered",
        "the application left before its answer came",
        "a `timeout=` that is longer than the application's own patience is of no use",
    ),
    (
        "accept",
        "the broker has no descriptors left for another connection",
        "`broker.connections`, and who opens so many: `ss -xp`",
    ),
    (
        "socket",
        "the socket for logins was removed or replaced: no application reaches the broker",
        "`systemctl restart motion-ad.socket motion-ad.service`; the service alone does not bring it back",
    ),
    (
        "task",
        "background work failed (`problem`) and is started again; `motion-ad status` counts it",
        "nothing if it happens once; if it goes on, report it with the line `panic` before it",
    ),
    (
        "panic",
        "a fault in the program, caught where it happened; `place` is in the source",
        "report it: no user's data is in the line",
    ),
    (
        "log_overflow",
        "so many lines were lost because syslog did not take them in time",
        "look at the syslog daemon",
    ),
];

/// What the module writes itself, under the application's name: a part of the line, and what to do.
pub const MODULE: &[(&str, &str)] = &[
    (
        "could not be asked",
        "the broker is not there, or silent: what the line ends with, or `motion-ad doctor`",
    ),
    (
        "refused, and every login with it",
        "mend the argument in `/etc/pam.d`; `pam_motion_ad(8)` has them all",
    ),
    ("ignored", "an argument that this version does not know: take it out, or upgrade"),
    ("was left and could not be ended", "`motion-ad sessions end ID`"),
    ("the password was changed, but no session registered", "nothing: acct_mgmt and open_session try again"),
];

/// What an application does about a code; empty where the outcomes above say it.
fn advice(code: Code) -> &'static str {
    match code {
        Code::Success => "let the person in",
        Code::AuthErr => "ask again; say the same as for PAM_USER_UNKNOWN, or strangers learn who exists",
        Code::UserUnknown => "as for PAM_AUTH_ERR",
        Code::PermDenied | Code::AcctExpired | Code::MaxTries => {
            "say that the account may not log in; asking again is of no use"
        }
        Code::NewAuthtokReqd => {
            "offer a change of the password (chauthtok), or send the person to where it can be changed"
        }
        Code::AuthinfoUnavail => {
            "say that it cannot be checked now, and try later; of a change: the new password may be in force"
        }
        Code::ServiceErr | Code::SystemErr => "call the administrator: the log has the cause",
        Code::BufErr => "look at the host's memory",
        Code::ConvErr => "mend the application's conversation: it failed, or answered nothing",
        Code::AuthtokErr => "say why, in the text that came with it, and ask for another new password",
        Code::AuthtokRecoveryErr => "ask for the present password again",
        Code::TryAgain => "begin the change anew, later",
        Code::SessionErr => "see the log: the register of sessions",
    }
}

/// The whole document.
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    text += "## The fields\n\n";
    table(
        &mut text,
        ["Field", "What it holds"],
        FIELDS.iter().map(|(name, holds)| [format!("`{name}`"), (*holds).to_owned()]),
    );
    text += "\n## The outcomes\n\n\
        The code is what authenticate and acct_mgmt answer; where a password change has another one, it stands behind \
        it, first for its first call. `expired=account` moves PAM_NEW_AUTHTOK_REQD from authenticate to acct_mgmt. \
        What the person is told is shown with the argument `messages` alone, while a password is changed always.\n\n";
    let heading = ["`outcome`", "What it means", "PAM code", "The person is told", "What to do"];
    table(&mut text, heading, Outcome::ALL.iter().map(|outcome| of(*outcome)));
    text += "\n## The PAM codes\n\n\
        For whoever writes the application: it gets no more than the code, and a text with `messages`.\n\n";
    table(
        &mut text,
        ["Code", "What it means", "What to do"],
        Code::ALL
            .iter()
            .map(|code| [code.name().to_owned(), code.text().to_owned(), advice(*code).to_owned()]),
    );
    text += "\nWhat can be nobody's password (empty, over 1024 bytes, not UTF-8) is PAM_AUTH_ERR, what can be nobody's name is \
        PAM_USER_UNKNOWN, without a line in the log: the module asks nobody. An argument with a broken value is \
        PAM_SERVICE_ERR, for sessions PAM_SESSION_ERR. `open_session` and `close_session` answer PAM_SUCCESS, \
        PAM_PERM_DENIED for session_denied, and PAM_SESSION_ERR for everything else.\n";
    text += "\n## The events\n\n";
    table(
        &mut text,
        ["`event`", "What happened", "What to do"],
        EVENTS.iter().map(|(name, what, todo)| [format!("`{name}`"), (*what).to_owned(), (*todo).to_owned()]),
    );
    text += "\nA complaint that comes again and again is one line a minute, with `repeated`.\n\n\
        ## What the module says\n\n\
        Under the application's name, `pam_motion_ad(SERVICE:CALL)` before the text; with the argument `debug` one more line \
        for each call, with its code.\n\n";
    table(
        &mut text,
        ["The line holds", "What to do"],
        MODULE.iter().map(|(part, todo)| [format!("“{part}”"), (*todo).to_owned()]),
    );
    text
}

/// The row of an outcome.
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

/// A table of Markdown.
fn table<const N: usize>(text: &mut String, heading: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let _ = writeln!(text, "| {} |\n|{}", heading.join(" | "), "---|".repeat(N));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
}
