//! `motion-ad audit`: checks many names against AD, by the rules of a login.
//!
//! The broker handles one request at a time and searches for a hundred names at once, so that logins find the
//! machine connection free.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout_at};

use super::Broker;
use crate::directory::machine::{Machine, MachineError};
use crate::directory::people::DirectoryError;
use crate::directory::people::account::Account;
use crate::directory::people::many::{Seen, TOGETHER};
use crate::log::{Level, Line};
use crate::login::decision::Decision;
use crate::login::logins::Logins;
use crate::login::passwords::Passwords;
use crate::login::refusal::Refusal;
use crate::name::Principal;
use crate::protocol::Peer;
use crate::protocol::report::{Audit, Audited, Near};
use crate::protocol::{MAX_FRAME, Reply};
use crate::verdict::{Outcome, Verdict};

/// Maximum length of an answer in bytes. The remaining contents of a frame need far less than the rest.
const LONGEST: usize = MAX_FRAME - 8 * 1024;
/// Maximum length of the reason for one name, in characters: it lists the DNs of accounts that share a name.
const REASON: usize = 512;

impl Broker {
    /// Reports the access of each of `names`.
    pub(super) async fn audit(&self, names: &[String], deadline: Instant, peer: &Peer) -> Reply {
        let line = Line::new("audit").with("peer", peer).with("names", names.len());
        self.log.complain(Level::Info, &format!("audit {peer}"), line);
        let refused = |outcome, reason: String| Reply::Verdict(Verdict::new(outcome, reason));
        let service = match (&self.service, self.problem()) {
            (Err(error), _) => return Reply::Verdict(Decision::from(error).verdict),
            (Ok(_), Some(problem)) => return refused(Outcome::Unavailable, problem),
            (Ok(service), None) => service,
        };
        let Ok(_turn) = timeout_at(deadline, self.auditing.lock()).await else {
            return refused(Outcome::Unavailable, "another audit is running".to_owned());
        };
        match service.logins.audit(names, deadline).await {
            Ok(audit) => Reply::Audit(Box::new(audit)),
            Err(refusal) => refused(refusal.outcome, refusal.reason),
        }
    }
}

impl<M: Machine, P: Passwords> Logins<M, P> {
    /// Reports the access of each of `names`, for as many as time and space permit, and for one at least.
    ///
    /// # Errors
    /// Returns a refusal if AD was not reached before `deadline`, or a configured group has no SID.
    pub async fn audit(&self, names: &[String], deadline: Instant) -> Result<Audit, Refusal> {
        let begun = Instant::now();
        let enough = begun + deadline.saturating_duration_since(begun) / 2;
        let (mut audit, mut length) = (Audit::default(), 0);
        for names in names.chunks(TOGETHER) {
            if !audit.list.is_empty() && Instant::now() >= enough {
                break;
            }
            for audited in self.audit_together(names, deadline).await? {
                length += serde_json::to_vec(&audited).map_or(LONGEST, |json| json.len() + 1);
                if length > LONGEST && !audit.list.is_empty() {
                    return Ok(audit);
                }
                audit.list.push(audited);
            }
        }
        Ok(audit)
    }

    async fn audit_together(&self, names: &[String], deadline: Instant) -> Result<Vec<Audited>, Refusal> {
        let mut list = Vec::with_capacity(names.len());
        // The accounts to find, each with its place in the list.
        let (mut places, mut principals) = (Vec::new(), Vec::new());
        for name in names {
            match self.directory.principal(&self.names, name, deadline).await? {
                Ok(principal) => {
                    places.push(list.len());
                    list.push(Audited {
                        principal: Some(principal.to_string()),
                        mapped: self.names.is_mapped(name),
                        ..Audited::new(Outcome::UnknownUser, "")
                    });
                    principals.push(principal);
                }
                Err(error) => list.push(Audited::new(Outcome::Unmapped, error.to_string())),
            }
        }
        let found = match self.directory.find_many(&principals, deadline).await {
            // One account of the batch is malformed: separate queries keep it from affecting the others.
            Err(DirectoryError::Machine(MachineError::Entry(_) | MachineError::TooMany(_))) => {
                return Ok(self.audit_apart(names, list, deadline).await);
            }
            found => found?,
        };
        for (place, found) in places.iter().zip(found) {
            let Some(audited) = list.get_mut(*place) else { continue };
            match found {
                Ok(seen) => self.judge_seen(&seen, audited, deadline).await,
                Err(error) => audited.decide(Refusal::from(error)),
            }
        }
        self.guess(&mut list, &places, &principals, deadline).await?;
        Ok(list)
    }

    async fn audit_apart(&self, names: &[String], mut list: Vec<Audited>, deadline: Instant) -> Vec<Audited> {
        for (name, audited) in names.iter().zip(&mut list).filter(|(_, audited)| audited.principal.is_some())
        {
            let (decision, read) = self.inspect(name, deadline).await;
            audited.decide(Refusal::new(decision.verdict.outcome, decision.verdict.reason));
            if let Some((person, account)) = read {
                audited.see(&person.guid.to_string(), &account);
            }
        }
        list
    }

