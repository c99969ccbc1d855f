//! The real shared object under the real libpam, with a scripted broker. Needs no root and no Active
//! Directory.
//!
//! `MOTION_AD_MODULE` names a built module to test. Without it, the tests build the module themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// One test raises the limit of open files, which is a call of C.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use motion_ad::protocol::{Operation, Reply, Request, Secret, receive, send};
use motion_ad::texts::Language;
use motion_ad::verdict::{Outcome, Verdict};
use motion_ad_support::libpam::{self, Application, Handle, Message};

const SUCCESS: c_int = 0;
const SERVICE_ERR: c_int = 3;
const PERM_DENIED: c_int = 6;
const AUTH_ERR: c_int = 7;
const AUTHINFO_UNAVAIL: c_int = 9;
const USER_UNKNOWN: c_int = 10;
const NEW_AUTHTOK_REQD: c_int = 12;
const SESSION_ERR: c_int = 14;
const CONV_ERR: c_int = 19;
const AUTHTOK_ERR: c_int = 20;
const AUTHTOK_RECOVERY_ERR: c_int = 21;
const TRY_AGAIN: c_int = 24;

const CHANGE_EXPIRED: c_int = 0x20;
const SILENT: c_int = 0x8000;

const ECHO_OFF: c_int = 1;
const ERROR_MSG: c_int = 3;
const TEXT_INFO: c_int = 4;

/// Behavior of an application's conversation function.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// As the manual requires.
    Proper,
    /// `authenticate-pam`: the password to every message, and one response for any number of messages.
    PasswordForEverything,
    /// PAM_SUCCESS, and no response.
    NullArray,
    /// PAM_SUCCESS, and a response without text.
    NullText,
    /// PAM_CONV_ERR.
    Fails,
    /// Apache, OpenVPN: fails on any message that is not a prompt.
    PromptsOnly,
    /// Distinguishes current, new and retyped passwords. `None` means that the user cancels.
    Types { new: Option<&'static CStr>, again: Option<&'static CStr> },
}

/// A user who changes the password and retypes it correctly.
const CHANGES: Manner = Manner::Types { new: Some(c"new secret"), again: Some(c"new secret") };

/// A user, and the application with its conversation.
struct User {
    manner: Manner,
    password: CString,
    heard: Vec<(c_int, String)>,
}

impl Application for User {
    fn answer(&mut self, Message { style, text, together }: Message<'_>) -> libpam::Answer {
        use libpam::Answer::{Code, Empty, Missing, Text};
        assert_eq!(together, 1, "one message per call");
        let text = text.to_str().unwrap();
        self.heard.push((style, text.to_owned()));
        let password = self.password.as_c_str();
        let answer = match self.manner {
            Manner::Types { new, .. } if text.starts_with("New ") => new,
            Manner::Types { again, .. } if text.starts_with("Retype ") => again,
            Manner::Proper | Manner::PromptsOnly | Manner::Types { .. } => {
                Some(password).filter(|_| style == ECHO_OFF)
            }
            Manner::PasswordForEverything => Some(password),
            Manner::NullArray | Manner::NullText | Manner::Fails => None,
        };
        match (self.manner, answer) {
            (Manner::Fails, _) | (Manner::PromptsOnly | Manner::Types { .. }, None) => Code(CONV_ERR),
            (Manner::NullArray, _) => Missing,
            (_, Some(answer)) => Text(answer.to_owned()),
            (_, None) => Empty,
        }
    }
}

/// One PAM handle. Its methods call libpam's functions.
struct Login(Handle<User>);

impl std::ops::Deref for Login {
    type Target = Handle<User>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Login {
    fn start(stack: &Stack, user: &CStr, manner: Manner, password: &str) -> Self {
        let application = User { manner, password: CString::new(password).unwrap(), heard: Vec::new() };
        let folder = CString::new(stack.folder.path().to_str().unwrap()).unwrap();
        Login(Handle::start(c"motion", user, Some(&folder), application).unwrap())
    }

    fn john(stack: &Stack) -> Self {
        Login::start(stack, c"john", Manner::Proper, "secret")
    }

    fn set_item(&self, item: c_int, value: &CStr) {
        assert_eq!(self.0.set_item(item, value), SUCCESS);
    }

    fn item(&self, item: c_int) -> Option<CString> {
        self.0.item(item).unwrap()
    }

    /// Returns the session id that the application sees.
    fn session(&self) -> Option<String> {
        self.variable(c"MOTION_AD_SESSION")
    }

    /// Returns the name of the outcome that the application sees.
    fn outcome(&self) -> Option<String> {
        self.variable(c"MOTION_AD_OUTCOME")
    }

    /// Returns the seconds until the password expires, as the application sees them.
    fn expires_in(&self) -> Option<String> {
        self.variable(c"MOTION_AD_EXPIRES_IN")
    }

    /// Returns the prompts and texts since the last call.
    fn heard(&self) -> Vec<(c_int, String)> {
        std::mem::take(&mut self.application().heard)
    }
}

fn prompts<const N: usize>(texts: [&str; N]) -> Vec<(c_int, String)> {
    texts.iter().map(|text| (ECHO_OFF, (*text).to_owned())).collect()
}

/// Returns the prompts of a password change.
fn change_prompts() -> Vec<(c_int, String)> {
    prompts(["Current password: ", "New password: ", "Retype new password: "])
}

fn shown(style: c_int, text: &str) -> (c_int, String) {
    (style, text.to_owned())
}

/// Runs tests one at a time. They share one process, and some of them measure it.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the path of the shared object, built once.
fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        if let Some(path) = std::env::var_os("MOTION_AD_MODULE") {
            return std::path::absolute(path).unwrap();
        }
        // A separate target folder: the cargo that runs these tests may hold the lock of the usual one.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("module");
        let status = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["rustc", "--locked", "--quiet", "--lib", "--crate-type", "cdylib"])
            .args(["--no-default-features", "--profile", "module", "--target-dir"])
            .arg(&target)
            .status()
            .unwrap();
        assert!(status.success(), "the module does not build");
        target.join("module/libmotion_ad.so")
    })
}

