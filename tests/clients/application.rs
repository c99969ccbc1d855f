//! An application of libpam that runs jobs from standard input and reports libpam's messages. It keeps its handles
//! open until it ends.
//!
//! Each line on standard input is a [`Job`] in JSON. An empty line starts all jobs since the last one at once; each
//! handle has a separate thread. Standard output begins with a line `started PID`. A line of JSON, [`Done`],
//! follows for each job. At the end of its input it exits without closing anything, as if it crashed.
//!
//! It is part of the lab's suite, which starts itself on the joined host with these arguments.
// The application calls libpam through its C interface.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{BufRead, Write};
use std::sync::mpsc::{self, Receiver, Sender};

use crate::libpam::{
    self, Conversation, Message, PAM_ERROR_MSG, PAM_PROMPT_ECHO_OFF, PAM_PROMPT_ECHO_ON, PAM_TEXT_INFO,
    Response,
};
use serde::{Deserialize, Serialize};

const PAM_CONV_ERR: c_int = 19;
const PAM_TTY: c_int = 3;
const PAM_RHOST: c_int = 4;
const PAM_SILENT: c_int = 0x8000;
const PAM_CHANGE_EXPIRED_AUTHTOK: c_int = 0x20;
/// Environment variable in which the module stores the session id.
const SESSION: &CStr = c"MOTION_AD_SESSION";

/// A series of calls on one handle.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// The handle's name. A new name starts a handle for `user` at `service`.
    pub handle: String,
    pub service: String,
    pub user: String,
    pub rhost: String,
    pub tty: String,
    /// The answers to the prompts, in order. A further prompt is a conversation error.
    pub answers: Vec<String>,
    pub calls: Vec<Call>,
    /// Calls continue after one that failed.
    pub through: bool,
    /// The handle ends after this job (pam_end).
    pub end: bool,
}

/// A call of libpam.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    Authenticate,
    /// With PAM_SILENT.
    Silently,
    Account,
    Setcred,
    Change,
    /// With PAM_CHANGE_EXPIRED_AUTHTOK.
    ChangeExpired,
    Open,
    Close,
}

/// Result of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    pub handle: String,
    /// The names of the calls' return codes, in order.
    pub codes: Vec<String>,
    pub said: Vec<Said>,
    /// The session id that the module gave to the application.
    pub session: Option<String>,
}

/// A message of the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub style: Style,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Style {
    Prompt,
    Error,
    Info,
}

/// Runs the jobs of standard input.
///
/// # Errors
/// If the input is malformed.
pub fn run() -> Result<(), String> {
    println!("started {}", std::process::id());
    let (done, results) = mpsc::channel();
    std::thread::spawn(move || print(&results));
    let mut handles: BTreeMap<String, Sender<Job>> = BTreeMap::new();
    let mut waiting: Vec<Job> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        if !line.is_empty() {
            waiting.push(serde_json::from_str(&line).map_err(|e| format!("{e}: {line}"))?);
            continue;
        }
        for job in waiting.drain(..) {
            let name = job.handle.clone();
            let handle = handles.entry(name).or_insert_with(|| thread(&done));
            handle.send(job).map_err(|e| e.to_string())?;
        }
    }
    // Exits without unwinding, so nothing is closed.
    std::process::exit(0)
}

fn print(results: &Receiver<Result<Done, String>>) {
    for result in results {
        let line = result.and_then(|done| serde_json::to_string(&done).map_err(|e| e.to_string()));
        match line {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(1);
            }
        }
        // An error means that the reader is gone, or will be soon.
        let _ = std::io::stdout().flush();
    }
}

/// Starts the thread of a handle.
fn thread(done: &Sender<Result<Done, String>>) -> Sender<Job> {
    let (jobs, mine) = mpsc::channel::<Job>();
    let done = done.clone();
    std::thread::spawn(move || {
        let mut handle = None;
        for job in mine {
            let result = match handle.take().map_or_else(|| Handle::start(&job), Ok) {
                Ok(mut open) => {
                    let result = open.work(&job);
                    handle = Some(open).filter(|_| !job.end);
                    Ok(result)
                }
                Err(error) => Err(error),
            };
            // The printing thread lives until the process ends.
            let _ = done.send(result);
        }
    });
    jobs
}

/// State of one handle's conversation.
#[derive(Default)]
struct Talk {
    answers: VecDeque<CString>,
    said: Vec<Said>,
}

