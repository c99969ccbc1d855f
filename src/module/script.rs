//! A PAM handle and a broker that follow a script, for tests: the calls of the module must come in the order
//! of the script, and none may be left over. Every password of a script contains `secret`, and no log line
//! may.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use pam::constants::PamFlag;

use super::PROMPT;
use super::code::Code;
use super::handle::{Handle, Items, Priority, Text};
use super::memory::Memory;
use crate::client::AskError;
use crate::protocol::{Operation, Request, Secret};
use crate::texts::Language;
use crate::verdict::{Outcome, Verdict};

/// An expected action of the module, and its result.
#[derive(Debug)]
pub enum Step {
    /// The module asks for PAM_USER, or for a password.
    Want(Item, Result<&'static [u8], Code>),
    /// The module queries the broker.
    Ask(Box<Question>),
    /// The module does something that has no result.
    Do(Deed),
    /// The module logs a line that contains these words, and no password.
    Log(Priority, &'static [&'static str]),
}

/// An action without a result; see [`Step::Do`].
#[derive(Debug, PartialEq, Eq)]
pub enum Deed {
    /// The module unsets the new password.
    ForgetNew,
    /// The module shows a text.
    Tell(Text),
    /// The module names the session for the application.
    NameSession(Option<String>),
    /// The module names the outcome for the application.
    NameOutcome(Option<Outcome>),
    /// The module names the seconds until the password expires, for the application.
    NameExpiry(u64),
}

/// An item that the module asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    User,
    Password,
    /// The password to change.
    Present,
    New,
}

/// An expected request to the broker, and its reply.
#[derive(Debug)]
pub struct Question {
    operation: Operation,
    user: &'static str,
    language: Language,
    observe: bool,
    secret: Vec<u8>,
    within: Duration,
    takes: Duration,
    reply: Result<Verdict, AskError>,
}

impl Question {
    pub fn new(operation: Operation, user: &'static str) -> Self {
        let (within, takes) = (Duration::from_secs(5), Duration::ZERO);
        let reply = Ok(Verdict::new(Outcome::Success, ""));
        let secret = Vec::new();
        let language = Language::default();
        Question { operation, user, language, observe: false, secret, within, takes, reply }
    }

    pub fn with(self, secret: &[u8]) -> Self {
        Question { secret: secret.to_vec(), ..self }
    }

    /// The login is only observed.
    pub fn observed(self) -> Self {
        Question { observe: true, ..self }
    }

    /// The user reads this language.
    pub fn reads(self, language: Language) -> Self {
        Question { language, ..self }
    }

    /// Checks the access of `user`.
    pub fn about(user: &'static str) -> Self {
        Question::new(Operation::Account { account: None, warn: false }, user)
    }

    /// The request is about the account that was authenticated.
    pub fn of_account(mut self, proved: &'static str) -> Self {
        match &mut self.operation {
            Operation::Account { account, .. } | Operation::OpenSession { account } => {
                *account = Some(proved.to_owned());
            }
            other => panic!("{other:?} is about no account"),
        }
        self
    }

    pub fn registers(mut self) -> Self {
        match &mut self.operation {
            Operation::Authenticate { register, .. } => *register = true,
            other => panic!("{other:?} registers nothing"),
        }
        self
    }

    pub fn wants_warning(mut self) -> Self {
        match &mut self.operation {
            Operation::Authenticate { warn, .. } | Operation::Account { warn, .. } => *warn = true,
            other => panic!("{other:?} warns nobody"),
        }
        self
    }

    /// The request leaves the broker at most this time.
    pub fn within(self, seconds: u64) -> Self {
        Question { within: Duration::from_secs(seconds), ..self }
    }

    /// This time passes before the reply.
    pub fn takes(self, seconds: u64) -> Self {
        Question { takes: Duration::from_secs(seconds), ..self }
    }

    pub fn says(self, outcome: Outcome) -> Step {
        self.replies(Verdict::new(outcome, ""))
    }

    /// Replies with a success that registers this session, or is about it.
    pub fn says_session(self, id: &str) -> Step {
        self.replies(Verdict { session: Some(id.into()), ..Verdict::new(Outcome::Success, "") })
    }

    /// Replies with an outcome for this account.
    pub fn says_of(self, outcome: Outcome, account: &str) -> Step {
        self.replies(Verdict { account: Some(account.into()), ..Verdict::new(outcome, "") })
    }

    pub fn replies(self, verdict: Verdict) -> Step {
        Step::Ask(Box::new(Question { reply: Ok(verdict), ..self }))
    }

    pub fn fails(self, error: AskError) -> Step {
        Step::Ask(Box::new(Question { reply: Err(error), ..self }))
    }
}

pub fn john() -> Step {
    Step::Want(Item::User, Ok(b"john"))
}

pub fn password() -> Step {
    Step::Want(Item::Password, Ok(b"secret"))
}

/// The module shows the reason for a rejection.
pub fn told(text: &str) -> Step {
    Step::Do(Deed::Tell(Text::Error(text.to_owned())))
}

/// The module shows information.
pub fn informed(text: &str) -> Step {
    Step::Do(Deed::Tell(Text::Info(text.to_owned())))
}

/// The application gets the id of its session.
pub fn named(id: &str) -> Step {
    Step::Do(Deed::NameSession(Some(id.to_owned())))
}

/// The id of the session is removed.
pub fn unnamed() -> Step {
    Step::Do(Deed::NameSession(None))
}

/// The application gets the outcome.
pub fn decided(outcome: Outcome) -> Step {
    Step::Do(Deed::NameOutcome(Some(outcome)))
}

