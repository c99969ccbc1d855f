//! `motion-ad setup` and `motion-ad audit` as scripts see them. The test provides the host's files and the
//! broker.

#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use motion_ad::protocol::report::{Audit, Audited, Near};
use motion_ad::protocol::{Operation, Reply, Request, receive, send};
use motion_ad::verdict::{Outcome, Verdict};
use serde_json::{Value, json};

const SECRET: &str = "N0body-may-read-this";
const SHIPPED: &str = include_str!("../packaging/config.toml");

/// A joined host whose XCALLY has its built-in AD integration.
struct Host(tempfile::TempDir);

/// Result of a command.
#[derive(Debug)]
struct Done {
    exit: i32,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Returns the names of an audit.
fn names(request: &Request) -> &[String] {
    match &request.operation {
        Operation::Audit { names } => names,
        other => panic!("{other:?} is no audit"),
    }
}

impl Host {
    fn new() -> Self {
        let host = Host(tempfile::tempdir().unwrap());
        host.write("names.map", "");
        // No DNS query is needed: the join names the domain controllers.
        let sssd =
            "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\nad_server = ad.acme.com\n";
        host.write("sssd.conf", sssd);
        // The shipped file, except for the path of the map.
        let map = format!("map_file = {:?}", host.path("names.map"));
        let text = SHIPPED.replace("\n#[names]\n", "\n[names]\n");
        host.write("config.toml", &text.replace("#map_file = \"/etc/motion-ad/names.map\"", &map));
        host.env("dc=acme,dc=com");
        host
    }