struct Handle {
    pam: *mut c_void,
    /// On the heap, so that libpam's pointer to it stays valid. Accessed only through this pointer.
    talk: *mut Talk,
    /// Last return code, for `pam_end`.
    last: c_int,
}

impl Handle {
    fn start(job: &Job) -> Result<Self, String> {
        let (service, user) = (c_string(&job.service)?, c_string(&job.user)?);
        let talk = Box::into_raw(Box::<Talk>::default());
        let conversation = Conversation { function: converse, data: talk.cast() };
        let mut pam = std::ptr::null_mut();
        // SAFETY: libpam copies the texts and the conversation; `talk` lives until `drop`.
        let code = unsafe {
            libpam::pam_start(service.as_ptr(), user.as_ptr(), &raw const conversation, &raw mut pam)
        };
        let handle = Handle { pam, talk, last: code };
        if code != 0 {
            return Err(format!("pam_start: {}", libpam::name(code)));
        }
        for (item, value) in [(PAM_RHOST, &job.rhost), (PAM_TTY, &job.tty)] {
            let value = c_string(value)?;
            // SAFETY: the handle is open, and libpam copies the text.
            let code = unsafe { libpam::pam_set_item(pam, item, value.as_ptr().cast()) };
            if code != 0 {
                return Err(format!("pam_set_item: {}", libpam::name(code)));
            }
        }
        Ok(handle)
    }

    fn work(&mut self, job: &Job) -> Done {
        // SAFETY: libpam uses the conversation during calls alone, and this thread makes them all.
        unsafe {
            *self.talk = Talk {
                answers: job.answers.iter().filter_map(|text| CString::new(text.as_str()).ok()).collect(),
                said: Vec::new(),
            };
        }
        let mut codes = Vec::new();
        for call in &job.calls {
            self.last = self.call(*call);
            codes.push(libpam::name(self.last));
            if self.last != 0 && !job.through {
                break;
            }
        }
        // SAFETY: as above; the variable's text is libpam's, and is copied before the next call.
        let (said, session) = unsafe {
            let session = libpam::pam_getenv(self.pam, SESSION.as_ptr());
            let session = (!session.is_null()).then(|| text(session));
            (std::mem::take(&mut (*self.talk).said), session)
        };
        Done { handle: job.handle.clone(), codes, said, session }
    }

    fn call(&mut self, call: Call) -> c_int {
        let pam = self.pam;
        // SAFETY: the handle is open, and only this thread uses it.
        unsafe {
            match call {
                Call::Authenticate => libpam::pam_authenticate(pam, 0),
                Call::Silently => libpam::pam_authenticate(pam, PAM_SILENT),
                Call::Account => libpam::pam_acct_mgmt(pam, 0),
                Call::Setcred => libpam::pam_setcred(pam, 0),
                Call::Change => libpam::pam_chauthtok(pam, 0),
                Call::ChangeExpired => libpam::pam_chauthtok(pam, PAM_CHANGE_EXPIRED_AUTHTOK),
                Call::Open => libpam::pam_open_session(pam, 0),
                Call::Close => libpam::pam_close_session(pam, 0),
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: both were made by `start`, and nobody uses them any more.
        unsafe {
            libpam::pam_end(self.pam, self.last);
            drop(Box::from_raw(self.talk));
        }
    }
}

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|e| format!("{text:?}: {e}"))
}

/// # Safety
/// It is a string of C.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

extern "C" fn converse(
    count: c_int,
    messages: *const *const Message,
    responses: *mut *mut Response,
    talk: *mut c_void,
) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: libpam hands over `count` messages, as Linux does: pointers in a row. It frees the array and each text
    // with free(3). `talk` is that of `Handle::start`, and nobody else uses it during a call.
    unsafe {
        let talk = &mut *talk.cast::<Talk>();
        let array = libc::calloc(count, size_of::<Response>()).cast::<Response>();
        for index in 0..count {
            let message = &**messages.add(index);
            let style = match message.style {
                PAM_PROMPT_ECHO_OFF | PAM_PROMPT_ECHO_ON => Style::Prompt,
                PAM_ERROR_MSG => Style::Error,
                PAM_TEXT_INFO => Style::Info,
                _ => return PAM_CONV_ERR,
            };
            talk.said.push(Said { style, text: text(message.text) });
            if style == Style::Prompt {
                let Some(answer) = talk.answers.pop_front() else { return PAM_CONV_ERR };
                (*array.add(index)).text = libc::strdup(answer.as_ptr());
            }
        }
        *responses = array;
    }
    0
}
