//! libpam as an application calls it (`security/pam_appl.h`), and the dynamic linker as libpam calls that.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use pam::module::PamHandle;

use crate::protocol::Secret;

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

/// Functions that a PAM module exports; this project's module has all of them.
const ENTRY_POINTS: [&CStr; 6] = [
    c"pam_sm_authenticate",
    c"pam_sm_setcred",
    c"pam_sm_acct_mgmt",
    c"pam_sm_open_session",
    c"pam_sm_close_session",
    c"pam_sm_chauthtok",
];

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
struct Conversation<'a> {
    function: extern "C" fn(c_int, *const *const Message, *mut *mut Response, *mut c_void) -> c_int,
    data: *mut c_void,
    talk: PhantomData<&'a mut c_void>,
}

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation<'_>,
        handle: *mut *mut PamHandle,
    ) -> c_int;
    fn pam_start_confdir(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation<'_>,
        folder: *const c_char,
        handle: *mut *mut PamHandle,
    ) -> c_int;
    fn pam_set_item(pamh: *mut PamHandle, item: c_int, value: *const c_void) -> c_int;
    fn pam_getenv(handle: *mut PamHandle, name: *const c_char) -> *const c_char;
    fn pam_authenticate(handle: *mut PamHandle, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut PamHandle, flags: c_int) -> c_int;
    fn pam_end(handle: *mut PamHandle, status: c_int) -> c_int;
}

/// The user's side of the conversation.
pub struct Talk<'a> {
    user: &'a CStr,
    /// Answers one prompt only.
    password: Option<&'a Secret>,
    texts: Vec<String>,
}

impl<'a> Talk<'a> {
    /// Answers prompts with `user` and, once, with `password`.
    pub fn new(user: &'a CStr, password: &'a Secret) -> Self {
        Talk { user, password: Some(password), texts: Vec::new() }
    }

    /// Returns the texts that the modules showed.
    pub fn into_texts(self) -> Vec<String> {
        self.texts
    }

    /// Answers one message. The text, if any, is libpam's to free.
    ///
    /// # Errors
    /// Returns a PAM code if there is no answer or no memory for it.
    fn answer(&mut self, message: &Message) -> Result<*mut c_char, c_int> {
        match message.style {
            PROMPT_ECHO_OFF => copy(self.password.take().ok_or(CONV_ERR)?.bytes()),
            PROMPT_ECHO_ON => copy(self.user.to_bytes()),
            _ => {
                if !message.text.is_null() {
                    // SAFETY: the text of a message is a C string that lives as long as the call.
                    let text = unsafe { CStr::from_ptr(message.text) };
                    self.texts.push(text.to_string_lossy().into_owned());
                }
                Ok(ptr::null_mut())
            }
        }
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
    // SAFETY: `data` is the `Talk` that `login` gave to libpam, borrowed mutably for as long as the handle
    // lives; `messages` are `count` pointers to messages, as libpam for Linux has it; the responses are
    // libpam's to free.
    unsafe {
        let talk = &mut *data.cast::<Talk<'_>>();
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
    /// The variable of the PAM environment that is read at the end.
    pub variable: Option<&'a CStr>,
}

impl<'a> Application<'a> {
    /// Describes an application by its service only.
    pub fn new(service: &'a CStr) -> Self {
        Application { service, rhost: None, tty: None, folder: None, variable: None }
    }
}

/// The result of one login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// PAM code of `pam_authenticate`.
    pub authenticate: i32,
    /// PAM code of `pam_acct_mgmt`, which is called only after a success.
    pub account: Option<i32>,
    /// Value of [`Application::variable`].
    pub variable: Option<String>,
}

/// A handle of libpam, ended when dropped.
#[derive(Debug)]
struct Handle {
    handle: *mut PamHandle,
    status: c_int,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is the one that libpam made, ended once, and not used afterwards.
        unsafe { pam_end(self.handle, self.status) };
    }
}

