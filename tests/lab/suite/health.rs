//! All faults that reject every user, with the reports of `status`, `ready`, the metrics and systemd, in one
//! table.

use std::fs;
use std::time::Duration;

use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::pam::{Answer, pam};
use crate::report::{Check, Report, contains, equal};
use crate::row::Method;

/// Maximum time until a broker restarts, or until a change of a domain controller's state is detected.
const SETTLED: Duration = Duration::from_secs(45);
/// Gives only the broker a different clock, through libfaketime. The lab's machines share the kernel's clock,
/// and none may set it.
const OTHER_CLOCK: &str = "mkdir -p /run/systemd/system/motion-ad.service.d && printf \
    '[Service]\\nEnvironment=FAKETIME=+10m DONT_FAKE_MONOTONIC=1 FAKETIME_DISABLE_SHM=1 LD_PRELOAD=%s\\n' \
    /usr/lib/*/faketime/libfaketime.so.1 >/run/systemd/system/motion-ad.service.d/clock.conf && systemctl \
    daemon-reload && systemctl restart motion-ad.service";
const OWN_CLOCK: &str = "rm -rf /run/systemd/system/motion-ad.service.d && systemctl daemon-reload && \
    systemctl restart motion-ad.service";

#[derive(Clone, Copy)]
enum Step {
    /// A shell script on the host, as root.
    Host(&'static str),
    /// A command of the lab.
    Lab(&'static [&'static str]),
    /// Writes `config.toml` with the lab's CA and this text.
    Configure(&'static str),
}
use Step::{Configure, Host};

/// The configuration after [`Lab::configure`] with no additional text.
const PLAIN: Step = Configure("");
/// Comes before the change of a file that a broker must find at its start, as in
/// [`crate::ready::start_after`].
const STOP: Step = Host("systemctl stop motion-ad.service");
const RESTART: Step = Host("systemctl restart motion-ad.service");
const MAP: Step = Host("printf '# nobody\\n' >/etc/motion-ad/names.map; chmod 644 /etc/motion-ad/names.map");

struct Row {
    name: &'static str,
    breaks: &'static [Step],
    /// Text that each of the four reports contains.
    says: &'static str,
    mends: &'static [Step],
    /// True if the row is part of the main suite.
    is_short: bool,
}

const fn row(name: &'static str, breaks: &'static [Step], says: &'static str, mends: &'static [Step]) -> Row {
    Row { name, breaks, says, mends, is_short: false }
}

impl Row {
    const fn short(self) -> Row {
        Row { is_short: true, ..self }
    }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("config.toml is broken at the start", &[STOP, Host("echo nonsense >>/etc/motion-ad/config.toml"), RESTART],
        "config.toml, line ", &[PLAIN]).short(),
    row("names.map is broken at the start", &[STOP, Host("printf '# nobody\\nnonsense\\n' >/etc/motion-ad/names.map"), RESTART],
        "names.map, line 2", &[MAP]),
    row("names.map cannot be read at the start", &[STOP, Host("chmod 600 /etc/motion-ad/names.map"), RESTART],
        "names.map: cannot be read", &[MAP]),
    row("the keytab is gone", &[Host("mv /etc/krb5.keytab /root/health.keytab")],
        "/etc/krb5.keytab is missing or empty", &[Host("mv /root/health.keytab /etc/krb5.keytab")]),
    row("the machine's key was reset in AD", &[Step::Lab(&["machine", "reset"]), RESTART],
        "the KDC does not accept the key of XCALLY$@ACME.COM", &[Step::Lab(&["machine", "restore"]), RESTART]),
    row("a configured group does not exist", &[Configure("[login]\nallow_groups = [\"XCALLY Aliens\"]\n")],
        "\"XCALLY Aliens\" does not exist", &[PLAIN]).short(),
    row("the base DN does not exist", &[Configure("[domain]\nbase_dn = \"ou=Peple,dc=acme,dc=com\"\n")],
        "ou=Peple,dc=acme,dc=com", &[PLAIN]).short(),
    row("every certificate has expired, and passwords go by LDAP",
        &[Step::Lab(&["dc", "cert", "expired"]), RESTART],
        "no domain controller can be used", &[Step::Lab(&["dc", "cert", "good"]), PLAIN]),
    row("the CA is not the domain controller's, and passwords go by LDAP",
        &[Host("cp /root/health.ca /etc/motion-ad/ca.pem")],
        "no domain controller can be used", &[PLAIN]),
    row("the domain controller is stopped", &[Step::Lab(&["dc", "stop", "dc"])],
        "no domain controller can be used", &[Step::Lab(&["dc", "start", "dc"])]).short(),
    row("the domain controller hangs", &[Step::Lab(&["dc", "hang", "dc"])],
        "no domain controller can be used", &[Step::Lab(&["dc", "continue", "dc"])]),
    row("a firewall drops all to the domain controller", &[Step::Lab(&["net", "blackhole", "dc"])],
        "no domain controller can be used", &[Step::Lab(&["net", "heal", "dc"])]),
    row("DNS does not answer at the start",
        &[STOP, Host("rm -f /var/lib/motion-ad/last-*.json"),
            Host("printf 'nameserver 10.73.0.99\\n' >/etc/resolv.conf"), RESTART],
        "10.73.0.99", &[Host("cp -p /root/health.resolv /etc/resolv.conf")]),
    row("the broker's clock is ten minutes ahead, and passwords go by Kerberos",
        &[Host("sed -i 's/^method = .*/method = \"kerberos\"/' /etc/motion-ad/config.toml"), Host(OTHER_CLOCK)],
        "clock", &[Host(OWN_CLOCK), PLAIN]),
    row("the Redis of the register does not answer", &[Configure("[sessions]\nstore = \"redis://ad.acme.com\"\n")],
        "register of sessions", &[PLAIN]),
];

/// Runs every row.
pub fn full(lab: &Lab, report: &mut Report) -> Check {
    run(lab, report, |_| true)?;
    kerberos_stands_in(lab, report)
}

/// Runs the rows that take only a few seconds.
pub fn short(lab: &Lab, report: &mut Report) -> Check {
    run(lab, report, |row| row.is_short)?;
    started_after_a_failure(lab, report)
}

/// The list on disk says which services did not work before the start. A report of the first moment looks
/// at them itself, because they may work by now.
fn started_after_a_failure(lab: &Lab, report: &mut Report) -> Check {
    const LIST: &str = "/var/lib/motion-ad/last-domain-acme.com.json";
    for method in [Method::Ldap, Method::Kerberos] {
        let name = method.name();
        report.check(
            &format!("{name}: all had failed before the start, and the first report is well"),
            || {
                lab.set_method(method);
                lab.configure("")?;
                wait(SETTLED, || well(lab))?;
                for down in ["kdc", "reading", "binds", "binds\",\"reading\",\"kdc"].repeat(3) {
                    STOP.take(lab)?;
                    let script = format!(
                        "sed -i 's/\"down\":\\[[^]]*\\]/\"down\":[\"{down}\"]/' {LIST} && cat {LIST}"
                    );
                    contains(LIST, &lab.host_sh(&script).ok()?, down)?;
                    let status = lab.host("root", &["motion-ad", "status"], "");
                    contains(down, &status.stdout, "\nall is well\n")?;
                }
                Ok(())
            },
        );
    }
    lab.set_method(Method::Ldap);
    lab.configure("")
}

fn run(lab: &Lab, report: &mut Report, chosen: fn(&Row) -> bool) -> Check {
    lab.host_sh("cp -p /etc/resolv.conf /root/health.resolv").ok()?;
    let ca = lab.run(&["ca", "--other"]).ok()?;
    fs::copy(ca.trim(), lab.path("/root/health.ca")).map_err(|e| format!("{ca}: {e}"))?;
    lab.configure("")?;
    wait(SETTLED, || well(lab))?;
    let mut table = Vec::new();
    for row in ROWS.iter().filter(|row| chosen(row)) {
        let mut said = None;
        report.check(&format!("{}: nobody logs in, and all four say so", row.name), || {
            steps(lab, row.breaks)?;
            said = Some(wait(SETTLED, || not_well(lab, row.says))?);
            // A register that rejects sessions denies only services that open sessions. Other faults deny
            // every login.
            let answer = login(lab, row.says.contains("register"))?;
            equal("a right password is let in", answer.code == "PAM_SUCCESS", false)
        });
        table.push((row.name, said));
        report.check(&format!("{}: mended, all four say that all is well", row.name), || {
            steps(lab, row.mends)?;
            wait(SETTLED, || well(lab))?;
            equal("PAM", login(lab, false)?.code.as_str(), "PAM_SUCCESS")
        });
    }
    for (name, said) in table {
        println!("         {name}");
        for (who, text) in said.iter().flatten() {
            println!("             {who:<8} {text}");
        }
    }
    Ok(())
}

/// With an expired certificate and no configured method, users log in by Kerberos, and `status` reports it.
fn kerberos_stands_in(lab: &Lab, report: &mut Report) -> Check {
    report.check("binds are down and Kerberos stands in: users log in, and status says that", || {
        lab.run(&["dc", "cert", "expired"]).ok()?;
        lab.host_sh("sed -i '/^method = /d' /etc/motion-ad/config.toml").ok()?;
        RESTART.take(lab)?;
        wait(SETTLED, || {
            let status = lab.host("root", &["motion-ad", "status"], "");
            contains("status", &status.stdout, "note: logins work by Kerberos alone, because binds do not")?;
            contains("status", &status.stdout, "\nusers can log in\n")?;
            equal("exit code", status.code, 0)?;
            contains("systemd", &line(lab)?, "logins work by Kerberos alone")
        })?;
        equal("PAM", login(lab, false)?.code.as_str(), "PAM_SUCCESS")
    });
    lab.run(&["dc", "cert", "good"]).ok()?;
    lab.configure("")?;
    wait(SETTLED, || well(lab))
}

impl Step {
    fn take(self, lab: &Lab) -> Check {
        match self {
            Host(script) => lab.host_sh(script).ok().map(drop),
            Step::Lab(command) => lab.run(command).ok().map(drop),
            Configure(text) => lab.configure(text),
        }
    }
}

fn steps(lab: &Lab, steps: &[Step]) -> Check {
    steps.iter().try_for_each(|step| step.take(lab))
}

fn login(lab: &Lab, with_session: bool) -> Result<Answer, String> {
    let person = person("john");
    let calls: &[&str] = if with_session { &["authenticate", "open_session"] } else { &["authenticate"] };
    Ok(pam(lab, "motion", person.sam, person.password, calls))
}

fn line(lab: &Lab) -> Result<String, String> {
    lab.host_sh("systemctl show -P StatusText motion-ad.service").ok()
}

fn metric(lab: &Lab, name: &str) -> Result<String, String> {
    let all = lab.host("root", &["motion-ad", "metrics"], "").ok()?;
    let value = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    value.ok_or_else(|| format!("there is no {name}"))
}

/// Returns the four reports while no user can log in.
fn not_well(lab: &Lab, says: &str) -> Result<[(&'static str, String); 4], String> {
    let status = lab.host("root", &["motion-ad", "status"], "");
    equal("exit code of status", status.code, 1)?;
    contains("status", &status.stdout, "\nno user can log in\n")?;
    let problems: Vec<_> = status.stdout.lines().filter(|line| line.starts_with("problem: ")).collect();
    contains("status", &problems.join("\n"), says)?;
    let ready = lab.host("root", &["motion-ad", "ready"], "");
    equal("exit code of ready", ready.code, 1)?;
    equal("lines of ready", ready.stdout.lines().count(), 1)?;
    contains("ready", &ready.stdout, "not ready: ")?;
    contains("ready", &ready.stdout, says)?;
    let (serving, well) = (metric(lab, "motion_ad_serving")?, metric(lab, "motion_ad_well")?);
    equal("motion_ad_serving and motion_ad_well", (serving.as_str(), well.as_str()), ("0", "0"))?;
    let line = line(lab)?;
    contains("systemd", &line, "No login can succeed: ")?;
    contains("systemd", &line, says)?;
    Ok([
        ("status", problems.join(" | ")),
        ("ready", ready.stdout.trim().to_owned()),
        ("metric", format!("serving {serving}, well {well}")),
        ("systemd", line.trim().to_owned()),
    ])
}

/// Checks the reports while all is well.
pub fn well(lab: &Lab) -> Check {
    let status = lab.host("root", &["motion-ad", "status"], "");
    contains("status", &status.stdout, "\nall is well\n")?;
    equal("exit code of status", status.code, 0)?;
    let ready = lab.host("root", &["motion-ad", "ready"], "");
    equal("exit code of ready", ready.code, 0)?;
    contains("ready", &ready.stdout, "ready: acme.com by ")?;
    for name in ["motion_ad_serving", "motion_ad_well"] {
        equal(name, metric(lab, name)?.as_str(), "1")?;
    }
    let line = line(lab)?;
    contains("systemd", &line, "acme.com by ")
}
