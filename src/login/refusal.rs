//! Refusals of a login: what each error of the lower layers means for the user and for the log.

use crate::config::ConfigError;
use crate::directory::entry::EntryError;
use crate::directory::passwords::pool::PoolError;
use crate::directory::people::DirectoryError;
use crate::kerberos::CheckError;
use crate::name::NameError;
use crate::protocol::PasswordError;
use crate::texts::Text;
use crate::verdict::{Audience, Outcome};

/// The rejection of a login or of another request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The outcome that the user gets.
    pub outcome: Outcome,
    /// For the log.
    pub reason: String,
    /// Text for the user, in place of the outcome's text.
    pub text: Option<Text>,
    /// True if AD takes no simple binds, so that no password can be checked.
    pub binds_off: bool,
}

impl Refusal {
    /// Creates a refusal for `reason`.
    pub fn new(outcome: Outcome, reason: impl ToString) -> Self {
        Refusal { outcome, reason: reason.to_string(), text: None, binds_off: false }
    }

    /// Returns the refusal for a user whose password AD has not checked: the log names the account's state,
    /// and the user learns no more than after a wrong password.
    pub fn before_proof(self) -> Self {
        match self.outcome.audience() {
            Audience::Proved => {
                Refusal::new(Outcome::NotChecked, format!("{}: {}", self.outcome, self.reason))
            }
            Audience::Anyone => self,
        }
    }
}

impl From<&ConfigError> for Refusal {
    fn from(error: &ConfigError) -> Self {
        let outcome = match error {
            ConfigError::Broken(_) => Outcome::Misconfigured,
            ConfigError::NotJoined => Outcome::Unavailable,
        };
        Refusal::new(outcome, error)
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Refusal::new(Outcome::Unmapped, error)
    }
}

impl From<DirectoryError> for Refusal {
    fn from(error: DirectoryError) -> Self {
        let outcome = match &error {
            DirectoryError::Unknown(_) => Outcome::UnknownUser,
            DirectoryError::Ambiguous { .. } | DirectoryError::Clash(_) => Outcome::Ambiguous,
            DirectoryError::Group(_) | DirectoryError::Exempt(_) => Outcome::Misconfigured,
            DirectoryError::Machine(_) => Outcome::Unavailable,
        };
        Refusal::new(outcome, error)
    }
}

impl From<EntryError> for Refusal {
    fn from(error: EntryError) -> Self {
        DirectoryError::from(error).into()
    }
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        let binds_off = matches!(error, PoolError::NoBinds(_));
        Refusal { binds_off, ..Refusal::new(Outcome::Unavailable, error) }
    }
}

impl From<CheckError> for Refusal {
    fn from(error: CheckError) -> Self {
        let outcome = match &error {
            CheckError::SomebodyElse { .. } => Outcome::Ambiguous,
            CheckError::Policy { .. } => Outcome::AccountRestriction,
            CheckError::Keytab(_)
            | CheckError::Unavailable(_)
            | CheckError::NoPreauth(_)
            | CheckError::ClockSkew(_)
            | CheckError::Clocks { .. }
            | CheckError::Forged { .. }
            | CheckError::KeyVersion { .. }
            | CheckError::Failed(_) => Outcome::Unavailable,
        };
        Refusal::new(outcome, error)
    }
}

impl From<PasswordError> for Refusal {
    fn from(error: PasswordError) -> Self {
        Refusal::new(Outcome::WrongPassword, format!("{error}; AD was not queried"))
    }
}