impl Handle {
    fn start(
        application: &Application<'_>,
        user: &CStr,
        conversation: &Conversation<'_>,
    ) -> Result<Self, String> {
        let mut handle = ptr::null_mut();
        let service = application.service.as_ptr();
        // SAFETY: the strings and the conversation outlive the call, which copies them; what the conversation
        // points to outlives the handle, which `login` drops before it returns, or is nothing; the handle is
        // written on success.
        let begun = unsafe {
            match application.folder {
                None => pam_start(service, user.as_ptr(), conversation, &mut handle),
                Some(folder) => {
                    pam_start_confdir(service, user.as_ptr(), conversation, folder.as_ptr(), &mut handle)
                }
            }
        };
        if begun != SUCCESS || handle.is_null() {
            return Err(format!("pam_start answered {begun}"));
        }
        Ok(Handle { handle, status: SUCCESS })
    }

    fn set(&mut self, item: c_int, value: &CStr) -> Result<(), String> {
        // SAFETY: the handle is open, used by this thread alone; libpam copies the value of these items.
        match unsafe { pam_set_item(self.handle, item, value.as_ptr().cast()) } {
            SUCCESS => Ok(()),
            code => Err(format!("pam_set_item answered {code}")),
        }
    }

    fn variable(&self, name: &CStr) -> Option<String> {
        // SAFETY: the handle is open; the name is a C string.
        let value = unsafe { pam_getenv(self.handle, name.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a C string that the handle keeps, copied before anything else is done with the handle.
        Some(unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
    }
}

/// Keeps the modules of a service loaded, by a handle without a login. libpam loads them with every handle,
/// and unloads them with the last one.
#[derive(Debug)]
pub struct Modules {
    _handle: Handle,
}

// SAFETY: no call uses the handle before it is ended, once, by the thread that drops it. libpam binds no
// handle to a thread.
unsafe impl Send for Modules {}
// SAFETY: a shared reference gives no access to the handle.
unsafe impl Sync for Modules {}

impl Modules {
    /// Loads the modules of the application's service and of the default service.
    ///
    /// # Errors
    /// Returns libpam's code as text if it cannot read the service. libpam itself logs a module that cannot
    /// be loaded.
    pub fn load(application: &Application<'_>) -> Result<Self, String> {
        let conversation = Conversation { function: converse, data: ptr::null_mut(), talk: PhantomData };
        Ok(Modules { _handle: Handle::start(application, c"", &conversation)? })
    }
}

/// Performs one login: authenticate, then acct_mgmt if that succeeds.
///
/// # Errors
/// Returns libpam's code as text if the handle cannot be created or an item cannot be set.
pub fn login(application: &Application<'_>, user: &CStr, talk: &mut Talk<'_>) -> Result<Answer, String> {
    let data = ptr::from_mut(talk).cast();
    let conversation = Conversation { function: converse, data, talk: PhantomData };
    let mut handle = Handle::start(application, user, &conversation)?;
    for (item, value) in [(PAM_RHOST, application.rhost), (PAM_TTY, application.tty)] {
        if let Some(value) = value {
            handle.set(item, value)?;
        }
    }
    // SAFETY: the handle is open, used by this thread alone.
    let authenticate = unsafe { pam_authenticate(handle.handle, 0) };
    handle.status = authenticate;
    // SAFETY: as above.
    let account = (authenticate == SUCCESS).then(|| unsafe { pam_acct_mgmt(handle.handle, 0) });
    handle.status = account.unwrap_or(authenticate);
    let variable = application.variable.and_then(|name| handle.variable(name));
    Ok(Answer { authenticate, account, variable })
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
    fn the_password_is_given_out_once() {
        let password = Secret::new(b"secret".to_vec());
        let mut talk = Talk::new(c"john", &password);
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
        assert_eq!(said(3), Ok(None));
        assert_eq!(said(PROMPT_ECHO_OFF), Ok(Some(c"secret".to_owned())));
        assert_eq!(said(PROMPT_ECHO_OFF), Err(CONV_ERR));
        assert_eq!(talk.into_texts(), ["Password: "]);
    }
}
