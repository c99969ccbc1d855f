//! A scripted domain controller before the real one. It answers as Windows does and Samba does not, or as no
//! server should. An answer decides the login. Without an answer, the same login continues at the real domain
//! controller.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use motion_ad_support::scripted::{
    Action, Event, Identity, Received, Record, Script, Security, Server, busy, done, entry, notice, referral,
    refused, result, success, unavailable, unwilling,
};

use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::pam::authenticate;
use crate::ready::ready;
use crate::report::{Check, Report, contains, equal};
use crate::row::fields;

/// First argument of this program when it runs as that server.
pub const SCRIPTED: &str = "--scripted";
/// Host names of the scripted server and of the real domain controller.
pub const FAKE: &str = "fake.acme.com";
pub const REAL: &str = "ad.acme.com";
/// Maximum time that the first login takes longer than a usual one. A login that stayed with the silent
/// domain controller would use its full deadline of 5 s. A domain controller that is silent to the search and
/// to the bind costs 0.8 s twice.
const FIRST: Duration = Duration::from_millis(5000 / 2);
/// Maximum time that the next login takes longer than one after it. It would be 0.8 s if it met the silent
/// domain controller again.
const LATER: Duration = Duration::from_millis(700);
/// Text about a domain controller that is silent, or slow.
const SILENT: &str = "in time";
/// Time until the log says so.
const TOLD: Duration = Duration::from_secs(20);

/// A script, and the results of a login with John's name and a wrong password. The counter of the real domain
/// controller shows how often it checked that password.
struct Scenario {
    name: &'static str,
    script: fn() -> Script,
    /// Host name of the server that decided.
    dc: &'static str,
    code: &'static str,
    outcome: &'static str,
    /// Text in the log: about the login if the script decided, else about the domain controller that was
    /// left.
    says: &'static str,
    /// Maximum number of binds that the script receives. An idle connection that ends silently may have ended
    /// long ago, so the broker sends one more bind over a new connection.
    binds: usize,
}

const fn decided(
    name: &'static str,
    script: fn() -> Script,
    code: &'static str,
    outcome: &'static str,
    says: &'static str,
) -> Scenario {
    Scenario { name, script, dc: FAKE, code, outcome, says, binds: 1 }
}

const fn left(name: &'static str, script: fn() -> Script, says: &'static str) -> Scenario {
    Scenario { name, script, dc: REAL, code: "PAM_AUTH_ERR", outcome: "wrong_password", says, binds: 1 }
}

impl Scenario {
    const fn without_a_word(self) -> Scenario {
        Scenario { binds: 2, ..self }
    }
}

/// Root DSE of a complete domain controller.
const ROOT: [(&str, &[&[u8]]); 2] =
    [("supportedCapabilities", &[b"1.2.840.113556.1.4.800"]), ("isSynchronized", &[b"TRUE"])];

/// Returns a script with a root DSE that disqualifies the server for logins.
fn root(attribute: &'static str, value: &'static [u8]) -> Script {
    let answer = [entry("", &[(attribute, &[value])]), done()];
    Script::default().on(Event::root_dse("objectClass"), answer).on(Event::bind(), [success()])
}

/// Returns a script that answers binds with these actions.
fn bind(actions: impl IntoIterator<Item = Action>) -> Script {
    Script::default().on(Event::bind(), actions)
}

/// Returns a script that answers TLS handshakes with these actions.
fn hello(actions: impl IntoIterator<Item = Action>) -> Script {
    Script::default().on(Event::ClientHello, actions)
}

