//! The helper's commands as scripts see them: exit status, standard output, standard error. The broker is
//! scripted.

#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use motion_ad::doctor::CHECKS;
use motion_ad::protocol::report::{Check, Fact, Machine, Server, Servers, Status};
use motion_ad::protocol::{Operation, Passwords, Reply, Request, Secret, receive, send};
use motion_ad::verdict::{Outcome, Step, Verdict};
use serde_json::{Value, json};

/// A host with its files, and a socket on which a broker may listen.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Host(tempfile::tempdir().unwrap());
        let map = host.path("names.map");
        fs::write(&map, "jd = john.doe@acme.com\nboss = jane@acme.com\n").unwrap();
        host.configure(&format!("[domain]\nname = \"acme.com\"\n[names]\nmap_file = {:?}\n", map));
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn configure(&self, text: &str) {
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_motion-ad"));
        for (option, file) in
            [("--config", "config.toml"), ("--sssd", "sssd.conf"), ("--socket", "broker.sock")]
        {
            command.arg(option).arg(self.path(file));
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        self.command(args).output().unwrap().into()
    }

    fn feed(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // A command that reads no input may end before this write.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap().into()
    }

    /// Starts a broker that runs `answer` on one connection.
    fn broker<T: Send + 'static>(
        &self,
        answer: impl FnOnce(UnixStream) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let listener = UnixListener::bind(self.path("broker.sock")).unwrap();
        thread::spawn(move || answer(listener.accept().unwrap().0))
    }

    /// Starts a broker that replies once. Its thread returns the request and its secret.
    fn reply(&self, reply: Reply) -> JoinHandle<(Request, Vec<u8>)> {
        self.broker(move |mut stream| {
            let (request, secret) = receive::<Request>(&mut stream).unwrap();
            send(&mut stream, &reply, &Default::default()).unwrap();
            (request, secret.bytes().to_vec())
        })
    }
}

