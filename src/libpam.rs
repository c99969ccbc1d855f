//! libpam as an application calls it (`security/pam_appl.h`), and the dynamic linker as libpam calls that.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr;

use zeroize::Zeroizing;

/// Folder of the PAM services (pam.d(5)).
pub const SERVICES: &str = "/etc/pam.d";
/// libpam's code for success.
pub const SUCCESS: c_int = 0;
const BUF_ERR: c_int = 5;
const CONV_ERR: c_int = 19;

/// Items of a handle (security/_pam_types.h).
const PAM_TTY: c_int = 3;
const PAM_RHOST: c_int = 4;

/// The styles of messages.
const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;
const ERROR_MSG: c_int = 3;

/// Functions that a PAM module exports; this project's module has all of them.
const ENTRY_POINTS: [&CStr; 6] = [
    c"pam_sm_authenticate",
    c"pam_sm_setcred",
    c"pam_sm_acct_mgmt",
    c"pam_sm_open_session",
    c"pam_sm_close_session",
    c"pam_sm_chauthtok",
];

/// A handle as libpam has it.
#[repr(C)]
struct PamHandle {
    opaque: [u8; 0],
}

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

#[repr(C)]
struct Conversation {
    function: extern "C" fn(c_int, *const *const Message, *mut *mut Response, *mut c_void) -> c_int,
    data: *mut c_void,
}

// The module's side declares `pam_set_item`, too, with pam-bindings' name for the same opaque handle.
#[allow(clashing_extern_declarations)]
#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        handle: *mut *mut PamHandle,
    ) -> c_int;
    fn pam_start_confdir(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        folder: *const c_char,
        handle: *mut *mut PamHandle,
    ) -> c_int;
    fn pam_set_item(pamh: *mut PamHandle, item: c_int, value: *const c_void) -> c_int;
    fn pam_getenv(handle: *mut PamHandle, name: *const c_char) -> *const c_char;
    fn pam_authenticate(handle: *mut PamHandle, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut PamHandle, flags: c_int) -> c_int;
    fn pam_chauthtok(handle: *mut PamHandle, flags: c_int) -> c_int;
    fn pam_open_session(handle: *mut PamHandle, flags: c_int) -> c_int;
    fn pam_close_session(handle: *mut PamHandle, flags: c_int) -> c_int;
    fn pam_end(handle: *mut PamHandle, status: c_int) -> c_int;
}

/// A text that a module showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// True for the reason of a failure (PAM_ERROR_MSG), false for information.
    pub is_error: bool,
    /// The text.
    pub text: String,
}

/// The user's side of the conversation.
#[derive(Default)]
pub struct Talk {
    user: CString,
    /// Each answers one prompt, in this order.
    passwords: VecDeque<Zeroizing<Vec<u8>>>,
    texts: Vec<Text>,
}

impl Talk {
    /// Answers prompts with `user` and, each once and in this order, with copies of `passwords`, which are
    /// wiped.
    pub fn new(user: &CStr, passwords: &[&[u8]]) -> Self {
        let passwords = passwords.iter().map(|password| Zeroizing::new(password.to_vec()));
        Talk { user: user.to_owned(), passwords: passwords.collect(), texts: Vec::new() }
    }

    /// Answers one message. The text, if any, is libpam's to free.
    ///
    /// # Errors
    /// Returns a PAM code if there is no answer or no memory for it.
    fn answer(&mut self, message: &Message) -> Result<*mut c_char, c_int> {
        match message.style {
            PROMPT_ECHO_OFF => copy(&self.passwords.pop_front().ok_or(CONV_ERR)?),
            PROMPT_ECHO_ON => copy(self.user.to_bytes()),
            style => {
                if !message.text.is_null() {
                    // SAFETY: the text of a message is a C string that lives as long as the call.
                    let text = unsafe { CStr::from_ptr(message.text) };
                    let text = text.to_string_lossy().into_owned();
                    self.texts.push(Text { is_error: style == ERROR_MSG, text });
                }
                Ok(ptr::null_mut())
            }
        }
    }
}

/// Shows no password.
impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk").field("user", &self.user).field("texts", &self.texts).finish_non_exhaustive()
    }
}