/// A folder with a PAM service `motion` and a socket for its broker.
struct Stack {
    folder: tempfile::TempDir,
}

impl Stack {
    /// Creates the service from these lines. MODULE stands for the shared object, SOCKET for the argument
    /// `socket=`.
    fn new(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("socket={}", folder.path().join("broker.sock").display());
        let service = lines.replace("MODULE", module().to_str().unwrap()).replace("SOCKET", &socket);
        std::fs::write(folder.path().join("motion"), service).unwrap();
        let deny =
            ["auth", "account", "password", "session"].map(|kind| format!("{kind} required pam_deny.so\n"));
        std::fs::write(folder.path().join("other"), deny.concat()).unwrap();
        Stack { folder }
    }

    /// Creates a service with all four types of lines, each with these arguments.
    fn with(arguments: &str) -> Self {
        let line = |kind| format!("{kind} required MODULE SOCKET {arguments}\n");
        Stack::new(&["auth", "account", "password", "session"].map(line).concat())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("broker.sock")
    }
}

/// A broker that answers every request by a rule, on one thread, until it is dropped.
struct Broker {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<Question>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The operation of a request, and the secret that came with it.
type Question = (Operation, Vec<u8>);

/// Reaction of a broker to a request.
enum Answer {
    Says(Box<Verdict>),
    HangsUp,
    IsSilent,
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Answer::Says(Box::new(verdict))
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Verdict::new(outcome, "a reason").into()
    }
}

impl Broker {
    fn new<A: Into<Answer>>(stack: &Stack, rule: impl Fn(&Request, &Secret) -> A + Send + 'static) -> Self {
        let (socket, asked) = (stack.socket(), Arc::<Mutex<Vec<Question>>>::default());
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = asked.clone();
        let thread = std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // A connection without a request comes from `drop` and ends the thread.
                let Ok((request, secret)) = receive::<Request>(&mut stream) else { return };
                let answer = rule(&request, &secret).into();
                requests.lock().unwrap().push((request.operation, secret.bytes().to_vec()));
                match answer {
                    Answer::Says(verdict) => {
                        let _ = send(&mut stream, &Reply::Verdict(*verdict), &Secret::default());
                    }
                    Answer::HangsUp => drop(stream),
                    Answer::IsSilent => unanswered.push(stream),
                }
            }
        });
        Broker { socket, asked, thread: Some(thread) }
    }

    /// Returns a broker that knows only john with his password, and grants him access.
    fn of_john(stack: &Stack) -> Self {
        Broker::new(stack, |request, secret| match (request.user.as_str(), &request.operation) {
            ("john", Operation::Authenticate { .. } | Operation::ProbePassword)
                if secret.bytes() == b"secret" =>
            {
                Outcome::Success
            }
            ("john", Operation::ChangePassword) if secret.bytes() == pair("secret", "new secret") => {
                Outcome::Success
            }
            (
                "john",
                Operation::Account { .. } | Operation::OpenSession { .. } | Operation::CloseSession { .. },
            ) => Outcome::Success,
            ("john", _) => Outcome::WrongPassword,
            _ => Outcome::UnknownUser,
        })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Returns the requests since the last call.
    fn questions(&self) -> Vec<Question> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Returns two passwords in wire format: the length of the first one, then both.
fn pair(present: &str, new: &str) -> Vec<u8> {
    let length = u16::try_from(present.len()).unwrap().to_be_bytes();
    [&length[..], present.as_bytes(), new.as_bytes()].concat()
}

/// Returns the two requests of a change from `secret` to `new secret`.
fn change_questions() -> Vec<Question> {
    let probe = (Operation::ProbePassword, b"secret".to_vec());
    vec![probe, (Operation::ChangePassword, pair("secret", "new secret"))]
}

/// Returns the request for the state of an account that was not authenticated on the handle.
fn account_question() -> Question {
    (Operation::Account { account: None, warn: false }, Vec::new())
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(UnixStream::connect(&self.socket));
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the broker panicked");
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).arg(module()).output().expect("binutils are installed");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_file_exports_the_six_entry_points_and_needs_little() {
    let _alone = alone();
    let symbols = output("nm", &["--dynamic", "--defined-only", "--format=just-symbols"]);
    let mut symbols: Vec<_> = symbols.lines().collect();
    symbols.sort_unstable();
    let entry_points = [
        "pam_sm_acct_mgmt",
        "pam_sm_authenticate",
        "pam_sm_chauthtok",
        "pam_sm_close_session",
        "pam_sm_open_session",
        "pam_sm_setcred",
    ];
    assert_eq!(symbols, entry_points);

    let dynamic = output("readelf", &["--dynamic", "--wide"]);
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        let allowed = ["[libpam.so.0]", "[libgcc_s.so.1]", "[libc.so.6]", "[ld-linux"];
        assert!(allowed.iter().any(|library| line.contains(library)), "{line}");
    }
    let flags = dynamic.lines().find(|line| line.contains("(FLAGS_1)")).unwrap();
    assert!(flags.contains("NOW") && flags.contains("NODELETE"), "{flags}");
    assert!(!dynamic.contains("TEXTREL") && !dynamic.contains("RPATH") && !dynamic.contains("RUNPATH"));
    let segments = output("readelf", &["--program-headers", "--wide"]);
    assert!(segments.contains("GNU_RELRO"));
    let stack = segments.lines().find(|line| line.contains("GNU_STACK")).unwrap();
    assert!(stack.contains(" RW "), "executable: {stack}");

    let size = std::fs::metadata(module()).unwrap().len();
    assert!(size <= 700 * 1024, "{size} bytes");
    assert!(!output("readelf", &["--sections", "--wide"]).contains(".symtab"), "not stripped");
}

