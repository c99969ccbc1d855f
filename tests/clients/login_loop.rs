//! Times logins through PAM from one long-lived process, and between them bare binds on one open TLS connection to
//! the same domain controller: `login-loop USER DN DC CA_FILE COUNT`, the password on standard input.
//!
//! Both are measured in turn in one run, because a machine's speed drifts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The calls of an application are C.
#![allow(unsafe_code)]
#![allow(missing_docs)]

#[allow(dead_code)]
mod libpam;

use std::ffi::{CString, c_int, c_void};
use std::path::Path;
use std::time::{Duration, Instant};

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings};
use motion_ad::directory::trust::Trust;

const WARM_UP: usize = 20;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [user, dn, dc, ca_file, count] = arguments.as_slice() else {
        eprintln!("usage: login-loop USER DN DC CA_FILE COUNT <PASSWORD");
        std::process::exit(2);
    };
    let mut password = String::new();
    std::io::stdin().read_line(&mut password).unwrap();
    let password = password.trim_end_matches('\n');
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut ldap = runtime.block_on(connect(dc, Path::new(ca_file)));
    let (mut logins, mut binds) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + count.parse::<usize>().unwrap() {
        let login = timed(|| login(user, password));
        let bind = timed(|| runtime.block_on(bind(&mut ldap, dn, password)));
        if round >= WARM_UP {
            logins.push(login);
            binds.push(bind);
        }
    }
    let (login, bind) = (quantiles(logins), quantiles(binds));
    println!("name              p50_ms  p99_ms");
    println!("login through PAM {:6.2}  {:6.2}", login.0, login.1);
    println!("bare bind         {:6.2}  {:6.2}", bind.0, bind.1);
    println!("ratio of medians  {:6.2}", login.0 / bind.0);
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Median and 99th percentile in milliseconds.
fn quantiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
    (at(50), at(99))
}

async fn connect(dc: &str, ca_file: &Path) -> Ldap {
    let trust = Trust::load(Some(ca_file), None).unwrap();
    let settings = LdapConnSettings::new().set_config(trust.config());
    let (connection, ldap) = LdapConnAsync::with_settings(settings, &format!("ldaps://{dc}")).await.unwrap();
    tokio::spawn(connection.drive());
    ldap
}

async fn bind(ldap: &mut Ldap, dn: &str, password: &str) {
    ldap.simple_bind(dn, password).await.unwrap().success().unwrap();
}

/// pam_start, pam_authenticate, pam_acct_mgmt and pam_end for the service `motion`.
fn login(user: &str, password: &str) {
    let (user, password) = (CString::new(user).unwrap(), CString::new(password).unwrap());
    let data = password.as_ptr().cast_mut().cast();
    let conversation = libpam::Conversation { function: converse, data };
    let mut handle = std::ptr::null_mut();
    // SAFETY: the strings outlive the handle, which is ended before they are dropped.
    unsafe {
        let service = c"motion".as_ptr();
        assert_eq!(libpam::pam_start(service, user.as_ptr(), &raw const conversation, &raw mut handle), 0);
        assert_eq!(libpam::pam_authenticate(handle, 0), 0);
        assert_eq!(libpam::pam_acct_mgmt(handle, 0), 0);
        libpam::pam_end(handle, 0);
    }
}

extern "C" fn converse(
    count: c_int,
    _: *const *const libpam::Message,
    responses: *mut *mut libpam::Response,
    password: *mut c_void,
) -> c_int {
    assert_eq!(count, 1);
    // SAFETY: the module frees both with free(3); `password` is the string that `login` passed.
    unsafe {
        let response = libc::calloc(1, size_of::<libpam::Response>()).cast::<libpam::Response>();
        (*response).text = libc::strdup(password.cast());
        *responses = response;
    }
    0
}
