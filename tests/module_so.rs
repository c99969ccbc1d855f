//! The real shared object under the real libpam, with a scripted broker: no root, no Active Directory.
//!
//! `MOTION_AD_MODULE` names a built module to test; without it, the tests build one of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The calls of an application are C.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use motion_ad::protocol::{Operation, Reply, Request, Secret, receive, send};
use motion_ad::verdict::{Outcome, Verdict};

const SUCCESS: c_int = 0;
const SERVICE_ERR: c_int = 3;
const PERM_DENIED: c_int = 6;
const AUTH_ERR: c_int = 7;
const AUTHINFO_UNAVAIL: c_int = 9;
const USER_UNKNOWN: c_int = 10;
const NEW_AUTHTOK_REQD: c_int = 12;
const CONV_ERR: c_int = 19;
const TRY_AGAIN: c_int = 24;

const ECHO_OFF: c_int = 1;
const ERROR_MSG: c_int = 3;

#[path = "clients/libpam.rs"]
#[allow(dead_code)]
mod libpam;

/// How an application answers.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// As the manual says.
    Proper,
    /// `authenticate-pam`: the password, whatever the message; one response, however many messages.
    PasswordForEverything,
    /// Success, and no response.
    NullArray,
    /// Success, and a response without text.
    NullText,
    /// PAM_CONV_ERR.
    Fails,
    /// Apache, OpenVPN: any message but a prompt fails.
    PromptsOnly,
}

/// The application's side of the conversation.
struct Application {
    manner: Manner,
    password: CString,
    heard: Mutex<Vec<(c_int, String)>>,
}

impl Application {
    fn new(manner: Manner, password: &str) -> Box<Self> {
        let password = CString::new(password).unwrap();
        Box::new(Application { manner, password, heard: Mutex::default() })
    }

    fn heard(&self) -> Vec<(c_int, String)> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

extern "C" fn converse(
    count: c_int,
    messages: *const *const libpam::Message,
    responses: *mut *mut libpam::Response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: `data` is the `Application` that `Login::start` passed, which outlives the handle.
    let application = unsafe { &*data.cast::<Application>() };
    assert_eq!(count, 1, "one message per call");
    // SAFETY: libpam passes `count` messages, each with a NUL-terminated text.
    let (style, text) = unsafe { ((**messages).style, CStr::from_ptr((**messages).text)) };
    application.heard.lock().unwrap().push((style, text.to_str().unwrap().to_owned()));

    let answers = match application.manner {
        Manner::Proper | Manner::PromptsOnly => style == ECHO_OFF,
        Manner::PasswordForEverything => true,
        Manner::NullArray | Manner::NullText | Manner::Fails => false,
    };
    match application.manner {
        Manner::Fails => return CONV_ERR,
        Manner::PromptsOnly if !answers => return CONV_ERR,
        Manner::NullArray => return SUCCESS,
        _ => {}
    }
    // SAFETY: the module frees both, with free(3); a zeroed response is an empty one.
    unsafe {
        let response = libc::calloc(1, size_of::<libpam::Response>()).cast::<libpam::Response>();
        if answers {
            (*response).text = libc::strdup(application.password.as_ptr());
        }
        *responses = response;
    }
    SUCCESS
}

/// One PAM handle. Its methods are libpam's functions.
struct Login {
    handle: *mut c_void,
    application: Box<Application>,
}

impl Login {
    fn start(stack: &Stack, user: &CStr, manner: Manner, password: &str) -> Self {
        let application = Application::new(manner, password);
        let data = (&raw const *application).cast_mut().cast();
        let conversation = libpam::Conversation { function: converse, data };
        let folder = CString::new(stack.folder.path().to_str().unwrap()).unwrap();
        let mut handle = std::ptr::null_mut();
        // SAFETY: the strings outlive the call, which copies them and the conversation; the application that
        // it points to lives as long as the handle.
        let code = unsafe {
            libpam::pam_start_confdir(
                c"motion".as_ptr(),
                user.as_ptr(),
                &raw const conversation,
                folder.as_ptr(),
                &raw mut handle,
            )
        };
        assert_eq!(code, SUCCESS);
        Login { handle, application }
    }