/// Result of a command.
#[derive(Debug)]
struct Done {
    exit: i32,
    out: String,
    err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Done {
            exit: output.status.code().expect("not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    #[track_caller]
    fn is(&self, exit: i32, out: &str, err: &str) {
        assert_eq!((self.exit, self.out.as_str(), self.err.as_str()), (exit, out, err));
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

#[test]
fn names_are_mapped_in_order() {
    Host::new().run(&["map", "Mary Ann", "jd", "ACME\\jörg"]).is(
        0,
        "mary ann@acme.com\njohn.doe@acme.com\njörg@acme.com\n",
        "",
    );
}

#[test]
fn a_name_without_mapping_says_why_and_does_not_stop_the_others() {
    Host::new().run(&["map", "root", "jd", "", "x@evil.example", "a\x1b[2Jb"]).is(
        1,
        "john.doe@acme.com\n",
        "motion-ad: root: the name is on names.refuse\n\
         motion-ad: \"\": the name is empty\n\
         motion-ad: x@evil.example: the domain \"evil.example\" is not accepted (names.domains)\n\
         motion-ad: a\\u{1b}[2Jb: the name contains a control character\n",
    );
}

#[test]
fn names_come_from_standard_input_too() {
    let host = Host::new();
    host.feed(&["map"], b"jd\nann\r\nbob").is(0, "john.doe@acme.com\nann@acme.com\nbob@acme.com\n", "");
    host.feed(&["map", "one", "-", "two"], b"jd\n").is(
        0,
        "one@acme.com\njohn.doe@acme.com\ntwo@acme.com\n",
        "",
    );
    host.feed(&["map"], b"").is(0, "", "");
    host.feed(&["map", "-", "-"], b"jd\n").is(0, "john.doe@acme.com\n", "");
    host.feed(&["map"], b"j\xf6rg\njd\n").is(
        1,
        "john.doe@acme.com\n",
        "motion-ad: j\u{fffd}rg: the name is not UTF-8\n",
    );
}

#[test]
fn a_principal_has_one_line_per_name() {
    Host::new().run(&["map", "--reverse", "John.Doe@acme.com", "jane@acme.com", "x@evil.example", "jd"]).is(
        1,
        "John.Doe@acme.com\tjd\nJohn.Doe@acme.com\tjohn.doe\njane@acme.com\tboss\njane@acme.com\tjane\n",
        "motion-ad: x@evil.example: no name leads to this account\n\
         motion-ad: jd: the name is neither a word, nor user@domain, nor DOMAIN\\user\n",
    );
}

#[test]
fn map_as_json_keeps_names_and_errors_together() {
    let host = Host::new();
    let done = host.run(&["map", "--json", "jd", "root"]);
    assert_eq!(done.exit, 1);
    assert_eq!(
        done.json(),
        json!([
            { "name": "jd", "principal": "john.doe@acme.com" },
            { "name": "root", "error": "the name is on names.refuse" },
        ])
    );
    let done = host.run(&["map", "--json", "--reverse", "john.doe@acme.com"]);
    assert_eq!(done.json(), json!([{ "principal": "john.doe@acme.com", "names": ["jd", "john.doe"] }]));
    assert_eq!(host.run(&["map", "--json"]).json(), json!([]));
}

#[test]
fn a_broken_configuration_names_file_and_line() {
    let host = Host::new();
    host.configure("[domain]\nname = \"acme.com\"\n[pool]\nconnections = 0\n");
    let error = format!(
        "motion-ad: {}, line 4: 0 was given, expected 1 to 1024\n",
        host.path("config.toml").display()
    );
    host.run(&["map", "jd"]).is(2, "", &error);

    let host = Host::new();
    fs::write(host.path("names.map"), "jd = john.doe@acme.com\nnonsense\n").unwrap();
    let error = format!(
        "motion-ad: {}, line 2: expected `xcally-name = user@domain`\n",
        host.path("names.map").display()
    );
    host.run(&["map", "jd"]).is(2, "", &error);

    fs::remove_file(host.path("config.toml")).unwrap();
    let done = host.run(&["map", "jd"]);
    assert_eq!(done.exit, 2);
    assert!(done.err.contains("config.toml: cannot be read"), "{}", done.err);
}

#[test]
fn where_only_root_may_read_the_join_the_realm_stands_in_for_it() {
    let host = Host::new();
    host.configure(&format!("[names]\nmap_file = {:?}\n", host.path("names.map")));
    fs::write(host.path("sssd.conf"), "").unwrap();
    fs::set_permissions(host.path("sssd.conf"), fs::Permissions::from_mode(0o000)).unwrap();
    let ordinary = |krb5_conf: &str| -> Done {
        fs::write(host.path("krb5.conf"), krb5_conf).unwrap();
        let mut command = host.command(&["map", "ann", "jd", "ACME\\bob"]);
        command.env("KRB5_CONFIG", host.path("krb5.conf"));
        if fs::File::open(host.path("sssd.conf")).is_ok() {
            // Root may read all files, so run the command as another user.
            fs::set_permissions(host.path(""), fs::Permissions::from_mode(0o755)).unwrap();
            let program = host.path("motion-ad");
            // A separate process copies it: a file that a fork of another thread holds open for writing
            // cannot be run.
            let copy = ["cp", env!("CARGO_BIN_EXE_motion-ad")];
            assert!(Command::new(copy[0]).arg(copy[1]).arg(&program).status().unwrap().success());
            let mut other = Command::new(program);
            other.args(command.get_args()).env("KRB5_CONFIG", host.path("krb5.conf")).uid(65534).gid(65534);
            return other.stdin(Stdio::null()).output().unwrap().into();
        }
        command.output().unwrap().into()
    };
    ordinary("[libdefaults]\ndefault_realm = ACME.COM\n").is(
        0,
        "ann@acme.com\njohn.doe@acme.com\nbob@acme.com\n",
        "",
    );
    let done = ordinary("[libdefaults]\n");
    assert_eq!((done.exit, done.out.as_str()), (3, ""));
    assert!(done.err.contains("sssd.conf: cannot be read") && done.err.contains("sudo"), "{}", done.err);

    let map = host.path("names.map");
    host.configure(&format!("[domain]\nname = \"other.example\"\n[names]\nmap_file = {map:?}\n"));
    let done = ordinary("[libdefaults]\ndefault_realm = ACME.COM\n");
    assert_eq!((done.exit, done.out.as_str()), (1, "ann@other.example\njohn.doe@acme.com\n"), "{done:?}");
}

#[test]
fn the_join_completes_the_configuration() {
    let host = Host::new();
    host.configure(&format!("[names]\nmap_file = {:?}\n", host.path("names.map")));
    let done = host.run(&["map", "ann"]);
    assert_eq!((done.exit, done.err.contains("realm join")), (2, true), "{done:?}");
    fs::write(host.path("sssd.conf"), "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\n")
        .unwrap();
    host.run(&["map", "ann"]).is(0, "ann@acme.com\n", "");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let host = Host::new();
    let mut child = host.command(&["map"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    // The helper also stops reading.
    let _ = child.stdin.take().unwrap().write_all(&b"ann\n".repeat(100_000));
    Done::from(child.wait_with_output().unwrap()).is(0, "", "");

    let broker = host.reply(Reply::Verdict(Verdict::new(Outcome::Disabled, "")));
    let mut child = host.command(&["check", "dora"]).spawn().unwrap();
    drop(child.stdout.take());
    Done::from(child.wait_with_output().unwrap()).is(1, "", "");
    broker.join().unwrap();
}

fn account(outcome: Option<Outcome>) -> Reply {
    let fact = |name: &str, value: &str, refuses| Fact { name: name.into(), value: value.into(), refuses };
    Reply::Check(Box::new(Check {
        outcome,
        reason: "because".into(),
        user: "lou".into(),
        principal: Some("lou.locked@acme.com".into()),
        dn: Some("CN=Lou\x1b[2J,DC=acme,DC=com".into()),
        facts: vec![fact("disabled", "no", false), fact("locked out", "yes", true)],
        ..Check::default()
    }))
}

#[test]
fn check_shows_the_account_and_marks_what_refuses() {
    let host = Host::new();
    let broker = host.reply(account(Some(Outcome::LockedOut)));
    let done = host.run(&["check", "lou"]);
    assert_eq!((done.exit, done.err.as_str()), (1, ""));
    for line in [
        " principal  lou.locked@acme.com\n",
        " account    CN=Lou\\u{1b}[2J,DC=acme,DC=com\n",
        " x  locked out  yes\n",
        "    disabled    no\n",
        "lou may not log in: locked_out: because\n",
        "advice: wait for the lockout duration",
    ] {
        assert!(done.out.contains(line), "{line:?} in {}", done.out);
    }
    let (request, secret) = broker.join().unwrap();
    assert_eq!((&request.operation, request.user.as_str()), (&Operation::Check, "lou"));
    assert_eq!((request.service.as_str(), secret.as_slice()), ("check", b"".as_slice()));
    let left = request.remaining();
    assert!(left > Duration::from_secs(5) && left <= Duration::from_secs(10), "{left:?}");
}

#[test]
fn check_and_login_exit_by_outcome() {
    let cases = [
        (Some(Outcome::Success), 0),
        (Some(Outcome::LockedOut), 1),
        (Some(Outcome::UnknownUser), 1),
        (Some(Outcome::Unmapped), 1),
        (Some(Outcome::MustChange), 1),
        (Some(Outcome::Misconfigured), 2),
        (Some(Outcome::Unavailable), 2),
        (None, 2),
    ];
    for (outcome, exit) in cases {
        let host = Host::new();
        let broker = host.reply(account(outcome));
        assert_eq!(host.run(&["check", "lou"]).exit, exit, "{outcome:?}");
        broker.join().unwrap();
        let Some(outcome) = outcome else { continue };
        for args in [&["check", "lou"][..], &["login", "--password-stdin", "lou"]] {
            let host = Host::new();
            let broker = host.reply(Reply::Verdict(Verdict::new(outcome, "")));
            assert_eq!(host.feed(args, b"pw\n").exit, exit, "{outcome} {args:?}");
            broker.join().unwrap();
        }
    }
}

#[test]
fn check_as_json_is_the_report_with_the_answer() {
    let host = Host::new();
    let broker = host.reply(account(Some(Outcome::LockedOut)));
    let done = host.run(&["check", "--json", "lou"]);
    assert_eq!(done.exit, 1);
    let json = done.json();
    assert_eq!(json["outcome"], "locked_out");
    assert_eq!(json["may_log_in"], false);
    assert_eq!(json["advice"], Outcome::LockedOut.advice());
    assert_eq!(json["principal"], "lou.locked@acme.com");
    assert_eq!(json["guid"], Value::Null);
    assert_eq!(json["facts"][1], json!({ "name": "locked out", "value": "yes", "refuses": true }));
    broker.join().unwrap();
}

fn slow_login() -> Reply {
    let step = |name: &str, micros| Step { name: name.into(), micros };
    Reply::Verdict(Verdict {
        principal: Some("john.doe@acme.com".into()),
        steps: vec![step("connect", 3000), step("bind", 1000)],
        ..Verdict::new(Outcome::WrongPassword, "AD refused the bind (data 52e)")
    })
}

#[test]
fn login_sends_the_line_of_standard_input_and_shows_where_the_time_went() {
    let host = Host::new();
    let broker = host.reply(slow_login());
    let done = host.feed(&["login", "--password-stdin", "john.doe"], " Ü\"b\\er's ß\\ \nnext".as_bytes());
    assert_eq!((done.exit, done.err.as_str()), (1, ""));
    for line in [
        " principal  john.doe@acme.com\n",
        " connect  3.0   75 %\n",
        " total    4.0\n",
        "john.doe may not log in: wrong_password: AD refused the bind (data 52e)\n",
        "advice: ask the user to type the password again",
    ] {
        assert!(done.out.contains(line), "{line:?} in {}", done.out);
    }
    let (request, secret) = broker.join().unwrap();
    assert_eq!(
        (request.operation, request.user.as_str()),
        (Operation::Authenticate { register: false, warn: false }, "john.doe")
    );
    assert_eq!(String::from_utf8(secret).unwrap(), " Ü\"b\\er's ß\\ ");
}

#[test]
fn login_as_json_has_a_shape() {
    let host = Host::new();
    let broker = host.reply(slow_login());
    let done = host.feed(&["login", "--password-stdin", "--json", "john.doe"], b"pw");
    assert_eq!(done.exit, 1);
    assert_eq!(
        done.json(),
        json!({
            "user": "john.doe",
            "principal": "john.doe@acme.com",
            "outcome": "wrong_password",
            "may_log_in": false,
            "pam_code": "PAM_AUTH_ERR",
            "reason": "AD refused the bind (data 52e)",
            "advice": Outcome::WrongPassword.advice(),
            "steps": [
                { "name": "connect", "ms": 3.0, "share": 0.75 },
                { "name": "bind", "ms": 1.0, "share": 0.25 },
            ],
        })
    );
    broker.join().unwrap();
}

#[test]
fn what_can_never_be_a_password_is_not_sent() {
    let host = Host::new();
    let long = "x".repeat(1025);
    let cases: [(&[u8], &str); 5] = [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\0b\n", "contains a NUL byte"),
        (b"\xff\n", "is not UTF-8"),
        (long.as_bytes(), "is longer than 1024 bytes"),
    ];
    for (input, what) in cases {
        let error = format!("motion-ad: the password {what}; nothing was sent to AD\n");
        host.feed(&["login", "--password-stdin", "john.doe"], input).is(3, "", &error);
        // Applies to the new password and to the current one.
        for input in [[input, b"\nnew"].concat(), [b"old\n", input].concat()] {
            host.feed(&["passwd", "--password-stdin", "john.doe"], &input).is(3, "", &error);
        }
    }
}

fn refused_change() -> Reply {
    let step = |name: &str, micros| Step { name: name.into(), micros };
    Reply::Verdict(Verdict {
        principal: Some("john.doe@acme.com".into()),
        text: Some("Your new password must have at least 12 characters.".into()),
        steps: vec![step("bind", 1000), step("change", 3000)],
        ..Verdict::new(Outcome::PasswordRefused, "AD answered 0000052D")
    })
}

#[test]
fn passwd_sends_two_lines_and_says_what_became_of_them() {
    let host = Host::new();
    let broker = host.reply(refused_change());
    let done = host.feed(&["passwd", "--password-stdin", "john.doe"], "old \nnü w\nmore".as_bytes());
    assert_eq!((done.exit, done.err.as_str()), (1, ""));
    for line in [
        " outcome    password_refused\n",
        " reason     AD answered 0000052D\n",
        " change  3.0   75 %\n",
        "the password of john.doe was not changed\n",
        "Your new password must have at least 12 characters.\n",
        "advice: the user must choose another password",
    ] {
        assert!(done.out.contains(line), "{line:?} in {}", done.out);
    }
    let (request, secret) = broker.join().unwrap();
    assert_eq!((request.operation, request.user.as_str()), (Operation::ChangePassword, "john.doe"));
    assert_eq!(request.service, "passwd");
    let both = Passwords::of_secret(&Secret::new(secret)).unwrap();
    assert_eq!((both.present.bytes(), both.new.bytes()), (&b"old "[..], "nü w".as_bytes()));
}

#[test]
fn passwd_exits_by_what_became_of_the_password() {
    let cases = [
        (Outcome::Success, 0, json!(true)),
        (Outcome::WrongPassword, 1, json!(false)),
        (Outcome::PasswordRefused, 1, json!(false)),
        (Outcome::ChangeForbidden, 1, json!(false)),
        (Outcome::Misconfigured, 2, json!(false)),
        (Outcome::Unavailable, 2, json!(false)),
        (Outcome::ChangeUnknown, 2, json!(null)),
    ];
    for (outcome, exit, changed) in cases {
        let host = Host::new();
        let broker = host.reply(Reply::Verdict(Verdict::new(outcome, "because")));
        let done = host.feed(&["passwd", "--password-stdin", "--json", "john.doe"], INPUT);
        let expected = json!({
            "user": "john.doe",
            "principal": null,
            "outcome": outcome.name(),
            "changed": changed,
            "text": outcome.text(),
            "reason": "because",
            "advice": outcome.advice(),
            "steps": [],
        });
        assert_eq!((done.exit, done.json()), (exit, expected), "{outcome}");
        broker.join().unwrap();
    }
}

fn status(problem: Option<&str>, dc: &str) -> Reply {
    Reply::Status(Box::new(Status {
        version: "0.1.0".into(),
        pid: 42,
        uptime: 90_000,
        domain: Some("acme.com".into()),
        problems: problem.into_iter().map(str::to_owned).collect(),
        servers: Servers {
            list: vec![Server {
                host: "dc1.acme.com".into(),
                services: [("binds".into(), dc.into())].into(),
                ..Server::default()
            }],
            ..Servers::default()
        },
        machine: Machine { state: "connected".into(), ..Machine::default() },
        logins: vec![(Outcome::Success, 12), (Outcome::WrongPassword, 3)],
        ..Status::default()
    }))
}

#[test]
fn status_says_whether_all_is_well() {
    let cases = [
        (None, "ok", 0, "\nall is well\n"),
        (Some("the keytab is unreadable"), "ok", 1, "\nproblem: the keytab is unreadable\n"),
        (None, "timed out", 1, "\nproblem: no domain controller can be used\n"),
    ];
    for (problem, dc, exit, line) in cases {
        let host = Host::new();
        let broker = host.reply(status(problem, dc));
        let done = host.run(&["status"]);
        assert_eq!((done.exit, done.err.as_str()), (exit, ""));
        for line in [line, "process 42, up 1 d 1 h\n", " dc1.acme.com ", " success             12\n"] {
            assert!(done.out.contains(line), "{line:?} in {}", done.out);
        }
        assert_eq!(broker.join().unwrap().0.operation, Operation::Status);
    }
}

#[test]
fn status_as_json_counts_by_name() {
    let host = Host::new();
    let broker = host.reply(status(None, "timed out"));
    let done = host.run(&["status", "--json"]);
    assert_eq!(done.exit, 1);
    let json = done.json();
    assert_eq!(json["logins"], json!({ "success": 12, "wrong_password": 3 }));
    assert_eq!(json["well"], false);
    let server = &json["servers"]["list"][0];
    assert_eq!(
        (&server["host"], &server["services"]),
        (&json!("dc1.acme.com"), &json!({ "binds": "timed out" }))
    );
    broker.join().unwrap();
}

const QUESTIONS: [&[&str]; 4] =
    [&["check", "x"], &["login", "--password-stdin", "x"], &["passwd", "--password-stdin", "x"], &["status"]];
/// Standard input for the commands that read it.
const INPUT: &[u8] = b"pw\nnew\n";

#[test]
fn without_a_broker_the_message_says_what_to_look_at() {
    let host = Host::new();
    let error = |cause: &str, advice: &str| {
        format!(
            "motion-ad: the broker at {} could not be queried: no connection: {cause}; {advice}\n",
            host.path("broker.sock").display()
        )
    };
    for args in QUESTIONS {
        let advice = "see `systemctl status motion-ad.socket motion-ad.service`; if the socket was removed, \
                      `systemctl restart motion-ad.socket motion-ad.service` makes it again";
        host.feed(args, INPUT).is(2, "", &error("No such file or directory (os error 2)", advice));
    }
    // A socket that a dead broker left behind.
    drop(UnixListener::bind(host.path("broker.sock")).unwrap());
    for args in QUESTIONS {
        let advice = "see `systemctl status motion-ad.socket motion-ad.service`";
        host.feed(args, INPUT).is(2, "", &error("Connection refused (os error 111)", advice));
    }
}

#[test]
fn a_broker_that_refuses_is_no_answer_even_when_it_does_not_listen_first() {
    for args in QUESTIONS {
        let host = Host::new();
        let broker = host.broker(|mut stream| {
            send(&mut stream, &Reply::Refused("uid 1000 may not ask".into()), &Default::default()).unwrap();
        });
        let error = format!(
            "motion-ad: the broker at {} could not be queried: the request was refused: \"uid 1000 may not \
             ask\"; do as the broker says; after an upgrade of motion-ad restart the application\n",
            host.path("broker.sock").display()
        );
        host.feed(args, INPUT).is(2, "", &error);
        broker.join().unwrap();
    }
}

#[test]
fn who_may_not_query_the_broker_gets_3_from_every_command() {
    let watch: &[&str] = &["sessions", "watch"];
    for args in QUESTIONS.into_iter().chain([watch]) {
        let host = Host::new();
        let broker = host.broker(|mut stream| {
            let reason = "uid 7 is neither root nor in broker.users; if it is the application, add it";
            send(&mut stream, &Reply::Refused(reason.into()), &Default::default()).unwrap();
        });
        let error = "motion-ad: you may not query the broker: uid 7 is neither root nor in broker.users; use \
                     `sudo`, or have root add the user to broker.users in /etc/motion-ad/config.toml\n";
        host.feed(args, INPUT).is(3, "", error);
        broker.join().unwrap();
    }
}

#[test]
fn a_broker_that_hangs_up_or_answers_something_else_is_no_answer() {
    for args in QUESTIONS {
        let host = Host::new();
        let broker = host.broker(drop);
        let done = host.feed(args, INPUT);
        assert_eq!((done.exit, done.out.as_str()), (2, ""));
        assert!(done.err.contains("could not be queried: "), "{}", done.err);
        broker.join().unwrap();
    }
    let host = Host::new();
    let broker = host.reply(status(None, "ok"));
    let done = host.run(&["check", "x"]);
    assert_eq!(done.exit, 2);
    assert!(done.err.contains("belongs to another request"), "{}", done.err);
    broker.join().unwrap();
}

#[test]
fn a_silent_broker_is_given_up_in_time() {
    let host = Host::new();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let broker = host.broker(move |_stream| told.recv());
    let start = Instant::now();
    let error = format!(
        "motion-ad: the broker at {} could not be queried: no valid reply: timed out; \
         see `systemctl status motion-ad.service`\n",
        host.path("broker.sock").display()
    );
    host.run(&["check", "--timeout", "1", "x"]).is(2, "", &error);
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(tell);
    let _ = broker.join().unwrap();
}

#[test]
fn wrong_usage_is_3_and_help_is_complete() {
    let host = Host::new();
    for args in [
        &[][..],
        &["check"],
        &["login"],
        &["passwd"],
        &["nonsense"],
        &["--timeout", "0", "status"],
        &["check", "a", "b"],
    ] {
        let done = host.run(args);
        assert_eq!((done.exit, done.out.as_str()), (3, ""), "{args:?}");
        assert!(done.err.contains("Usage:") || done.err.contains("--help"), "{}", done.err);
    }
    let help = host.run(&["--help"]);
    assert_eq!((help.exit, help.err.as_str()), (0, ""));
    for word in [
        "map",
        "check",
        "login",
        "passwd",
        "status",
        "--socket",
        "--config",
        "--timeout",
        "--version",
        "Exit status",
    ] {
        assert!(help.out.contains(word), "{word} in {}", help.out);
    }
    for command in ["map", "check", "login", "passwd", "status"] {
        let help = host.run(&[command, "--help"]).out;
        assert!(
            help.contains("--json") && help.contains("Examples:") && help.contains("Exit status:"),
            "{help}"
        );
    }
    for command in ["login", "passwd"] {
        assert!(host.run(&[command, "--help"]).out.contains("counts towards AD's lockout"));
    }
    host.run(&["--version"]).is(0, concat!("motion-ad ", env!("CARGO_PKG_VERSION"), "\n"), "");
}

/// Returns a host in a domain that no DNS knows.
fn sick() -> Host {
    let host = Host::new();
    let map = host.path("names.map");
    host.configure(&format!(
        "[domain]\nname = \"motion-ad.invalid\"\n[names]\nmap_file = {map:?}\nfoo = 1\n"
    ));
    host
}

#[test]
fn the_doctor_names_every_check_and_ends_with_the_worst() {
    let host = sick();
    let begun = Instant::now();
    let done = host.run(&["doctor", "--json"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let found = done.json();
    assert_eq!(done.exit, 2, "{done:?}");
    assert_eq!(found["level"], "failure");
    let checks = found["checks"].as_array().unwrap();
    let ids: Vec<_> = checks.iter().map(|check| check["id"].as_str().unwrap()).collect();
    let table: Vec<_> = CHECKS.iter().filter(|check| !check.on_demand).map(|check| check.id).collect();
    assert_eq!(ids, table);
    let check = |id: &str| checks.iter().find(|check| check["id"] == id).unwrap();
    assert!(ids.contains(&found["first"].as_str().unwrap()));
    assert_eq!(check("config-file")["level"], "failure");
    assert!(check("config-file")["seen"].as_str().unwrap().contains("line 5: unknown field `foo`"));
    // The intended key is unknown, so the doctor must not offer a command that deletes the line.
    let fix = &check("config-file")["fix"][0];
    assert_eq!((&fix["kind"], &fix["place"]), (&"advice".into(), &"here".into()));
    assert!(fix["text"].as_str().unwrap().starts_with("correct line 5"), "{fix}");
    let map = host.path("names.map");
    host.configure(&format!("[domain]\nname = \"motion-ad.invalid\"\n[names]\nmap_file = {map:?}\n"));
    let again = host.run(&["doctor", "--json"]).json();
    let again =
        again["checks"].as_array().unwrap().iter().find(|check| check["id"] == "config-file").unwrap();
    assert_eq!(again["level"], "ok");
    assert_eq!(check("names-map")["because"], "config-file");
}

#[test]
fn the_doctor_explains_every_check() {
    let host = Host::new();
    for check in CHECKS {
        let done = host.run(&["doctor", "--explain", check.id]);
        assert_eq!((done.exit, done.err.as_str()), (0, ""), "{}", check.id);
        assert!(done.out.starts_with(&format!("{} ({})", check.id, check.group.name())), "{}", done.out);
    }
    let help = host.run(&["doctor", "--help"]).out;
    assert!(help.contains("--json") && help.contains("Examples:") && help.contains("Exit status:"));
    assert!(CHECKS.iter().all(|check| help.contains(&format!("  {} ", check.id))), "{help}");
}

#[test]
fn a_doctor_that_cannot_look_ends_with_3() {
    let host = sick();
    for args in [
        &["doctor", "--nonsense"][..],
        &["doctor", "--explain", "nonsense"],
        &["doctor", "--password-stdin"],
        &["--socket", "/x", "doctor", "map"],
        &["doctor", "--login", "x", "--password-stdin"],
    ] {
        let done = host.run(args);
        assert_eq!((done.exit, done.out.as_str()), (3, ""), "{args:?}");
    }
    // Other commands exit with the same code.
    assert_eq!(host.run(&["check", "doctor", "--nonsense"]).exit, 3);
}

/// A module of a compromised application. When the doctor loads it, it reports its access in a file next to
/// itself.
const SPY: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>
__attribute__((constructor)) static void look(void) {
    FILE *note = fopen(NOTE, "w");
    if (!note) return;
    fprintf(note, "uid %d gid %d\n", (int)getuid(), (int)getegid());
    int terminal = open("/dev/tty", O_RDWR | O_NONBLOCK);
    fprintf(note, "terminal %s\n", terminal < 0 ? "none" : "open");
    if (terminal >= 0) fprintf(note, "typed %d\n", ioctl(terminal, TIOCSTI, "x"));
    for (int fd = 0; fd < 3; fd++) if (isatty(fd)) fprintf(note, "descriptor %d is a terminal\n", fd);
    fprintf(note, "descriptor 9 %s\n", fcntl(9, F_GETFD) < 0 ? "closed" : "open");
    fprintf(note, "leader %d\n", getsid(0) == getpid());
    fprintf(note, "dumpable %d\n", prctl(PR_GET_DUMPABLE));
    fclose(note);
}
"#;

/// Runs the doctor's child in a shell that has a terminal and an open descriptor of root's, as an
/// administrator may.
#[test]
fn a_child_that_is_the_application_has_no_terminal_no_descriptor_and_no_readable_memory() {
    if !motion_ad_support::is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("spy.c"), SPY).unwrap();
    let note = format!("-DNOTE=\"{}\"", path("note"));
    let built =
        Command::new("cc").args(["-shared", "-fPIC", &note, "-o", &path("spy.so"), &path("spy.c")]).status();
    assert!(built.unwrap().success());
    // A copy that daemon can read. The shell's `true` keeps it from becoming leader of the terminal's
    // session.
    fs::copy(env!("CARGO_BIN_EXE_motion-ad"), path("motion-ad")).unwrap();
    let child = format!(
        "exec 9</etc/shadow; {} as-application --uid 1 --gid 1 --name daemon load {}; true",
        path("motion-ad"),
        path("spy.so")
    );
    Command::new("script").args(["-qec", &child, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let noted = fs::read_to_string(path("note")).unwrap();
    let expected = "uid 1 gid 1\nterminal none\ndescriptor 9 closed\nleader 1\ndumpable 0\n";
    // This shell passes its terminal on, while the doctor passes pipes.
    let noted: String = noted
        .lines()
        .filter(|line| !line.ends_with("is a terminal"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(noted, expected);
}

#[test]
fn lines_fit_the_terminal() {
    let longest = |columns: usize| {
        let command = format!("stty columns {columns}; {} doctor --help", env!("CARGO_BIN_EXE_motion-ad"));
        let ran = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        said.lines().map(|line| line.trim_end().chars().count()).max().unwrap()
    };
    for columns in [60, 80] {
        let longest = longest(columns);
        assert!(longest <= columns && longest > columns - 20, "{longest} on {columns}");
    }
}

/// The hidden command that runs as the application's user does nothing but load modules.
#[test]
fn the_doctors_other_self_loads_modules_only() {
    let host = Host::new();
    let done = host.run(&["as-application", "load", "/nonexistent.so"]);
    assert_eq!((done.exit, done.out.as_str()), (2, ""));
    assert!(done.err.contains("nonexistent.so"), "{done:?}");
    assert!(!host.run(&["--help"]).out.contains("as-application"));
}

/// Puts a `journalctl` in front of the system's: it writes its arguments to a file, and prints `out` and
/// `err`.
fn journalctl(host: &Host, out: &str, err: &str, exit: i32) {
    fs::create_dir_all(host.path("bin")).unwrap();
    fs::write(host.path("out"), out).unwrap();
    fs::write(host.path("err"), err).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{0}/called\ncase $* in *--follow*) exec sleep 600;; esac\n\
         cat {0}/out\ncat {0}/err >&2\nexit {exit}\n",
        host.0.path().display()
    );
    fs::write(host.path("bin/journalctl"), script).unwrap();
    fs::set_permissions(host.path("bin/journalctl"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn with_journalctl(host: &Host, args: &[&str]) -> Command {
    let mut command = host.command(args);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", host.path("bin").display())).env("TZ", "UTC");
    command
}

/// Writes a record as `journalctl` prints it.
fn record(second: u64, line: &str) -> String {
    let time = format!("{}", second * 1_000_000);
    json!({"__CURSOR": format!("c{second}"), "__REALTIME_TIMESTAMP": time, "MESSAGE": line}).to_string()
        + "\n"
}

#[test]
fn the_logins_of_a_user_are_those_of_the_account_whatever_was_typed() {
    let host = Host::new();
    let lines = [
        "event=login user=jd principal=john.doe@acme.com outcome=wrong_password reason=\"AD says: wrong \
         (data 52e)\" ms=5.2",
        "event=login user=\"ACME\\\\john.doe\" principal=john.doe@acme.com outcome=success ms=4.0",
        "event=login user=boss principal=jane@acme.com outcome=success ms=4.0",
        "event=login user=\"x\\u{1b}[2J\" outcome=unmapped",
        "event=dc host=ad.acme.com service=binds state=down",
    ];
    let out: String = lines.iter().zip(1_784_000_000..).map(|(line, at)| record(at, line)).collect();
    journalctl(&host, &out, "", 0);
    let run = |args: &[&str]| Done::from(with_journalctl(&host, args).output().unwrap());
    let all = run(&["log", "jd", "--since", "yesterday"]);
    assert_eq!((all.exit, all.err.as_str()), (0, ""), "{all:?}");
    let expected = " TIME                 NAME           OUTCOME          MS\n \
                    2026-07-14 03:33:20  jd             wrong_password  5.2\n    \
                    as john.doe@acme.com: AD says: wrong (data 52e)\n \
                    2026-07-14 03:33:21  ACME\\john.doe  success         4.0\n\n\
                    1 success, 1 wrong_password\n\
                    wrong_password: ask the user to type the password again; each attempt counts towards \
                    AD's lockout\n";
    assert_eq!(all.out, expected);
    let called = fs::read_to_string(host.path("called")).unwrap();
    assert_eq!(called, "--no-pager --all --output=json --since=yesterday _SYSTEMD_UNIT=motion-ad.service\n");

    let failed = run(&["log", "--failed", "--json"]).json();
    let users: Vec<_> =
        failed.as_array().unwrap().iter().map(|line| line["user"].as_str().unwrap()).collect();
    assert_eq!(users, ["jd", "x\u{1b}[2J"]);
    assert_eq!(failed[0]["time"], "2026-07-14T03:33:20Z");
    let text = run(&["log"]).out;
    assert!(text.contains("x\\u{1b}[2J") && !text.contains('\u{1b}') && !text.contains("binds"), "{text:?}");
    let none = run(&["log", "nobody", "--since", "2 h"]);
    none.is(1, "no login of nobody (nobody@acme.com) in the journal since 2 h\n", "");
    assert!(fs::read_to_string(host.path("called")).unwrap().contains(" --since=-2h "));
}

#[test]
fn who_may_not_read_the_journal_is_told_so_and_no_journal_is_no_empty_one() {
    let hint = "Hint: You are currently not seeing messages from other users and the system.\n      Users in \
                groups 'adm', 'systemd-journal' can see all messages. Pass -q to\n      turn off this \
                notice.\n";
    let denied = "No journal files were opened due to insufficient permissions.\n";
    for (exit, err, expected, says) in [
        (0, hint, 3, "may read the journal: use `sudo`"),
        (1, denied, 3, "may read the journal: use `sudo`"),
        (0, "No journal files were found.\n", 2, "this host keeps no journal"),
        (1, "Failed to parse timestamp: noon\n", 3, "a time is like 2 h"),
    ] {
        let host = Host::new();
        journalctl(&host, "", err, exit);
        let done = Done::from(with_journalctl(&host, &["log", "--since", "noon"]).output().unwrap());
        assert_eq!((done.exit, done.out.as_str()), (expected, ""), "{done:?}");
        assert!(done.err.contains(says), "{done:?}");
    }
}

#[test]
fn what_follows_the_log_is_a_line_for_each_login_and_ends_with_its_reader() {
    let host = Host::new();
    journalctl(
        &host,
        &record(1_784_000_000, "event=login user=jd outcome=success ms=4.0 rhost=192.0.2.7"),
        "",
        0,
    );
    let mut child = with_journalctl(&host, &["log", "--follow"]).spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "03:33:20  jd from 192.0.2.7  success\n");
    // The second journalctl notes its arguments when it runs, which may be after the first line.
    let wanted = "--follow --no-tail --cursor=c1784000000 _SYSTEMD_UNIT=motion-ad.service";
    let called = || fs::read_to_string(host.path("called")).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !called().contains(wanted) {
        assert!(Instant::now() < until, "{}", called());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(called().contains("--since=-10min"), "{}", called());
    let begun = Instant::now();
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// A `journalctl` that follows can end: by a signal, or because no inotify instance is left.
#[test]
fn a_journalctl_that_ends_is_started_again_and_no_line_is_lost_or_told_twice() {
    let host = Host::new();
    journalctl(&host, "", "", 0);
    // The first call reads what is past. Each later one begins with the record of its cursor: the third one
    // ends within a record, and from the fifth one on there is nothing new.
    let lines: String = (1..=6)
        .map(|at| record(1_784_000_000 + at, &format!("event=login user=user{at} outcome=success")))
        .collect();
    fs::write(host.path("lines"), lines).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{0}/called\ncalls=$(wc -l <{0}/called)\n\
         case $calls in\n\
         1) ;;\n\
         2) sed -n 1,2p {0}/lines; kill -TERM $$;;\n\
         3) sed -n 2,4p {0}/lines; sed -n 5p {0}/lines | cut -c 1-40 | tr -d '\\n';;\n\
         4) sed -n 4,6p {0}/lines; echo 'Insufficient watch descriptors available.' >&2;;\n\
         *) sed -n 6p {0}/lines; echo 'Insufficient watch descriptors available.' >&2;;\n\
         esac\n",
        host.0.path().display()
    );
    fs::write(host.path("bin/journalctl"), script).unwrap();
    let done = Done::from(with_journalctl(&host, &["log", "--follow"]).output().unwrap());
    let expected: String = (1..=6).map(|at| format!("03:33:2{at}  user{at}  success\n")).collect();
    assert_eq!((done.exit, done.out.as_str()), (2, expected.as_str()), "{done:?}");
    let ended = "the journal cannot be followed, after 5 attempts: journalctl has ended: Insufficient watch \
                 descriptors available.";
    assert!(done.err.contains(ended), "{done:?}");
    let called = fs::read_to_string(host.path("called")).unwrap();
    let cursors: Vec<_> = called
        .lines()
        .filter_map(|line| line.split_once("--cursor="))
        .map(|(_, cursor)| &cursor[..11])
        .collect();
    let places = [2, 4, 6, 6, 6, 6].map(|at| format!("c{}", 1_784_000_000 + at));
    assert_eq!(cursors, places, "{called}");
}
