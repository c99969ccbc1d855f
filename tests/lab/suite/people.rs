//! All users of the cast at the login page: user × password × entry point → outcome, AD's counter, PAM code.

use crate::cast::{Person, everybody};
use crate::lab::Lab;
use crate::pam::{authenticate, pam, pamtester, patiently};
use crate::report::{Report, contains, equal};
use crate::row::{Acct, Auth, AuthAcct, Bytes, Empty, Of, Right, Row, Wrong, row, run};

/// Reason why a right but expired password resets the counter.
const CONFIRMED: &str = "confirmed by a ticket for kadmin/changepw, a success to AD";
/// Reason why a workstation that is not allowed resets it.
const KDC_LOOKS_AWAY: &str = "Samba's KDC passes over userWorkstations, the broker does not";

/// Samba 4.17 takes the name in his ticket for clash-a's, whose userPrincipalName is equal, and revokes the
/// ticket.
pub const CLASH: &str = "Samba's KDC takes his ticket for another's";
pub const TWO_ACCOUNTS: &str = "clash is the userPrincipalName of CN=clash.a,OU=People,DC=acme,DC=com and \
                                the sAMAccountName of CN=clash,OU=People,DC=acme,DC=com";
const CLASHING: &str = "clash@acme.com";

/// Results of each condition of an account.
#[rustfmt::skip]
pub const CAST: &[Row] = &[
    //  who            typed             password entry points  outcome        badPwdCount  PAM code
    row("john",        "john.doe",       Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR").reason("data 52e"),
    row("john",        "john.doe",       Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("john",        "john.doe",       Right, Auth,     "success",           0, "PAM_SUCCESS"),
    row("john",        "john.doe",       Empty, Auth,     "",                  0, "PAM_AUTH_ERR"),
    row("john",        "john.doe",       Bytes(1025), Auth, "",                0, "PAM_AUTH_ERR"),
    row("john",        "john.doe",       Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("wendy",       "wendy.wrong",    Wrong, AuthAcct, "wrong_password",    1, "PAM_AUTH_ERR"),
    row("wendy",       "wendy.wrong",    Of("john"), Auth, "wrong_password",   1, "PAM_AUTH_ERR"),
    row("wendy",       "wendy.wrong",    Right, AuthAcct, "success",           0, "PAM_SUCCESS"),

    // A wrong password reveals nothing about the account.
    row("dora",        "dora.disabled",  Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR").kdc_first(),
    row("dora",        "dora.disabled",  Right, AuthAcct, "disabled",          0, "PAM_PERM_DENIED").reason("data 533").kdc_first(),
    row("dora",        "dora.disabled",  Right, Acct,     "disabled",          0, "PAM_PERM_DENIED"),
    row("ed",          "ed.ended",       Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR").kdc_first(),
    row("ed",          "ed.ended",       Right, AuthAcct, "account_expired",   0, "PAM_ACCT_EXPIRED").reason("data 701").kdc_first(),
    row("ed",          "ed.ended",       Right, Acct,     "account_expired",   0, "PAM_ACCT_EXPIRED"),
    row("petra",       "petra.expired",  Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("petra",       "petra.expired",  Right, AuthAcct, "password_expired",  0, "PAM_NEW_AUTHTOK_REQD").reason("data 532").kdc_accepts(CONFIRMED),
    row("petra",       "petra.expired",  Right, Acct,     "password_expired",  0, "PAM_NEW_AUTHTOK_REQD"),
    row("max",         "max.mustchange", Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("max",         "max.mustchange", Right, AuthAcct, "must_change",       0, "PAM_NEW_AUTHTOK_REQD").reason("data 773").kdc_accepts(CONFIRMED),
    row("max",         "max.mustchange", Right, Acct,     "must_change",       0, "PAM_NEW_AUTHTOK_REQD"),
    row("nora",        "nora.night",     Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR").kdc_first(),
    row("nora",        "nora.night",     Right, AuthAcct, "logon_hours",       0, "PAM_PERM_DENIED").reason("data 530").kdc_first(),
    row("nora",        "nora.night",     Right, Acct,     "logon_hours",       0, "PAM_PERM_DENIED"),
    row("walt",        "walt.elsewhere", Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("walt",        "walt.elsewhere", Right, AuthAcct, "workstation",       0, "PAM_PERM_DENIED").reason("data 531").kdc_accepts(KDC_LOOKS_AWAY),
    row("walt",        "walt.elsewhere", Right, Acct,     "workstation",       0, "PAM_PERM_DENIED"),

    // A locked account gives the same answer for every password, and its counter does not change.
    row("lou",         "lou.locked",     Wrong, Auth,     "locked_out",        0, "PAM_MAXTRIES").reason("data 775"),
    row("lou",         "lou.locked",     Right, AuthAcct, "locked_out",        0, "PAM_MAXTRIES"),
    row("lou",         "lou.locked",     Right, Acct,     "locked_out",        0, "PAM_MAXTRIES"),

    // Without group rules, all users get access. Each of these names causes trouble in some software.
    row("nina",        "nina.nested",    Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("nina",        "nina.nested",    Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("nina",        "nina.nested",    Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("otto",        "otto.outsider",  Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("otto",        "otto.outsider",  Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("otto",        "otto.outsider",  Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("dean",        "dean.denied",    Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("dean",        "dean.denied",    Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("dean",        "dean.denied",    Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("greta",       "greta.groups",   Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("greta",       "greta.groups",   Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("greta",       "greta.groups",   Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("uma",         "uma.upn",        Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("uma",         "uma.upn",        Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("uma",         "uma.upn",        Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("sven",        "sven.suffix",    Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("sven",        "sven.suffix",    Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("sven",        "sven.suffix",    Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("mary",        "Mary Ann",       Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("mary",        "Mary Ann",       Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("mary",        "Mary Ann",       Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("joerg",       "jörg.müller",    Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("joerg",       "jörg.müller",    Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("joerg",       "jörg.müller",    Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("miles",       "miles.o'brien",  Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("miles",       "miles.o'brien",  Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("miles",       "miles.o'brien",  Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("quentin",     "quentin.quote",  Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("quentin",     "quentin.quote",  Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("quentin",     "quentin.quote",  Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("lydia",       "lydia.long",     Bytes(1024), Auth, "wrong_password",  1, "PAM_AUTH_ERR"),
    row("lydia",       "lydia.long",     Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("lydia",       "lydia.long",     Right, Acct,     "success",           0, "PAM_SUCCESS"),

    // An account's own password policy and the session register's rules do not affect a login.
    row("wilma",       "wilma.warned",   Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("wilma",       "wilma.warned",   Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("wilma",       "wilma.warned",   Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("polly",       "polly.policy",   Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("polly",       "polly.policy",   Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("polly",       "polly.policy",   Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("neil",        "neil.new",       Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("neil",        "neil.new",       Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("neil",        "neil.new",       Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("carl",        "carl.cannot",    Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("carl",        "carl.cannot",    Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("carl",        "carl.cannot",    Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("seth",        "seth.seat",      Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("seth",        "seth.seat",      Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("seth",        "seth.seat",      Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("sally",       "sally.seat",     Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("sally",       "sally.seat",     Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("sally",       "sally.seat",     Right, Acct,     "success",           0, "PAM_SUCCESS"),
    row("sophie",      "sophie.super",   Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR"),
    row("sophie",      "sophie.super",   Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("sophie",      "sophie.super",   Right, Acct,     "success",           0, "PAM_SUCCESS"),

    // clash@acme.com is clash-a's explicit name and clash-b's implicit one, so the bare name identifies
    // neither.
    row("clash-a",     "clash",          Wrong, Auth,     "ambiguous",         0, "PAM_USER_UNKNOWN").reason(TWO_ACCOUNTS),
    row("clash-a",     "clash",          Right, AuthAcct, "ambiguous",         0, "PAM_USER_UNKNOWN").reason(TWO_ACCOUNTS),
    row("clash-b",     "clash",          Right, AuthAcct, "ambiguous",         0, "PAM_USER_UNKNOWN").reason(TWO_ACCOUNTS),
    row("clash-b",     "clash",          Right, Acct,     "ambiguous",         0, "PAM_USER_UNKNOWN").reason(TWO_ACCOUNTS),
    row("clash-a",     "clash@acme.com", Wrong, Auth,     "wrong_password",    1, "PAM_AUTH_ERR").principal(CLASHING).reason("hides"),
    row("clash-a",     "clash@acme.com", Of("clash-b"), Auth, "wrong_password", 1, "PAM_AUTH_ERR").principal(CLASHING),
    row("clash-a",     "clash@acme.com", Right, AuthAcct, "success",           0, "PAM_SUCCESS").principal(CLASHING),
    row("clash-a",     "clash@acme.com", Right, Acct,     "success",           0, "PAM_SUCCESS").principal(CLASHING),
    row("clash-b",     "ACME\\clash",    Of("clash-a"), Auth, "wrong_password", 1, "PAM_AUTH_ERR").principal(CLASHING),
    row("clash-b",     "ACME\\clash",    Right, AuthAcct, "success",           0, "PAM_SUCCESS").principal(CLASHING).kdc_refuses("ambiguous", "PAM_USER_UNKNOWN", CLASH),
    row("clash-b",     "ACME\\clash",    Right, Acct,     "success",           0, "PAM_SUCCESS").principal(CLASHING),
    row("clash-b",     "clash@ACME",     Right, Acct,     "success",           0, "PAM_SUCCESS").principal(CLASHING),
    row("clash-a",     "clash.a",        Right, AuthAcct, "success",           0, "PAM_SUCCESS"),
    row("clash-b",     "clash.b",        Of("clash-a"), Auth, "wrong_password", 1, "PAM_AUTH_ERR"),
    row("clash-b",     "clash.b",        Right, AuthAcct, "success",           0, "PAM_SUCCESS").kdc_refuses("ambiguous", "PAM_USER_UNKNOWN", CLASH),
    row("clash-b",     "clash.b",        Right, Acct,     "success",           0, "PAM_SUCCESS"),

    // Without a userPrincipalName, only the implicit name exists. (The lab reads the counters with this
    // account's password, so AD resets the counter.)
    row("administrator", "Administrator", Wrong, Auth,    "wrong_password",    0, "PAM_AUTH_ERR"),
    row("administrator", "Administrator", Right, AuthAcct, "success",          0, "PAM_SUCCESS"),
    row("administrator", "Administrator", Right, Acct,    "success",           0, "PAM_SUCCESS"),
];

/// A name of 257 bytes, one more than the limit.
const LONG: &str = match std::str::from_utf8(&[b'n'; 257]) {
    Ok(name) => name,
    Err(_) => "",
};

/// Names in all typed forms, and names without an account.
#[rustfmt::skip]
pub const NAMES: &[Row] = &[
    row("john",  "John.Doe",                    Right, AuthAcct, "success",   0, "PAM_SUCCESS"),
    row("john",  "john.doe@acme.com",           Right, AuthAcct, "success",   0, "PAM_SUCCESS").principal("john.doe@acme.com"),
    row("john",  "JOHN.DOE@Acme.COM",           Right, Auth,     "success",   0, "PAM_SUCCESS").principal("john.doe@acme.com"),
    row("john",  "ACME\\john.doe",              Right, AuthAcct, "success",   0, "PAM_SUCCESS").principal("john.doe@acme.com"),
    row("john",  "john.doe@ACME",               Right, AuthAcct, "success",   0, "PAM_SUCCESS").principal("john.doe@acme.com"),
    row("john",  "acme.com\\john.doe",          Right, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("NetBIOS name alone"),
    row("john",  "ACME\\john.doe",              Wrong, Auth,     "wrong_password", 1, "PAM_AUTH_ERR").principal("john.doe@acme.com"),
    row("joerg", "JÖRG.MÜLLER",                 Right, Auth,     "success",   0, "PAM_SUCCESS"),
    row("mary",  "mary.ann",                    Right, Auth,     "success",   0, "PAM_SUCCESS"),
    row("clash-b", "clash.b@acme.com",          Right, Auth,     "success",   0, "PAM_SUCCESS").principal("clash.b@acme.com").kdc_refuses("ambiguous", "PAM_USER_UNKNOWN", CLASH),

    // Other domains. uma's suffix is rejected unless names.domains lists it; her short name is always
    // accepted.
    row("john",  "EVIL\\john.doe",              Right, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("\"EVIL\" is not accepted"),
    row("john",  "john.doe@evil.example",       Right, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("names.domains"),
    row("uma",   "uma.upn@sales.acme.example",  Right, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("names.domains"),
    row("john",  "ACME\\john.doe@acme.com",     Right, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-"),
    row("john",  "john.doe@",                   Right, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-"),
    row("",      "@acme.com",                   Wrong, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-"),
    row("john",  " john.doe",                   Right, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("space"),
    row("john",  "john.doe ",                   Right, Acct,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("space"),

    // Local accounts that no login page may use.
    row("",      "root",                        Wrong, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("names.refuse"),
    row("",      "root",                        Wrong, Acct,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("names.refuse"),
    row("",      "Root@acme.com",               Wrong, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("names.refuse"),
    row("",      "motion",                      Wrong, Auth,     "unmapped",  0, "PAM_USER_UNKNOWN").principal("-").reason("names.refuse"),

    // Names without an account.
    row("",      "nobody.here",                 Wrong, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("",      "nobody.here",                 Wrong, Acct,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("joerg", "jorg.muller",                 Right, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("",      "XCALLY$",                     Wrong, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("",      "XCALLY Agents",               Wrong, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),

    // Injection attempts: a filter, a distinguished name, additional log lines.
    row("john",  "*)(objectClass=*",            Right, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("john",  "*",                           Right, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("john",  "john.*",                      Right, Acct,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("john",  "CN=john.doe,OU=People,DC=acme,DC=com", Right, Auth, "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("john",  "x outcome=success",           Right, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("john",  "x\" outcome=\"success",       Right, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("john",  "eod.nhoj\u{202e}",            Right, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),
    row("john",  "john.doe\u{200b}",            Right, Auth,     "unknown_user", 0, "PAM_USER_UNKNOWN"),

    // The module rejects an impossible name without a request.
    row("",      "",                            Wrong, Auth,     "",          0, "PAM_USER_UNKNOWN"),
    row("",      "",                            Wrong, Acct,     "",          0, "PAM_USER_UNKNOWN"),
    row("",      LONG,                          Wrong, Auth,     "",          0, "PAM_USER_UNKNOWN"),
    row("john",  "john.doe\nevent=login",       Right, Auth,     "",          0, "PAM_USER_UNKNOWN"),
    row("john",  "john.doe\x7f",                Right, Auth,     "",          0, "PAM_USER_UNKNOWN"),
    row("john",  "\x1b[2Jjohn.doe",             Right, Acct,     "",          0, "PAM_USER_UNKNOWN"),
];

/// `expired=account` on both lines: only an expired password is left to acct_mgmt.
#[rustfmt::skip]
const EXPIRED_ACCOUNT: &[Row] = &[
    row("petra", "petra.expired",  Wrong, AuthAcct, "wrong_password",   1, "PAM_AUTH_ERR"),
    row("petra", "petra.expired",  Right, Auth,     "password_expired", 0, "PAM_SUCCESS").kdc_accepts(CONFIRMED),
    row("petra", "petra.expired",  Right, AuthAcct, "password_expired", 0, "PAM_NEW_AUTHTOK_REQD").passes_auth().kdc_accepts(CONFIRMED),
    row("petra", "petra.expired",  Right, Acct,     "password_expired", 0, "PAM_NEW_AUTHTOK_REQD"),
    row("max",   "max.mustchange", Right, Auth,     "must_change",      0, "PAM_SUCCESS").kdc_accepts(CONFIRMED),
    row("max",   "max.mustchange", Right, AuthAcct, "must_change",      0, "PAM_NEW_AUTHTOK_REQD").passes_auth().kdc_accepts(CONFIRMED),
    row("dora",  "dora.disabled",  Right, AuthAcct, "disabled",         0, "PAM_PERM_DENIED").kdc_first(),
    row("ed",    "ed.ended",       Right, AuthAcct, "account_expired",  0, "PAM_ACCT_EXPIRED").kdc_first(),
    row("lou",   "lou.locked",     Right, AuthAcct, "locked_out",       0, "PAM_MAXTRIES"),
    row("john",  "john.doe",       Right, AuthAcct, "success",          0, "PAM_SUCCESS"),
];

const LOCKED: &str = "Your account is locked. Try again later or ask your administrator.";
const EXPIRED: &str = "Your password has expired and must be changed.";

/// `messages`: a user whose account is rejected sees the reason; an unknown user does not.
#[rustfmt::skip]
const MESSAGES: &[Row] = &[
    row("dora",  "dora.disabled",  Wrong, Auth,     "wrong_password",   1, "PAM_AUTH_ERR").kdc_first(),
    row("dora",  "dora.disabled",  Right, Auth,     "disabled",         0, "PAM_PERM_DENIED").told("Your account is disabled.").kdc_first(),
    row("dora",  "dora.disabled",  Right, Acct,     "disabled",         0, "PAM_PERM_DENIED").told("Your account is disabled."),
    row("ed",    "ed.ended",       Right, Auth,     "account_expired",  0, "PAM_ACCT_EXPIRED").told("Your account has expired.").kdc_first(),
    row("petra", "petra.expired",  Right, Auth,     "password_expired", 0, "PAM_NEW_AUTHTOK_REQD").told(EXPIRED).kdc_accepts(CONFIRMED),
    row("max",   "max.mustchange", Right, Auth,     "must_change",      0, "PAM_NEW_AUTHTOK_REQD").told("Your password must be changed before you can log in.").kdc_accepts(CONFIRMED),
    row("nora",  "nora.night",     Right, Auth,     "logon_hours",      0, "PAM_PERM_DENIED").told("Your account may not log in at this time.").kdc_first(),
    row("walt",  "walt.elsewhere", Right, Auth,     "workstation",      0, "PAM_PERM_DENIED").told("Your account may not log in from this computer.").kdc_accepts(KDC_LOOKS_AWAY),
    row("lou",   "lou.locked",     Right, Auth,     "locked_out",       0, "PAM_MAXTRIES").told(LOCKED),
    row("lou",   "lou.locked",     Right, Acct,     "locked_out",       0, "PAM_MAXTRIES").told(LOCKED),
    row("john",  "john.doe",       Right, AuthAcct, "success",          0, "PAM_SUCCESS"),
    row("",      "nobody.here",    Wrong, Auth,     "unknown_user",     0, "PAM_USER_UNKNOWN"),
];

/// `messages lang=it`: the same in Italian. A wrong password and an unknown name have no text in Italian
/// either.
#[rustfmt::skip]
const ITALIAN: &[Row] = &[
    row("dora",  "dora.disabled",  Wrong, Auth,     "wrong_password",   1, "PAM_AUTH_ERR").kdc_first(),
    row("dora",  "dora.disabled",  Right, AuthAcct, "disabled",         0, "PAM_PERM_DENIED").told("Il Suo account è disabilitato.").kdc_first(),
    row("dora",  "dora.disabled",  Right, Acct,     "disabled",         0, "PAM_PERM_DENIED").told("Il Suo account è disabilitato."),
    row("max",   "max.mustchange", Right, Auth,     "must_change",      0, "PAM_NEW_AUTHTOK_REQD").told("Prima di accedere deve cambiare la Sua password.").kdc_accepts(CONFIRMED),
    row("lou",   "lou.locked",     Right, Auth,     "locked_out",       0, "PAM_MAXTRIES").told("Il Suo account è bloccato. Riprovi più tardi o si rivolga all'amministratore."),
    row("john",  "john.doe",       Right, AuthAcct, "success",          0, "PAM_SUCCESS"),
    row("",      "nobody.here",    Wrong, Auth,     "unknown_user",     0, "PAM_USER_UNKNOWN"),
];

/// From the first wrong password to the lock, and to its end.
#[rustfmt::skip]
const LOCKOUT: &[Row] = &[
    row("lena",  "lena.lock",      Wrong, Auth,     "wrong_password",   1, "PAM_AUTH_ERR"),
    row("lena",  "lena.lock",      Wrong, Auth,     "wrong_password",   1, "PAM_AUTH_ERR"),
    row("lena",  "lena.lock",      Wrong, AuthAcct, "wrong_password",   1, "PAM_AUTH_ERR"),
    row("lena",  "lena.lock",      Right, AuthAcct, "locked_out",       0, "PAM_MAXTRIES"),
    row("lena",  "lena.lock",      Wrong, Auth,     "locked_out",       0, "PAM_MAXTRIES"),
    row("lena",  "lena.lock",      Right, Acct,     "locked_out",       0, "PAM_MAXTRIES"),
];

const UNLOCKED: &[Row] = &[row("lena", "lena.lock", Right, AuthAcct, "success", 0, "PAM_SUCCESS")];

pub fn chapter(lab: &Lab, report: &mut Report) -> Result<(), String> {
    patiently(lab, || tables(lab, report))
}

fn tables(lab: &Lab, report: &mut Report) -> Result<(), String> {
    lab.run(&["cast", "reset"]).ok()?;
    report.check("the table leaves out nobody of the cast", || {
        let absent = |person: &Person| !CAST.iter().any(|row| row.who == person.key);
        // lena has a separate table below.
        let absent: Vec<_> = everybody().into_iter().filter(absent).map(|person| person.key).collect();
        equal("people without a row", absent, vec!["lena"])
    });
    run(lab, report, "motion", CAST)?;
    run(lab, report, "motion", NAMES)?;
    report.check("a name that is not UTF-8: PAM_USER_UNKNOWN", || {
        let command = ["sh", "-c", "exec pamtester motion \"$(printf 'john\\377')\" authenticate"];
        equal("PAM", pamtester(lab, &command, "x").code.as_str(), "PAM_USER_UNKNOWN")
    });
    run(lab, report, "motion", LOCKOUT)?;
    report.check("motion-ad check lena.lock says that she is locked out", || {
        let ran = lab.host("root", &["motion-ad", "check", "lena.lock"], "");
        equal("exit code", ran.code, 1)?;
        contains("text", &ran.stdout, "lena.lock may not log in: locked_out")
    });
    lab.run(&["cast", "reset"]).ok()?;
    run(lab, report, "motion", UNLOCKED)?;
    variants(lab, report)
}

/// Tests other arguments on the module's lines, in separate service files.
fn variants(lab: &Lab, report: &mut Report) -> Result<(), String> {
    let both = |arguments: &str| {
        format!("auth required pam_motion_ad.so {arguments}\naccount required pam_motion_ad.so {arguments}\n")
    };
    lab.write("/etc/pam.d/motion-account", &both("expired=account"))?;
    run(lab, report, "motion-account", EXPIRED_ACCOUNT)?;
    lab.write("/etc/pam.d/motion-messages", &both("messages"))?;
    run(lab, report, "motion-messages", MESSAGES)?;
    lab.run(&["cast", "reset"]).ok()?;
    lab.write("/etc/pam.d/motion-italian", &both("messages lang=it"))?;
    run(lab, report, "motion-italian", ITALIAN)?;
    lab.run(&["cast", "reset"]).ok()?;
    passed_on_passwords(lab, report)?;
    let ours =
        ["account", "messages", "italian", "first", "stack"].map(|name| format!("/etc/pam.d/motion-{name}"));
    lab.host_sh(&format!("rm -f {}", ours.join(" "))).ok().map(|_| ())
}

/// Checks that several lines of a stack prompt for the password only once.
fn passed_on_passwords(lab: &Lab, report: &mut Report) -> Result<(), String> {
    lab.write("/etc/pam.d/motion-first", "auth required pam_motion_ad.so use_first_pass\n")?;
    report.check("use_first_pass without a first password asks nobody: PAM_AUTH_ERR", || {
        let answer = pam(lab, "motion-first", "john.doe", "J0hn-rides-a-tandem", &["authenticate"]);
        equal("PAM", answer.code.as_str(), "PAM_AUTH_ERR")?;
        equal("prompts", answer.output.matches("Password: ").count(), 0)?;
        equal("badPwdCount", lab.counters("john.doe")?.bad_passwords, 0)
    });
    for argument in ["use_first_pass", "try_first_pass"] {
        let stack = format!("auth requisite pam_motion_ad.so\nauth requisite pam_motion_ad.so {argument}\n");
        lab.write("/etc/pam.d/motion-stack", &stack)?;
        let login = |password: &str, code: &str, lines: usize, counted: u32| {
            let position = lab.log_position()?;
            let answer = pam(lab, "motion-stack", "john.doe", password, &["authenticate"]);
            equal("PAM", answer.code.as_str(), code)?;
            equal("prompts", answer.output.matches("Password: ").count(), 1)?;
            equal("badPwdCount", lab.counters("john.doe")?.bad_passwords, counted)?;
            // With a wrong password, the stack never reaches its second line.
            lab.wait_for_log(&position, &["service=motion-stack"])?;
            equal("log lines", lab.log_since(&position)?.len(), lines)
        };
        report.check(&format!("{argument}: the second line takes the first one's password"), || {
            login("J0hn-rides-a-tandem", "PAM_SUCCESS", 2, 0)
        });
        report.check(&format!("{argument}: a wrong password counts once and is not asked for again"), || {
            login("wrong", "PAM_AUTH_ERR", 1, 1)
        });
        equal(
            "john comes in",
            authenticate(lab, "john.doe", "J0hn-rides-a-tandem").code.as_str(),
            "PAM_SUCCESS",
        )?;
    }
    Ok(())
}
