//! libpam as an application calls it (`security/pam_appl.h`), and the dynamic linker as libpam calls that.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use crate::protocol::Secret;

const SUCCESS: c_int = 0;
const BUF_ERR: c_int = 5;
const CONV_ERR: c_int = 19;

/// The styles of messages.
const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;

/// What a module has to offer, all of which ours has.
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
        handle: *mut *mut c_void,
    ) -> c_int;
    fn pam_authenticate(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_end(handle: *mut c_void, status: c_int) -> c_int;
}

/// The person's side of the conversation.
pub(super) struct Talk<'a> {
    user: &'a CStr,
    /// Given out once.
    password: Option<&'a Secret>,
    texts: Vec<String>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(user: &'a CStr, password: &'a Secret) -> Self {
        Talk { user, password: Some(password), texts: Vec::new() }
    }

    /// What was said.
    pub(super) fn into_texts(self) -> Vec<String> {
        self.texts
    }

    /// Answers one message: the text that libpam is to free, or none; an error where there is no answer.
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

/// A copy for libpam, which wipes and frees it.
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
    // SAFETY: `data` is the `Talk` that `login` gave to libpam, borrowed mutably for as long as the handle lives;
    // `messages` are `count` pointers to messages, as libpam for Linux has it; the responses are libpam's to free.
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

/// One login: authenticate, and acct_mgmt where that succeeds.
///
/// # Errors
/// libpam could not begin.
pub(super) fn login(service: &CStr, user: &CStr, talk: &mut Talk<'_>) -> Result<(i32, Option<i32>), String> {
    let data = ptr::from_mut(talk).cast();
    let conversation = Conversation { function: converse, data, talk: PhantomData };
    let mut handle = ptr::null_mut();
    // SAFETY: the strings and the conversation outlive the handle, which is ended below; it is written on success.
    let begun = unsafe { pam_start(service.as_ptr(), user.as_ptr(), &conversation, &mut handle) };
    if begun != SUCCESS {
        return Err(format!("pam_start answered {begun}"));
    }
    // SAFETY: the handle is the one that pam_start made, used by this thread alone.
    let authenticate = unsafe { pam_authenticate(handle, 0) };
    // SAFETY: as above.
    let account = (authenticate == SUCCESS).then(|| unsafe { pam_acct_mgmt(handle, 0) });
    // SAFETY: ended once, and not used afterwards.
    unsafe { pam_end(handle, account.unwrap_or(authenticate)) };
    Ok((authenticate, account))
}

/// Loads a module as libpam does (`_pam_dlopen`: every symbol at once), and lets it go again.
///
/// # Errors
/// The dynamic linker's words, or the entry point that is missing.
pub(super) fn load(path: &CStr) -> Result<(), String> {
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