/// Returns a copy for libpam, which wipes and frees it.
fn copy(text: &[u8]) -> Result<*mut c_char, c_int> {
    // SAFETY: allocated zeroed, one byte longer than what is written into it.
    unsafe {
        let copy = libc::calloc(text.len() + 1, 1).cast::<u8>();
        if copy.is_null() {
            return Err(BUF_ERR);
        }
        ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
        Ok(copy.cast())
    }
}

extern "C" fn converse(
    count: c_int,
    messages: *const *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    let Ok(count) = usize::try_from(count) else { return CONV_ERR };
    if count == 0 || messages.is_null() || responses.is_null() || data.is_null() {
        return CONV_ERR;
    }
    // SAFETY: `data` is the `Talk` of a `Handle`, which lives as long as libpam's handle. libpam calls this
    // only within a call of its own, for which the `Handle` is borrowed mutably, so no other reference to the
    // `Talk` exists. `messages` are `count` pointers to messages, as libpam for Linux has it; the responses
    // are libpam's to free.
    unsafe {
        let talk = &mut *data.cast::<Talk>();
        let array = libc::calloc(count, size_of::<Response>()).cast::<Response>();
        if array.is_null() {
            return BUF_ERR;
        }
        for index in 0..count {
            let message = *messages.add(index);
            let answer = if message.is_null() { Err(CONV_ERR) } else { talk.answer(&*message) };
            match answer {
                Ok(text) => (*array.add(index)).text = text,
                Err(code) => {
                    for given in 0..index {
                        let text = (*array.add(given)).text;
                        if !text.is_null() {
                            libc::explicit_bzero(text.cast(), libc::strlen(text));
                            libc::free(text.cast());
                        }
                    }
                    libc::free(array.cast());
                    return code;
                }
            }
        }
        *responses = array;
    }
    SUCCESS
}

/// Origin and purpose of a login.
#[derive(Clone, Copy, Debug)]
pub struct Application<'a> {
    /// The PAM service.
    pub service: &'a CStr,
    /// PAM_RHOST.
    pub rhost: Option<&'a CStr>,
    /// PAM_TTY.
    pub tty: Option<&'a CStr>,
    /// The folder of the services in place of `/etc/pam.d`.
    pub folder: Option<&'a CStr>,
}

impl<'a> Application<'a> {
    /// Describes an application by its service only.
    pub fn new(service: &'a CStr) -> Self {
        Application { service, rhost: None, tty: None, folder: None }
    }
}

/// A call of libpam that prepares a handle and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The function.
    pub call: &'static str,
    /// Its PAM code.
    pub code: i32,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}", self.call, self.code)
    }
}

impl std::error::Error for Failed {}

/// A handle of libpam, ended when dropped.
#[derive(Debug)]
pub struct Handle {
    handle: *mut PamHandle,
    /// From `Box::into_raw`, because libpam keeps a pointer to it; freed when the handle is dropped.
    talk: *mut Talk,
    status: c_int,
}

// SAFETY: libpam binds no handle to a thread; the handle and its `Talk` have one owner, and every call
// borrows it mutably.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: the handle is the one that libpam made, ended once, and not used afterwards.
            unsafe { pam_end(self.handle, self.status) };
        }
        // SAFETY: made by `Box::into_raw`, freed once, after the last call of libpam that could use it.
        drop(unsafe { Box::from_raw(self.talk) });
    }
}

impl Handle {
    /// Starts a handle for `user`, which is not logged in yet.
    ///
    /// # Errors
    /// Returns libpam's code if it cannot start the handle or set an item.
    pub fn start(application: &Application<'_>, user: &CStr, talk: Talk) -> Result<Self, Failed> {
        let talk = Box::into_raw(Box::new(talk));
        let mut begun = Handle { handle: ptr::null_mut(), talk, status: SUCCESS };
        let conversation = Conversation { function: converse, data: talk.cast() };
        let service = application.service.as_ptr();
        // SAFETY: the strings and the conversation outlive the call, which copies them; what the conversation
        // points to outlives the handle (see `drop`); the handle is written on success.
        let code = unsafe {
            let (conversation, handle) = (&raw const conversation, &raw mut begun.handle);
            match application.folder {
                None => pam_start(service, user.as_ptr(), conversation, handle),
                Some(folder) => {
                    pam_start_confdir(service, user.as_ptr(), conversation, folder.as_ptr(), handle)
                }
            }
        };
        if code != SUCCESS || begun.handle.is_null() {
            // libpam has freed what it made.
            begun.handle = ptr::null_mut();
            return Err(Failed { call: "pam_start", code });
        }
        for (item, value) in [(PAM_RHOST, application.rhost), (PAM_TTY, application.tty)] {
            if let Some(value) = value {
                begun.set(item, value)?;
            }
        }
        Ok(begun)
    }

