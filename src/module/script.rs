//! A PAM handle and a broker that follow a script, for tests: every question must come in the order that the
//! script expects, and none may be left over. Every password of a script has `secret` in it, and no log line may.

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
use crate::verdict::{Outcome, Verdict};

/// One thing that the module is expected to do, and what comes of it.
#[derive(Debug)]
pub enum Step {
    /// It asks for PAM_USER, or for one of the passwords.
    Want(Item, Result<&'static [u8], Code>),
    /// It asks the broker.
    Ask(Box<Question>),
    /// It does something that has no answer.
    Do(Deed),
    /// It logs a line that holds these words, and no password.
    Log(Priority, &'static [&'static str]),
}

/// See [`Step::Do`].
#[derive(Debug, PartialEq, Eq)]
pub enum Deed {
    /// It unsets the new password.
    ForgetNew,
    /// It shows a text.
    Tell(Text),
    /// It names the session for the application.
    NameSession(Option<String>),
    /// It names the outcome for the application.
    NameOutcome(Option<Outcome>),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    User,
    Password,
    /// The one that is to be changed.
    Present,
    New,
}

/// A question to the broker: what is asked, and what comes of it.
#[derive(Debug)]
pub struct Question {
    operation: Operation,
    user: &'static str,
    secret: Vec<u8>,
    session: &'static str,
    account: Option<&'static str>,
    register: bool,
    warn: bool,
    within: Duration,
    takes: Duration,
    reply: Result<Verdict, AskError>,
}

impl Question {
    pub fn new(operation: Operation, user: &'static str) -> Self {
        let (within, takes) = (Duration::from_secs(5), Duration::ZERO);
        let reply = Ok(Verdict::new(Outcome::Success, ""));
        let secret = Vec::new();
        let (session, account, register, warn) = ("", None, false, false);
        Question { operation, user, secret, session, account, register, warn, within, takes, reply }
    }

    pub fn with(self, secret: &[u8]) -> Self {
        Question { secret: secret.to_vec(), ..self }
    }

    pub fn of_session(self, session: &'static str) -> Self {
        Question { session, ..self }
    }

    /// It is about the account that proved itself.
    pub fn of_account(self, account: &'static str) -> Self {
        Question { account: Some(account), ..self }
    }

    pub fn registers(self) -> Self {
        Question { register: true, ..self }
    }

    pub fn wants_warning(self) -> Self {
        Question { warn: true, ..self }
    }

    /// It leaves the broker so many seconds at most.
    pub fn within(self, seconds: u64) -> Self {
        Question { within: Duration::from_secs(seconds), ..self }
    }

    /// So many seconds pass before the reply.
    pub fn takes(self, seconds: u64) -> Self {
        Question { takes: Duration::from_secs(seconds), ..self }
    }

    pub fn says(self, outcome: Outcome) -> Step {
        self.replies(Verdict::new(outcome, ""))
    }

    /// A success that registers this session, or is about it.
    pub fn says_session(self, id: &str) -> Step {
        self.replies(Verdict { session: Some(id.into()), ..Verdict::new(Outcome::Success, "") })
    }

    /// The same, and whose account it is.
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

/// Why something was refused.
pub fn told(text: &str) -> Step {
    Step::Do(Deed::Tell(Text::Error(text.to_owned())))
}

/// What is good to know.
pub fn informed(text: &str) -> Step {
    Step::Do(Deed::Tell(Text::Info(text.to_owned())))
}

/// The application learns the id of its session.
pub fn named(id: &str) -> Step {
    Step::Do(Deed::NameSession(Some(id.to_owned())))
}

/// It learns that it has none.
pub fn unnamed() -> Step {
    Step::Do(Deed::NameSession(None))
}

/// The application learns the outcome.
pub fn decided(outcome: Outcome) -> Step {
    Step::Do(Deed::NameOutcome(Some(outcome)))
}

/// It learns that nobody was asked.
pub fn undecided() -> Step {
    Step::Do(Deed::NameOutcome(None))
}

/// No module that follows gets the new password.
pub fn forgotten() -> Step {
    Step::Do(Deed::ForgetNew)
}

/// A complaint that holds these words.
pub fn complaint(words: &'static [&'static str]) -> Step {
    Step::Log(Priority::Error, words)
}

/// What `pam_sm_authenticate` asks about john.
pub fn login() -> Question {
    Question::new(Operation::Authenticate, "john").with(b"secret")
}

pub fn account(outcome: Outcome) -> Step {
    Question::new(Operation::Account, "john").says(outcome)
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

    /// Calls an entry point, and sees that it follows `steps` to their end.
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

    /// Lets time pass.
    pub fn wait(&mut self, seconds: u64) {
        self.now.set(self.now.get() + Duration::from_secs(seconds));
    }

    fn broker(&self) -> Broker {
        let (steps, now) = (self.steps.clone(), self.now.clone());
        Box::new(move |_, request, secret| match next(&steps, &format!("{:?}", request.operation)) {
            Step::Ask(expected) => {
                assert_eq!((request.operation, request.user.as_str()), (expected.operation, expected.user));
                assert_eq!((request.service.as_str(), request.rhost.as_str()), ("motion", "client.example"));
                assert_eq!(request.session, expected.session, "{expected:?}");
                assert_eq!(request.account.as_deref(), expected.account, "{expected:?}");
                assert_eq!(
                    (request.register, request.warn),
                    (expected.register, expected.warn),
                    "{expected:?}"
                );
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