#[test]
fn john_logs_in_through_the_shipped_service() {
    let _alone = alone();
    let shipped = include_str!("../pam.d/motion");
    let stack = Stack::new(&shipped.replace("pam_motion_ad.so", "MODULE SOCKET"));
    let broker = Broker::of_john(&stack);
    let login = Login::start(&stack, c"john", CHANGES, "secret");
    assert_eq!(login.authenticate(0), SUCCESS);
    assert_eq!(login.heard(), prompts(["Password: "]));
    assert_eq!(login.acct_mgmt(0), SUCCESS);
    assert_eq!(broker.questions().len(), 1, "acct_mgmt repeats the verdict");
    for flags in [2, 8, 4] {
        assert_eq!(login.setcred(flags), SUCCESS);
    }
    assert_eq!(login.open_session(0), SUCCESS);
    assert_eq!(login.close_session(0), SUCCESS);
    let sessions = [Operation::OpenSession { account: None }, Operation::CloseSession { session: None }];
    assert_eq!(broker.questions(), sessions.map(|operation| (operation, Vec::new())));
    assert_eq!(login.heard(), [], "nothing else was said");
    assert_eq!(login.chauthtok(0), SUCCESS);
    assert_eq!((login.heard(), broker.questions()), (change_prompts(), change_questions()));
    assert_eq!(login.item(2).unwrap(), c"john".to_owned(), "PAM_USER is as the application set it");
}

/// Marks the process that runs the test itself.
const OWN_PROCESS: &str = "MOTION_AD_TEST_SYSLOG";

/// Runs in a separate process, whose lines for syslog go to standard error as well.
#[test]
fn a_call_without_an_outcome_unsets_no_variable_that_is_not_set() {
    if std::env::var_os(OWN_PROCESS).is_some() {
        return unsets_an_outcome();
    }
    let name = "a_call_without_an_outcome_unsets_no_variable_that_is_not_set";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let ran = command
        .args(["--exact", "--nocapture", name])
        .env(OWN_PROCESS, "1")
        .env("MOTION_AD_MODULE", module())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{log}");
    assert!(log.contains("acct_mgmt: PAM_USER_UNKNOWN"), "{log}");
    assert!(!log.contains("pam_putenv"), "{log}");
}

fn unsets_an_outcome() {
    // SAFETY: the text is static, as openlog(3) needs it.
    unsafe { libc::openlog(c"test".as_ptr(), libc::LOG_PERROR, libc::LOG_USER) };
    let stack = Stack::with("outcome debug");
    let _broker = Broker::of_john(&stack);
    // The broker is not asked about such a name.
    let nobody = Login::start(&stack, c"jo\nhn", Manner::Proper, "");
    assert_eq!((nobody.acct_mgmt(0), nobody.outcome()), (USER_UNKNOWN, None));
    // An outcome of an earlier call is unset.
    let login = Login::john(&stack);
    assert_eq!(login.acct_mgmt(0), SUCCESS);
    assert_eq!(login.outcome().as_deref(), Some("success"));
    login.set_item(2, c"jo\nhn");
    assert_eq!((login.acct_mgmt(0), login.outcome()), (USER_UNKNOWN, None));
}

#[test]
fn each_entry_point_works_alone() {
    let _alone = alone();
    let stack = Stack::with("");
    let broker = Broker::of_john(&stack);
    assert_eq!(Login::john(&stack).acct_mgmt(0), SUCCESS);
    assert_eq!(broker.asked(), 1);
    assert_eq!(Login::start(&stack, c"jane", Manner::Proper, "").acct_mgmt(0), USER_UNKNOWN);
    assert_eq!(Login::john(&stack).setcred(2), SUCCESS);
    assert_eq!(Login::john(&stack).open_session(0), SUCCESS);
    assert_eq!(Login::john(&stack).close_session(0), SUCCESS);
    assert_eq!(Login::start(&stack, c"john", CHANGES, "secret").chauthtok(0), SUCCESS);
}

#[test]
fn a_request_carries_what_the_application_knows() {
    let _alone = alone();
    let stack = Stack::with("");
    let _broker = Broker::new(&stack, |request, _| {
        let items = (request.service.as_str(), request.tty.as_str(), request.rhost.as_str());
        match items {
            ("motion", "tty7", "client.example") => Outcome::Success,
            ("motion", "tty7", cut) if cut.len() == 255 => Outcome::Denied,
            _ => Outcome::Misconfigured,
        }
    });
    let login = Login::john(&stack);
    login.set_item(3, c"tty7");
    login.set_item(4, c"client.example");
    assert_eq!(login.authenticate(0), SUCCESS);
    login.set_item(4, &CString::new("x".repeat(4000)).unwrap());
    assert_eq!(login.authenticate(0), PERM_DENIED);
}

#[test]
fn wrong_input_is_refused_and_only_a_possible_password_is_sent() {
    let _alone = alone();
    let stack = Stack::with("");
    let broker = Broker::of_john(&stack);
    assert_eq!(Login::start(&stack, c"john", Manner::Proper, "wrong").authenticate(0), AUTH_ERR);
    assert_eq!(Login::start(&stack, c"jane", Manner::Proper, "secret").authenticate(0), USER_UNKNOWN);
    assert_eq!(broker.asked(), 2);
    assert_eq!(Login::start(&stack, c"john", Manner::Proper, "").authenticate(0), AUTH_ERR);
    assert_eq!(Login::start(&stack, c"john", Manner::Proper, &"x".repeat(1025)).authenticate(0), AUTH_ERR);
    for user in [c"", c"jo\nhn", c"jo\xffhn", &CString::new("x".repeat(257)).unwrap()] {
        assert_eq!(Login::start(&stack, user, Manner::Proper, "secret").authenticate(0), USER_UNKNOWN);
        assert_eq!(Login::start(&stack, user, Manner::Proper, "secret").acct_mgmt(0), USER_UNKNOWN);
    }
    assert_eq!(broker.asked(), 2);
}

