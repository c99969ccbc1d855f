//! Every component around the broker fails in turn. Logins fail in time, the log names the cause, and the
//! next login after the repair succeeds.

use std::fs;
use std::time::Duration;

use crate::cast::person;
use crate::hosts::FORGET;
use crate::lab::{Lab, wait};
use crate::pam::authenticate;
use crate::ready::{john, john_at, ready, restart, start_after, while_john_logs_in};
use crate::report::{Check, Report, contains, equal};

/// A service whose module has a timeout of two seconds.
const SHORT: &str = "motion-short";
/// The tested services, with the timeouts of their modules.
const BOTH: &[(&str, Duration)] = &[("motion", Duration::from_secs(5)), IMPATIENT[0]];
/// Only the short one, for faults in which five seconds would show nothing new.
const IMPATIENT: &[(&str, Duration)] = &[(SHORT, Duration::from_secs(2))];

/// One fault, and the result of a login during it.
struct Fault<'a> {
    name: &'a str,
    breaks: &'a dyn Fn() -> Check,
    repairs: &'a dyn Fn() -> Check,
    services: &'a [(&'a str, Duration)],
    code: &'a str,
    /// Words that the log line must contain.
    words: &'a [&'a str],
}

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    let service = fs::read_to_string(lab.path("/etc/pam.d/motion")).map_err(|e| e.to_string())?;
    let short = service.replace("required  pam_motion_ad.so", "required  pam_motion_ad.so timeout=2");
    equal("lines with a timeout", short.matches(" timeout=2").count(), 4)?;
    lab.write(&format!("/etc/pam.d/{SHORT}"), &short)?;
    broker(lab, report);
    network(lab, report);
    samba(lab, report);
    names(lab, report);
    services(lab, report);
    configuration(lab, report);
    trust(lab, report);
    starttls(lab, report);
    join(lab, report);
    report.check("the machine's password changes during logins: none fails", || renewal(lab));
    fs::remove_file(lab.path(&format!("/etc/pam.d/{SHORT}"))).map_err(|e| e.to_string())
}

/// Applies the fault, checks that two logins fail as expected, repairs it, and checks that the next login
/// succeeds.
fn check(lab: &Lab, report: &mut Report, fault: &Fault) {
    let Fault { name, breaks, repairs, services, code, words } = fault;
    report.check(name, || {
        let before = counted(lab)?;
        let seen = breaks().and_then(|()| {
            services.iter().try_for_each(|(service, deadline)| denied(lab, service, *deadline, code, words))
        });
        repairs()?;
        let repaired = john(lab);
        // In any case, the next fault must begin with a working broker.
        let settled = wait(Duration::from_secs(30), || john(lab));
        seen?;
        let took = repaired.map_err(|e| format!("the next login after the repair: {e}"))?;
        println!("         {:7.2} s  the next login after the repair", took.as_secs_f64());
        settled?;
        equal("badPwdCount", counted(lab)?, before)
    });
}

/// Checks that a login fails with `code` in time, and that one line gives the reason.
fn denied(lab: &Lab, service: &str, deadline: Duration, code: &str, words: &[&str]) -> Check {
    let position = lab.log_position()?;
    let (answer, took) = john_at(lab, service, &["authenticate"]);
    let line = wait(Duration::from_secs(5), || {
        let lines = lab.our_lines_since(&position)?;
        // Lines of the broker about its own start and end do not count.
        let of_login = |line: &&String| {
            line.contains("event=login") || line.contains(&format!("pam_motion_ad({service}"))
        };
        let of_login: Vec<_> = lines.iter().filter(of_login).cloned().collect();
        match of_login.as_slice() {
            [line] => Ok(line.clone()),
            _ => Err(format!("expected one line for one login:\n{}", lines.join("\n"))),
        }
    })?;
    println!("         {:7.2} s  {service}: {line}", took.as_secs_f64());
    equal(service, answer.code.as_str(), code).map_err(|e| format!("{e}\n{line}"))?;
    for word in words {
        contains(service, &line, word)?;
    }
    // What is broken stays so until it is repaired: without a deadline the answer would not come at all. On
    // top of it come the way into the host and pamtester's start, on a busy machine.
    if took > deadline * 3 / 2 {
        return Err(format!("{service}: took {:.2} s of {deadline:?}", took.as_secs_f64()));
    }
    Ok(())
}