#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    decided("success",                      || bind([success()]),        "PAM_SUCCESS",      "success",        ""),
    decided("success, byte by byte",        || bind([success().dripped(Duration::from_millis(2))]), "PAM_SUCCESS", "success", ""),
    decided("no such user (525)",           || bind([refused(0x525)]),   "PAM_USER_UNKNOWN", "unknown_user",   "data 525"),
    decided("wrong password (52e)",         || bind([refused(0x52e)]),   "PAM_AUTH_ERR",     "wrong_password", "data 52e"),
    decided("outside logon hours (530)",    || bind([refused(0x530)]),   "PAM_PERM_DENIED",  "logon_hours",    "data 530"),
    decided("account restriction (52f)",    || bind([refused(0x52f)]),   "PAM_PERM_DENIED",  "account_restriction", "data 52f"),
    decided("another workstation (531)",    || bind([refused(0x531)]),   "PAM_PERM_DENIED",  "workstation",    "data 531"),
    decided("too many groups (568)",        || bind([refused(0x568)]),   "PAM_SYSTEM_ERR",   "too_many_groups", "data 568"),
    decided("a code that nobody knows",     || bind([refused(0x999)]),   "PAM_AUTH_ERR",     "refused",        "data 999"),
    decided("a referral",                   || bind([referral("ldap://elsewhere.acme.com/")]), "PAM_AUTH_ERR", "refused", "LDAP result 10"),
    decided("operations error",             || bind([result(1, "00000000: odd\0")]), "PAM_AUTH_ERR", "refused", "LDAP result 1"),

    left("busy",                            || bind([busy()]),                            "LDAP result 51"),
    left("unavailable",                     || bind([unavailable()]),                     "LDAP result 52"),
    left("being demoted",                   || bind([unwilling()]),                       "LDAP result 53"),
    left("notice of disconnection",         || bind([notice(52, "shutting down"), Action::Close]), "LDAP result 52"),
    left("closed instead of an answer",     || bind([Action::Close]),                     "closed").without_a_word(),
    left("reset instead of an answer",      || bind([Action::Reset]),                     "reset").without_a_word(),
    left("half an answer, then the end",    || bind([success().cut(6), Action::Close]),   "closed"),
    left("half an answer, then silence",    || bind([success().cut(6), Action::Silence]), SILENT),
    left("silence instead of an answer",    || bind([Action::Silence]),                   SILENT),
    left("a byte every 200 ms",             || bind([refused(0x52e).dripped(Duration::from_millis(200))]), SILENT),
    left("a late answer",                   || bind([Action::Delay(Duration::from_secs(4)), refused(0x52e)]), SILENT),
    left("an answer of 2 GiB",              || bind([Action::Oversized { announced: 0x8000_0000, sent: 256 << 20 }]), "malformed"),
    left("50,000 sequences in each other",  || bind([Action::Nested(50_000)]),            "malformed"),
    left("HTTP",                            || bind([Action::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]), "malformed"),
    left("the answer to another message",   || bind([success().other_id(1)]),             "malformed"),
    left("two answers",                     || bind([refused(0x52e).twice()]),            "malformed"),

    left("a read-only one",                 || root("supportedCapabilities", b"1.2.840.113556.1.4.1920"), "read-only"),
    left("one that has not replicated yet", || root("isSynchronized", b"FALSE"),          "not synchronized"),

    left("closed when connected",           || Script::default().on(Event::Connected, [Action::Close]), "TLS failed"),
    left("silence when connected",          || Script::default().on(Event::Connected, [Action::Silence]), SILENT),
    left("silence after the ClientHello",   || hello([Action::Silence]),                  SILENT),
    left("half a ServerHello, then silence", || hello([Action::HalfServerHello, Action::Silence]), SILENT),
    left("closed after the ClientHello",    || hello([Action::Close]),                    "TLS failed"),
    left("reset after the ClientHello",     || hello([Action::Reset]),                    "TLS failed"),
    left("no TLS after the ClientHello",    || hello([Action::Bytes(b"220 ready\r\n".to_vec())]), "TLS failed"),
];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let files = lab.run(&["fake", "up"]).ok()?;
    let files: Vec<_> = files.split_whitespace().collect();
    lab.configure(&format!("[domain]\nservers = [\"{FAKE}\", \"{REAL}\"]\n"))?;
    for (index, scenario) in SCENARIOS.iter().enumerate() {
        let name = match scenario.dc {
            FAKE => format!("{}: {}", scenario.name, scenario.code),
            dc => format!("{}: {dc} is asked in the same login", scenario.name),
        };
        report.check(&name, || check(lab, index, &files));
    }
    report.check("success to an empty password as Windows has it: nothing is sent", || empty(lab, &files));
    lab.run(&["cast", "reset", "john"]).ok()?;
    lab.configure("")?;
    lab.run(&["fake", "down"]).ok()?;
    ready(lab)
}