#[test]
fn hostile_conversations() {
    let _alone = alone();
    let stack = Stack::with("messages");
    let broker = Broker::of_john(&stack);
    let login = |manner| Login::start(&stack, c"john", manner, "secret").authenticate(0);
    assert_eq!(login(Manner::PasswordForEverything), SUCCESS);
    assert_eq!(login(Manner::PromptsOnly), SUCCESS);
    assert_eq!(broker.asked(), 2);
    for manner in [Manner::NullArray, Manner::NullText, Manner::Fails] {
        assert_eq!(login(manner), CONV_ERR, "{manner:?}");
    }
    assert_eq!(broker.asked(), 2);
}

/// The controls under which a line with the argument `observe` does not decide.
const OBSERVING: [&str; 4] = ["[default=ignore]", "sufficient", "optional", "[success=done default=ignore]"];

/// Other lines decide, whatever the broker says.
#[test]
fn an_observed_login_neither_admits_nor_rejects() {
    let _alone = alone();
    for control in OBSERVING {
        let observing = format!("{control} MODULE SOCKET observe messages outcome session=auth\n");
        for (others, admits) in
            [("required pam_permit.so", true), ("required pam_deny.so", false), ("", false)]
        {
            let line = |kind: &str| match others {
                "" => format!("{kind} {observing}"),
                others => format!("{kind} {observing}{kind} {others}\n"),
            };
            for outcome in [Some(Outcome::Success), Some(Outcome::MustChange), Some(Outcome::Disabled), None]
            {
                let stack = Stack::new(&(line("auth") + &line("account")));
                let broker = Broker::new(&stack, move |request, _| {
                    assert!(request.observe);
                    outcome.map_or(Answer::HangsUp, Answer::from)
                });
                let login = Login::start(&stack, c"john", Manner::Proper, "secret");
                assert_eq!(login.authenticate(0) == SUCCESS, admits, "{control} {outcome:?} {others}");
                // The user sees nothing but the prompt.
                assert_eq!(login.heard(), [shown(ECHO_OFF, "Password: ")], "{outcome:?}");
                assert_eq!(login.acct_mgmt(0) == SUCCESS, admits, "{control} {outcome:?} {others}");
                assert_eq!(login.heard(), [], "{outcome:?}");
                let first = broker.questions().first().cloned();
                let operation = Operation::Authenticate { register: false, warn: false };
                assert_eq!(first, Some((operation, b"secret".to_vec())));
            }
        }
    }
}

/// Under a control that enforces its answer, a line that observes admits no user, so it cannot stay
/// unnoticed.
#[test]
fn a_line_that_observes_admits_no_user_by_itself() {
    let _alone = alone();
    for control in ["required", "requisite", "[success=ok new_authtok_reqd=ok default=die]"] {
        for others in ["", "auth required pam_permit.so\n"] {
            let stack = Stack::new(&format!("auth {control} MODULE SOCKET observe\n{others}"));
            let broker = Broker::new(&stack, |_, _| Outcome::Success);
            let login = Login::start(&stack, c"john", Manner::Proper, "secret");
            assert_eq!(login.authenticate(0), PERM_DENIED, "{control} {others}");
            assert_eq!(broker.asked(), 1);
        }
    }
}

/// The user types the password once, and the line that decides gets it.
#[test]
fn the_password_of_an_observed_login_stays_for_the_next_line() {
    let _alone = alone();
    for argument in ["use_first_pass", "try_first_pass", ""] {
        let lines = format!(
            "auth [default=ignore] MODULE SOCKET observe\nauth required MODULE SOCKET {argument}\n\
             session required MODULE SOCKET observe\n"
        );
        let stack = Stack::new(&lines);
        let broker = Broker::new(&stack, |request, _| match request.observe {
            true => Outcome::Disabled,
            false => Outcome::Success,
        });
        let login = Login::start(&stack, c"john", Manner::Proper, "secret");
        assert_eq!(login.authenticate(0), SUCCESS);
        assert_eq!(login.heard(), [shown(ECHO_OFF, "Password: ")]);
        let questions = broker.questions();
        assert_eq!(questions.len(), 2);
        assert!(questions.iter().all(|(_, secret)| secret == b"secret"));
        // A session cannot be observed.
        assert_eq!(login.open_session(0), SESSION_ERR);
        assert_eq!(broker.asked(), 0);
    }
}

#[test]
fn a_text_is_in_the_language_of_the_line() {
    let _alone = alone();
    let stack = Stack::with("messages lang=it");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let languages = asked.clone();
    let text = "Il Suo account è disabilitato.";
    let broker = Broker::new(&stack, move |request, _| {
        languages.lock().unwrap().push(request.language);
        Verdict { text: Some(text.to_owned()), ..Verdict::new(Outcome::Disabled, "") }
    });
    let login = Login::start(&stack, c"john", Manner::Proper, "secret");
    assert_eq!(login.authenticate(0), PERM_DENIED);
    assert_eq!(login.heard(), [shown(ECHO_OFF, "Password: "), shown(ERROR_MSG, text)]);
    assert_eq!(*asked.lock().unwrap(), [Language::Italian]);
    // Without a broker, the module's own text.
    drop(broker);
    assert_eq!(login.authenticate(0), AUTHINFO_UNAVAIL);
    let own = "Il servizio di accesso non riesce a raggiungere Active Directory. Riprovi tra poco.";
    assert_eq!(login.heard(), [shown(ECHO_OFF, "Password: "), shown(ERROR_MSG, own)]);
}