    fn set(&mut self, item: c_int, value: &CStr) -> Result<(), Failed> {
        // SAFETY: the handle is open, used by this thread alone; libpam copies the value of these items.
        match unsafe { pam_set_item(self.handle, item, value.as_ptr().cast()) } {
            SUCCESS => Ok(()),
            code => Err(Failed { call: "pam_set_item", code }),
        }
    }

    fn call(&mut self, function: unsafe extern "C" fn(*mut PamHandle, c_int) -> c_int) -> i32 {
        // SAFETY: the handle is open, used by this thread alone; `function` is one of libpam's calls that
        // take a handle and flags.
        self.status = unsafe { function(self.handle, 0) };
        self.status
    }

    /// Checks the user's password. Returns libpam's code, as the following calls do.
    pub fn authenticate(&mut self) -> i32 {
        self.call(pam_authenticate)
    }

    /// Checks if the account may be used.
    pub fn account(&mut self) -> i32 {
        self.call(pam_acct_mgmt)
    }

    /// Changes the user's password.
    pub fn change_password(&mut self) -> i32 {
        self.call(pam_chauthtok)
    }

    /// Opens a session of the user.
    pub fn open_session(&mut self) -> i32 {
        self.call(pam_open_session)
    }

    /// Closes the session.
    pub fn close_session(&mut self) -> i32 {
        self.call(pam_close_session)
    }