fn counted(lab: &Lab) -> Result<u32, String> {
    Ok(lab.counters(person("john").sam)?.bad_passwords)
}

fn sh(lab: &Lab, script: &str) -> Check {
    lab.host_sh(script).ok().map(drop)
}

fn dc(lab: &Lab, command: &[&str]) -> Check {
    lab.dc(command).ok().map(drop)
}

fn run(lab: &Lab, arguments: &[&str]) -> Check {
    lab.run(arguments).ok().map(drop)
}

fn broker(lab: &Lab, report: &mut Report) {
    let fault = Fault {
        name: "the broker and its socket are stopped",
        breaks: &|| sh(lab, "systemctl stop motion-ad.socket motion-ad.service"),
        repairs: &|| sh(lab, "systemctl start motion-ad.socket"),
        services: BOTH,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["the broker at", "/run/motion-ad/broker.sock", "systemctl status motion-ad.socket"],
    };
    check(lab, report, &fault);
    report.check("the socket was removed by hand: module, log and status say what brings it back", || {
        removed(lab)
    });
    report.check("the broker alone is stopped: the next login starts it", || {
        sh(lab, "systemctl stop motion-ad.service")?;
        john(lab).map(drop)
    });
    let fault = Fault {
        name: "the broker hangs",
        breaks: &|| sh(lab, "systemctl kill -s STOP motion-ad.service"),
        repairs: &|| sh(lab, "systemctl kill -s CONT motion-ad.service"),
        services: BOTH,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["the broker at", "no valid reply", "timed out", "systemctl status motion-ad.service"],
    };
    check(lab, report, &fault);
}

fn removed(lab: &Lab) -> Check {
    const MEND: &str = "systemctl restart motion-ad.socket motion-ad.service";
    let position = lab.log_position()?;
    sh(lab, "rm /run/motion-ad/broker.sock")?;
    let answer = john_at(lab, "motion", &["authenticate"]).0;
    equal("a login", answer.code.as_str(), "PAM_AUTHINFO_UNAVAIL")?;
    lab.wait_for_log(&position, &["event=socket", "was removed", MEND])?;
    contains("the module", &lab.our_lines_since(&position)?.join("\n"), MEND)?;
    // Restarting only the service does not help, and logs the advice again.
    let position = lab.log_position()?;
    restart(lab)?;
    lab.wait_for_log(&position, &["event=socket", "was removed", MEND])?;
    wait(Duration::from_secs(10), || {
        let line = lab.host_sh("systemctl show -P StatusText motion-ad.service").ok()?;
        contains("systemctl status", &line, "was removed")
    })?;
    sh(lab, MEND)?;
    john(lab).map(drop)
}

fn network(lab: &Lab, report: &mut Report) {
    let fault = Fault {
        name: "the DC is cut off",
        breaks: &|| run(lab, &["net", "cut", "dc"]),
        repairs: &|| run(lab, &["net", "heal", "dc"]),
        services: BOTH,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["outcome=unavailable", "ad.acme.com"],
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "this host is cut off",
        breaks: &|| run(lab, &["net", "cut", "host"]),
        repairs: &|| run(lab, &["net", "heal", "host"]),
        services: IMPATIENT,
        ..fault
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "packets to the DC vanish",
        breaks: &|| run(lab, &["net", "blackhole", "dc"]),
        repairs: &|| run(lab, &["net", "heal", "dc"]),
        services: BOTH,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["outcome=unavailable", "in time"],
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "packets to the DC vanish, and the broker starts then",
        breaks: &|| run(lab, &["net", "blackhole", "dc"]).and_then(|()| knowing_nothing(lab)),
        words: &["outcome=unavailable", "DNS"],
        services: IMPATIENT,
        ..fault
    };
    check(lab, report, &fault);
    report.check("a firewall forgets what is open: the same login goes over fresh connections", || {
        forgotten(lab)
    });
}