#[test]
fn a_text_is_shown_when_wanted_and_may_fail() {
    let _alone = alone();
    let stack = Stack::with("messages");
    let _broker = Broker::new(&stack, |_, _| Outcome::Disabled);
    let prompt = || shown(ECHO_OFF, "Password: ");
    let text = || shown(ERROR_MSG, Outcome::Disabled.text().unwrap());
    for manner in [Manner::Proper, Manner::PasswordForEverything, Manner::PromptsOnly] {
        let login = Login::start(&stack, c"john", manner, "secret");
        assert_eq!(login.authenticate(0), PERM_DENIED);
        assert_eq!(login.heard(), [prompt(), text()], "{manner:?}");
        assert_eq!(login.authenticate(SILENT), PERM_DENIED);
        assert_eq!(login.heard(), [prompt()], "{manner:?}");
    }
}

#[test]
fn an_expired_password_is_refused_where_the_line_says() {
    let _alone = alone();
    for (arguments, authenticate) in [("", NEW_AUTHTOK_REQD), ("expired=account", SUCCESS)] {
        let stack = Stack::with(arguments);
        let _broker = Broker::new(&stack, |_, _| Outcome::PasswordExpired);
        let login = Login::john(&stack);
        assert_eq!(login.authenticate(0), authenticate);
        assert_eq!(login.acct_mgmt(0), NEW_AUTHTOK_REQD);
    }
}

#[test]
fn a_password_is_asked_for_once_in_a_stack() {
    let _alone = alone();
    for argument in ["", "use_first_pass", "try_first_pass"] {
        let stack =
            Stack::new(&format!("auth required MODULE SOCKET\nauth required MODULE SOCKET {argument}\n"));
        let broker = Broker::of_john(&stack);
        let login = Login::john(&stack);
        assert_eq!(login.authenticate(0), SUCCESS);
        assert_eq!(login.heard().len(), 1);
        assert_eq!(broker.asked(), 2);
    }
    let stack = Stack::with("use_first_pass");
    let broker = Broker::of_john(&stack);
    let login = Login::john(&stack);
    assert_eq!(login.authenticate(0), AUTH_ERR);
    assert_eq!((login.heard(), broker.asked()), (Vec::new(), 0));
    // After a wrong first password, the module does not prompt for another one.
    let stack = Stack::with("try_first_pass");
    let broker = Broker::of_john(&stack);
    let login = Login::start(&stack, c"john", Manner::Proper, "wrong");
    assert_eq!(login.authenticate(0), AUTH_ERR);
    assert_eq!((login.heard().len(), broker.asked()), (1, 1));
}

#[test]
fn arguments_fail_closed_and_an_absent_broker_lets_nobody_in() {
    let _alone = alone();
    let login = |arguments| {
        let stack = Stack::with(arguments);
        let login = Login::john(&stack);
        [
            login.authenticate(0),
            login.acct_mgmt(0),
            login.chauthtok(0),
            login.open_session(0),
            login.close_session(0),
        ]
    };
    let absent = [AUTHINFO_UNAVAIL, AUTHINFO_UNAVAIL, TRY_AGAIN, SESSION_ERR, SESSION_ERR];
    assert_eq!(login(""), absent);
    let malformed = [SERVICE_ERR, SERVICE_ERR, SERVICE_ERR, SESSION_ERR, SESSION_ERR];
    assert_eq!(login("timeout=never"), malformed);
    let stack = Stack::with("no_such_argument debug");
    let _broker = Broker::of_john(&stack);
    assert_eq!(Login::john(&stack).authenticate(0), SUCCESS);
}

#[test]
fn a_password_is_changed_in_two_phases_and_the_account_asked_for_again() {
    let _alone = alone();
    let stack = Stack::with("");
    let broker = Broker::of_john(&stack);
    let login = Login::start(&stack, c"john", CHANGES, "secret");
    assert_eq!(login.authenticate(0), SUCCESS);
    assert_eq!(broker.questions().len(), 1);
    login.heard();
    // libpam keeps no password from one call to the next, so the module prompts for the current one.
    assert_eq!(login.chauthtok(0), SUCCESS);
    assert_eq!((login.heard(), broker.questions()), (change_prompts(), change_questions()));
    assert_eq!(login.acct_mgmt(0), SUCCESS);
    assert_eq!(broker.questions(), [account_question()]);
}

#[test]
fn a_change_that_the_person_or_the_line_does_not_allow_ends_before_it_is_sent() {
    let _alone = alone();
    let probe = || change_questions().into_iter().take(1).collect::<Vec<_>>();
    let [current, new, retype] = ["Current password: ", "New password: ", "Retype new password: "];
    let types = |new, again| Manner::Types { new, again };
    let cases = [
        // Mistyped passwords, canceled prompts, and text that can never be a password.
        ("", types(Some(c"new secret"), Some(c"other")), TRY_AGAIN, probe(), vec![current, new, retype]),
        ("", types(Some(c"new secret"), None), AUTHTOK_ERR, probe(), vec![current, new, retype]),
        ("", types(None, None), AUTHTOK_ERR, probe(), vec![current, new]),
        ("", types(Some(c""), Some(c"")), AUTHTOK_ERR, probe(), vec![current, new, retype]),
        ("", types(Some(c"\xff"), Some(c"\xff")), AUTHTOK_ERR, probe(), vec![current, new, retype]),
        ("", Manner::Fails, AUTHTOK_RECOVERY_ERR, vec![], vec![current]),
        ("", Manner::NullArray, AUTHTOK_RECOVERY_ERR, vec![], vec![current]),
        ("", Manner::NullText, AUTHTOK_RECOVERY_ERR, vec![], vec![current]),
        // No earlier module set the password that these arguments require.
        ("use_authtok", CHANGES, AUTHTOK_ERR, probe(), vec![current]),
        ("use_first_pass", CHANGES, AUTHTOK_RECOVERY_ERR, vec![], vec![]),
    ];
    for (argument, manner, code, questions, prompts) in cases {
        let stack = Stack::with(argument);
        let broker = Broker::of_john(&stack);
        let login = Login::start(&stack, c"john", manner, "secret");
        assert_eq!(login.chauthtok(0), code, "{argument} {manner:?}");
        assert_eq!(broker.questions(), questions, "{argument} {manner:?}");
        let asked: Vec<_> = login.heard().into_iter().filter(|(style, _)| *style == ECHO_OFF).collect();
        assert_eq!(asked, prompts.into_iter().map(|text| shown(ECHO_OFF, text)).collect::<Vec<_>>());
    }
}

