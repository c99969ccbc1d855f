//! An application of libpam that runs jobs from standard input and reports libpam's messages. It keeps its
//! handles open until it ends.
//!
//! Each line on standard input is a [`Job`] in JSON. An empty line starts all jobs since the last one at
//! once; each handle has a separate thread. Standard output begins with a line `started PID`. A line of JSON,
//! [`Done`], follows for each job. At the end of its input it exits without closing anything, as if it
//! crashed.
//!
//! It is part of the lab's suite, which starts itself on the joined host with these arguments.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString, c_int};
use std::io::{BufRead, Write};
use std::sync::mpsc::{self, Receiver, Sender};

use motion_ad_support::libpam::{
    self, Answer, Application, Message, PAM_CHANGE_EXPIRED_AUTHTOK, PAM_CONV_ERR, PAM_ERROR_MSG,
    PAM_PROMPT_ECHO_OFF, PAM_PROMPT_ECHO_ON, PAM_RHOST, PAM_SILENT, PAM_SUCCESS, PAM_TEXT_INFO, PAM_TTY,
};
use serde::{Deserialize, Serialize};

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
    /// The names of the calls' return codes, in order; or only the reason why the handle did not start.
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
            let result = match handle.take().map_or_else(|| start(&job), Ok) {
                Ok(open) => {
                    let result = work(&open, &job);
                    handle = Some(open).filter(|_| !job.end);
                    result
                }
                Err(error) => {
                    Done { handle: job.handle, codes: vec![error], said: Vec::new(), session: None }
                }
            };
            // The printing thread lives until the process ends.
            let _ = done.send(Ok(result));
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

impl Application for Talk {
    fn answer(&mut self, message: Message<'_>) -> Answer {
        let style = match message.style {
            PAM_PROMPT_ECHO_OFF | PAM_PROMPT_ECHO_ON => Style::Prompt,
            PAM_ERROR_MSG => Style::Error,
            PAM_TEXT_INFO => Style::Info,
            _ => return Answer::Code(PAM_CONV_ERR),
        };
        self.said.push(Said { style, text: message.text.to_string_lossy().into_owned() });
        match style {
            Style::Prompt => self.answers.pop_front().map_or(Answer::Code(PAM_CONV_ERR), Answer::Text),
            Style::Error | Style::Info => Answer::Empty,
        }
    }
}

type Handle = libpam::Handle<Talk>;

fn start(job: &Job) -> Result<Handle, String> {
    let (service, user) = (c_string(&job.service)?, c_string(&job.user)?);
    let handle = Handle::start(&service, &user, None, Talk::default());
    let handle = handle.map_err(|code| format!("pam_start: {}", libpam::name(code)))?;
    for (item, value) in [(PAM_RHOST, &job.rhost), (PAM_TTY, &job.tty)] {
        match handle.set_item(item, &c_string(value)?) {
            PAM_SUCCESS => {}
            code => return Err(format!("pam_set_item: {}", libpam::name(code))),
        }
    }
    Ok(handle)
}

fn work(handle: &Handle, job: &Job) -> Done {
    *handle.application() = Talk {
        answers: job.answers.iter().filter_map(|text| CString::new(text.as_str()).ok()).collect(),
        said: Vec::new(),
    };
    let mut codes = Vec::new();
    for each in &job.calls {
        let code = call(handle, *each);
        codes.push(libpam::name(code));
        if code != PAM_SUCCESS && !job.through {
            break;
        }
    }
    let said = std::mem::take(&mut handle.application().said);
    Done { handle: job.handle.clone(), codes, said, session: handle.variable(SESSION) }
}

fn call(handle: &Handle, call: Call) -> c_int {
    match call {
        Call::Authenticate => handle.authenticate(0),
        Call::Silently => handle.authenticate(PAM_SILENT),
        Call::Account => handle.acct_mgmt(0),
        Call::Setcred => handle.setcred(0),
        Call::Change => handle.chauthtok(0),
        Call::ChangeExpired => handle.chauthtok(PAM_CHANGE_EXPIRED_AUTHTOK),
        Call::Open => handle.open_session(0),
        Call::Close => handle.close_session(0),
    }
}

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|e| format!("{text:?}: {e}"))
}
