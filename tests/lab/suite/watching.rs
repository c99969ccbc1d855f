//! The broker as a monitoring system and systemd see it.

use std::time::{Duration, Instant};

use motion_ad_support::openmetrics::parse;

use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::pam::authenticate;
use crate::ready::{john, ready};
use crate::report::{Check, Report, contains, equal};

/// Scrape as an agent makes it, over the socket only.
const CURL: &str = "curl -sS --fail --unix-socket /run/motion-ad/metrics.sock http://localhost/metrics";
const GROUP: &str = "motion-ad-metrics";
/// The unit's `WatchdogSec=`, plus the time of a restart.
const WATCHDOG: Duration = Duration::from_secs(25);

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    report.check("the socket for metrics is there, for its group alone", || {
        let seen = lab.host_sh("stat -c '%a %U %G' /run/motion-ad/metrics.sock").ok()?;
        equal("mode, owner, group", seen.trim(), "660 root motion-ad-metrics")
    });
    report.check("every number keeps the rules of OpenMetrics", || {
        let text = metrics(lab)?;
        let all = parse(&text).map_err(|e| format!("{e}\n{text}"))?;
        println!("         {} metrics, {} bytes", all.len(), text.len());
        for (name, expected) in
            [("serving", 1.0), ("machine_connected", 1.0), ("dc_list_fresh", 1.0), ("trust_crls", 0.0)]
        {
            equal(name, number(&text, &format!("motion_ad_{name}"), &[])?, expected)?;
        }
        for service in ["binds", "reading"] {
            let labels = [("dc", "ad.acme.com"), ("service", service)];
            equal(service, number(&text, "motion_ad_dc_up", &labels)?, 1.0)?;
        }
        let ends =
            number(&text, "motion_ad_dc_certificate_expiry_timestamp_seconds", &[("dc", "ad.acme.com")])?;
        let ticket = number(&text, "motion_ad_machine_ticket_expiry_timestamp_seconds", &[])?;
        let now = lab.host_sh("date +%s").ok()?.trim().parse::<f64>().map_err(|e| e.to_string())?;
        equal("certificate and ticket end later than now", ends > now && ticket > now, true)
    });
    report.check("no background task has failed, and nothing has panicked", || {
        let text = metrics(lab)?;
        equal("panics", number(&text, "motion_ad_panics_total", &[])?, 0.0)?;
        for task in [
            "log", "metrics", "names", "on_evict", "peers", "pulse", "reaper", "recheck", "roster",
            "servers", "sessions", "sweep", "trust",
        ] {
            equal(task, number(&text, "motion_ad_task_up", &[("task", task)])?, 1.0)?;
            equal(task, number(&text, "motion_ad_task_failures_total", &[("task", task)])?, 0.0)?;
        }
        Ok(())
    });
    report.check("logins are counted by what became of them", || {
        let count = |text: &str, outcome| number(text, "motion_ad_logins_total", &[("outcome", outcome)]);
        let before = metrics(lab)?;
        john(lab)?;
        authenticate(lab, person("wendy").sam, "not hers");
        let after = metrics(lab)?;
        for outcome in ["success", "wrong_password"] {
            equal(outcome, count(&after, outcome)? - count(&before, outcome)?, 1.0)?;
        }
        equal("nobody is named", after.contains("john") || after.contains("wendy"), false)
    });
    report.check("who may watch may not ask for logins, and who may ask for logins may not watch", || {
        lab.host_sh(&format!("id watcher || useradd -M -G {GROUP} watcher")).ok()?;
        let watched = lab.host("watcher", &["motion-ad", "metrics"], "").ok();
        let refused = lab.host("watcher", &["motion-ad", "check", "john.doe"], "");
        let motion = lab.host("motion", &["motion-ad", "metrics"], "");
        lab.host_sh("userdel watcher").ok()?;
        parse(&watched?)?;
        contains("check", &refused.stderr, "neither root nor in broker.users")?;
        equal("motion's exit code", motion.code, 3)?;
        contains("motion", &motion.stderr, GROUP)
    });
    report.check("systemctl status shows one line of state", || {
        wait(Duration::from_secs(15), || {
            let line = lab.host_sh("systemctl show -P StatusText motion-ad.service").ok()?;
            let method = lab.method().name();
            contains("status", &line, &format!("acme.com by {method}: 1 of 1 DC, "))?;
            contains("status", &line, " login")
        })
    });
    report.check("a broker that stands still is killed and started again", || {
        let (before, begun) = (lab.broker()?, Instant::now());
        lab.host_sh("systemctl kill -s STOP motion-ad.service").ok()?;
        let after = wait(WATCHDOG, || match lab.broker()? {
            pid if pid == before => Err("the same broker".to_owned()),
            pid => Ok(pid),
        })?;
        println!("         after {:.1} s", begun.elapsed().as_secs_f64());
        equal("the old one runs", lab.host_sh(&format!("kill -0 {before}")).code == 0, false)?;
        contains("journal", &lab.host_sh("journalctl -u motion-ad.service -n 50").ok()?, "Watchdog timeout")?;
        john(lab)?;
        equal("it is another one still", lab.broker()?, after)
    });
    report.check("a busy broker is left alone", || {
        let before = lab.broker()?;
        let load = "for i in 1 2 3 4; do timeout 18 sh -c 'while :; do :; done' & done; wait";
        lab.host_sh(load);
        equal("the broker", lab.broker()?, before)
    });
    report.check("metrics are answered over a restart", || {
        lab.host_sh(&format!("systemctl restart --no-block motion-ad.service; {CURL} >/dev/null"))
            .ok()
            .map(drop)
    });
    report.check("whoever stops the socket for logins is not woken by a look at the metrics", || {
        lab.host_sh("systemctl stop motion-ad.socket motion-ad.service").ok()?;
        let asked = lab.host("root", &["motion-ad", "metrics"], "");
        let state = lab.host_sh("systemctl is-active motion-ad.service").stdout;
        lab.host_sh("systemctl start motion-ad.socket").ok()?;
        john(lab)?;
        equal("exit code", asked.code, 2)?;
        equal("the service", state.trim(), "inactive")?;
        parse(&metrics(lab)?).map(drop)
    });
    report.check("systemd understands the examples, and node-exporter's file is written", || examples(lab));
    ready(lab)
}