    fn john(stack: &Stack) -> Self {
        Login::start(stack, c"john", Manner::Proper, "secret")
    }

    fn set_item(&self, item: c_int, value: &CStr) {
        // SAFETY: the handle is open, and libpam copies the value.
        assert_eq!(unsafe { libpam::pam_set_item(self.handle, item, value.as_ptr().cast()) }, SUCCESS);
    }

    fn item(&self, item: c_int) -> Option<CString> {
        let mut value = std::ptr::null();
        // SAFETY: the handle is open; the item is a string, copied before the handle is used again.
        unsafe {
            assert_eq!(libpam::pam_get_item(self.handle, item, &raw mut value), SUCCESS);
            (!value.is_null()).then(|| CStr::from_ptr(value.cast()).to_owned())
        }
    }
}

macro_rules! calls {
    ($($name:ident = $function:ident)+) => {
        impl Login {
            $(fn $name(&self, flags: c_int) -> c_int {
                // SAFETY: the handle is open, and only this thread uses it.
                unsafe { libpam::$function(self.handle, flags) }
            })+
        }
    };
}

calls! {
    authenticate = pam_authenticate
    acct_mgmt = pam_acct_mgmt
    setcred = pam_setcred
    open_session = pam_open_session
    close_session = pam_close_session
    chauthtok = pam_chauthtok
}

impl Drop for Login {
    fn drop(&mut self) {
        // SAFETY: the handle is open and not used again.
        unsafe { libpam::pam_end(self.handle, SUCCESS) };
    }
}

/// The tests share one process, and some of them measure it: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shared object, built once.
fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        if let Some(path) = std::env::var_os("MOTION_AD_MODULE") {
            return std::path::absolute(path).unwrap();
        }
        // Its own folder: the cargo that runs these tests may hold the lock of the usual one.
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
    /// In each line MODULE stands for the shared object and SOCKET for the argument `socket=`.
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