/// The broker's open connections get no packet through any more, without an error.
fn forgotten(lab: &Lab) -> Check {
    john(lab)?;
    let position = lab.log_position()?;
    // Each time all that is open is forgotten again.
    run(lab, &["net", "forget", "dc"])?;
    let wrong = authenticate(lab, person("john").sam, "not his").code;
    let counted = counted(lab)?;
    run(lab, &["net", "forget", "dc"])?;
    let seen = john(lab).and_then(|first| Ok((first, john(lab)?)));
    run(lab, &["net", "heal", "dc"])?;
    run(lab, &["cast", "reset", "john"])?;
    let (first, second) = seen?;
    println!("         {:.2} s, the next one {:.2} s", first.as_secs_f64(), second.as_secs_f64());
    equal("a wrong password", wrong.as_str(), "PAM_AUTH_ERR")?;
    equal("badPwdCount", counted, 1)?;
    // The domain controller is well.
    let down = lab.log_since(&position)?.into_iter().find(|line| line.contains("state=down"));
    equal("a line that it is down", down, None)
}

fn samba(lab: &Lab, report: &mut Report) {
    let fault = Fault {
        name: "Samba is stopped",
        breaks: &|| run(lab, &["dc", "stop"]),
        repairs: &|| run(lab, &["dc", "start"]),
        services: BOTH,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["outcome=unavailable", "ad.acme.com", "refused"],
    };
    check(lab, report, &fault);
    report.check("the broker is restarted while the DC has a password: the login leaves its line", || {
        cut_off(lab)
    });
    report.check("Samba crashed and is back: the next login works at once", || {
        run(lab, &["dc", "kill"])?;
        run(lab, &["dc", "start"])?;
        let (took, usual) = (john(lab)?, john(lab)?);
        // One that waits for what has died waits until its deadline.
        match took > usual + Duration::from_secs(5) / 2 {
            true => Err(format!("it took {took:?}, and the next one {usual:?}")),
            false => Ok(()),
        }
    });
}

/// The broker ends while a suspended Samba has the password.
fn cut_off(lab: &Lab) -> Check {
    let position = lab.log_position()?;
    run(lab, &["dc", "hang"])?;
    let seen = std::thread::scope(|scope| {
        let login = scope.spawn(|| john_at(lab, "motion", &["authenticate"]).0);
        std::thread::sleep(Duration::from_millis(800));
        restart(lab)?;
        login.join().map_err(|_| "the login's thread ended".to_owned())
    });
    run(lab, &["dc", "continue"])?;
    equal("the login", seen?.code.as_str(), "PAM_AUTHINFO_UNAVAIL")?;
    lab.wait_for_log(&position, &["event=login", "user=john.doe", "cut off by the end of the broker"])?;
    let lines = lab.log_since(&position)?;
    equal("lines", lines.iter().filter(|line| line.contains("event=login")).count(), 1)?;
    wait(Duration::from_secs(30), || john(lab).map(drop))
}

/// The domain controller is also the DNS server. Routing drops its answers from port 53.
fn names(lab: &Lab, report: &mut Report) {
    let silent = || dc(lab, &["ip", "rule", "add", "sport", "53", "blackhole"]);
    let heard = || dc(lab, &["ip", "rule", "delete", "sport", "53", "blackhole"]);
    report.check("DNS falls silent: who is known stays known, over a new start, too", || {
        silent()?;
        let seen = john(lab);
        let started = restart(lab).and_then(|()| john(lab));
        heard()?;
        seen?;
        started.map(drop)
    });
    let fault = Fault {
        name: "DNS is silent when a broker starts that knows nothing",
        breaks: &|| silent().and_then(|()| knowing_nothing(lab)),
        repairs: &heard,
        services: IMPATIENT,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["outcome=unavailable", "DNS"],
    };
    check(lab, report, &fault);
    report.check(
        "DNS is silent and nothing is known: status says so, and the register has its own time",
        || {
            silent()?;
            let asked = knowing_nothing(lab).map(|()| {
                [&["status"][..], &["sessions", "list"]].map(|words| {
                    let command = [&["motion-ad"], words].concat();
                    lab.host("root", &command, "")
                })
            });
            heard()?;
            wait(Duration::from_secs(30), || john(lab).map(drop))?;
            let [status, list] = asked?;
            contains("status", &status.stdout, "DNS")?;
            let blamed = format!("{}{}", status.stdout, list.stderr).contains("is slow");
            equal("the register is blamed", blamed, false).map_err(|e| format!("{e}\n{}", status.stdout))?;
            equal("sessions list", list.code, 0).map_err(|e| format!("{e}\n{}", list.stderr))
        },
    );
    let resolv = fs::read_to_string(lab.path("/etc/resolv.conf")).unwrap_or_default();
    let fault = Fault {
        name: "resolv.conf names a host without DNS when a broker starts that knows nothing",
        breaks: &|| {
            lab.write("/etc/resolv.conf", "nameserver 127.0.0.1\n").and_then(|()| knowing_nothing(lab))
        },
        repairs: &|| lab.write("/etc/resolv.conf", &resolv),
        ..fault
    };
    check(lab, report, &fault);
}

