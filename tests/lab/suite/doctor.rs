//! `motion-ad doctor`: the host is broken in many ways, one after the other. Each time the doctor begins with the right
//! check, and after the command that it prints has been run all is well again.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::cast::person;
use crate::lab::{Lab, Ran, wait};
use crate::report::{Check, Report, contains, equal};

/// The whole run takes no longer, whatever is dead.
const WHOLE: f64 = 10.0;
/// A broker that starts again, a domain controller that is found working again.
const SETTLED: Duration = Duration::from_secs(40);
/// Where `lab install` leaves the package on the host.
const PACKAGES: &str = "/var/cache/motion-ad-lab";
/// The doctor alone, under a clock of its own: libfaketime's, which reads /etc/faketimerc. The lab's machines share the
/// kernel's clock, and none may set it.
const OWN_CLOCK: &str = "LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1) DONT_FAKE_MONOTONIC=1 ";

/// How something is broken, or undone.
#[derive(Clone, Copy)]
enum Step {
    /// A shell's script on the host, as root.
    Host(&'static str),
    /// One on the domain controller.
    Dc(&'static str),
    /// A command of the lab: what befalls the domain or the network.
    Lab(&'static [&'static str]),
    /// `config.toml` with the lab's CA, and this.
    Configure(&'static str),
}
use Step::{Configure, Dc, Host};

/// Where the printed command is run, or what is run in its place.
#[derive(Clone, Copy)]
enum Mend {
    /// On the host, as it is printed.
    Here,
    /// The same, with the administrator's password on its standard input.
    WithPassword,
    /// The one for Samba on the domain controller, as it is printed.
    OnController,
    /// The printed command is for a domain controller, a firewall or a Redis as they are elsewhere: the lab breaks and
    /// mends its own by this.
    Equivalent(&'static [Step]),
}
use Mend::{Equivalent, Here, OnController, WithPassword};

struct Row {
    name: &'static str,
    breaks: &'static [Step],
    /// The check that the doctor begins with, and how bad it finds it.
    first: &'static str,
    level: &'static str,
    /// What it says.
    seen: &'static str,
    mend: Mend,
    /// What the row leaves behind that its mend is not about.
    after: &'static [Step],
    /// Put before the doctor.
    environment: &'static str,
    /// It is part of the main suite.
    is_short: bool,
}

const fn row(
    name: &'static str,
    breaks: &'static [Step],
    first: &'static str,
    seen: &'static str,
    mend: Mend,
) -> Row {
    Row { name, breaks, first, level: "failure", seen, mend, after: &[], environment: "", is_short: false }
}

impl Row {
    const fn warns(self) -> Row {
        Row { level: "warning", ..self }
    }

    const fn then(self, after: &'static [Step]) -> Row {
        Row { after, ..self }
    }

    const fn short(self) -> Row {
        Row { is_short: true, ..self }
    }

    const fn with(self, environment: &'static str) -> Row {
        Row { environment, ..self }
    }
}

/// As it is after [`Lab::configure`] with nothing more.
const PLAIN: Step = Configure("");
/// The service and sssd.conf as they were.
const PAM: Step = Host("cp -p /root/pam-motion /etc/pam.d/motion");

/// Raises the version of every key in the keytab by five, the keys as they are.
const OTHER_VERSION: &str = r#"perl -e '
    local $/; open F, "<:raw", "/etc/krb5.keytab"; my $d = <F>; my $p = 2;
    while ($p + 4 <= length $d) {
        my $n = unpack("l>", substr $d, $p, 4); $p += 4;
        if ($n <= 0) { $p -= $n; next }
        my $q = $p + 2;
        for (0 .. unpack("n", substr $d, $p, 2)) { $q += 2 + unpack("n", substr $d, $q, 2) }
        $q += 8; my $v = 5 + ord substr $d, $q, 1; substr($d, $q, 1) = chr $v;
        my $e = $q + 5 + unpack("n", substr $d, $q + 3, 2);
        substr($d, $e, 4) = pack("N", $v) if $p + $n - $e >= 4;
        $p += $n;
    }
    open F, ">:raw", "/etc/krb5.keytab"; print F $d; close F'"#;

/// A package of that name: Debian's own would bring a hundred others, and the host has no network.
const CAMERA: &str = "d=$(mktemp -d) && mkdir -p $d/DEBIAN $d/etc/motion && \
    printf 'Package: motion\\nVersion: 4.5.1-2\\nArchitecture: all\\nMaintainer: lab <lab@example.org>\\nDescription: \
    stands for the camera daemon\\n' >$d/DEBIAN/control && echo /etc/motion/motion.conf >$d/DEBIAN/conffiles && \
    echo 'daemon off' >$d/etc/motion/motion.conf && dpkg-deb -b $d /var/tmp/motion.deb && dpkg -i /var/tmp/motion.deb";

/// Stands for the time service, which the lab has no use for: it sets the doctor's clock right.
const TIME_SERVICE: &str = "echo +10m >/etc/faketimerc && rm -f /etc/systemd/system/systemd-timesyncd.service && printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\n\
    ExecStart=/bin/rm -f /etc/faketimerc\\n[Install]\\nWantedBy=multi-user.target\\n' \
    >/etc/systemd/system/systemd-timesyncd.service && systemctl daemon-reload";
const NO_TIME_SERVICE: &str = "systemctl disable --now systemd-timesyncd.service; \
    rm -f /etc/systemd/system/systemd-timesyncd.service /etc/faketimerc; systemctl daemon-reload";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Package and PAM.
    row("socket and broker are stopped and disabled",
        &[Host("systemctl disable --now motion-ad.socket motion-ad.service")],
        "socket-unit", "motion-ad.socket is inactive", Here).short(),
    row("the socket is masked",
        &[Host("systemctl mask --now motion-ad.socket motion-ad.service")],
        "socket-unit", "masked", Here),
    row("the broker's unit is overridden and does not start",
        &[Host("mkdir -p /etc/systemd/system/motion-ad.service.d && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' \
            >/etc/systemd/system/motion-ad.service.d/override.conf && systemctl daemon-reload; systemctl restart motion-ad.service; true")],
        "service-unit", "motion-ad.service is", Here),
    row("the broker hangs",
        &[Host("systemctl kill -s STOP motion-ad.service")],
        "broker", "does not answer", Here),
    row("the socket's mode is another",
        &[Host("chmod 0600 /run/motion-ad/broker.sock")],
        "socket-file", "has mode 0600, not 0666", Here).short(),
    row("the PAM service has a line that libpam does not understand",
        &[Host("echo 'auth perhaps pam_motion_ad.so' >>/etc/pam.d/motion")],
        "pam-service", "\"perhaps\" is no control", Here).then(&[PAM]),
    row("the module's auth line is missing",
        &[Host("sed -i '/^auth/d' /etc/pam.d/motion")],
        "pam-lines", "no auth line", Here).then(&[PAM]).short(),
    row("the module's account line is missing, others are there",
        &[Host("sed -i 's/^account.*/account required pam_unix.so/' /etc/pam.d/motion")],
        "pam-lines", "no account line", Here).then(&[PAM, Host("rm -f /etc/motion-ad/pam-motion.old")]),
    row("an argument of the module is broken",
        &[Host("sed -i '/^auth/s/$/ timeout=5s/' /etc/pam.d/motion")],
        "pam-arguments", "timeout=5s", Here).then(&[PAM]),
    row("the PAM lines let everybody in",
        &[Host("sed -i 's/^auth *required/auth optional/; /^auth/a auth required pam_permit.so' /etc/pam.d/motion")],
        "pam-order", "let in whom AD refuses", Here).then(&[PAM]),
    row("local passwords come first",
        &[Host("sed -i '1i auth sufficient pam_unix.so' /etc/pam.d/motion")],
        "pam-order", "before AD is asked", Here).warns().then(&[PAM]),
    row("pam_sss stands beside us, and SSSD's group policies refuse the service",
        &[Host("cp -p /etc/sssd/sssd.conf /root/sssd.conf && sed -i '/^account/a account required pam_sss.so' /etc/pam.d/motion")],
        "pam-sss", "SSSD refuses the service motion", Here)
        .then(&[PAM, Host("cp -p /root/sssd.conf /etc/sssd/sssd.conf && systemctl restart sssd.service")]),
    row("the module's file is missing",
        &[Host("rm /usr/lib/*/security/pam_motion_ad.so")],
        "module-file", "pam_motion_ad.so: No such file", Here),
    row("the module's file is damaged",
        &[Host("truncate -s 4096 /usr/lib/*/security/pam_motion_ad.so")],
        "module-loads", "cannot be loaded", Here),

    // The host.
    row("the keytab is gone",
        &[Host("rm /etc/krb5.keytab")],
        "keytab", "does not exist", WithPassword).short(),
    row("every user may read the keytab",
        &[Host("chmod 0644 /etc/krb5.keytab")],
        "keytab-mode", "mode 0644", Here),
    row("the keytab has another key version than AD",
        &[Host(OTHER_VERSION)],
        "kvno", "AD has version", Here).short(),
    row("the machine's password was reset in AD",
        &[Step::Lab(&["machine", "reset"])],
        "machine-key", "does not accept the key", WithPassword),
    row("the computer account was deleted in AD",
        &[Step::Lab(&["machine", "delete"])],
        "machine-key", "does not know", WithPassword),
    row("the computer account is disabled in AD",
        &[Dc("samba-tool user disable 'XCALLY$'")],
        "machine-key", "disabled", OnController),
    row("sssd.conf is gone",
        &[Host("rm /etc/sssd/sssd.conf")],
        "join", "not joined", WithPassword),
    row("resolv.conf names another host",
        &[Host("printf 'nameserver 10.73.0.99\\n' >/etc/resolv.conf")],
        "resolver", "10.73.0.99: does not answer", Here).then(&[Host("cp -p /root/resolv.conf /etc/resolv.conf")]),
    row("the SRV record is missing",
        &[Step::Lab(&["dns", "srv", "remove", "_ldap._tcp.dc._msdcs", "ad.acme.com", "389", "0", "100"])],
        "srv-ldap", "_ldap._tcp.dc._msdcs.acme.com", OnController),
    row("the clock is ten minutes off",
        &[Host(TIME_SERVICE)],
        "clock", "this host is 6", Here).with(OWN_CLOCK).then(&[Host(NO_TIME_SERVICE)]),

    // The domain controller.
    row("port 389 is closed",
        &[Step::Lab(&["net", "refuse", "dc", "389/tcp"])],
        "dc-ldap", "refused", Equivalent(&[Step::Lab(&["net", "heal", "dc"])])),
    row("port 88 is closed",
        &[Step::Lab(&["net", "refuse", "dc", "88/tcp"])],
        "dc-kdc", "port 88", Equivalent(&[Step::Lab(&["net", "heal", "dc"])])),
    row("port 636 is closed, and nothing else will do",
        &[Configure("mode = \"ldaps\"\n"), Step::Lab(&["net", "refuse", "dc", "636/tcp"])],
        "dc-ldaps", "port 636", Equivalent(&[Step::Lab(&["net", "heal", "dc"])])).then(&[PLAIN]),
    row("port 636 is closed, and StartTLS takes its place",
        &[Step::Lab(&["net", "refuse", "dc", "636/tcp"])],
        "dc-ldaps", "port 636", Equivalent(&[Step::Lab(&["net", "heal", "dc"])])).warns(),
    row("the certificate has ended",
        &[Step::Lab(&["dc", "cert", "expired"])],
        "dc-tls", "has ended on 2021-01-01", Equivalent(&[Step::Lab(&["dc", "cert", "good"])])),
    row("the certificate is for another name",
        &[Step::Lab(&["dc", "cert", "other-name"])],
        "dc-tls", "not for ad.acme.com", Equivalent(&[Step::Lab(&["dc", "cert", "good"])])),
    row("the CA is not the domain controller's",
        &[Step::Lab(&["ca", "publish"]), Host("cp /root/other-ca.pem /etc/motion-ad/ca.pem")],
        "dc-tls", "no trusted root", Here).then(&[PLAIN, Step::Lab(&["ca", "unpublish"])]),
    row("the CA has ended",
        &[Step::Lab(&["ca", "publish"]), Host("cp /root/expired-ca.pem /etc/motion-ad/ca.pem")],
        "ca-file", "has ended on", Here).then(&[PLAIN, Step::Lab(&["ca", "unpublish"])]),

    // The configuration.
    row("config.toml cannot be parsed",
        &[Host("echo nonsense >>/etc/motion-ad/config.toml")],
        "config-file", "config.toml, line 5", Here).then(&[PLAIN]).short(),
    row("config.toml has a key that nobody knows",
        &[Configure("[login]\nallow_group = [\"XCALLY Agents\"]\n")],
        "config-file", "allow_group", Here).then(&[PLAIN]),
    row("the broker may not read the CA",
        &[Host("chmod 0600 /etc/motion-ad/ca.pem")],
        "config-readable", "motion-ad may not read /etc/motion-ad/ca.pem", Here),
    row("the name map is malformed",
        &[Host("echo nonsense >>/etc/motion-ad/names.map")],
        "names-map", "expected `xcally-name = user@domain`", Here).short(),
    row("the name map leads to nobody",
        &[Host("echo 'ghost = no.body@acme.com' >>/etc/motion-ad/names.map")],
        "map-targets", "AD has no account no.body@acme.com", Here).warns(),
    row("the base DN does not exist",
        &[Configure("[domain]\nbase_dn = \"ou=Peple,dc=acme,dc=com\"\n")],
        "base-dn", "ou=Peple,dc=acme,dc=com", Here).then(&[PLAIN]).short(),
    row("this host may not read logonHours and userWorkstations",
        &[Dc("samba-tool dsacl delete --objectdn=DC=acme,DC=com --sddl='(OA;CIIO;RP;\
              5f202010-79a5-11d0-9020-00c04fc2d4cf;bf967aba-0de6-11d0-a285-00aa003049e2;RU)'")],
        "restrictions", "this host sees nobody's logonHours", OnController).warns(),
    row("a configured group does not exist",
        &[Configure("[login]\nallow_groups = [\"No Such Group\"]\n")],
        "groups", "\"No Such Group\" does not exist", WithPassword)
        .then(&[PLAIN, Dc("samba-tool group delete 'No Such Group'")]).short(),
    row("the Redis of the register does not answer",
        &[Configure("[sessions]\nstore = \"redis://ad.acme.com\"\n")],
        "sessions", "ad.acme.com:6379: Connection refused", Equivalent(&[PLAIN])),
    row("broker.users names nobody of this host",
        &[Configure("[broker]\nusers = [\"motion\", \"wwwdata\"]\n")],
        "broker-users", "there is no user wwwdata", Here).warns().then(&[PLAIN, Host("userdel wwwdata")]),

    // XCALLY.
    row("Debian's camera daemon is installed",
        &[Host(CAMERA)],
        "camera", "camera daemon is installed", Here).then(&[Host("dpkg --purge motion; rm -f /var/tmp/motion.deb")]),
    row("the application may not read its PAM service",
        &[Host("chmod 0600 /etc/pam.d/motion")],
        "pam-readable", "motion may not read /etc/pam.d/motion", Here),
    row("the application's user is missing from broker.users",
        &[Configure("[broker]\nusers = [\"nobody\"]\n")],
        "reach", "motion does not reach the broker", Here).then(&[PLAIN]),
    row("every user may read .env",
        &[Host("chmod 0644 /var/opt/motion2/.env")],
        "env-mode", "mode 0644", Here).short(),
];

/// What XCALLY's own integration leaves on every server.
const LEFT: Row = row(
    "an administrator's password is left in .env",
    &[],
    "env-password",
    "XC_ACTIVEDIRECTORY_PASSWORD",
    Here,
)
.warns();

/// Every row.
pub fn full(lab: &Lab, report: &mut Report) -> Check {
    run(lab, report, ROWS.iter().collect())?;
    report.check("a wrong key of the machine is tried once", || one_attempt(lab));
    lab.run(&["machine", "restore"]).ok()?;
    report.check("packets to the domain controller vanish: the doctor is done within 10 seconds", || {
        lab.run(&["net", "blackhole", "dc"]).ok()?;
        let found = doctor(lab, "", &[]);
        lab.run(&["net", "heal", "dc"]).ok()?;
        begins_with(&found?, "resolver", "failure", "10.73.0.10: does not answer")
    });
    report.check("and then all is well again", || healthy(lab, ""));
    done(lab)
}

/// What fits into every run of the suite.
pub fn short(lab: &Lab, report: &mut Report) -> Check {
    run(lab, report, ROWS.iter().filter(|row| row.is_short).collect())?;
    done(lab)
}

/// Two domain controllers, of which one is dead: a warning, and in time.
pub fn two(lab: &Lab, report: &mut Report) -> Check {
    prepare(lab)?;
    lab.host_sh("sed -i '/XC_ACTIVEDIRECTORY_PASSWORD/d' /var/opt/motion2/.env").ok()?;
    report.check("two domain controllers: all is well", || healthy(lab, ""));
    for (how, node, host) in [("blackhole", "dc", "ad.acme.com"), ("blackhole", "dc2", "ad2.acme.com")] {
        report.check(&format!("{host} is dead: warnings, within 10 seconds"), || {
            lab.run(&["net", how, node]).ok()?;
            let found = doctor(lab, "", &[]);
            lab.run(&["net", "heal", node]).ok()?;
            let found = found?;
            equal("level", found.value["level"].as_str(), Some("warning")).map_err(|e| found.explain(e))?;
            equal("exit code", found.code, 1)?;
            let ldap = found.check("dc-ldap")?;
            equal("dc-ldap", ldap["level"].as_str(), Some("warning")).map_err(|e| found.explain(e))?;
            contains("dc-ldap", &ldap["seen"].to_string(), host)
        });
        report.check("and then all is well again", || healthy(lab, ""));
    }
    done(lab)
}

fn run(lab: &Lab, report: &mut Report, rows: Vec<&Row>) -> Check {
    prepare(lab)?;
    let before = lab.everybodys_counters()?;
    check(lab, report, &LEFT);
    report.check("a healthy host: no failure, no warning", || healthy(lab, ""));
    login(lab, report);
    for row in rows {
        check(lab, report, row);
    }
    report.check("nobody's wrong passwords were counted but the one that was given", || {
        let mut after = lab.everybodys_counters()?;
        let wendy = person("wendy").sam;
        if let (Some(seen), Some(counted)) = (before.get(wendy), after.get_mut(wendy)) {
            equal("wendy", counted.bad_passwords, seen.bad_passwords + 1)?;
            *counted = *seen;
        }
        equal("counters", after, before.clone())
    });
    lab.run(&["cast", "reset", "wendy"]).ok().map(drop)
}

/// What the rows go back to.
fn prepare(lab: &Lab) -> Check {
    lab.configure("")?;
    lab.host_sh("printf '# nobody\\n' >/etc/motion-ad/names.map; chmod 0644 /etc/motion-ad/names.map")
        .ok()?;
    lab.host_sh("cp -p /etc/pam.d/motion /root/pam-motion; cp -p /etc/resolv.conf /root/resolv.conf").ok()?;
    lab.host_sh("cp -p /var/opt/motion2/.env /root/env").ok()?;
    for (argument, name) in [("--other", "other-ca.pem"), ("--expired", "expired-ca.pem")] {
        let ca = lab.run(&["ca", argument]).ok()?;
        fs::copy(ca.trim(), lab.path(&format!("/root/{name}"))).map_err(|e| format!("{ca}: {e}"))?;
    }
    Ok(())
}

fn done(lab: &Lab) -> Check {
    lab.host_sh("cp -p /root/env /var/opt/motion2/.env").ok()?;
    lab.configure("")
}

/// Breaks, sees where the doctor begins, runs what it prints, and sees that all is well.
fn check(lab: &Lab, report: &mut Report, row: &Row) {
    report.check(row.name, || {
        let broken = row.breaks.iter().try_for_each(|step| take(lab, *step));
        let seen = broken.and_then(|()| {
            let found = doctor(lab, row.environment, &[])?;
            begins_with(&found, row.first, row.level, row.seen)?;
            println!(
                "         {}: {}",
                row.first,
                found.check(row.first)?["seen"].as_str().unwrap_or_default()
            );
            mend(lab, row, &found)
        });
        let healed = seen.and_then(|()| healthy(lab, row.environment));
        // Whatever came of it, the next row begins with a host that is whole.
        let after = row.after.iter().try_for_each(|step| take(lab, *step));
        if healed.is_err()
            && let Equivalent(steps) = row.mend
        {
            steps.iter().try_for_each(|step| take(lab, *step))?;
        }
        healed?;
        after
    });
}

fn take(lab: &Lab, step: Step) -> Check {
    match step {
        Host(script) => lab.host_sh(script).ok().map(drop),
        Dc(script) => lab.dc(&["sh", "-c", script]).ok().map(drop),
        Step::Lab(arguments) => lab.run(arguments).ok().map(drop),
        Configure(more) => lab.configure(more),
    }
}

/// Runs the command that the doctor prints for its first finding, as it is printed.
fn mend(lab: &Lab, row: &Row, found: &Found) -> Check {
    let places: &[&str] = match row.mend {
        Here | WithPassword => &["here"],
        OnController => &["samba"],
        Equivalent(_) => &["here", "samba"],
    };
    let commands = found.check(row.first)?["mend"].as_array().cloned().unwrap_or_default();
    let command = commands.iter().find(|command| places.iter().any(|place| command["place"] == *place));
    let command = command
        .and_then(|command| command["command"].as_str())
        .ok_or_else(|| found.explain(format!("no command that is run {}", places.join(" or "))))?;
    println!("         {command}");
    // Where the package is, without a terminal that could be asked.
    let script = format!("cd {PACKAGES} && export DEBIAN_FRONTEND=noninteractive && {command}");
    let shell = ["setsid", "-w", "sh", "-c", &script];
    let ran = match row.mend {
        Here => lab.host("root", &shell, ""),
        WithPassword => lab.host("root", &shell, &format!("{}\n", person("administrator").password)),
        OnController => lab.dc(&["sh", "-c", command]),
        Equivalent(steps) => return steps.iter().try_for_each(|step| take(lab, *step)),
    };
    ran.ok().map(drop).map_err(|e| format!("{command}\n{e}"))
}

/// What the doctor has found.
struct Found {
    code: i32,
    value: Value,
}

impl Found {
    fn check(&self, id: &str) -> Result<&Value, String> {
        let checks = self.value["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        checks.iter().find(|check| check["id"] == id).ok_or_else(|| format!("no check {id}"))
    }

    /// With everything that is not as it should be.
    fn explain(&self, error: String) -> String {
        let checks = self.value["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let wrong = checks.iter().filter(|check| check["level"] != "ok" && check["because"].is_null());
        wrong.fold(error, |text, check| {
            format!("{text}\n{} {}: {}", check["level"], check["id"], check["seen"])
        })
    }
}

fn doctor(lab: &Lab, environment: &str, arguments: &[&str]) -> Result<Found, String> {
    let ran = examine(lab, environment, arguments, "");
    let value: Value =
        serde_json::from_str(&ran.stdout).map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))?;
    let found = Found { code: ran.code, value };
    let seconds = found.value["seconds"].as_f64().ok_or("no seconds")?;
    if seconds > WHOLE {
        return Err(found.explain(format!("it took {seconds} s")));
    }
    Ok(found)
}

fn examine(lab: &Lab, environment: &str, arguments: &[&str], input: &str) -> Ran {
    let command = format!("{environment}exec motion-ad doctor --json {}", arguments.join(" "));
    lab.host("root", &["sh", "-c", &command], input)
}

fn begins_with(found: &Found, first: &str, level: &str, seen: &str) -> Check {
    equal("the check to begin with", found.value["first"].as_str(), Some(first))
        .map_err(|e| found.explain(e))?;
    equal("its level", found.value["level"].as_str(), Some(level)).map_err(|e| found.explain(e))?;
    equal("exit code", found.code, if level == "failure" { 2 } else { 1 })?;
    let check = found.check(first)?;
    contains(first, check["seen"].as_str().unwrap_or_default(), seen)
}

/// Every check is ok; in a moment, because a broker may just be starting.
fn healthy(lab: &Lab, environment: &str) -> Check {
    wait(SETTLED, || {
        let found = doctor(lab, environment, &[])?;
        equal("level", found.value["level"].as_str(), Some("ok")).map_err(|e| found.explain(e))?;
        equal("skipped", found.value["counts"]["skipped"].as_u64(), Some(0)).map_err(|e| found.explain(e))?;
        equal("exit code", found.code, 0)
    })
}

/// One real login, which counts where the password is wrong, once.
fn login(lab: &Lab, report: &mut Report) {
    let logs_in = |key: &str, password: &str| {
        let name = person(key).sam;
        let ran = examine(lab, "", &["--password-stdin", "--login", name], &format!("{password}\n"));
        let value: Value = serde_json::from_str(&ran.stdout).map_err(|e| format!("{e}\n{}", ran.stderr))?;
        Ok::<_, String>(Found { code: ran.code, value })
    };
    report.check("--login: john comes in as the application's user", || {
        let found = logs_in("john", person("john").password)?;
        equal("exit code", found.code, 0).map_err(|e| found.explain(e))?;
        let login = found.check("login")?;
        contains("login", login["seen"].as_str().unwrap_or_default(), "john.doe came in as the user motion")
    });
    report.check("--login: a wrong password is a failure, and counts once", || {
        let before = lab.counters(person("wendy").sam)?.bad_passwords;
        let found = logs_in("wendy", "not hers")?;
        begins_with(&found, "login", "failure", "authenticate answered PAM_AUTH_ERR")?;
        equal("badPwdCount", lab.counters(person("wendy").sam)?.bad_passwords, before + 1)
    });
}

/// The machine's key is another in AD. The broker is kept from trying it, too.
fn one_attempt(lab: &Lab) -> Check {
    let counted = || -> Result<u32, String> {
        let search =
            ["ldbsearch", "-H", "/var/lib/samba/private/sam.ldb", "(sAMAccountName=XCALLY$)", "badPwdCount"];
        let text = lab.dc(&search).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("badPwdCount: "));
        line.map_or(Ok(0), |count| count.trim().parse().map_err(|e| format!("{count}: {e}")))
    };
    lab.run(&["machine", "reset"]).ok()?;
    lab.host_sh("systemctl stop motion-ad.socket motion-ad.service").ok()?;
    lab.host_sh("systemctl stop sssd.service").ok()?;
    let before = counted()?;
    let found = doctor(lab, "", &[]);
    let after = counted()?;
    lab.host_sh("systemctl start sssd.service motion-ad.socket motion-ad.service").ok()?;
    let key = found?;
    contains("machine-key", &key.check("machine-key")?["seen"].to_string(), "does not accept the key")?;
    match after.saturating_sub(before) {
        0 | 1 => Ok(()),
        more => Err(format!("{more} attempts")),
    }
}
