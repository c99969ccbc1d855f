//! libpam as an application calls it (`security/pam_appl.h`), with any kind of conversation.
// libpam's interface is C.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell, RefMut};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// Message styles (security/_pam_types.h).
pub const PAM_PROMPT_ECHO_OFF: c_int = 1;
pub const PAM_PROMPT_ECHO_ON: c_int = 2;
pub const PAM_ERROR_MSG: c_int = 3;
pub const PAM_TEXT_INFO: c_int = 4;

pub const PAM_SUCCESS: c_int = 0;
const PAM_BUF_ERR: c_int = 5;
pub const PAM_CONV_ERR: c_int = 19;

/// Items of a handle.
pub const PAM_TTY: c_int = 3;
pub const PAM_RHOST: c_int = 4;

/// Flags of a call.
pub const PAM_SILENT: c_int = 0x8000;
pub const PAM_CHANGE_EXPIRED_AUTHTOK: c_int = 0x20;

/// Names of the return codes, by number.
#[rustfmt::skip]
const CODES: [&str; 32] = [
    "PAM_SUCCESS", "PAM_OPEN_ERR", "PAM_SYMBOL_ERR", "PAM_SERVICE_ERR", "PAM_SYSTEM_ERR", "PAM_BUF_ERR",
    "PAM_PERM_DENIED", "PAM_AUTH_ERR", "PAM_CRED_INSUFFICIENT", "PAM_AUTHINFO_UNAVAIL", "PAM_USER_UNKNOWN",
    "PAM_MAXTRIES", "PAM_NEW_AUTHTOK_REQD", "PAM_ACCT_EXPIRED", "PAM_SESSION_ERR", "PAM_CRED_UNAVAIL",
    "PAM_CRED_EXPIRED", "PAM_CRED_ERR", "PAM_NO_MODULE_DATA", "PAM_CONV_ERR", "PAM_AUTHTOK_ERR",
    "PAM_AUTHTOK_RECOVERY_ERR", "PAM_AUTHTOK_LOCK_BUSY", "PAM_AUTHTOK_DISABLE_AGING", "PAM_TRY_AGAIN",
    "PAM_IGNORE", "PAM_ABORT", "PAM_AUTHTOK_EXPIRED", "PAM_MODULE_UNKNOWN", "PAM_BAD_ITEM",
    "PAM_CONV_AGAIN", "PAM_INCOMPLETE",
];

/// Returns the name of a return code.
pub fn name(code: c_int) -> String {
    let known = usize::try_from(code).ok().and_then(|code| CODES.get(code));
    known.map_or_else(|| format!("PAM code {code}"), |name| (*name).to_owned())
}

/// The application's side of a conversation.
pub trait Application {
    /// Answers one message.
    fn answer(&mut self, message: Message<'_>) -> Answer;
}

/// A message of a PAM module.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// One of the message styles.
    pub style: c_int,
    pub text: &'a CStr,
    /// Number of messages in the same call.
    pub together: usize,
}

/// Response of an application to a message.
#[derive(Clone, Debug)]
pub enum Answer {
    Text(CString),
    /// A response without text.
    Empty,
    /// Success without any response, which is against libpam's rules.
    Missing,
    /// This return code.
    Code(c_int),
}

/// An application that answers every prompt for a password with this one.
pub struct Password<'a>(pub &'a CStr);

impl Application for Password<'_> {
    fn answer(&mut self, message: Message<'_>) -> Answer {
        match message.style {
            PAM_PROMPT_ECHO_OFF => Answer::Text(self.0.to_owned()),
            _ => Answer::Empty,
        }
    }
}

/// A PAM handle, from `pam_start` to `pam_end`.
pub struct Handle<A: Application> {
    pam: *mut c_void,
    /// On the heap, because libpam has a pointer to it.
    application: Box<RefCell<A>>,
    /// Last return code, for `pam_end`.
    last: Cell<c_int>,
}

impl<A: Application> Handle<A> {
    /// Starts a handle. `folder` contains the service files, if it is not libpam's default.
    ///
    /// # Errors
    /// Returns libpam's code if it does not start.
    pub fn start(service: &CStr, user: &CStr, folder: Option<&CStr>, application: A) -> Result<Self, c_int> {
        let application = Box::new(RefCell::new(application));
        let data = (&raw const *application).cast_mut().cast();
        let conversation = Conversation { function: converse::<A>, data };
        let (service, user, mut pam) = (service.as_ptr(), user.as_ptr(), ptr::null_mut());
        // SAFETY: libpam copies the texts and the conversation. The application that it points to lives as
        // long as the handle.
        let code = unsafe {
            match folder {
                Some(folder) => {
                    pam_start_confdir(service, user, &raw const conversation, folder.as_ptr(), &raw mut pam)
                }
                None => pam_start(service, user, &raw const conversation, &raw mut pam),
            }
        };
        match code {
            PAM_SUCCESS => Ok(Handle { pam, application, last: Cell::new(code) }),
            code => Err(code),
        }
    }