    async fn judge_seen(&self, seen: &Seen, audited: &mut Audited, deadline: Instant) {
        let Seen { person, account, membership } = seen;
        audited.see(&person.guid.to_string(), account);
        let judged = match membership {
            // The state was read in a separate query, or no group rules apply.
            None => self.judge(person, account, deadline).await,
            Some(membership) => match account.refusal((self.clock)(), &self.host) {
                Some(outcome) if !outcome.wants_new_password() => Err(Refusal::new(outcome, "")),
                _ if membership.denied => {
                    Err(Refusal::new(Outcome::Denied, "member of one of login.deny_groups"))
                }
                _ if !membership.allowed => {
                    Err(Refusal::new(Outcome::NotAllowed, "member of none of login.allow_groups"))
                }
                Some(outcome) => Err(Refusal::new(outcome, "")),
                None => Ok(()),
            },
        };
        audited.decide(match judged {
            Err(refusal) => refusal,
            Ok(()) => self
                .restricted(account)
                .unwrap_or_else(|| Refusal::new(Outcome::Success, restrictions(account))),
        });
    }

    /// Finds similar accounts for the names that have none. A name with a line in the map is skipped: the
    /// administrator has already mapped it.
    async fn guess(
        &self,
        list: &mut [Audited],
        places: &[usize],
        principals: &[Principal],
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let is_missing = |place: usize| {
            list.get(place).is_some_and(|audited| audited.outcome == Outcome::UnknownUser && !audited.mapped)
        };
        let missing = places.iter().zip(principals).filter(|(place, _)| is_missing(**place));
        let (places, users): (Vec<_>, Vec<_>) =
            missing.map(|(place, principal)| (*place, principal.user())).unzip();
        let near = self.directory.near(&self.names, &users, deadline).await?;
        for (place, near) in places.into_iter().zip(near) {
            if let (Some(audited), Some(near)) = (list.get_mut(place), near) {
                let (principal, guid) = (near.principal.to_string(), near.guid.to_string());
                audited.near = Some(Near { principal, guid, why: cut(near.why) });
            }
        }
        Ok(())
    }
}

impl<M: Machine, P: Passwords> Logins<M, P> {
    /// Returns the refusal of an account in order whose password cannot be checked by the configured method.
    pub(super) fn restricted(&self, account: &Account) -> Option<Refusal> {
        let restriction = account.binds_forbidden().filter(|_| self.passwords.binds_only())?;
        let reason =
            format!("{restriction}: AD rejects every bind; login.method = \"auto\" checks by Kerberos");
        Some(Refusal::new(Outcome::AccountRestriction, reason))
    }
}

/// Returns the restrictions of an account in one line.
fn restrictions(account: &Account) -> String {
    let each = account.restrictions().into_iter().map(|(name, value)| format!("{name}: {value}"));
    each.collect::<Vec<_>>().join("; ")
}

impl Audited {
    fn decide(&mut self, refusal: Refusal) {
        self.outcome = refusal.outcome;
        self.reason = cut(refusal.reason);
    }