#[test]
fn a_wrong_present_password_is_sent_once_whatever_the_stack() {
    let _alone = alone();
    let wrong = || vec![(Operation::ProbePassword, b"wrong".to_vec())];
    for (stack, code) in [
        ("password required MODULE SOCKET\n", AUTHTOK_RECOVERY_ERR),
        // The stack continues to the second phase although the first one failed.
        ("password [default=ignore] MODULE SOCKET\npassword required pam_permit.so\n", SUCCESS),
    ] {
        let stack = Stack::new(stack);
        let broker = Broker::of_john(&stack);
        let login = Login::start(&stack, c"john", CHANGES, "wrong");
        assert_eq!(login.chauthtok(0), code);
        assert_eq!((broker.questions(), login.heard()), (wrong(), prompts(["Current password: "])));
    }
}

#[test]
fn passwords_are_asked_for_once_in_a_stack_and_only_a_new_one_that_is_in_force_is_handed_on() {
    let _alone = alone();
    for argument in ["use_authtok", "try_first_pass", "use_first_pass", ""] {
        let lines = format!("password required MODULE SOCKET\npassword required MODULE SOCKET {argument}\n");
        let stack = Stack::new(&lines);
        let broker = Broker::of_john(&stack);
        let login = Login::start(&stack, c"john", CHANGES, "secret");
        assert_eq!(login.chauthtok(0), SUCCESS, "{argument}");
        assert_eq!(login.heard(), change_prompts(), "{argument}");
        let [probe, change] = <[_; 2]>::try_from(change_questions()).unwrap();
        assert_eq!(broker.questions(), [probe.clone(), probe, change.clone(), change], "{argument}");
    }
    let stack = Stack::new("password required MODULE SOCKET\npassword required MODULE SOCKET use_authtok\n");
    let broker = Broker::new(&stack, |request, _| match request.operation {
        Operation::ChangePassword => Outcome::PasswordRefused,
        _ => Outcome::Success,
    });
    let login = Login::start(&stack, c"john", CHANGES, "secret");
    assert_eq!(login.chauthtok(0), AUTHTOK_ERR);
    assert_eq!(broker.asked(), 3, "two probes and one change");
}

#[test]
fn the_prompts_can_name_what_is_changed() {
    let _alone = alone();
    let stack = Stack::with("authtok_type=AD");
    let _broker = Broker::of_john(&stack);
    let login = Login::start(&stack, c"john", CHANGES, "secret");
    assert_eq!(login.chauthtok(0), SUCCESS);
    let expected = prompts(["Current AD password: ", "New AD password: ", "Retype new AD password: "]);
    assert_eq!(login.heard(), expected);
}

#[test]
fn why_a_new_password_is_refused_is_shown_without_being_asked_for_and_may_fail() {
    let _alone = alone();
    let stack = Stack::with("");
    let _broker = Broker::new(&stack, |request, _| match request.operation {
        Operation::ChangePassword => {
            let text = Some("It was used before.".to_owned());
            Verdict { text, ..Verdict::new(Outcome::PasswordRefused, "0000052D") }
        }
        _ => Verdict::new(Outcome::Success, ""),
    });
    let text = || Some(shown(ERROR_MSG, "It was used before."));
    for (manner, flags, text) in [
        (CHANGES, 0, text()),
        (CHANGES, SILENT, None),
        (Manner::PasswordForEverything, 0, text()),
        (Manner::PromptsOnly, 0, text()),
    ] {
        let login = Login::start(&stack, c"john", manner, "secret");
        assert_eq!(login.chauthtok(flags), AUTHTOK_ERR, "{manner:?}");
        let expected: Vec<_> = change_prompts().into_iter().chain(text).collect();
        assert_eq!(login.heard(), expected, "{manner:?}");
    }
}

#[test]
fn a_change_whose_answer_is_lost_may_have_happened() {
    let _alone = alone();
    let unknown = Outcome::ChangeUnknown.text().unwrap();
    let lost: [fn() -> Answer; 2] = [|| Answer::HangsUp, || Answer::IsSilent];
    for lose in lost {
        let stack = Stack::with("timeout=1");
        let broker = Broker::new(&stack, move |request, _| match request.operation {
            Operation::ChangePassword => lose(),
            _ => Outcome::Success.into(),
        });
        let login = Login::start(&stack, c"john", CHANGES, "secret");
        assert_eq!(login.chauthtok(0), AUTHINFO_UNAVAIL);
        assert_eq!(broker.questions(), change_questions(), "and is not made again");
        assert_eq!(login.heard().last(), Some(&shown(ERROR_MSG, unknown)));
        // A probe changes nothing.
        let stack = Stack::with("timeout=1");
        let _broker = Broker::new(&stack, move |_, _| lose());
        let login = Login::start(&stack, c"john", CHANGES, "secret");
        assert_eq!(login.chauthtok(0), TRY_AGAIN);
        assert_eq!(login.heard().last(), Some(&shown(ERROR_MSG, Outcome::Unavailable.text().unwrap())));
    }
}