/// Starts a broker without the domain controllers that it kept on disk.
fn knowing_nothing(lab: &Lab) -> Check {
    start_after(lab, || sh(lab, FORGET))
}

/// One service of the domain controller is silent while the others answer. Routing drops its answers from
/// that port.
fn services(lab: &Lab, report: &mut Report) {
    let silent = |port| dc(lab, &["ip", "rule", "add", "sport", port, "blackhole"]);
    let heard = |port| dc(lab, &["ip", "rule", "delete", "sport", port, "blackhole"]);
    let fault = Fault {
        name: "the KDC is silent when the broker starts",
        breaks: &|| silent("88").and_then(|()| restart(lab)),
        repairs: &|| heard("88"),
        services: IMPATIENT,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["outcome=unavailable", "KDC"],
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "LDAP is silent when the broker starts, LDAPS is not",
        breaks: &|| silent("389").and_then(|()| restart(lab)),
        repairs: &|| heard("389"),
        words: &["outcome=unavailable", "ad.acme.com", "10.73.0.10:389"],
        ..fault
    };
    check(lab, report, &fault);
}

fn configuration(lab: &Lab, report: &mut Report) {
    let configured = || lab.configure("");
    let fault = Fault {
        name: "config.toml has an unknown key at a start",
        breaks: &|| start_after(lab, || lab.configure("[login]\nallow_group = [\"XCALLY Agents\"]\n")),
        repairs: &configured,
        services: BOTH,
        code: "PAM_SERVICE_ERR",
        words: &["outcome=misconfigured", "config.toml, line 5", "allow_group", "motion-ad config check"],
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "config.toml cannot be parsed at a start",
        breaks: &|| start_after(lab, || lab.write("/etc/motion-ad/config.toml", "[tls\n")),
        words: &["outcome=misconfigured", "config.toml, line 1"],
        ..fault
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "a configured group does not exist",
        breaks: &|| lab.configure("[login]\nallow_groups = [\"No Such Group\"]\n"),
        words: &["outcome=misconfigured", "No Such Group"],
        ..fault
    };
    check(lab, report, &fault);
    let map = fs::read_to_string(lab.path("/etc/motion-ad/names.map")).unwrap_or_default();
    let fault = Fault {
        name: "names.map is broken at a start",
        breaks: &|| start_after(lab, || lab.write("/etc/motion-ad/names.map", "nonsense\n")),
        repairs: &|| lab.write("/etc/motion-ad/names.map", &map),
        words: &["outcome=misconfigured", "names.map, line 1"],
        ..fault
    };
    check(lab, report, &fault);
}

