//! The time of the last password change. It shows if a change was made whose reply was lost.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use tokio::time::Instant;

use crate::directory::machine::Machine;
use crate::directory::people::person::Person;
use crate::directory::people::{Directory, DirectoryError};

/// `pwdLastSet`, as read from one domain controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSet {
    /// Units of 100 ns since 1601; 0 if the password must be changed.
    ticks: i64,
    /// The domain controller.
    host: String,
}

impl LastSet {
    /// Returns the domain controller that it was read from.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns true if the password was set between `earlier` and this. Only values from the same domain
    /// controller are compared: another one may have been ahead all the time.
    pub fn is_after(&self, earlier: &LastSet) -> bool {
        self.host == earlier.host && self.ticks > earlier.ticks
    }
}

impl<M: Machine> Directory<M> {
    /// Reads when the password of `person` was last set; `None` if it is unreadable, or if it is uncertain
    /// which domain controller answered.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`.
    pub async fn last_set(
        &self,
        person: &Person,
        deadline: Instant,
    ) -> Result<Option<LastSet>, DirectoryError> {
        let place = self.place(&person.domain);
        let before = self.machine.host(&place);
        let entry = self.read(person, &["pwdLastSet"], deadline).await?;
        // The connection may have been replaced during the search.
        let host = self.machine.host(&place).filter(|host| before.as_ref() == Some(host));
        let ticks = entry.integer("pwdLastSet")?;
        Ok(ticks.zip(host).map(|(ticks, host)| LastSet { ticks, host }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_domain_controller_can_tell() {
        let set = |ticks, host: &str| LastSet { ticks, host: host.into() };
        let earlier = set(100, "dc1");
        for (ticks, host, is_after) in [
            (101, "dc1", true),
            (100, "dc1", false),
            (99, "dc1", false),
            (0, "dc1", false),
            (101, "dc2", false),
        ] {
            assert_eq!(set(ticks, host).is_after(&earlier), is_after, "{ticks} {host}");
        }
        assert!(set(100, "dc1").is_after(&set(0, "dc1")), "who had to change it has done so");
    }
}