#[test]
fn an_expired_password_is_changed_where_the_line_leaves_it_to_acct_mgmt_and_where_not() {
    let _alone = alone();
    for (arguments, authenticate) in [("", NEW_AUTHTOK_REQD), ("expired=account", SUCCESS)] {
        let stack = Stack::with(arguments);
        let changed = Arc::new(Mutex::new(false));
        let broker = Broker::new(&stack, {
            let changed = changed.clone();
            move |request, _| {
                let mut changed = changed.lock().unwrap();
                *changed |= request.operation == Operation::ChangePassword;
                match request.operation {
                    Operation::Authenticate { .. } | Operation::Account { .. } if !*changed => {
                        Outcome::MustChange
                    }
                    _ => Outcome::Success,
                }
            }
        });
        let login = Login::start(&stack, c"john", CHANGES, "secret");
        assert_eq!(login.authenticate(0), authenticate);
        assert_eq!(login.acct_mgmt(0), NEW_AUTHTOK_REQD);
        assert_eq!(broker.questions().len(), 1);
        login.heard();
        assert_eq!(login.chauthtok(CHANGE_EXPIRED), SUCCESS);
        assert_eq!((login.heard(), broker.questions()), (change_prompts(), change_questions()));
        assert_eq!(login.acct_mgmt(0), SUCCESS);
        // Nothing is left to change. A service without another password line gets success.
        assert_eq!(login.chauthtok(CHANGE_EXPIRED), SUCCESS);
        let account = account_question;
        assert_eq!((login.heard(), broker.questions()), (vec![], vec![account(), account()]));
        // The same on a new handle.
        *changed.lock().unwrap() = false;
        let login = Login::start(&stack, c"john", CHANGES, "secret");
        assert_eq!(login.chauthtok(CHANGE_EXPIRED), SUCCESS);
        let expected: Vec<_> = [account()].into_iter().chain(change_questions()).collect();
        assert_eq!((login.heard(), broker.questions()), (change_prompts(), expected));
    }
}

/// Returns a broker that registers sessions `s1`, `s2`, …, and the list of the sessions that applications
/// closed.
fn register(stack: &Stack) -> (Broker, Arc<Mutex<Vec<String>>>) {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let count = Mutex::new(0);
    let broker = Broker::new(stack, {
        let told = told.clone();
        move |request, _| {
            let registers = matches!(
                request.operation,
                Operation::Authenticate { register: true, .. } | Operation::OpenSession { .. }
            );
            let session = registers.then(|| {
                let mut count = count.lock().unwrap();
                *count += 1;
                format!("s{count}")
            });
            if let Operation::CloseSession { session } = &request.operation {
                let session = session.as_deref().unwrap_or_default();
                told.lock().unwrap().push(format!("{session} of {}", request.user));
            }
            Verdict { session, ..Verdict::new(Outcome::Success, "") }
        }
    });
    (broker, told)
}

#[test]
fn a_session_is_registered_named_and_ended() {
    let _alone = alone();
    let stack = Stack::with("");
    let (broker, ended) = register(&stack);
    let ended = || std::mem::take(&mut *ended.lock().unwrap());
    let login = Login::john(&stack);
    assert_eq!(login.authenticate(0), SUCCESS);
    assert_eq!(login.session(), None);
    assert_eq!(login.open_session(0), SUCCESS);
    assert_eq!(login.session().as_deref(), Some("s1"));
    // acct_mgmt still finds the data that authenticate stored.
    assert_eq!(login.acct_mgmt(0), SUCCESS);
    assert_eq!(broker.asked(), 2);
    assert_eq!(login.close_session(0), SUCCESS);
    assert_eq!((login.session(), ended()), (None, vec!["s1 of john".to_owned()]));
    // pamela closes on another handle than it opened on. The broker finds the session by user, service and
    // process.
    assert_eq!(Login::john(&stack).open_session(0), SUCCESS);
    assert_eq!(Login::john(&stack).close_session(0), SUCCESS);
    assert_eq!(ended(), [" of john"]);
}

#[test]
fn with_session_auth_a_login_is_a_session() {
    let _alone = alone();
    let stack = Stack::with("session=auth");
    let (broker, ended) = register(&stack);
    let ended = || std::mem::take(&mut *ended.lock().unwrap());
    let login = Login::john(&stack);
    assert_eq!(login.authenticate(0), SUCCESS);
    assert_eq!(login.session().as_deref(), Some("s1"));
    assert_eq!(login.open_session(0), SUCCESS);
    assert_eq!(broker.asked(), 1, "no second session");
    assert_eq!(login.close_session(0), SUCCESS);
    assert_eq!((login.session(), ended()), (None, vec!["s1 of john".to_owned()]));
    // A second login on the same handle closes the earlier session.
    assert_eq!((login.authenticate(0), login.authenticate(0)), (SUCCESS, SUCCESS));
    assert_eq!((login.session().as_deref(), ended()), (Some("s3"), vec!["s2 of john".to_owned()]));
}

#[test]
fn the_application_that_asks_for_it_learns_the_outcome_of_each_call() {
    let _alone = alone();
    for arguments in ["outcome", ""] {
        let stack = Stack::with(arguments);
        let answers = Arc::new(Mutex::new(Outcome::Disabled));
        let answer = answers.clone();
        let _broker = Broker::new(&stack, move |_, _| *answer.lock().unwrap());
        let named = |outcome: &str| (!arguments.is_empty()).then(|| outcome.to_owned());
        let login = Login::start(&stack, c"john", CHANGES, "secret");
        assert_eq!(login.outcome(), None);
        assert_eq!((login.authenticate(0), login.outcome()), (PERM_DENIED, named("disabled")));
        assert_eq!((login.acct_mgmt(0), login.outcome()), (PERM_DENIED, named("disabled")));
        *answers.lock().unwrap() = Outcome::LogonHours;
        assert_eq!((login.authenticate(0), login.outcome()), (PERM_DENIED, named("logon_hours")));
        *answers.lock().unwrap() = Outcome::Success;
        assert_eq!((login.authenticate(0), login.outcome()), (SUCCESS, named("success")));
        assert_eq!((login.chauthtok(0), login.outcome()), (SUCCESS, named("success")));
        // The module rejects this name without a request. The earlier outcome must not remain.
        login.set_item(2, c"jo\nhn");
        assert_eq!((login.authenticate(0), login.outcome()), (USER_UNKNOWN, None));
    }
}