fn trust(lab: &Lab, report: &mut Report) {
    let other = || -> Check {
        let other = lab.run(&["ca", "--other"]).ok()?;
        fs::copy(other.trim(), lab.path("/etc/motion-ad/ca.pem")).map(drop).map_err(|e| e.to_string())
    };
    let configured = || lab.configure("");
    let fault = Fault {
        name: "the CA is not the DC's",
        breaks: &other,
        repairs: &configured,
        services: BOTH,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &[
            "outcome=unavailable",
            "ad.acme.com: port 636",
            "TLS failed",
            "no trusted root",
            "/etc/motion-ad/ca.pem",
        ],
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "the CA is not the DC's, over StartTLS",
        breaks: &|| lab.configure("mode = \"starttls\"\n").and_then(|()| other()),
        words: &["outcome=unavailable", "ad.acme.com: port 389", "TLS failed", "no trusted root"],
        ..fault
    };
    check(lab, report, &fault);
    report.check("the CA is not the DC's, and the method is left to the broker: Kerberos, and why", || {
        lab.write("/etc/motion-ad/config.toml", "[tls]\nca_file = \"/etc/motion-ad/ca.pem\"\n")?;
        other()?;
        let position = lab.log_position()?;
        let seen = john(lab).and_then(|_| {
            lab.wait_for_log(&position, &["event=login", "outcome=success", "method=kerberos"])?;
            lab.wait_for_log(&position, &["event=method", "method=kerberos", "no trusted root"])
        });
        configured()?;
        seen.map(drop)
    });
    let fault = Fault {
        name: "the CA's file is gone",
        breaks: &|| sh(lab, "rm /etc/motion-ad/ca.pem"),
        code: "PAM_SERVICE_ERR",
        words: &["outcome=misconfigured", "/etc/motion-ad/ca.pem"],
        ..fault
    };
    check(lab, report, &fault);
}

/// The LDAPS port is closed: routing rejects packets to it.
fn starttls(lab: &Lab, report: &mut Report) {
    let rule = |verb: &str| sh(lab, &format!("ip rule {verb} dport 636 ipproto 6 unreachable"));
    let ports = |mode: &str, port: u16| -> Check {
        lab.configure(&format!("mode = \"{mode}\"\n"))?;
        john(lab)?;
        let ldap = lab.host_sh(
            "ss -Htnp state established dst 10.73.0.10 | grep motion-ad | grep -oE \
                         '10.73.0.10:[0-9]+' | sort -u",
        );
        // Port 389 always has a connection: the machine account's sealed one.
        let open: Vec<_> = ldap.stdout.lines().filter_map(|line| line.rsplit(':').next()).collect();
        equal("LDAPS is open", open.contains(&"636"), port == 636)
    };
    report.check("tls.mode = auto takes LDAPS", || ports("auto", 636));
    report.check("tls.mode = starttls takes port 389", || ports("starttls", 389));
    report.check("tls.mode = auto takes StartTLS where LDAPS is closed", || {
        rule("add")?;
        let seen = ports("auto", 389);
        rule("delete")?;
        seen
    });
    report.check("tls.mode = auto takes StartTLS where a firewall swallows LDAPS", || {
        let rule = |verb| dc(lab, &["ip", "rule", verb, "sport", "636", "ipproto", "6", "blackhole"]);
        rule("add")?;
        let seen = ports("auto", 389);
        rule("delete")?;
        seen
    });
    let fault = Fault {
        name: "tls.mode = ldaps does not fall back",
        breaks: &|| rule("add").and_then(|()| lab.configure("mode = \"ldaps\"\n")),
        repairs: &|| rule("delete").and_then(|()| lab.configure("")),
        services: BOTH,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["outcome=unavailable", "10.73.0.10:636", "unreachable"],
    };
    check(lab, report, &fault);
}

fn join(lab: &Lab, report: &mut Report) {
    let fault = Fault {
        name: "the keytab is gone",
        breaks: &|| sh(lab, "mv /etc/krb5.keytab /etc/krb5.keytab.away"),
        repairs: &|| sh(lab, "mv /etc/krb5.keytab.away /etc/krb5.keytab"),
        services: BOTH,
        code: "PAM_AUTHINFO_UNAVAIL",
        words: &["outcome=unavailable", "/etc/krb5.keytab is missing", "realm join"],
    };
    check(lab, report, &fault);
    for (name, keys) in [("of 0 bytes", ""), ("of 2 bytes, its version", "\\005\\002")] {
        report.check(&format!("a keytab {name}: the broker says so, and waits for a join"), || {
            keyless(lab, keys)
        });
    }
    report.check("a start of SSSD touches krb5.conf and its own files: the broker goes on", || {
        sssd_starts(lab)
    });
    let fault = Fault {
        name: "the machine's password was reset in AD",
        breaks: &|| run(lab, &["machine", "reset"]).and_then(|()| restart(lab)),
        repairs: &|| run(lab, &["machine", "restore"]),
        words: &["outcome=unavailable", "XCALLY$@ACME.COM", "password was changed", "adcli join"],
        ..fault
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "the machine account was deleted in AD",
        breaks: &|| run(lab, &["machine", "delete"]).and_then(|()| restart(lab)),
        repairs: &|| run(lab, &["machine", "restore"]),
        words: &["outcome=unavailable", "XCALLY$@ACME.COM", "deleted", "adcli join"],
        ..fault
    };
    check(lab, report, &fault);
    let fault = Fault {
        name: "the host left the domain",
        breaks: &|| run(lab, &["leave"]),
        repairs: &|| run(lab, &["join"]),
        words: &["outcome=unavailable", "realm join"],
        ..fault
    };
    check(lab, report, &fault);
}

