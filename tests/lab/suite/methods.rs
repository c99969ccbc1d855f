//! The tables of people and of groups once more, with the KDC checking the passwords. Where a row differs from what
//! an LDAP bind does, it says why.

use crate::config;
use crate::lab::Lab;
use crate::people;
use crate::report::{Check, Report, contains, equal};
use crate::row::Method;

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    lab.set_method(Method::Kerberos);
    let done = lab.configure("").and_then(|()| {
        report.check("motion-ad status: passwords are checked by Kerberos", || {
            let ran = lab.host("root", &["motion-ad", "status"], "");
            contains("status", &ran.stdout, "kerberos").and_then(|()| equal("exit code", ran.code, 0))
        });
        people::chapter(lab, report)?;
        config::by_method(lab, report)
    });
    lab.set_method(Method::Ldap);
    lab.configure("").and(done)
}