#[test]
fn who_is_logged_in_elsewhere_is_denied_with_a_text() {
    let _alone = alone();
    let text = || shown(ERROR_MSG, Outcome::SessionDenied.text().unwrap());
    for (arguments, by_login) in [("messages", false), ("messages session=auth", true)] {
        let stack = Stack::with(arguments);
        let _broker = Broker::new(&stack, move |request, _| match &request.operation {
            Operation::Authenticate { .. } if by_login => Outcome::SessionDenied,
            Operation::OpenSession { .. } if !by_login => Outcome::SessionDenied,
            _ => Outcome::Success,
        });
        let login = Login::john(&stack);
        let codes = (login.authenticate(0), login.open_session(0));
        let expected = if by_login { (PERM_DENIED, SUCCESS) } else { (SUCCESS, PERM_DENIED) };
        assert_eq!(codes, expected);
        assert_eq!(login.heard(), [prompts(["Password: "]), vec![text()]].concat());
        assert_eq!(login.session(), None);
    }
}

#[test]
fn whose_password_expires_soon_is_told_once() {
    let _alone = alone();
    let stack = Stack::with("messages");
    let broker = Broker::new(&stack, |request, _| {
        let warns = matches!(
            request.operation,
            Operation::Authenticate { warn: true, .. } | Operation::Account { warn: true, .. }
        );
        let expires_in = warns.then_some(5 * 3600);
        Verdict { expires_in, ..Verdict::new(Outcome::Success, "") }
    });
    let warning = || shown(TEXT_INFO, "Your password expires in 5 hours.");
    for manner in [Manner::Proper, Manner::PasswordForEverything, Manner::PromptsOnly] {
        let login = Login::start(&stack, c"john", manner, "secret");
        assert_eq!((login.authenticate(0), login.acct_mgmt(0)), (SUCCESS, SUCCESS));
        assert_eq!(login.heard(), [prompts(["Password: "]), vec![warning()]].concat(), "{manner:?}");
        assert_eq!(login.expires_in().as_deref(), Some("18000"), "{manner:?}");
        let login = Login::start(&stack, c"john", manner, "secret");
        assert_eq!((login.acct_mgmt(0), login.acct_mgmt(0)), (SUCCESS, SUCCESS));
        assert_eq!(login.heard(), [warning()], "{manner:?}");
    }
    let login = Login::john(&stack);
    assert_eq!((login.authenticate(SILENT), login.heard()), (SUCCESS, prompts(["Password: "])));
    assert_eq!(login.expires_in(), None);
    drop(broker);
}

#[test]
fn sixty_four_threads_load_use_and_unload_it_at_once() {
    let _alone = alone();
    let stack = Stack::with("timeout=60");
    let broker = Broker::of_john(&stack);
    for _ in 0..10 {
        std::thread::scope(|scope| {
            for number in 0..64 {
                let stack = &stack;
                scope.spawn(move || {
                    let (password, code) =
                        if number % 2 == 0 { ("secret", SUCCESS) } else { ("wrong", AUTH_ERR) };
                    for _ in 0..3 {
                        let login = Login::start(stack, c"john", Manner::Proper, password);
                        assert_eq!(login.authenticate(0), code);
                        assert_eq!(login.acct_mgmt(0), SUCCESS);
                    }
                });
            }
        });
    }
    assert_eq!(broker.asked(), 10 * 3 * (32 + 32 * 2));
}

/// Returns the resident memory in KiB, and the number of open files.
fn footprint() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (resident, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

/// select(2) overflows with a descriptor of 1024 or more (CVE-2013-0288 of nss-pam-ldapd).
#[test]
fn a_login_works_with_more_than_1024_open_files() {
    let _alone = alone();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a whole structure, which outlives them.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(4096);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    let stack = Stack::with("");
    let broker = Broker::of_john(&stack);
    let _files: Vec<_> = (0..1100).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    assert_eq!(Login::john(&stack).authenticate(0), SUCCESS);
    assert_eq!(broker.asked(), 1);
}

#[test]
fn two_thousand_transactions_leave_nothing_behind() {
    let _alone = alone();
    let stack = Stack::with("messages");
    let broker = Broker::new(&stack, |request, _| {
        let outcome = match request.operation {
            Operation::Account { .. } | Operation::ChangePassword => Outcome::Disabled,
            _ => Outcome::Success,
        };
        Verdict { session: Some("session".to_owned()), ..Verdict::new(outcome, "") }
    });
    let transactions = |count| {
        for _ in 0..count {
            let login = Login::start(&stack, c"john", Manner::PasswordForEverything, "secret");
            assert_eq!(login.authenticate(0), SUCCESS);
            assert_eq!(login.acct_mgmt(0), SUCCESS);
            login.set_item(2, c"jane");
            assert_eq!(login.acct_mgmt(0), PERM_DENIED);
            assert_eq!(login.open_session(0), SUCCESS);
            // A canceled change, and a rejected one.
            let halfway = Manner::Types { new: Some(c"new secret"), again: None };
            assert_eq!(Login::start(&stack, c"john", halfway, "secret").chauthtok(0), AUTHTOK_ERR);
            assert_eq!(login.chauthtok(0), PERM_DENIED);
            assert_eq!(login.close_session(0), SUCCESS);
            broker.questions();
        }
    };
    transactions(300);
    let (before, files) = footprint();
    transactions(2000);
    let (after, _) = footprint();
    assert!(after <= before + 512, "{before} KiB grew to {after} KiB");
    // The scripted broker runs in this process, and closes its end a moment later.
    let mut open = footprint().1;
    for _ in 0..500 {
        if open <= files {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        open = footprint().1;
    }
    assert!(open <= files, "{files} open files became {open}");
}
