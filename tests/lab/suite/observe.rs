//! Logins that are only observed: the control `[default=ignore]` and the module's argument `observe`, before
//! a line of another module that decides. `pam_listfile` is that module: it admits the users on a list.

use std::time::Duration;

use motion_ad::verdict::Outcome;

use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::pam::{Answer, pam};
use crate::ready::{self, ready};
use crate::register;
use crate::report::{Check, Report, contains, equal};

/// A service whose list decides, and one in which nothing but the observing line stands.
const SERVICE: &str = "motion-observe";
const ALONE: &str = "motion-alone";
const LIST: &str = "/etc/motion-ad-list";

const OBSERVING: &str = "[default=ignore] pam_motion_ad.so observe messages outcome session=auth timeout=2";

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let list = format!("required pam_listfile.so item=user sense=allow onerr=fail file={LIST}");
    let both = |kind: &str| format!("{kind} {OBSERVING}\n{kind} {list}\n");
    lab.write(&format!("/etc/pam.d/{SERVICE}"), &(both("auth") + &both("account")))?;
    lab.write(&format!("/etc/pam.d/{ALONE}"), &format!("auth {OBSERVING}\naccount {OBSERVING}\n"))?;
    lab.write(LIST, "dora.disabled\nwendy.wrong\n")?;
    lab.run(&["cast", "reset"]).ok()?;
    ready(lab)?;
    logins(lab, report);
    told(lab, report);
    report.check("the broker is down: the other module decides", || {
        lab.host_sh("systemctl stop motion-ad.socket motion-ad.service").ok()?;
        let dora = login(lab, SERVICE, "dora", person("dora").password);
        let john = login(lab, SERVICE, "john", person("john").password);
        lab.host_sh("systemctl start motion-ad.socket motion-ad.service").ok()?;
        equal("dora", dora.code.as_str(), "PAM_SUCCESS")?;
        equal("john", john.code.as_str(), "PAM_AUTH_ERR")
    });
    lab.host_sh(&format!("rm /etc/pam.d/{SERVICE} /etc/pam.d/{ALONE} {LIST}")).ok()?;
    lab.run(&["cast", "reset"]).ok()?;
    ready::restart(lab)?;
    ready(lab)
}

fn login(lab: &Lab, service: &str, who: &str, password: &str) -> Answer {
    pam(lab, service, person(who).sam, password, &["authenticate", "acct_mgmt"])
}

fn logins(lab: &Lab, report: &mut Report) {
    let right = |who| person(who).password;
    for (name, service, who, password, code, outcome, counted) in [
        (
            "a disabled user is admitted by the other module",
            SERVICE,
            "dora",
            right("dora"),
            "PAM_SUCCESS",
            Outcome::Disabled,
            0,
        ),
        (
            "a user whom AD accepts stays out by the other module",
            SERVICE,
            "john",
            right("john"),
            "PAM_AUTH_ERR",
            Outcome::Success,
            0,
        ),
        (
            "a wrong password counts once, and does not decide",
            SERVICE,
            "wendy",
            "wrong",
            "PAM_SUCCESS",
            Outcome::WrongPassword,
            1,
        ),
        (
            "ignored lines alone admit no user",
            ALONE,
            "john",
            right("john"),
            "PAM_PERM_DENIED",
            Outcome::Success,
            0,
        ),
    ] {
        report.check(&format!("{name}: {code}, and the log says {outcome}"), || {
            let (sam, position) = (person(who).sam, lab.log_position()?);
            let before = lab.counters(sam)?.bad_passwords;
            let answer = login(lab, service, who, password);
            equal("PAM", answer.code.as_str(), code)?;
            let (service, outcome) = (format!("service={service}"), format!("outcome={outcome}"));
            let line = lab.wait_for_log(&position, &["event=login", &service, "mode=observe"])?;
            contains("log", &line, &outcome)?;
            equal("badPwdCount", lab.counters(sam)?.bad_passwords, before + counted)?;
            // One prompt and no text in spite of `messages`, and no session in spite of `session=auth`.
            equal("prompts", answer.output.matches("Password: ").count(), 1)?;
            let texts = Outcome::ALL.iter().filter_map(|outcome| outcome.text());
            equal("texts", texts.filter(|text| answer.output.contains(text)).count(), 0)?;
            equal("sessions", register::of(lab, sam)?.len(), 0)
        });
    }
}

/// Every command that shows a state says that logins are only observed.
fn told(lab: &Lab, report: &mut Report) {
    for (command, text) in [
        (&["motion-ad", "status"][..], "only observed since"),
        (&["motion-ad", "ready"], "only observed since"),
        (&["motion-ad", "metrics"], "motion_ad_observed_total{outcome=\"disabled\"} 1"),
        (&["motion-ad", "log", "dora.disabled"], "only observed"),
        (&["systemctl", "status", "motion-ad.service"], "only observed since"),
        (&["motion-ad", "doctor"], "logins at motion-observe are only observed"),
    ] {
        report.check(&format!("`{}` says that logins are only observed", command.join(" ")), || {
            // The broker gives systemd its state every ten seconds.
            wait(Duration::from_secs(20), || {
                let ran = lab.host("root", command, "");
                // Lines are wrapped for a terminal of 80 columns only.
                contains("output", &ran.stdout.split_whitespace().collect::<Vec<_>>().join(" "), text)
            })
        });
    }
}