/// Creates what Debian's package prometheus-node-exporter would create.
pub fn agent(lab: &Lab) -> Check {
    let make =
        "id prometheus || useradd -M prometheus; install -d -o prometheus /var/lib/prometheus/node-exporter";
    lab.host_sh(make).ok().map(drop)
}

/// Removes it again, together with the examples.
pub fn no_agent(lab: &Lab) {
    lab.host_sh(
        "systemctl disable --now motion-ad-textfile.timer motion-ad-exporter.socket motion-ad-ready.timer; \
         systemctl stop motion-ad-textfile.service motion-ad-exporter.service motion-ad-ready.service \
         motion-ad-ready-failed.service; rm -rf /etc/systemd/system/motion-ad-textfile.* \
         /etc/systemd/system/motion-ad-exporter.* /etc/systemd/system/motion-ad-ready* /var/lib/prometheus; \
         userdel prometheus; systemctl daemon-reload",
    );
}

fn examples(lab: &Lab) -> Check {
    let folder = "/usr/share/doc/libpam-motion-ad/examples";
    agent(lab)?;
    let units = format!(
        "cp {folder}/motion-ad-textfile.* {folder}/motion-ad-exporter.* /etc/systemd/system && systemctl \
         daemon-reload"
    );
    lab.host_sh(&units).ok()?;
    let verified = lab.host_sh(
        "systemd-analyze verify --man=no /etc/systemd/system/motion-ad-textfile.* \
                                /etc/systemd/system/motion-ad-exporter.*",
    );
    let wrote = lab
        .host_sh(
            "systemctl start motion-ad-textfile.service && cat \
                             /var/lib/prometheus/node-exporter/motion-ad.prom",
        )
        .ok();
    let served = lab
        .host_sh("systemctl start motion-ad-exporter.socket && curl -sS --fail http://127.0.0.1:9749/metrics")
        .ok();
    no_agent(lab);
    equal("verify", verified.stderr.lines().filter(|line| line.contains("motion-ad-")).count(), 0)
        .map_err(|e| format!("{e}\n{}", verified.stderr))?;
    for text in [wrote?, served?] {
        equal("serving", number(&text, "motion_ad_serving", &[])?, 1.0)?;
    }
    Ok(())
}

fn metrics(lab: &Lab) -> Result<String, String> {
    lab.host_sh(CURL).ok()
}

/// Returns the value of `name` with these labels.
fn number(text: &str, name: &str, labels: &[(&str, &str)]) -> Result<f64, String> {
    let all = parse(text)?;
    let mut samples = all.values().flat_map(|family| &family.samples);
    let fits = |(known, has, _): &&(String, motion_ad_support::openmetrics::Labels, f64)| {
        known == name && labels.iter().all(|(key, value)| has.get(*key).is_some_and(|has| has == value))
    };
    samples.find(fits).map(|(.., value)| *value).ok_or_else(|| format!("no {name} {labels:?} in\n{text}"))
}