fn check(lab: &Lab, index: usize, files: &[&str]) -> Check {
    let scenario = &SCENARIOS[index];
    lab.run(&["cast", "reset", "john"]).ok()?;
    let server = Running::start(lab, &index.to_string(), files)?;
    let position = lab.log_position()?;
    // A new broker has no record of failures.
    lab.host_sh("systemctl restart motion-ad.service").ok()?;
    let john = person("john");
    let dn = format!("CN={},OU=People,DC=acme,DC=com", john.sam);
    let login = |password: &str| {
        let begun = Instant::now();
        let code = authenticate(lab, john.sam, password).code;
        (code, begun.elapsed())
    };
    let (code, first) = login("not the password of anybody");
    let counted = lab.counters(john.sam)?.bad_passwords;
    let line = lab.wait_for_log(&position, &["event=login", "user=john.doe"])?;
    let seen = fields(&line)?;
    let told = |e: String| format!("{e}\n{line}\n{:?}", server.records());
    equal("PAM", code.as_str(), scenario.code).map_err(told)?;
    equal("outcome", seen.get("outcome").map(String::as_str), Some(scenario.outcome)).map_err(told)?;
    equal("dc", seen.get("dc").map(String::as_str), Some(scenario.dc)).map_err(told)?;
    let met = server.binds(&dn);
    if scenario.dc == FAKE {
        contains("the login's line", &line, scenario.says).map_err(told)?;
        equal("binds at the script", met, 1).map_err(told)?;
        return equal("binds at the real domain controller", counted, 0).map_err(told);
    }
    equal("binds at the real domain controller", counted, 1).map_err(told)?;
    equal("binds at the script, at most", met.min(scenario.binds), met).map_err(told)?;
    let down = ["event=dc", &format!("host={FAKE}"), "service=binds", "state=down", scenario.says];
    if scenario.says == SILENT {
        // It may be slow. A probe that fails shows that it is not, or a further login that it does not
        // answer.
        wait(TOLD, || {
            equal("PAM of a further login", login(john.password).0.as_str(), "PAM_SUCCESS")?;
            let lines = lab.log_since(&position)?;
            match lines.iter().any(|line| down.iter().all(|part| line.contains(part))) {
                true => Ok(()),
                false => Err(format!("expected a log line with {down:?} among:\n{}", lines.join("\n"))),
            }
        })?;
    }
    lab.wait_for_log(&position, &down).map_err(told)?;
    let met = server.binds(&dn);
    let (code, later) = login(john.password);
    println!("         {:.2} s, the next one {:.2} s", first.as_secs_f64(), later.as_secs_f64());
    equal("PAM of the next login", code.as_str(), "PAM_SUCCESS")?;
    // A slow machine takes so long between the logins that a probe finds the host working again.
    let up = ["event=dc", &format!("host={FAKE}"), "service=binds", "state=up"];
    let is_back = lab.log_since(&position)?.iter().any(|line| up.iter().all(|word| line.contains(word)));
    if !is_back {
        equal("binds at the script by the next login", server.binds(&dn) - met, 0).map_err(told)?;
    }
    let usual = login(john.password).1;
    for (what, took, most) in
        [("the first login", first, usual + FIRST), ("the next one", later, usual + LATER)]
    {
        if took > most {
            return Err(format!(
                "{what} took {:.2} s, at most {:.2} s",
                took.as_secs_f64(),
                most.as_secs_f64()
            ));
        }
    }
    Ok(())
}