    /// Returns the application. It must not be kept during a call of libpam.
    pub fn application(&self) -> RefMut<'_, A> {
        self.application.borrow_mut()
    }

    /// Sets an item that is a text, and returns libpam's code.
    pub fn set_item(&self, item: c_int, value: &CStr) -> c_int {
        // SAFETY: the handle is open, and libpam copies the text.
        unsafe { pam_set_item(self.pam, item, value.as_ptr().cast()) }
    }

    /// Returns an item that is a text.
    ///
    /// # Errors
    /// Returns libpam's code if the application must not see the item.
    pub fn item(&self, item: c_int) -> Result<Option<CString>, c_int> {
        let mut value = ptr::null();
        // SAFETY: the handle is open; the text is copied before the handle is used again.
        unsafe {
            match pam_get_item(self.pam, item, &raw mut value) {
                PAM_SUCCESS if value.is_null() => Ok(None),
                PAM_SUCCESS => Ok(Some(CStr::from_ptr(value.cast()).to_owned())),
                code => Err(code),
            }
        }
    }

    /// Returns a variable of the PAM environment.
    pub fn variable(&self, name: &CStr) -> Option<String> {
        // SAFETY: the handle is open; the text is copied before the handle is used again.
        unsafe {
            let value = pam_getenv(self.pam, name.as_ptr());
            (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        }
    }
}

macro_rules! calls {
    ($($name:ident = $function:ident)+) => {
        impl<A: Application> Handle<A> {
            $(
                /// Calls libpam, and returns its code.
                pub fn $name(&self, flags: c_int) -> c_int {
                    // SAFETY: the handle is open, and only this thread uses it.
                    self.last.set(unsafe { $function(self.pam, flags) });
                    self.last.get()
                }
            )+
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

impl<A: Application> Drop for Handle<A> {
    fn drop(&mut self) {
        // SAFETY: the handle is open and not used again.
        unsafe { pam_end(self.pam, self.last.get()) };
    }
}

#[repr(C)]
struct CMessage {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct CResponse {
    text: *mut c_char,
    code: c_int,
}

type Converse = extern "C" fn(c_int, *const *const CMessage, *mut *mut CResponse, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    function: Converse,
    data: *mut c_void,
}

extern "C" fn converse<A: Application>(
    count: c_int,
    messages: *const *const CMessage,
    responses: *mut *mut CResponse,
    application: *mut c_void,
) -> c_int {
    let together = usize::try_from(count).unwrap_or(0);
    // SAFETY: it is the application of `Handle::start`, which outlives the handle.
    let application = unsafe { &*application.cast::<RefCell<A>>() };
    let mut answers = Vec::with_capacity(together);
    for index in 0..together {
        // SAFETY: libpam hands over `count` messages, as Linux does: pointers in a row, each with a text.
        let message = unsafe {
            let message = &**messages.add(index);
            Message { style: message.style, text: CStr::from_ptr(message.text), together }
        };
        match application.borrow_mut().answer(message) {
            Answer::Text(text) => answers.push(Some(text)),
            Answer::Empty => answers.push(None),
            Answer::Missing => return PAM_SUCCESS,
            Answer::Code(code) => return code,
        }
    }
    // SAFETY: the module frees the array and each text with free(3). A zeroed response is one without text.
    unsafe {
        let array = libc::calloc(together, size_of::<CResponse>()).cast::<CResponse>();
        if array.is_null() {
            return PAM_BUF_ERR;
        }
        for (index, answer) in answers.iter().enumerate() {
            if let Some(answer) = answer {
                (*array.add(index)).text = libc::strdup(answer.as_ptr());
            }
        }
        *responses = array;
    }
    PAM_SUCCESS
}

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        handle: *mut *mut c_void,
    ) -> c_int;
    fn pam_start_confdir(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        folder: *const c_char,
        handle: *mut *mut c_void,
    ) -> c_int;
    fn pam_end(handle: *mut c_void, status: c_int) -> c_int;
    fn pam_authenticate(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_setcred(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_open_session(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_close_session(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_chauthtok(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_set_item(handle: *mut c_void, item: c_int, value: *const c_void) -> c_int;
    fn pam_get_item(handle: *const c_void, item: c_int, value: *mut *const c_void) -> c_int;
    fn pam_getenv(handle: *mut c_void, name: *const c_char) -> *const c_char;
}