    fn env(&self, base_dn: &str) {
        self.write(
            "env",
            &format!(
                "# XCALLY\nXC_ACTIVEDIRECTORY_STRATEGY=inetOrgPerson\n\
                 XC_ACTIVEDIRECTORY_ADMIN='cn=admin,dc=acme,dc=com'\n\
                 export XC_ACTIVEDIRECTORY_PASSWORD='{SECRET}' # keep\n\
                 XC_ACTIVEDIRECTORY_BASE_DN = \"{base_dn}\"\n\
                 XC_ACTIVEDIRECTORY_URL='ldap://ad.acme.com'\nXC_ACTIVEDIRECTORY_DOMAIN='acme.com'\n"
            ),
        );
        fs::set_permissions(self.path("env"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, args: &[&str], input: &str) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_motion-ad"));
        for (option, file) in
            [("--config", "config.toml"), ("--sssd", "sssd.conf"), ("--socket", "broker.sock")]
        {
            command.arg(option).arg(self.path(file));
        }
        // Hides the Kerberos realm of the test machine.
        command.env("KRB5_CONFIG", "/dev/null").args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads no input may end before this write.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let done = Done {
            exit: output.status.code().expect("not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!format!("{done:?}").contains(SECRET), "{done:?}");
        done
    }

    fn setup(&self, args: &[&str]) -> Done {
        let env = self.path("env");
        let mut all = vec!["setup", "--env", env.to_str().unwrap()];
        all.extend(args);
        self.run(&all, "")
    }

    /// Starts a broker that answers each name with `answer`, at most `most` names per request. Its thread
    /// returns the requests.
    fn broker(
        &self,
        requests: usize,
        most: usize,
        answer: impl Fn(&str) -> Audited + Send + 'static,
    ) -> JoinHandle<Vec<Request>> {
        let listener = UnixListener::bind(self.path("broker.sock")).unwrap();
        thread::spawn(move || {
            let answer_one = |_| {
                let mut stream = listener.accept().unwrap().0;
                let (request, _) = receive::<Request>(&mut stream).unwrap();
                let list = names(&request).iter().take(most).map(|name| answer(name)).collect();
                send(&mut stream, &Reply::Audit(Box::new(Audit { list })), &Default::default()).unwrap();
                request
            };
            (0..requests).map(answer_one).collect()
        })
    }
}

#[test]
fn where_the_join_knows_it_all_nothing_is_to_be_changed() {
    let host = Host::new();
    let before = host.read("config.toml");
    for args in [&[][..], &["--apply"], &["--apply", "--yes"]] {
        let done = host.setup(args);
        assert_eq!((done.exit, done.err.as_str()), (0, ""), "{done:?}");
        for text in [
            "  XC_ACTIVEDIRECTORY_BASE_DN, line 5: nothing to set\n    it is the whole of acme.com",
            "x XC_ACTIVEDIRECTORY_PASSWORD, line 4: remove it\n    take the line out and change the password \
             of cn=admin,dc=acme,dc=com in AD",
            "With ldap:// passwords crossed the network in the clear",
            " is needed: 2, 3, 4, 5, 6, 7.\n",
            "stays as it is: there is nothing to change\n",
        ] {
            assert!(done.out.contains(text), "{text:?} in {}", done.out);
        }
        assert_eq!(host.read("config.toml"), before);
    }
    assert!(!host.path("config.toml.bak").exists());
}

#[test]
fn a_narrower_base_is_shown_then_written_once_and_then_known() {
    let host = Host::new();
    host.env("ou=People,dc=acme,dc=com");
    fs::set_permissions(host.path("config.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = host.read("config.toml");

    let shown = host.setup(&[]);
    assert_eq!((shown.exit, host.read("config.toml") == before), (1, true), "{shown:?}");
    for text in [
        "+ XC_ACTIVEDIRECTORY_BASE_DN, line 5: taken over\n",
        "\n #base_dn = \"dc=acme,dc=com\"\n+base_dn = \"ou=People,dc=acme,dc=com\"\n \n",
        "\n+base_dn = \"ou=People,dc=acme,dc=com\"\n    XC_ACTIVEDIRECTORY_BASE_DN, line 5: XCALLY found no \
         users above it",
        "Nothing is written yet; `motion-ad setup --apply` writes",
    ] {
        assert!(shown.out.contains(text), "{text:?} in {}", shown.out);
    }

    let written = host.setup(&["--apply"]);
    assert_eq!((written.exit, written.err.as_str()), (0, ""), "{written:?}");
    assert!(written.out.contains("is written; the old file is "), "{}", written.out);
    assert_eq!(host.read("config.toml.bak"), before);
    let after = host.read("config.toml");
    // The key is added, and its table is uncommented.
    let without = after.replace("base_dn = \"ou=People,dc=acme,dc=com\"\n", "");
    assert_eq!(without.replace("\n[domain]\n", "\n#[domain]\n"), before);
    assert_eq!(fs::metadata(host.path("config.toml")).unwrap().permissions().mode() & 0o777, 0o640);

    let again = host.setup(&["--apply", "--json"]);
    assert_eq!(again.exit, 0);
    let json = again.json();
    assert_eq!((&json["written"], &json["changes"], &json["diff"]), (&json!(false), &json!([]), &json!("")));
    assert_eq!(json["findings"][3]["text"], "config.toml has it as domain.base_dn");
    assert_eq!(host.read("config.toml"), after);
}

#[test]
fn json_says_what_would_be_written_and_what_was() {
    let host = Host::new();
    host.env("ou=People,dc=acme,dc=com");
    for (args, written, exit) in [(&["--json"][..], false, 1), (&["--json", "--apply"], true, 0)] {
        let done = host.setup(args);
        let json = done.json();
        assert_eq!((done.exit, &json["written"]), (exit, &json!(written)), "{done:?}");
        assert_eq!(json["changes"][0]["key"], "domain.base_dn");
        assert_eq!(json["changes"][0]["value"], "ou=People,dc=acme,dc=com");
        assert_eq!(json["findings"][2]["kind"], "remove");
        assert_eq!(json["kept"].is_string(), written);
    }
}

#[test]
fn what_contradicts_the_join_is_for_somebody_to_decide() {
    let host = Host::new();
    host.env("dc=other,dc=com");
    fs::set_permissions(host.path("env"), fs::Permissions::from_mode(0o644)).unwrap();
    let done = host.setup(&["--apply"]);
    assert_eq!(done.exit, 1, "{done:?}");
    assert!(done.out.contains(
        "x XC_ACTIVEDIRECTORY_BASE_DN, line 5: yours to decide\n    dc=other,dc=com is not inside acme.com"
    ));
    assert!(done.out.contains("every user on this host may read it (mode 0644)"), "{}", done.out);
}

#[test]
fn what_cannot_be_worked_with_is_an_error_and_nothing_is_written() {
    let host = Host::new();
    let missing = host.run(&["setup", "--env", "/nonexistent/.env"], "");
    assert_eq!((missing.exit, missing.out.as_str()), (2, ""));
    assert!(missing.err.contains("/nonexistent/.env: there is no such file"), "{}", missing.err);

    host.env("ou=People,dc=acme,dc=com");
    host.write("config.toml", "[domain]\nname = \"other.com\"\n");
    let other = host.setup(&["--apply"]);
    assert_eq!(other.exit, 2);
    assert!(other.err.contains("line 2: the host is joined to acme.com"), "{}", other.err);
    host.write("config.toml", "[domain\n");
    assert!(host.setup(&["--apply"]).err.contains("line 1: unclosed table"));
    host.write("sssd.conf", "");
    host.write("config.toml", "");
    assert!(host.setup(&["--apply"]).err.contains("run `realm join DOMAIN`"));
    assert_eq!(host.read("config.toml"), "");
    assert_eq!(host.run(&["setup", "--yes"], "").exit, 3);
}

fn fine(name: &str) -> Audited {
    let principal = Some(format!("{name}@acme.com"));
    Audited { principal, guid: Some(format!("guid of {name}")), ..Audited::new(Outcome::Success, "") }
}

#[test]
fn each_name_is_asked_once_however_many_answers_fit() {
    let host = Host::new();
    let broker = host.broker(3, 2, fine);
    let done = host.run(&["audit"], "ann\nbob\nann\ncarl\r\n\ndora\neve\n");
    assert_eq!((done.exit, done.err.as_str()), (0, ""), "{done:?}");
    assert!(
        done.out.starts_with(" 6  names\n 6  may log in\n 1  repeat an earlier name of the list\n"),
        "{}",
        done.out
    );
    let requests = broker.join().unwrap();
    let names: Vec<_> = requests.iter().map(|request| names(request).join(" ")).collect();
    assert_eq!(names, ["ann bob carl dora eve", "carl dora eve", "eve"]);
    assert!(requests.iter().all(|request| request.service == "audit"));
}

#[test]
fn a_csv_list_becomes_a_csv_answer() {
    let host = Host::new();
    host.write("users.csv", "id;Username\n1;ann\n2;jdoe\n3;\n");
    let broker = host.broker(1, 9, |name| match name {
        "jdoe" => {
            let near =
                Near { principal: "john.doe@acme.com".into(), guid: "1".into(), why: "initial".into() };
            Audited { near: Some(near), ..Audited::new(Outcome::UnknownUser, "AD has no account, \"jdoe\"") }
        }
        name => fine(name),
    });
    let list = host.path("users.csv");
    let args = ["audit", "--csv", "--column", "username", "--delimiter", ";", list.to_str().unwrap()];
    let done = host.run(&args, "");
    broker.join().unwrap();
    assert_eq!(done.exit, 1);
    let lines: Vec<_> = done.out.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "2,ann,ann@acme.com,yes,success,,,,,,,,,",
            "3,jdoe,,no,unknown_user,\"AD has no account, \"\"jdoe\"\"\",,,,,,,jdoe = \
             john.doe@acme.com,initial"
        ]
    );
}

#[test]
fn an_audit_without_answers_says_why() {
    let cases: [(&[&str], &str, i32, &str); 6] = [
        (&["audit"], "", 3, "standard input: there is no name in it"),
        (&["audit", "/nonexistent"], "", 3, "/nonexistent: No such file"),
        (&["audit", "--column", "x"], "a,b\n", 3, "no column is called \"x\"; the first row has: a, b"),
        (&["audit", "--delimiter", "ab", "--column", "1"], "", 3, "expected one character"),
        (&["audit", "--header"], "", 3, "--column"),
        (&["audit"], "ann\n", 2, "no connection"),
    ];
    for (args, input, exit, text) in cases {
        let done = Host::new().run(args, input);
        assert_eq!((done.exit, done.out.as_str()), (exit, ""), "{done:?}");
        assert!(done.err.contains(text), "{text:?} in {}", done.err);
    }
    for (outcome, exit) in [(Outcome::Misconfigured, 2), (Outcome::Unavailable, 2)] {
        let host = Host::new();
        let listener = UnixListener::bind(host.path("broker.sock")).unwrap();
        let broker = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            receive::<Request>(&mut stream).unwrap();
            let verdict = Reply::Verdict(Verdict::new(outcome, "the group \"x\""));
            send(&mut stream, &verdict, &Default::default()).unwrap();
        });
        let done = host.run(&["audit"], "ann\n");
        broker.join().unwrap();
        assert_eq!((done.exit, done.err.contains("the group \"x\"")), (exit, true), "{done:?}");
    }
}