    /// Returns the value of a variable of the PAM environment.
    pub fn variable(&self, name: &CStr) -> Option<String> {
        // SAFETY: the handle is open; the name is a C string.
        let value = unsafe { pam_getenv(self.handle, name.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a C string that the handle keeps, copied before anything else is done with the handle.
        Some(unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
    }

    /// Returns the texts that the modules have shown since the last call of this function.
    pub fn texts(&mut self) -> Vec<Text> {
        // SAFETY: the `Talk` lives as long as this handle; libpam uses it only within calls that borrow this
        // handle mutably.
        let talk = unsafe { &mut *self.talk };
        std::mem::take(&mut talk.texts)
    }

    /// Wipes the passwords that no prompt has asked for. Returns true if there were any.
    pub fn forget_passwords(&mut self) -> bool {
        // SAFETY: as in `texts`.
        let talk = unsafe { &mut *self.talk };
        let were_any = !talk.passwords.is_empty();
        talk.passwords.clear();
        were_any
    }
}

/// Keeps the modules of a service loaded, by a handle without a login. libpam loads them with every handle,
/// and unloads them with the last one.
#[derive(Debug)]
pub struct Modules {
    _handle: Handle,
}

// SAFETY: a shared reference gives no access to the handle.
unsafe impl Sync for Modules {}

impl Modules {
    /// Loads the modules of the application's service and of the default service.
    ///
    /// # Errors
    /// Returns libpam's code if it cannot read the service. libpam itself logs a module that cannot be
    /// loaded.
    pub fn load(application: &Application<'_>) -> Result<Self, Failed> {
        Ok(Modules { _handle: Handle::start(application, c"", Talk::default())? })
    }
}

/// The result of one login.
#[derive(Debug)]
pub struct Login {
    /// PAM code of `pam_authenticate`.
    pub authenticate: i32,
    /// PAM code of `pam_acct_mgmt`, which is called only after a success.
    pub account: Option<i32>,
    /// True if no module prompted for the password.
    pub unasked: bool,
    /// The handle of the login.
    pub handle: Handle,
}

/// Performs one login: authenticate, then acct_mgmt if that succeeds.
///
/// # Errors
/// Returns libpam's code if the handle cannot be started.
pub fn login(application: &Application<'_>, user: &CStr, talk: Talk) -> Result<Login, Failed> {
    let mut handle = Handle::start(application, user, talk)?;
    let authenticate = handle.authenticate();
    let unasked = handle.forget_passwords();
    let account = (authenticate == SUCCESS).then(|| handle.account());
    Ok(Login { authenticate, account, unasked, handle })
}

/// Loads a module as libpam does (`_pam_dlopen`: every symbol at once), and unloads it again.
///
/// # Errors
/// Returns the dynamic linker's message, or the name of the missing entry point.
pub fn load(path: &CStr) -> Result<(), String> {
    // SAFETY: the path is a C string. What the file runs when it is loaded is what any application would run.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    if handle.is_null() {
        // SAFETY: dlerror has the cause of the call before, as a C string that lives until the next one.
        let error = unsafe { libc::dlerror() };
        if error.is_null() {
            return Err("the dynamic linker does not say why".to_owned());
        }
        // SAFETY: as above.
        return Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned());
    }
    // SAFETY: the handle is open, and the names are C strings.
    let missing = ENTRY_POINTS.iter().find(|name| unsafe { libc::dlsym(handle, name.as_ptr()) }.is_null());
    // SAFETY: opened above, closed once.
    unsafe { libc::dlclose(handle) };
    match missing {
        Some(name) => Err(format!("it has no {}", name.to_string_lossy())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_is_not_loaded() {
        assert!(load(c"/nonexistent.so").unwrap_err().contains("nonexistent.so"));
        // A library, but no module.
        assert!(load(c"libpam.so.0").unwrap_err().contains("it has no pam_sm_authenticate"));
    }

    #[test]
    fn each_password_is_given_out_once_and_in_order() {
        let mut talk = Talk::new(c"john", &[b"secret", b"new secret"]);
        let message = |style| Message { style, text: c"Password: ".as_ptr() };
        let mut said = |style| {
            talk.answer(&message(style)).map(|text| {
                if text.is_null() {
                    return None;
                }
                // SAFETY: a C string made by `copy`, freed once.
                unsafe {
                    let said = CStr::from_ptr(text).to_owned();
                    libc::free(text.cast());
                    Some(said)
                }
            })
        };
        assert_eq!(said(PROMPT_ECHO_ON), Ok(Some(c"john".to_owned())));
        assert_eq!(said(ERROR_MSG), Ok(None));
        assert_eq!(said(PROMPT_ECHO_OFF), Ok(Some(c"secret".to_owned())));
        assert_eq!(said(PROMPT_ECHO_OFF), Ok(Some(c"new secret".to_owned())));
        assert_eq!(said(PROMPT_ECHO_OFF), Err(CONV_ERR));
        assert_eq!(said(4), Ok(None));
        assert_eq!(talk.texts.iter().map(|text| text.is_error).collect::<Vec<_>>(), [true, false]);
        assert!(talk.texts.iter().all(|text| text.text == "Password: "));
        talk.passwords.push_back(Zeroizing::new(b"secret".to_vec()));
        assert!(!format!("{talk:?}").contains("115"), "a password in {talk:?}");
    }

    #[test]
    fn a_handle_goes_from_login_to_the_end_of_its_session_in_several_threads() {
        let folder = tempfile::tempdir().unwrap();
        let permit = "auth required pam_permit.so\naccount required pam_permit.so\n\
                      password required pam_deny.so\nsession required pam_permit.so\n";
        std::fs::write(folder.path().join("motion"), permit).unwrap();
        let folder = CString::new(folder.path().to_str().unwrap()).unwrap();
        let application = Application { folder: Some(&folder), ..Application::new(c"motion") };
        let Login { authenticate, account, unasked, mut handle } =
            login(&application, c"john", Talk::new(c"john", &[b"secret"])).unwrap();
        assert_eq!((authenticate, account, handle.open_session()), (SUCCESS, Some(SUCCESS), SUCCESS));
        assert!(unasked, "pam_permit asks for no password");
        let closed = std::thread::spawn(move || {
            let changed = handle.change_password();
            assert_ne!(changed, SUCCESS);
            assert_eq!(handle.variable(c"NOBODY_SET_THIS"), None);
            assert_eq!(handle.texts(), []);
            handle.close_session()
        });
        assert_eq!(closed.join().unwrap(), SUCCESS);
    }
}
