//! One call of PAM: it waits for a thread, runs, and answers; or it is cancelled first.

use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::Env;
use napi::{JsDeferred, Result};
use zeroize::Zeroizing;

use crate::libpam::{Application, Handle, SUCCESS, Talk};
use crate::{Reply, Session};

/// Variables of the PAM environment that the module sets (`src/module/handle.rs`).
const OUTCOME: &CStr = c"MOTION_AD_OUTCOME";
const SESSION: &CStr = c"MOTION_AD_SESSION";
const EXPIRES_IN: &CStr = c"MOTION_AD_EXPIRES_IN";

/// Makes the reply on the thread of the event loop.
pub type Resolver = Box<dyn FnOnce(Env) -> Result<Reply> + Send>;
/// The promise of a call.
pub type Deferred = JsDeferred<Reply, Resolver>;

/// Texts that start a handle.
pub struct Start {
    pub service: CString,
    pub user: CString,
    pub rhost: Option<CString>,
    pub tty: Option<CString>,
    pub folder: Option<CString>,
}

impl Start {
    fn handle(&self, passwords: &[&[u8]]) -> std::result::Result<Handle, Done> {
        let application = Application {
            service: &self.service,
            rhost: self.rhost.as_deref(),
            tty: self.tty.as_deref(),
            folder: self.folder.as_deref(),
        };
        Handle::start(&application, &self.user, Talk::new(&self.user, passwords)).map_err(|failed| Done {
            stage: "start",
            code: failed.code,
            handle: None,
            is_open: false,
        })
    }
}

/// The work of a call.
pub enum Work {
    Login { start: Start, password: Zeroizing<Vec<u8>>, session: bool },
    Change { start: Start, present: Zeroizing<Vec<u8>>, new: Zeroizing<Vec<u8>> },
    Open { start: Start },
    Close { handle: Handle },
    End { handle: Handle },
}

/// The result of a call.
pub struct Done {
    stage: &'static str,
    code: i32,
    handle: Option<Handle>,
    /// True if the handle has an open session.
    is_open: bool,
}

impl Work {
    fn run(self) -> Done {
        self.attempt().unwrap_or_else(|failed| failed)
    }

    /// # Errors
    /// Returns the result if the handle cannot be started.
    fn attempt(self) -> std::result::Result<Done, Done> {
        Ok(match self {
            Work::Login { start, password, session } => login(start.handle(&[&password])?, session),
            Work::Change { start, present, new } => {
                let mut handle = start.handle(&[&present, &new, &new])?;
                let code = handle.change_password();
                handle.forget_passwords();
                Done { stage: "change", code, handle: Some(handle), is_open: false }
            }
            Work::Open { start } => checked(start.handle(&[])?, true),
            Work::Close { mut handle } => {
                let code = handle.close_session();
                Done { stage: "close", code, handle: Some(handle), is_open: false }
            }
            Work::End { handle } => {
                drop(handle);
                Done { stage: "close", code: SUCCESS, handle: None, is_open: false }
            }
        })
    }
}

fn login(mut handle: Handle, session: bool) -> Done {
    let code = handle.authenticate();
    handle.forget_passwords();
    if code == SUCCESS { checked(handle, session) } else { rejected(handle, "authenticate", code) }
}

/// Checks the account, and opens a session if one is wanted.
fn checked(mut handle: Handle, session: bool) -> Done {
    let code = handle.account();
    if code != SUCCESS {
        return rejected(handle, "account", code);
    }
    if !session {
        // With `session=auth` the login has registered one.
        let is_open = handle.variable(SESSION).is_some();
        return Done { stage: "account", code, handle: Some(handle), is_open };
    }
    let code = handle.open_session();
    match code {
        SUCCESS => Done { stage: "open", code, handle: Some(handle), is_open: true },
        _ => rejected(handle, "open", code),
    }
}

/// The result for a user who gets no access. A session that an earlier step registered (`session=auth`) ends.
fn rejected(mut handle: Handle, stage: &'static str, code: i32) -> Done {
    if handle.variable(SESSION).is_some() {
        handle.close_session();
    }
    Done { stage, code, handle: Some(handle), is_open: false }
}

