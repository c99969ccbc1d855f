//! The bridge's arguments. Its man page is generated from these texts.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::config::CONFIG;
use crate::protocol::SOCKET;

const MORE: &str = "\
Environment:
  CREDENTIALS_DIRECTORY  the admin's name and secret as systemd copied them; without it there is no admin

Exit status:
  0  stopped by a signal; or a file that it was started from changed, and systemd starts it again
  1  it could not start";

/// Answers LDAP on loopback, for applications that only speak LDAP
///
/// systemd starts it on the first connection to port 3890 of 127.0.0.1 or ::1, if motion-ad-ldap.socket is
/// enabled. A bind becomes a login through PAM by the service in `bridge.service`; a search is answered by
/// motion-ad-broker(8), from Active Directory. Nothing else is served, and nothing is ever changed.
///
/// The bridge serves root and the users in `broker.users`; the kernel reports the user of each connection.
///
/// It logs one line for each bind, facility AUTHPRIV. The bridge itself holds no key and no Active Directory
/// password.
#[derive(Debug, Parser)]
#[command(name = "motion-ad-ldap", version, after_long_help = MORE)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,

    /// Listen at this address, which must be a loopback one, instead of the sockets that systemd passes
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<SocketAddr>,

    /// Socket of the broker
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}