/// Time in which a broker that restarts for ever does so several times: it looks at its files every two
/// seconds.
const WAITS: Duration = Duration::from_secs(8);

/// Replaces the keytab by one without keys. The broker restarts once, and again when the keytab is back.
fn keyless(lab: &Lab, keys: &str) -> Check {
    let (first, position) = (lab.broker()?, lab.log_position()?);
    sh(lab, &format!("cp -p /etc/krb5.keytab /root/krb5.keytab && printf '{keys}' >/etc/krb5.keytab"))?;
    let seen = || {
        lab.wait_for_log(&position, &["event=start", "/etc/krb5.keytab is missing or empty"])?;
        let waiting = lab.broker()?;
        std::thread::sleep(WAITS);
        equal("the broker's pid", lab.broker()?, waiting)?;
        equal("the same broker as before", waiting == first, false)?;
        let ran = lab.host("root", &["motion-ad", "status"], "");
        contains("status", &ran.stdout, "/etc/krb5.keytab is missing or empty")
    };
    let seen = seen();
    sh(lab, "cat /root/krb5.keytab >/etc/krb5.keytab; rm /root/krb5.keytab")?;
    wait(Duration::from_secs(30), || john(lab))?;
    seen
}

fn sssd_starts(lab: &Lab) -> Check {
    let (before, pid) = (lab.host_sh("stat -c %z /etc/krb5.conf /etc/sssd/sssd.conf").ok()?, lab.broker()?);
    sh(lab, "systemctl restart sssd.service")?;
    // Not every release of SSSD does it.
    let modes =
        "for file in /etc/sssd/sssd.conf /etc/sssd/conf.d; do chmod \"$(stat -c %a $file)\" $file; done";
    sh(lab, &format!("touch /etc/krb5.conf; {modes}"))?;
    let after = lab.host_sh("stat -c %z /etc/krb5.conf /etc/sssd/sssd.conf").ok()?;
    equal("the times have changed", before == after, false)?;
    std::thread::sleep(WAITS);
    john(lab)?;
    equal("the broker's pid", lab.broker()?, pid)
}

/// Renews the machine's password three times, as SSSD does every 30 days.
fn renewal(lab: &Lab) -> Check {
    let key = "klist -k /etc/krb5.keytab | awk '$1 ~ /^[0-9]+$/ { print $1 }' | sort -n | tail -n 1";
    for _ in 0..3 {
        let (old_key, old_pid, position) = (lab.host_sh(key).ok()?, lab.broker()?, lab.log_position()?);
        let (logins, slowest) = while_john_logs_in(lab, || {
            sh(lab, "adcli update --domain=acme.com --computer-password-lifetime=0")?;
            wait(Duration::from_secs(10), || match lab.broker()? {
                pid if pid == old_pid => Err("the broker still runs with the old keytab".to_owned()),
                _ => Ok(()),
            })
        })?;
        println!("         {logins} logins, the slowest {:.2} s", slowest.as_secs_f64());
        if lab.host_sh(key).ok()? == old_key {
            return Err("adcli did not change the password".to_owned());
        }
        lab.wait_for_log(&position, &["event=restart", "changed=/etc/krb5.keytab"])?;
        lab.wait_for_log(&position, &["event=start", "dc=ad.acme.com"])?;
    }
    Ok(())
}
