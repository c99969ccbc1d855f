//! The native part of `motion-ad-client`: calls libpam on threads outside Node's event loop.
//!
//! | File | Subject |
//! |---|---|
//! | this file | what JavaScript sees |
//! | [`call`] | one call: waiting, running, cancelled, and what is undone afterwards |
//! | [`pool`] | a bounded number of threads, and a bounded queue for them |
//! | [`libpam`] | libpam as an application calls it, with all the unsafe code; shared with the LDAP bridge |
//!
//! It calls PAM and nothing else: it opens no socket, reads no file, and knows no outcome. The meaning
//! of a PAM code is in `lib/answer.js`.

// No value from the application may panic or be cut.
#![deny(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod call;
#[path = "../../../src/libpam.rs"]
pub mod libpam;
mod pool;

use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{Env, Object};
use napi::{Error, Result, Status};
use napi_derive::napi;
use zeroize::Zeroizing;

use call::{Deferred, Resolver, Start, Work};
use libpam::Handle;

/// Origin and purpose of a call.
#[napi(object, object_to_js = false)]
pub struct Request {
    /// The PAM service.
    pub service: String,
    /// PAM_USER.
    pub user: String,
    /// PAM_RHOST.
    pub rhost: Option<String>,
    /// PAM_TTY.
    pub tty: Option<String>,
    /// The folder of the services in place of `/etc/pam.d`, for tests.
    pub folder: Option<String>,
}

impl Request {
    fn into_start(self) -> Result<Start> {
        let text = |text: String| {
            CString::new(text).map_err(|_| Error::new(Status::InvalidArg, "a text contains NUL".to_owned()))
        };
        Ok(Start {
            service: text(self.service)?,
            user: text(self.user)?,
            rhost: self.rhost.map(text).transpose()?,
            tty: self.tty.map(text).transpose()?,
            folder: self.folder.map(text).transpose()?,
        })
    }
}

/// The result of a call.
#[napi(object, object_from_js = false)]
pub struct Reply {
    /// `done`, `cancelled`, or `failed` if the call ended without a result.
    pub state: String,
    /// True if libpam was called, so that a cancelled call may have had its effect.
    pub started: bool,
    /// The last function of libpam that was called: `start`, `authenticate`, `account`, `change`, `open` or
    /// `close`.
    pub stage: String,
    /// Its PAM code.
    pub code: i32,
    /// MOTION_AD_OUTCOME.
    pub outcome: Option<String>,
    /// MOTION_AD_EXPIRES_IN.
    pub expires_in: Option<String>,
    /// Reasons that modules showed (PAM_ERROR_MSG).
    pub errors: Vec<String>,
    /// Information that modules showed (PAM_TEXT_INFO).
    pub infos: Vec<String>,
    /// The session that was opened.
    pub session: Option<Session>,
}

/// A session that was opened, with the handle that closes it.
#[napi]
pub struct Session {
    id: Option<String>,
    handle: Mutex<Option<Handle>>,
}

#[napi]
impl Session {
    /// Returns MOTION_AD_SESSION.
    #[napi(getter)]
    pub fn id(&self) -> Option<String> {
        self.id.clone()
    }
}

impl Session {
    fn new(id: Option<String>, handle: Handle) -> Self {
        Session { id, handle: Mutex::new(Some(handle)) }
    }

    fn take(&self) -> Option<Handle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The garbage collector runs on the thread of the event loop, and ending a handle runs code of the modules.
impl Drop for Session {
    fn drop(&mut self) {
        if let Some(handle) = self.take() {
            pool::end(handle);
        }
    }
}

/// One call of PAM. Each can be made once.
#[napi]
pub struct Call {
    call: Arc<call::Call>,
}

#[napi]
impl Call {
    /// Creates a call that was not made yet.
    #[napi(constructor)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Call { call: Arc::default() }
    }

    /// Authenticates, checks the account, and opens a session if `session` is true. Copies the password.
    ///
    /// # Errors
    /// Returns an error if a text contains NUL, or if the queue is full (`QueueFull`).
    #[napi]
    pub fn login<'env>(
        &self,
        env: &'env Env,
        request: Request,
        password: &[u8],
        session: bool,
    ) -> Result<Object<'env>> {
        let password = Zeroizing::new(password.to_vec());
        self.make(env, Work::Login { start: request.into_start()?, password, session })
    }

    /// Changes a password. Copies both.
    ///
    /// # Errors
    /// As [`Call::login`].
    #[napi]
    pub fn change<'env>(
        &self,
        env: &'env Env,
        request: Request,
        present: &[u8],
        new: &[u8],
    ) -> Result<Object<'env>> {
        let (present, new) = (Zeroizing::new(present.to_vec()), Zeroizing::new(new.to_vec()));
        self.make(env, Work::Change { start: request.into_start()?, present, new })
    }

    /// Checks the account of a user whom the application has authenticated, and opens a session.
    ///
    /// # Errors
    /// As [`Call::login`].
    #[napi]
    pub fn open<'env>(&self, env: &'env Env, request: Request) -> Result<Object<'env>> {
        self.make(env, Work::Open { start: request.into_start()? })
    }

    /// Closes a session. Not bounded by the queue.
    ///
    /// # Errors
    /// Returns an error if the session was closed before.
    #[napi]
    pub fn close<'env>(&self, env: &'env Env, session: &Session) -> Result<Object<'env>> {
        let handle = session.take();
        let handle = handle.ok_or_else(|| Error::new(Status::InvalidArg, "closed before".to_owned()))?;
        self.make(env, Work::Close { handle })
    }

    /// Settles the promise as cancelled. A call that was not started is never made; one that was is undone
    /// when it ends, as far as that is possible. Closing a session goes on.
    #[napi]
    pub fn cancel(&self) {
        if let Some(waiting) = self.call.cancel() {
            pool::remove(&self.call);
            drop(waiting);
        }
    }
}

impl Call {
    fn make<'env>(&self, env: &'env Env, work: Work) -> Result<Object<'env>> {
        let (deferred, promise): (Deferred, _) = env.create_deferred::<Reply, Resolver>()?;
        match self.call.enter(work, deferred) {
            Ok(()) => pool::submit(&self.call),
            Err(deferred) => deferred.reject(Error::new(Status::InvalidArg, "called twice".to_owned())),
        }
        Ok(promise)
    }
}

/// Sets the number of calls at once, and of calls that wait for them. Applies to the whole process.
#[napi]
pub fn configure(threads: u32, queue: u32) {
    pool::configure(threads, queue);
}

/// Returns the number of threads that exist now.
#[napi]
pub fn threads() -> u32 {
    pool::threads()
}
