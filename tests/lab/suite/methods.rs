//! The tables of users and groups again, with the KDC checking the passwords. A row that differs from an LDAP
//! bind gives the reason.

use crate::cast::person;
use crate::config;
use crate::lab::Lab;
use crate::pam::authenticate;
use crate::people;
use crate::report::{Check, Report, contains, equal};
use crate::row::Method;

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    lab.set_method(Method::Kerberos);
    let done = lab.configure("").and_then(|()| {
        report.check("motion-ad status: passwords are checked by Kerberos", || {
            contains("status", &lab.host("root", &["motion-ad", "status"], "").ok()?, "kerberos")
        });
        people::chapter(lab, report)?;
        report.check("an account without pre-authentication: a wrong password counts once in AD", || {
            without_preauth(lab)
        });
        config::by_method(lab, report)
    });
    lab.set_method(Method::Ldap);
    lab.configure("").and(done)
}

/// Path of the domain controller's database.
const SAM: &str = "/var/lib/samba/private/sam.ldb";

/// An account without pre-authentication. A KDC may issue its tickets to any client, and a wrong password
/// counts nowhere. Samba 4.17 still requires pre-authentication, and counts it.
fn without_preauth(lab: &Lab) -> Check {
    let seth = person("seth");
    // NORMAL_ACCOUNT, and DONT_REQ_PREAUTH (0x400000).
    let set = |control: &str| {
        let change = format!(
            "dn=$(ldbsearch -H {SAM} '(sAMAccountName={})' dn | grep ^dn:) && printf '%s\\nchangetype: \
             modify\\nreplace: userAccountControl\\nuserAccountControl: {control}\\n' \"$dn\" | ldbmodify -H \
             {SAM}",
            seth.sam
        );
        lab.dc(&["sh", "-c", &change]).ok().map(drop)
    };
    set("4194816")?;
    let position = lab.log_position()?;
    let wrong = authenticate(lab, seth.sam, "not the password of anybody").code;
    let counted = lab.counters(seth.sam)?.bad_passwords;
    let line = lab.wait_for_log(&position, &["event=login", "user=seth.seat"])?;
    let right = authenticate(lab, seth.sam, seth.password).code;
    set("512")?;
    println!("         {line}");
    equal("the wrong password", wrong.as_str(), "PAM_AUTH_ERR")?;
    equal("badPwdCount", counted, 1)?;
    equal("the right password", right.as_str(), "PAM_SUCCESS")
}