    fn see(&mut self, guid: &str, account: &Account) {
        let seconds =
            |at: Option<SystemTime>| at?.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        self.guid = Some(guid.to_owned());
        self.password_expires = seconds(account.password_expires);
        self.account_expires = seconds(account.expires);
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(REASON) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "…",
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checked::{Checked, Method};
    use crate::config::Config;
    use crate::directory::entry::Entry;
    use crate::directory::machine::Search;
    use crate::directory::people::Directory;
    use crate::directory::people::person::Person;
    use crate::protocol::{Secret, encode};

    /// A separate domain with these accounts.
    struct Domain(Vec<Entry>);

    impl Machine for Domain {
        async fn search(&self, search: &Search, _: Instant) -> Result<Vec<Entry>, MachineError> {
            if search.base.is_empty() {
                return Ok(vec![Entry::new("").with("configurationNamingContext", ["CN=Configuration"])]);
            }
            let asked = format!("{}{}", search.base, search.filter).to_lowercase();
            let value = |entry: &Entry, name| entry.text(name).ok().flatten().unwrap_or("-").to_lowercase();
            let is_asked = |entry: &&Entry| {
                let named = ["sAMAccountName", "sn"].map(|name| format!("{name}={})", value(entry, name)));
                named.iter().any(|named| asked.contains(&named.to_lowercase()))
                    || asked
                        .contains(&format!("<guid={}>", guid(value(entry, "number").parse().unwrap_or(0))))
            };
            Ok(self.0.iter().filter(is_asked).cloned().collect())
        }
    }

    /// Rejects every check: an audit checks no password. The field is [`Passwords::binds_only`].
    struct Never(bool);

    impl Passwords for Never {
        fn method(&self, _: &Person) -> Method {
            Method::Ldap
        }

        fn binds_only(&self) -> bool {
            self.0
        }

        async fn check(&self, _: &Person, _: &str, _: Instant) -> Result<Checked, Refusal> {
            Err(Refusal::new(Outcome::Unavailable, "nobody asks for that"))
        }
    }

    fn guid(number: u8) -> uuid::Uuid {
        uuid::Uuid::from_bytes([number; 16])
    }

    fn account(number: u8, sam: &str, flags: &str) -> Entry {
        Entry::new(format!("CN={sam},DC=acme,DC=com"))
            .with("number", [number.to_string()])
            .with("objectGUID", [vec![number; 16]])
            .with("sAMAccountName", [sam])
            .with("userAccountControl", [flags])
            .with("accountExpires", ["9223372036854775807"])
            .with("msDS-User-Account-Control-Computed", ["0"])
            .with("pwdLastSet", ["133700000000000000"])
            .with("msDS-UserPasswordExpiryTimeComputed", ["134200000000000000"])
    }

    async fn audit(accounts: Vec<Entry>, names: &[String]) -> Audit {
        audit_by(Never(false), accounts, names).await
    }

    async fn audit_by(passwords: Never, accounts: Vec<Entry>, names: &[String]) -> Audit {
        let map = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(map.path(), "boss = john@acme.com\nghost = no.body@acme.com\n").unwrap();
        let text = format!("names.map_file = {:?}\ndomain.name = \"acme.com\"", map.path());
        let config = Config::load_text("config.toml".as_ref(), text, "/nonexistent".as_ref()).unwrap();
        let directory = Directory::new(Domain(accounts), &config);
        let (host, warn) = ("XCALLY".to_owned(), Duration::ZERO);
        let logins = Logins { names: config.names, directory, passwords, host, warn, clock: SystemTime::now };
        logins.audit(names, Instant::now() + Duration::from_secs(5)).await.unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn each_name_has_its_answer_in_order() {
        let doe = account(3, "x3", "512").with("sn", ["Doe"]).with("givenName", ["Jane"]);
        let accounts = vec![account(1, "john", "512"), account(2, "dora", "514"), doe];
        let asked = names(&["dora", "root", "John", "boss", "ghost", "jdoe", "x@evil.example"]);
        let list = audit(accounts, &asked).await.list;
        let outcomes: Vec<_> = list.iter().map(|audited| audited.outcome).collect();
        let (unknown, unmapped) = (Outcome::UnknownUser, Outcome::Unmapped);
        assert_eq!(
            outcomes,
            [Outcome::Disabled, unmapped, Outcome::Success, Outcome::Success, unknown, unknown, unmapped]
        );
        let [_, root, john, boss, ghost, jdoe, _] = &list[..] else { panic!("{list:?}") };
        assert_eq!((root.principal.as_deref(), root.reason.as_str()), (None, "the name is on names.refuse"));
        assert_eq!((john.guid.clone(), john.mapped), (Some(guid(1).to_string()), false));
        assert_eq!((boss.guid.as_ref(), boss.mapped), (john.guid.as_ref(), true));
        assert_eq!((john.password_expires, john.account_expires), (Some(1_775_526_400), None));
        assert_eq!(jdoe.near.as_ref().map(|near| near.principal.as_str()), Some("x3@acme.com"));
        assert_eq!((ghost.near.as_ref(), ghost.mapped), (None, true));
    }

    #[tokio::test]
    async fn an_account_that_is_not_as_it_should_be_is_in_nobodys_way() {
        let broken = account(2, "broken", "512").with("logonHours", [vec![1, 2, 3]]);
        let list =
            audit(vec![account(1, "john", "512"), broken], &names(&["broken", "root", "john"])).await.list;
        let outcomes: Vec<_> = list.iter().map(|audited| audited.outcome).collect();
        assert_eq!(outcomes, [Outcome::Unavailable, Outcome::Unmapped, Outcome::Success]);
        assert_eq!(list[2].guid, Some(guid(1).to_string()));
    }

    /// AD accepts no bind for a member of Protected Users (S-1-5-21-…-525), so only Kerberos can log it in.
    #[tokio::test]
    async fn where_binds_alone_are_permitted_protected_users_cannot_log_in() {
        let mut protected = vec![1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
        protected.extend(525_u32.to_le_bytes());
        let accounts = || vec![account(1, "john", "512").with("tokenGroups", [protected.clone()])];
        for (binds_only, outcome) in [(false, Outcome::Success), (true, Outcome::AccountRestriction)] {
            let list = audit_by(Never(binds_only), accounts(), &names(&["john"])).await.list;
            assert_eq!(list[0].outcome, outcome, "{list:?}");
        }
    }

    #[tokio::test]
    async fn as_many_are_answered_as_fit_into_a_frame() {
        let long: Vec<_> = (0..1000).map(|number| format!("{number}{}", "ö".repeat(100))).collect();
        let audit = audit(Vec::new(), &long).await;
        assert!((50..500).contains(&audit.list.len()), "{}", audit.list.len());
        encode(&Reply::Audit(Box::new(audit)), &Secret::default()).unwrap();
    }
}
