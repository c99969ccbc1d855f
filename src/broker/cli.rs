//! The broker's arguments. Its man page is generated from these texts.

use std::path::PathBuf;

use clap::Parser;

use crate::config::CONFIG;

const MORE: &str = "\
Environment:
  CREDENTIALS_DIRECTORY  keytab and sssd.conf as systemd copied them; without it the broker reads the host's \
own
  KRB5_KTNAME            the keytab, for the machine account's tickets and to verify KDCs

Exit status:
  0  stopped by a signal; or a file that it was started from changed, and systemd starts it again
  1  it could not start, or --check-config found something broken";

/// Checks logins of XCALLY Motion against Active Directory
///
/// systemd starts it at boot, and on the first connection to /run/motion-ad/broker.sock, and passes it the
/// socket, the machine's keytab and sssd.conf. It answers root and the users in `broker.users`.
///
/// It writes one line per login to the log, facility AUTHPRIV. When its configuration, the realm join or
/// krb5.conf changes, it finishes the logins in progress and exits; systemd starts it again. Changes of
/// resolv.conf and hosts need no restart.
///
/// With a broken configuration, or on a host that is not joined, it still starts: it denies every login and
/// logs the cause.
#[derive(Debug, Parser)]
#[command(name = "motion-ad-broker", version, after_long_help = MORE)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,

    /// Say whether the configuration and the name map can be used, and end
    #[arg(long)]
    pub check_config: bool,

    /// Listen on this path instead of the socket that systemd passes
    #[arg(long, value_name = "PATH")]
    pub listen: Option<PathBuf>,

    /// With --listen: let metrics be read on this path
    #[arg(long, value_name = "PATH", requires = "listen")]
    pub metrics: Option<PathBuf>,
}
