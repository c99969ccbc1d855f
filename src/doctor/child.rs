//! How a child process of the doctor becomes the application's user.
//!
//! The application may be compromised, and the doctor runs in root's session. So the child has no terminal in
//! which it could type commands or read keystrokes (TIOCSTI, CVE-2016-2779), no descriptor that root's shell
//! left open, and no memory that another process of that user can read or write. It starts as root, which the
//! application cannot trace, and never executes another program as the user: an exec would make it dumpable
//! for a moment.

use std::ffi::CString;
use std::fs;

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;
use nix::unistd::{Gid, Uid, close, getresgid, getresuid, initgroups, setresgid, setresuid, setsid};

/// Highest of the standard descriptors, which are the pipes that the doctor made.
const STANDARD: i32 = 2;

/// The user that a child becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Uid.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// User name, by which the other groups are found.
    pub name: String,
}

/// Leaves root's session, descriptors and privileges; without an identity, only session and descriptors.
///
/// # Errors
/// If the process keeps anything that it must not have. The caller must then end the process.
pub fn leave(identity: Option<&Identity>) -> Result<(), String> {
    let hide = || set_dumpable(false).map_err(|error| format!("prctl(PR_SET_DUMPABLE): {error}"));
    hide()?;
    setsid().map_err(|error| format!("setsid: {error}"))?;
    close_others()?;
    if let Some(identity) = identity {
        identify(identity)?;
        // The kernel does the same, unless fs.suid_dumpable says otherwise.
        hide()?;
    }
    Ok(())
}

fn close_others() -> Result<(), String> {
    let open = fs::read_dir("/proc/self/fd").map_err(|error| format!("/proc/self/fd: {error}"))?;
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let numbers: Vec<_> = numbers.filter(|number| *number > STANDARD).collect();
    for number in numbers {
        match close(number) {
            // The descriptor that the list was read from is already closed.
            Ok(()) | Err(Errno::EBADF) => {}
            Err(error) => return Err(format!("descriptor {number} cannot be closed: {error}")),
        }
    }
    Ok(())
}

fn identify(identity: &Identity) -> Result<(), String> {
    let Identity { uid, gid, name } = identity;
    let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
    let name = CString::new(name.as_str()).map_err(|error| error.to_string())?;
    let failed = |call: &str, error: Errno| format!("{call}: {error}");
    initgroups(&name, gid).map_err(|error| failed("initgroups", error))?;
    setresgid(gid, gid, gid).map_err(|error| failed("setresgid", error))?;
    setresuid(uid, uid, uid).map_err(|error| failed("setresuid", error))?;
    let users = getresuid().map_err(|error| failed("getresuid", error))?;
    let groups = getresgid().map_err(|error| failed("getresgid", error))?;
    let is_done = [users.real, users.effective, users.saved] == [uid; 3]
        && [groups.real, groups.effective, groups.saved] == [gid; 3];
    if is_done { Ok(()) } else { Err(format!("the process did not become uid {uid}")) }
}