/// The script accepts every bind, but the broker must send none with an empty password.
fn empty(lab: &Lab, files: &[&str]) -> Check {
    let server = Running::start(lab, "0", files)?;
    lab.host_sh("systemctl restart motion-ad.service").ok()?;
    let answer = authenticate(lab, person("john").sam, "");
    equal("PAM", answer.code.as_str(), "PAM_AUTH_ERR")?;
    let helper = lab.host("root", &["motion-ad", "login", "--password-stdin", "john.doe"], "\n");
    equal("motion-ad login", helper.code, 3)?;
    equal("binds", server.count(|received| matches!(received, Received::Bind { .. })), 0)
}

/// The server in the namespace of the node `fake`. It is this program with other arguments.
pub struct Running {
    child: Child,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Running {
    /// Starts the server, and returns when it listens.
    pub fn start(lab: &Lab, scenario: &str, files: &[&str]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let program = program.to_str().ok_or("the path of this program is no text")?;
        let mut command = vec!["fake", "run", "--", program, SCRIPTED, scenario];
        command.extend(files);
        let mut child = lab.child(&command)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("the script has no output")?).lines();
        let records: Arc<Mutex<Vec<Record>>> = Arc::default();
        let running = Running { child, records: records.clone() };
        let first = lines.next().ok_or("the script did not start")?.map_err(|e| e.to_string())?;
        equal("the script's first line", first.as_str(), "listening")?;
        std::thread::spawn(move || {
            for record in lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
                records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
            }
        });
        Ok(running)
    }

    fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn count(&self, is_meant: impl Fn(&Received) -> bool) -> usize {
        self.records().iter().filter(|record| is_meant(&record.received)).count()
    }

    fn binds(&self, dn: &str) -> usize {
        self.count(
            |received| matches!(received, Received::Bind { dn: seen, .. } if seen.eq_ignore_ascii_case(dn)),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        let _ = wait(Duration::from_secs(5), || match self.child.try_wait() {
            Ok(None) => Err("it still runs".to_owned()),
            _ => Ok(()),
        });
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs as the server: `SCENARIO CERTIFICATE KEY`. It listens on the ports of a domain controller, prints
/// what it receives, and ends with its standard input.
///
/// # Errors
/// If it cannot listen.
pub fn scripted(arguments: &[&str]) -> Result<(), String> {
    let [scenario, certificate, key] = arguments else {
        return Err("usage: SCENARIO CERTIFICATE KEY".to_owned());
    };
    let scenario =
        scenario.parse().ok().and_then(|index: usize| SCENARIOS.get(index)).ok_or("no such script")?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(serve(scenario, certificate, key)).map_err(|e| e.to_string())
}

async fn serve(scenario: &Scenario, certificate: &str, key: &str) -> std::io::Result<()> {
    let identity = Identity::from_files(certificate.as_ref(), key.as_ref())?;
    // Before a bind, the broker reads the root DSE to check that the server is a domain controller for
    // logins.
    let script = (scenario.script)().on(Event::root_dse("objectClass"), [entry("", &ROOT), done()]);
    let mut server = Server::new(script);
    server.listen("0.0.0.0:636", Security::Ldaps(identity.clone())).await?;
    server.listen("0.0.0.0:389", Security::StartTls(identity)).await?;
    server.listen_udp("0.0.0.0:389").await?;
    println!("listening");
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let printing = async {
        let mut seen = 0;
        loop {
            for record in server.log().from(seen).await {
                seen += 1;
                println!("{}", serde_json::to_string(&record).unwrap_or_default());
            }
        }
    };
    tokio::select! {
        () = printing => {}
        _ = end => {}
    }
    Ok(())
}