    /// All four lines, with these arguments.
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
    asked: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Broker {
    fn new(stack: &Stack, rule: impl Fn(&Request, &Secret) -> Outcome + Send + 'static) -> Self {
        let (socket, asked) = (stack.socket(), Arc::new(AtomicUsize::new(0)));
        let listener = UnixListener::bind(&socket).unwrap();
        let count = asked.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // Dropping connects and says nothing: that is the end.
                let Ok((request, secret)) = receive::<Request>(&mut stream) else { return };
                count.fetch_add(1, Ordering::SeqCst);
                let reply = Reply::Verdict(Verdict::new(rule(&request, &secret), "a reason"));
                let _ = send(&mut stream, &reply, &Secret::default());
            }
        });
        Broker { socket, asked, thread: Some(thread) }
    }

    /// Knows john with his password, and lets him in.
    fn of_john(stack: &Stack) -> Self {
        Broker::new(stack, |request, secret| match (request.user.as_str(), request.operation) {
            ("john", Operation::Authenticate) if secret.bytes() == b"secret" => Outcome::Success,
            ("john", Operation::Account) => Outcome::Success,
            ("john", _) => Outcome::WrongPassword,
            _ => Outcome::UnknownUser,
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
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
    let login = Login::john(&stack);
    assert_eq!(login.authenticate(0), SUCCESS);
    assert_eq!(login.application.heard(), [(ECHO_OFF, "Password: ".to_owned())]);
    assert_eq!(login.acct_mgmt(0), SUCCESS);
    for (call, flags) in
        [(Login::setcred as fn(&Login, c_int) -> c_int, 2), (Login::setcred, 8), (Login::setcred, 4)]
    {
        assert_eq!(call(&login, flags), SUCCESS);
    }
    assert_eq!(login.open_session(0), SUCCESS);
    assert_eq!(login.close_session(0), SUCCESS);
    assert_eq!(login.chauthtok(0), TRY_AGAIN);
    assert_eq!(login.application.heard(), [], "nothing else was said");
    assert_eq!(login.item(2).unwrap(), c"john".to_owned(), "PAM_USER is as the application set it");
    assert_eq!(broker.asked(), 1, "acct_mgmt repeats the verdict");
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
    assert_eq!(Login::john(&stack).chauthtok(0), TRY_AGAIN);
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

#[test]
fn a_text_is_shown_when_wanted_and_may_fail() {
    let _alone = alone();
    let stack = Stack::with("messages");
    let _broker = Broker::new(&stack, |_, _| Outcome::Disabled);
    let prompt = || (ECHO_OFF, "Password: ".to_owned());
    let text = || (ERROR_MSG, Outcome::Disabled.text().unwrap().to_owned());
    for manner in [Manner::Proper, Manner::PasswordForEverything, Manner::PromptsOnly] {
        let login = Login::start(&stack, c"john", manner, "secret");
        assert_eq!(login.authenticate(0), PERM_DENIED);
        assert_eq!(login.application.heard(), [prompt(), text()], "{manner:?}");
        assert_eq!(login.authenticate(0x8000), PERM_DENIED);
        assert_eq!(login.application.heard(), [prompt()], "{manner:?}");
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
        assert_eq!(login.application.heard().len(), 1);
        assert_eq!(broker.asked(), 2);
    }
    let stack = Stack::with("use_first_pass");
    let broker = Broker::of_john(&stack);
    let login = Login::john(&stack);
    assert_eq!(login.authenticate(0), AUTH_ERR);
    assert_eq!((login.application.heard(), broker.asked()), (Vec::new(), 0));
    // A wrong first password is not followed by a second prompt.
    let stack = Stack::with("try_first_pass");
    let broker = Broker::of_john(&stack);
    let login = Login::start(&stack, c"john", Manner::Proper, "wrong");
    assert_eq!(login.authenticate(0), AUTH_ERR);
    assert_eq!((login.application.heard().len(), broker.asked()), (1, 1));
}

#[test]
fn arguments_fail_closed_and_an_absent_broker_lets_nobody_in() {
    let _alone = alone();
    let login = |arguments| {
        let stack = Stack::with(arguments);
        let login = Login::john(&stack);
        (login.authenticate(0), login.acct_mgmt(0))
    };
    assert_eq!(login(""), (AUTHINFO_UNAVAIL, AUTHINFO_UNAVAIL));
    assert_eq!(login("timeout=never"), (SERVICE_ERR, SERVICE_ERR));
    let stack = Stack::with("no_such_argument debug");
    let _broker = Broker::of_john(&stack);
    assert_eq!(Login::john(&stack).authenticate(0), SUCCESS);
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

/// Resident memory in KiB, and open files.
fn footprint() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (resident, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

#[test]
fn two_thousand_transactions_leave_nothing_behind() {
    let _alone = alone();
    let stack = Stack::with("messages");
    let _broker = Broker::new(&stack, |request, _| match request.operation {
        Operation::Authenticate => Outcome::Success,
        _ => Outcome::Disabled,
    });
    let transactions = |count| {
        for _ in 0..count {
            let login = Login::start(&stack, c"john", Manner::PasswordForEverything, "secret");
            assert_eq!(login.authenticate(0), SUCCESS);
            assert_eq!(login.acct_mgmt(0), SUCCESS);
            login.set_item(2, c"jane");
            assert_eq!(login.acct_mgmt(0), PERM_DENIED);
        }
    };
    transactions(300);
    let (before, files) = footprint();
    transactions(2000);
    let (after, files_after) = footprint();
    assert!(after <= before + 512, "{before} KiB grew to {after} KiB");
    assert_eq!(files, files_after);
}
