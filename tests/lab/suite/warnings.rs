//! Warnings before a password expires: the users and services that get them. Wilma's password expires three
//! and a half days after the lab starts.

use crate::app::{App, Call, Job, Style};
use crate::cast::person;
use crate::lab::Lab;
use crate::ready::ready;
use crate::report::{Check, Report, equal};
use crate::row::Method;

/// A service that can show messages, and one that cannot.
const TALKATIVE: &str = "motion-messages";
const SILENT: &str = "motion";
/// The first one, in Italian.
const ITALIAN: &str = "motion-italian";

const BOTH: &[Call] = &[Call::Authenticate, Call::Account];
const AUTH: &[Call] = &[Call::Authenticate];
const ACCT: &[Call] = &[Call::Account];
const SILENTLY: &[Call] = &[Call::Silently];
const ONE: &[&str] = &["Your password expires in 3 days."];
const UNO: &[&str] = &["La Sua password scade tra 3 giorni."];
const NONE: &[&str] = &[];

/// `login.warn_days`, the user, the service, the calls, and the expected messages.
type Row = (u32, &'static str, &'static str, &'static [Call], &'static [&'static str]);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    (0, "wilma", TALKATIVE, BOTH,       NONE),
    (2, "wilma", TALKATIVE, BOTH,       NONE),
    (7, "wilma", TALKATIVE, BOTH,       ONE),
    (7, "wilma", TALKATIVE, AUTH, ONE),
    (7, "wilma", TALKATIVE, ACCT, ONE),
    (7, "wilma", ITALIAN,   BOTH,       UNO),
    (7, "wilma", TALKATIVE, SILENTLY,   NONE),
    (7, "wilma", SILENT,    BOTH,       NONE),
    (7, "john",  TALKATIVE, BOTH,       NONE),
    (7, "petra", TALKATIVE, AUTH, NONE),
];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    for (service, arguments) in [(TALKATIVE, "messages"), (ITALIAN, "messages lang=it")] {
        let line = format!("required pam_motion_ad.so {arguments}\n");
        lab.write(&format!("/etc/pam.d/{service}"), &format!("auth {line}account {line}"))?;
    }
    let done = [Method::Ldap, Method::Kerberos].into_iter().try_for_each(|method| {
        lab.set_method(method);
        by_method(lab, report)
    });
    lab.set_method(Method::Ldap);
    lab.host_sh(&format!("rm /etc/pam.d/{TALKATIVE} /etc/pam.d/{ITALIAN}")).ok()?;
    lab.configure("").and(done)
}

fn by_method(lab: &Lab, report: &mut Report) -> Check {
    let mut configured = None;
    let mut app = App::start(lab)?;
    for (number, (days, who, service, calls, told)) in ROWS.iter().enumerate() {
        if configured.replace(days) != Some(days) {
            lab.configure(&format!("[login]\nwarn_days = {days}\n"))?;
            ready(lab)?;
        }
        let name =
            format!("warn_days = {days}, {who} at {service}, {calls:?}, {}: {told:?}", lab.method().name());
        report.check(&name, || {
            let person = person(who);
            let done = app.run(Job {
                handle: number.to_string(),
                service: (*service).to_owned(),
                user: person.sam.to_owned(),
                answers: vec![person.password.to_owned()],
                calls: calls.to_vec(),
                end: true,
                ..Job::default()
            })?;
            equal("comes in", done.code() == "PAM_SUCCESS", *who != "petra")?;
            equal("what is said", done.said(Style::Info), told.to_vec())
        });
    }
    Ok(())
}