/// The outcome is removed, because the broker was not queried.
pub fn undecided() -> Step {
    Step::Do(Deed::NameOutcome(None))
}

/// The application gets the seconds until the password expires.
pub fn expiring(seconds: u64) -> Step {
    Step::Do(Deed::NameExpiry(seconds))
}

/// The new password is unset for the modules that follow.
pub fn forgotten() -> Step {
    Step::Do(Deed::ForgetNew)
}

/// The module logs an error that contains these words.
pub fn complaint(words: &'static [&'static str]) -> Step {
    Step::Log(Priority::Error, words)
}

/// The request of `pam_sm_authenticate` about john.
pub fn login() -> Question {
    let login = Operation::Authenticate { register: false, warn: false };
    Question::new(login, "john").with(b"secret")
}

pub fn account(outcome: Outcome) -> Step {
    Question::about("john").says(outcome)
}

type Steps = Rc<RefCell<VecDeque<Step>>>;

fn next(steps: &Steps, wanted: &str) -> Step {
    steps.borrow_mut().pop_front().unwrap_or_else(|| panic!("the script is over, but came: {wanted}"))
}

/// The scripted handle.
pub struct Script {
    steps: Steps,
    memory: Memory,
    now: Rc<Cell<Duration>>,
}

impl Script {
    pub fn new() -> Self {
        let now = Rc::new(Cell::new(Duration::from_secs(1000)));
        Script { steps: Steps::default(), memory: Memory::default(), now }
    }

    /// Calls an entry point, and checks that it follows `steps` to their end.
    pub fn call(
        &mut self,
        entry_point: impl FnOnce(&mut Script, Broker, &[&CStr], PamFlag) -> Code,
        args: &[&CStr],
        flags: PamFlag,
        steps: impl IntoIterator<Item = Step>,
    ) -> Code {
        self.steps.borrow_mut().extend(steps);
        let broker = self.broker();
        let code = entry_point(self, broker, args, flags);
        assert!(self.steps.borrow().is_empty(), "never happened: {:?}", self.steps.borrow());
        code
    }

    /// Advances the clock.
    pub fn wait(&mut self, seconds: u64) {
        self.now.set(self.now.get() + Duration::from_secs(seconds));
    }

    fn broker(&self) -> Broker {
        let (steps, now) = (self.steps.clone(), self.now.clone());
        Box::new(move |_, request, secret| match next(&steps, &format!("{:?}", request.operation)) {
            Step::Ask(expected) => {
                assert_eq!((&request.operation, request.user.as_str()), (&expected.operation, expected.user));
                assert_eq!((request.language, request.observe), (expected.language, expected.observe));
                assert_eq!((request.service.as_str(), request.rhost.as_str()), ("motion", "client.example"));
                assert!(request.remaining() <= expected.within, "{:?}", request.remaining());
                assert!(secret.bytes() == expected.secret, "another password was sent");
                now.set(now.get() + expected.takes);
                expected.reply
            }
            other => panic!("the broker was asked for {:?} instead of {other:?}", request.operation),
        })
    }

    fn answered(&self, wanted: Item) -> Result<Vec<u8>, Code> {
        match next(&self.steps, &format!("{wanted:?}")) {
            Step::Want(item, reply) if item == wanted => reply.map(<[u8]>::to_vec),
            other => panic!("{wanted:?} was asked for instead of {other:?}"),
        }
    }

    fn does(&self, done: &Deed) {
        match next(&self.steps, &format!("{done:?}")) {
            Step::Do(expected) => assert_eq!(done, &expected),
            other => panic!("{done:?} happened instead of {other:?}"),
        }
    }
}

/// The scripted broker.
pub type Broker = Box<dyn Fn(&Path, &Request, &Secret) -> Result<Verdict, AskError>>;

impl Handle for Script {
    fn user(&mut self) -> Result<Vec<u8>, Code> {
        self.answered(Item::User)
    }

    fn password(&mut self, prompt: &CStr) -> Result<Secret, Code> {
        assert_eq!(prompt, PROMPT);
        self.answered(Item::Password).map(Secret::new)
    }

    fn present_password(&mut self) -> Result<Secret, Code> {
        self.answered(Item::Present).map(Secret::new)
    }

    fn new_password(&mut self) -> Result<Secret, Code> {
        self.answered(Item::New).map(Secret::new)
    }

    fn forget_new_password(&mut self) {
        self.does(&Deed::ForgetNew);
    }

    fn items(&self) -> Items {
        Items { service: "motion".into(), rhost: "client.example".into(), tty: String::new() }
    }

    fn tell(&mut self, text: &Text) {
        self.does(&Deed::Tell(text.clone()));
    }

    fn name_session(&mut self, id: Option<&str>) {
        self.does(&Deed::NameSession(id.map(str::to_owned)));
    }

    fn name_outcome(&mut self, outcome: Option<Outcome>) {
        self.does(&Deed::NameOutcome(outcome));
    }

    fn name_expiry(&mut self, seconds: u64) {
        self.does(&Deed::NameExpiry(seconds));
    }

    fn remember(&mut self, memory: Memory) {
        self.memory = memory;
    }

    fn recall(&self) -> Memory {
        self.memory.clone()
    }

    fn log(&self, priority: Priority, line: &str) {
        match next(&self.steps, line) {
            Step::Log(expected, words) => {
                assert_eq!(priority, expected, "{line}");
                assert!(words.iter().all(|word| line.contains(word)), "{line:?} holds not all of {words:?}");
                assert!(!line.contains("secret") && !line.contains(char::is_control), "{line:?}");
            }
            other => panic!("{line:?} was logged instead of {other:?}"),
        }
    }

    fn now(&self) -> Duration {
        self.now.get()
    }
}
