//! A PAM handle and a broker that follow a script, for tests: every question must come in the order that the
//! script expects, and none may be left over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::PROMPT;
use super::code::Code;
use super::handle::{Handle, Items, Priority};
use super::memory::Memory;
use crate::client::AskError;
use crate::protocol::{Operation, Request, Secret};
use crate::verdict::{Outcome, Verdict};

/// One thing that the module is expected to do, and what comes of it.
#[derive(Debug)]
pub enum Step {
    /// It asks for PAM_USER.
    User(Result<&'static [u8], Code>),
    /// It asks for the password.
    Password(Result<&'static [u8], Code>),
    /// It asks the broker.
    Ask {
        operation: Operation,
        user: &'static str,
        password: &'static [u8],
        reply: Result<Outcome, AskError>,
    },
    /// It shows a text.
    Tell(&'static str),
    /// It logs a line that holds these words, and no password.
    Log(Priority, &'static [&'static str]),
}

type Steps = Rc<RefCell<VecDeque<Step>>>;

fn next(steps: &Steps, wanted: &str) -> Step {
    steps.borrow_mut().pop_front().unwrap_or_else(|| panic!("the script is over, but came: {wanted}"))
}

/// The scripted handle.
pub struct Script {
    steps: Steps,
    memory: Option<Memory>,
    now: Duration,
}

impl Script {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = Rc::new(RefCell::new(steps.into_iter().collect()));
        Script { steps, memory: None, now: Duration::from_secs(1000) }
    }

    /// Goes on with more steps.
    pub fn expect(&mut self, steps: impl IntoIterator<Item = Step>) {
        self.steps.borrow_mut().extend(steps);
    }

    /// Lets time pass.
    pub fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// The scripted broker.
    pub fn broker(&self) -> impl FnOnce(&Path, &Request, &Secret) -> Result<Verdict, AskError> + use<> {
        let steps = self.steps.clone();
        move |_, request, secret| match next(&steps, "a question to the broker") {
            Step::Ask { operation, user, password, reply } => {
                assert_eq!((request.operation, request.user.as_str()), (operation, user));
                assert_eq!((request.service.as_str(), request.rhost.as_str()), ("motion", "client.example"));
                assert!(secret.bytes() == password, "another password was sent");
                reply.map(|outcome| Verdict::new(outcome, ""))
            }
            other => panic!("the broker was asked instead of {other:?}"),
        }
    }

    /// Nothing may be left over.
    pub fn finished(&self) {
        assert!(self.steps.borrow().is_empty(), "never happened: {:?}", self.steps.borrow());
    }
}

impl Handle for Script {
    fn user(&mut self) -> Result<Vec<u8>, Code> {
        match next(&self.steps, "a question for the user") {
            Step::User(reply) => reply.map(<[u8]>::to_vec),
            other => panic!("the user was asked for instead of {other:?}"),
        }
    }

    fn password(&mut self, prompt: &CStr) -> Result<Secret, Code> {
        assert_eq!(prompt, PROMPT);
        match next(&self.steps, "a question for the password") {
            Step::Password(reply) => reply.map(|bytes| Secret::new(bytes.to_vec())),
            other => panic!("the password was asked for instead of {other:?}"),
        }
    }

    fn items(&self) -> Items {
        Items { service: "motion".into(), rhost: "client.example".into(), tty: String::new() }
    }

    fn tell(&mut self, text: &str) {
        match next(&self.steps, text) {
            Step::Tell(expected) => assert_eq!(text, expected),
            other => panic!("{text:?} was shown instead of {other:?}"),
        }
    }

    fn remember(&mut self, memory: Option<Memory>) {
        self.memory = memory;
    }

    fn recall(&self) -> Option<Memory> {
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
        self.now
    }
}