impl Done {
    /// Returns the reply, and the handle if it has no session and must be ended.
    fn into_reply(mut self) -> (Reply, Option<Handle>) {
        let variable = |name| self.handle.as_ref().and_then(|handle: &Handle| handle.variable(name));
        let (outcome, expires_in, id) = (variable(OUTCOME), variable(EXPIRES_IN), variable(SESSION));
        let texts = self.handle.as_mut().map(Handle::texts).unwrap_or_default();
        let (errors, infos): (Vec<_>, Vec<_>) = texts.into_iter().partition(|text| text.is_error);
        let (open, rest) = if self.is_open { (self.handle, None) } else { (None, self.handle) };
        let reply = Reply {
            state: "done".to_owned(),
            started: true,
            stage: self.stage.to_owned(),
            code: self.code,
            outcome,
            expires_in,
            errors: errors.into_iter().map(|text| text.text).collect(),
            infos: infos.into_iter().map(|text| text.text).collect(),
            session: open.map(|handle| Session::new(id, handle)),
        };
        (reply, rest)
    }

    /// Ends the session of a login that was cancelled while it ran.
    fn undo(self) {
        if let Some(mut handle) = self.handle.filter(|_| self.is_open) {
            handle.close_session();
        }
    }
}

/// A call that ended without a result of PAM.
fn without_result(state: &str, started: bool) -> Reply {
    Reply {
        state: state.to_owned(),
        started,
        stage: "start".to_owned(),
        code: 0,
        outcome: None,
        expires_in: None,
        errors: Vec::new(),
        infos: Vec::new(),
        session: None,
    }
}

#[derive(Default)]
enum Phase {
    #[default]
    New,
    Waiting(Box<Work>),
    Running,
    Ended,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// The promise, until it is settled.
    deferred: Option<Deferred>,
}

/// A call.
#[derive(Default)]
pub struct Call(Mutex<State>);

impl Call {
    /// Creates a call that has no promise and waits for a thread.
    pub fn without_answer(work: Work) -> Self {
        Call(Mutex::new(State { phase: Phase::Waiting(Box::new(work)), deferred: None }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a new call wait for a thread.
    ///
    /// # Errors
    /// Returns the promise if the call was made before.
    pub fn enter(&self, work: Work, deferred: Deferred) -> std::result::Result<(), Deferred> {
        let mut state = self.state();
        match state.phase {
            Phase::New => {
                *state = State { phase: Phase::Waiting(Box::new(work)), deferred: Some(deferred) };
                Ok(())
            }
            _ => Err(deferred),
        }
    }

    /// Returns true for the end of a session, which must not be lost.
    pub fn must_be_made(&self) -> bool {
        matches!(&self.state().phase, Phase::Waiting(work) if is_an_end(work))
    }

    /// Settles the promise as cancelled, unless it is settled. Returns the work if it was not begun and need
    /// not be made.
    pub fn cancel(&self) -> Option<Box<Work>> {
        let mut state = self.state();
        let started = !matches!(state.phase, Phase::Waiting(_));
        let waiting = match std::mem::replace(&mut state.phase, Phase::Ended) {
            Phase::Waiting(work) if !is_an_end(&work) => Some(work),
            phase => {
                state.phase = phase;
                None
            }
        };
        let deferred = state.deferred.take();
        drop(state);
        settle(deferred, without_result("cancelled", started));
        waiting
    }

    /// Settles the promise of a call that could not be queued.
    pub fn fail(&self) {
        let mut state = self.state();
        state.phase = Phase::Ended;
        let deferred = state.deferred.take();
        drop(state);
        settle(deferred, without_result("failed", false));
    }

    /// Makes the call on this thread, and settles its promise.
    pub fn run(self: &Arc<Self>) {
        let work = {
            let mut state = self.state();
            match std::mem::replace(&mut state.phase, Phase::Running) {
                Phase::Waiting(work) => work,
                phase => {
                    state.phase = phase;
                    return;
                }
            }
        };
        let ending = Ending(self);
        let done = work.run();
        let deferred = ending.0.state().deferred.take();
        match deferred {
            // The answer comes first; ending the handle runs code of the modules.
            Some(_) => {
                let (reply, rest) = done.into_reply();
                settle(deferred, reply);
                drop(rest);
            }
            None => done.undo(),
        }
    }
}

/// Settles the promise as failed if a fault of this package unwinds before there is a result.
struct Ending<'a>(&'a Call);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.phase = Phase::Ended;
        let deferred = state.deferred.take();
        drop(state);
        settle(deferred, without_result("failed", true));
    }
}

fn is_an_end(work: &Work) -> bool {
    matches!(work, Work::Close { .. } | Work::End { .. })
}

fn settle(deferred: Option<Deferred>, reply: Reply) {
    if let Some(deferred) = deferred {
        deferred.resolve(Box::new(move |_| Ok(reply)));
    }
}
