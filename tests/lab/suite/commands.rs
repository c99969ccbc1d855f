//! `motion-ad` on the host: exit codes and texts, for root, for the application's user, and for another user.

use serde_json::Value;

use crate::cast::everybody;
use crate::lab::Lab;
use crate::report::{Report, contains, equal};

/// The user, the arguments, the input, the exit code, and a part of standard output or standard error.
type Command = (&'static str, &'static [&'static str], &'static str, i32, Says);

enum Says {
    Out(&'static str),
    Err(&'static str),
}
use Says::{Err as Complains, Out};

const JOHN: &str = "J0hn-rides-a-tandem\n";
/// A configuration that is not in force yet.
const CANDIDATE: &str = "/var/tmp/candidate.toml";
const ONLY: &str = "is neither root nor in broker.users";

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    ("root",   &["map", "john.doe"],                      "",   0, Out("john.doe@acme.com\n")),
    ("root",   &["map", "John.Doe", "ACME\\jane", "x@acme.com"], "", 0, Out("john.doe@acme.com\njane@acme.com\nx@acme.com\n")),
    ("root",   &["map"],                                  "a\r\nb\n", 0, Out("a@acme.com\nb@acme.com\n")),
    ("root",   &["map", "--reverse", "john.doe@acme.com"], "",  0, Out("john.doe@acme.com\tjohn.doe\n")),
    ("root",   &["map", "root"],                          "",   1, Complains("root: the name is on names.refuse")),
    ("root",   &["map", "john.doe", "x@evil.example"],    "",   1, Out("john.doe@acme.com\n")),
    ("root",   &["map", "--json", "john.doe"],            "",   0, Out("\"principal\": \"john.doe@acme.com\"")),
    // Only root can read the join's settings. For other users, krb5.conf names the domain.
    ("motion", &["map", "john.doe"],                      "",   0, Out("john.doe@acme.com\n")),

    ("root",   &["check", "john.doe"],                    "",   0, Out("john.doe may log in\n")),
    ("motion", &["check", "john.doe"],                    "",   0, Out("CN=john.doe,OU=People,DC=acme,DC=com")),
    ("root",   &["check", "dora.disabled"],               "",   1, Out(" x  disabled              yes")),
    ("root",   &["check", "ed.ended"],                    "",   1, Out("ed.ended may not log in: account_expired")),
    ("root",   &["check", "petra.expired"],               "",   1, Out("petra.expired may not log in: password_expired")),
    ("root",   &["check", "max.mustchange"],              "",   1, Out("max.mustchange may not log in: must_change")),
    ("root",   &["check", "nora.night"],                  "",   1, Out("restricted, not allowed now")),
    ("root",   &["check", "walt.elsewhere"],              "",   1, Out("OTHERPC")),
    ("root",   &["check", "lou.locked"],                  "",   1, Out("lou.locked may not log in: locked_out")),
    ("root",   &["check", "nobody.here"],                 "",   1, Out("AD has no account nobody.here@acme.com")),
    ("root",   &["check", "root"],                        "",   1, Out("root may not log in: unmapped")),
    ("root",   &["check", "clash"],                       "",   1, Out("CN=clash.a,OU=People,DC=acme,DC=com")),
    ("root",   &["check", "clash@acme.com"],              "",   0, Out("CN=clash.a,OU=People,DC=acme,DC=com")),
    ("nobody", &["check", "john.doe"],                    "",   3, Complains(ONLY)),

    ("root",   &["login", "--password-stdin", "john.doe"], JOHN, 0, Out("john.doe may log in\n")),
    ("motion", &["login", "--password-stdin", "john.doe"], JOHN, 0, Out("outcome    success")),
    ("motion", &["login", "--password-stdin", "wendy.wrong"], JOHN, 1, Out("wendy.wrong may not log in: wrong_password: AD says: the password is wrong (data 52e)")),
    ("root",   &["login", "--password-stdin", "john.doe"], "",  3, Complains("nothing was sent to AD")),
    ("root",   &["login", "--password-stdin", "john.doe"], "\n", 3, Complains("nothing was sent to AD")),
    ("nobody", &["login", "--password-stdin", "john.doe"], JOHN, 3, Complains(ONLY)),

    ("root",   &["status"],                               "",   0, Out("all is well\n")),
    ("motion", &["status"],                               "",   0, Out("XCALLY$@ACME.COM")),
    ("nobody", &["status"],                               "",   3, Complains("use `sudo`, or have root add the user to broker.users")),
    ("root",   &["ready"],                                "",   0, Out("ready: acme.com by ldap, 1 of 1 domain controllers\n")),
    ("nobody", &["ready"],                                "",   3, Complains("you may not query the broker: ")),
    ("nobody", &["sessions", "watch"],                    "",   3, Complains("you may not query the broker: ")),
    ("nobody", &["doctor", "--fix", "--yes"],             "",   3, Complains("--fix needs root: use `sudo`")),
    ("root",   &["config", "check"],                      "",   0, Out("config-file        /etc/motion-ad/config.toml: domain acme.com\n")),
    ("root",   &["--config", CANDIDATE, "config", "check"], "", 2, Out("the group \"XCALLY Agenst\" does not exist in AD: every login is denied; did you mean 'XCALLY Agents'?")),
    ("nobody", &["config", "check"],                      "",   1, Out("checks that need root are skipped")),
    ("root",   &["config", "show"],                       "",   0, Out(" tls.ca_file                \"/etc/motion-ad/ca.pem\"     /etc/motion-ad/config.toml, line 2\n")),
    ("nobody", &["config", "show"],                       "",   3, Complains("root may read it: use `sudo`")),
    ("nobody", &["version"],                              "",   0, Out(concat!("motion-ad ", env!("CARGO_PKG_VERSION"), "\n"))),
    ("nobody", &["-V"],                                   "",   0, Out(concat!("motion-ad ", env!("CARGO_PKG_VERSION"), "\n"))),
    ("root",   &["--socket", "/run/motion-ad/absent", "status"], "", 2, Complains("/run/motion-ad/absent could not be queried: no connection")),
    ("root",   &["no-such-command"],                      "",   3, Complains("unrecognized subcommand")),
    ("root",   &["check"],                                "",   3, Complains("<NAME>")),
];

pub fn chapter(lab: &Lab, report: &mut Report) -> Result<(), String> {
    lab.run(&["cast", "reset"]).ok()?;
    lab.write(CANDIDATE, "[login]\nallow_groups = [\"XCALLY Agenst\"]\n")?;
    for (user, arguments, input, code, says) in COMMANDS {
        let name = format!("{user}: motion-ad {}: exit code {code}", arguments.join(" "));
        report.check(&name, || {
            let command: Vec<_> = std::iter::once("motion-ad").chain(arguments.iter().copied()).collect();
            let ran = lab.host(user, &command, input);
            let all = |e: String| format!("{e}\nit said:\n{}{}", ran.stdout, ran.stderr);
            equal("exit code", ran.code, *code).map_err(all)?;
            match says {
                Out(text) => contains("standard output", &ran.stdout, text).map_err(all),
                Complains(text) => contains("standard error", &ran.stderr, text).map_err(all),
            }
        });
    }
    report.check("check finds everybody by userPrincipalName", || {
        for person in everybody().iter().filter(|person| person.upn.ends_with("@acme.com")) {
            let ran = lab.host("root", &["motion-ad", "check", person.upn], "");
            contains(person.upn, &ran.stdout, &format!("account            CN={},", person.sam))?;
        }
        Ok(())
    });
    report.check("without a terminal login asks nobody and says how scripts do it", || {
        let ran = lab.host("motion", &["setsid", "-w", "motion-ad", "login", "john.doe"], "");
        equal("exit code", ran.code, 3)?;
        contains("standard error", &ran.stderr, "scripts use --password-stdin")
    });
    report.check("status --json is JSON: well, with a count of the logins", || {
        let status = json(lab, &["status", "--json"])?;
        equal("well", &status["well"], &Value::Bool(true))?;
        equal("a count", status["logins"]["success"].as_u64() >= Some(1), true)
    });
    report.check("check --json is JSON", || {
        let check = json(lab, &["check", "--json", "john.doe"])?;
        equal("may_log_in", &check["may_log_in"], &Value::Bool(true))
    });
    report.check("bash completes what is typed", || {
        let complete = ". /usr/share/bash-completion/completions/motion-ad
            COMP_WORDS=(motion-ad sessions wa) COMP_CWORD=2
            _motion__ad motion-ad wa sessions; echo \"${COMPREPLY[@]}\"";
        equal("bash", lab.host("root", &["bash", "-c", complete], "").ok()?.trim(), "watch")
    });
    report.check("only the wrong password was counted", || {
        equal("wendy", lab.counters("wendy.wrong")?.bad_passwords, 1)?;
        equal("john", lab.counters("john.doe")?.bad_passwords, 0)
    });
    lab.run(&["cast", "reset", "wendy"]).ok().map(|_| ())
}

fn json(lab: &Lab, arguments: &[&str]) -> Result<Value, String> {
    let command: Vec<_> = std::iter::once("motion-ad").chain(arguments.iter().copied()).collect();
    let text = lab.host("root", &command, "").ok()?;
    serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))
}
