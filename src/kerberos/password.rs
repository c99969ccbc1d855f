//! Checks a user's password by an AS exchange, and verifies that the KDC is the real one.
//!
//! An attacker between this host and the KDC can forge a reply for a password that the attacker knows, so the
//! ticket alone proves nothing. The real KDC also knows this host's key. So the broker uses the user's ticket
//! to request one for this host, and opens it with the keytab (as `krb5_verify_init_creds` does with
//! `ap_req_nofail`). Without a matching keytab no user logs in.
//!
//! A wrong password is sent once. If the KDC offers it, the exchange is armoured with the machine's ticket
//! (FAST, RFC 6113), so that an eavesdropper cannot use it to guess the password.

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::credential::{Account, Credential, Kerberos};
use super::error::{self, Skew};
use super::exchange::{self, Ended, Initial, Proof};
use super::kdc::{self, Kdc};
use super::krb5::{self, Client, Failure, Granted, InitialExchange, Key, Request, ServiceExchange, Step};
use super::refusal;
use super::{KerberosError, cpu};
use crate::checked::{Checked, Decided};
use crate::verdict::Outcome;

/// Lifetime of a user's ticket, in seconds. The ticket is used at once; but if this host's clock is ahead, up
/// to five minutes of it are already over.
const LIFETIME: i32 = 600;

/// `KRB_AP_ERR_BAD_INTEGRITY`: the password does not open the reply (`krb5.h`). Only an account without
/// pre-authentication gets such a reply before it has proved the password.
const BAD_INTEGRITY: i32 = -1765328353;
/// `KRB_AP_ERR_BADKEYVER`: the ticket is for a version of the key that the keytab does not hold (`krb5.h`).
const BAD_KEY_VERSION: i32 = -1765328340;

/// The account that the password is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who<'a> {
    /// The sAMAccountName, which identifies the account.
    pub sam: &'a str,
    /// The explicit userPrincipalName, which is sent to the KDC. It is unique, while Samba 4.17 takes a
    /// sAMAccountName for another account if that account's UPN begins with it.
    pub upn: Option<&'a str>,
    /// The realm of the account's domain.
    pub realm: &'a str,
    /// Tries the password even if the KDC issues the account's tickets without a proof (DONT_REQ_PREAUTH). AD
    /// does not count such attempts.
    pub uncounted: bool,
}

/// `KDC_ERR_TGT_REVOKED` (RFC 4120, 7.5.9). Samba 4.17 rejects a ticket with it if another account has the
/// ticket's name as its UPN: the name then means that account.
const TICKET_REVOKED: u32 = 20;

/// Failure to get a result. AD may still have counted the password as wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The keytab cannot be used, so no KDC could be verified. Nothing was sent.
    #[error("{0}")]
    Keytab(KerberosError),
    /// No KDC answered in time, or none is known.
    #[error("no KDC answered: {0}")]
    Unavailable(String),
    /// The account needs no pre-authentication, so the password was not tried.
    #[error(
        "the account needs no Kerberos pre-authentication (the KDC {0} asked for no proof), so that AD would \
         not count a wrong password; clear \"Do not require Kerberos preauthentication\" of the account"
    )]
    NoPreauth(String),
    /// The clocks differ too much.
    #[error("{0}: synchronise this host's clock (NTP)")]
    ClockSkew(Skew),
    /// The same, as a ticket shows that was just issued: by this host's clock it has ended, or is not valid
    /// yet.
    #[error(
        "the clocks of this host and of the KDC {kdc} differ too much ({cause}): synchronise this host's \
         clock (NTP)"
    )]
    Clocks {
        /// The KDC.
        kdc: String,
        /// The mismatch.
        cause: String,
    },
    /// The KDC accepted the password but does not know this host's key.
    #[error(
        "the KDC {kdc} does not hold this host's key: a forged KDC or a stale keytab ({cause}); if the \
         machine password was changed, join again with `adcli join`, as `motion-ad doctor` prints it"
    )]
    Forged {
        /// The KDC.
        kdc: String,
        /// The mismatch.
        cause: String,
    },
    /// The KDC accepted the password, but its ticket is for a version of this host's key that the keytab does
    /// not hold: the machine's password has just changed, the keytab is stale, or the KDC is forged.
    #[error(
        "the KDC {kdc} uses another version of this host's key than the keytab: a stale keytab or a forged \
         KDC ({cause}); join again with `adcli join`, as `motion-ad doctor` prints it"
    )]
    KeyVersion {
        /// The KDC.
        kdc: String,
        /// The version.
        cause: String,
    },
    /// The KDC accepted the password and grants the account no ticket for this host (KDC_ERR_POLICY): an
    /// authentication policy or silo says who may authenticate to it.
    #[error(
        "the KDC {kdc} grants the account no ticket for {host}: an authentication policy or silo forbids it \
         (KDC error 12); see AllowedToAuthenticateTo of the policy of {host}"
    )]
    Policy {
        /// The KDC.
        kdc: String,
        /// This host's account.
        host: String,
    },
    /// The password belongs to another account than the one that logs in.
    #[error("the KDC {kdc} takes the name for that of another account ({stranger})")]
    SomebodyElse {
        /// The KDC.
        kdc: String,
        /// Name of the account that the ticket is for.
        stranger: String,
    },
    /// libkrb5 does not accept the KDC's answer, or its configuration is broken.
    #[error("the check of the password failed: {0}")]
    Failed(String),
}

impl Kerberos {
    /// Checks the password of `who`.
    ///
    /// The password is sent in one exchange. If the KDC reports it as expired, a second exchange follows,
    /// because some KDCs report that before they check the password. Dropping the future gives up, like the
    /// deadline.
    ///
    /// # Errors
    /// Returns an error if there is no trustworthy answer. The user must not get access.
    pub async fn check_password(
        &self,
        who: Who<'_>,
        password: &str,
        deadline: Instant,
    ) -> Result<Checked, CheckError> {
        let account = cpu::run(deadline, self.inner.account()).await;
        let account = account.map_err(|u| ended(u.into()))?.map_err(CheckError::Keytab)?;
        let begun = Instant::now();
        let mut login = Login::new(self, who, password, deadline);
        let armour = self.armour(who.realm, deadline).await;
        let initial = match login.ask(armour.as_ref(), false).await {
            Ok(initial) => initial,
            Err(end) => {
                let refused = refused(end)?;
                let refusal = match refused.refusal.outcome.wants_new_password() {
                    true => login.confirm(armour.as_ref(), refused.refusal).await?,
                    false => refused.refusal,
                };
                let (kdc, armoured) = (refused.kdc, refused.armoured);
                return Ok(refusal.by_kerberos(kdc, armoured, login.unanswered, begun.elapsed()));
            }
        };
        self.verify(&initial, &account, deadline).await?;
        self.inner.for_users().took(&initial.kdc, initial.begun.elapsed());
        // The KDC is verified: only now is its ticket trustworthy.
        if let Some(stranger) = initial.granted.stranger {
            return Err(CheckError::SomebodyElse { kdc: initial.kdc, stranger });
        }
        let took = begun.elapsed();
        Ok(Decided::success().by_kerberos(initial.kdc, initial.armoured, login.unanswered, took))
    }

    /// Probes `kdc`: the machine account requests a ticket without a proof, and the KDC says which proof it
    /// wants. Nothing is proved, so nothing is counted, and any answer will do.
    ///
    /// # Errors
    /// Returns a text for the administrator if the KDC does not answer.
    pub async fn probe(&self, realm: &str, kdc: Kdc, deadline: Instant) -> Result<(), String> {
        let (realm, account) = (realm.to_owned(), self.inner.account());
        let message = cpu::run(deadline, move || {
            let account = account()?;
            let client = Client::Person { sam: account.name().to_owned(), upn: None, realm };
            let request = Request { client, change_password: false, lifetime: Some(LIFETIME), armour: None };
            let nothing = Key::Password(Zeroizing::new(vec![0]));
            let first = InitialExchange::new(&request, nothing).and_then(|mut exchange| exchange.step(&[]));
            first.map_err(Failure::other)
        });
        let message = message.await.map_err(|_| "the deadline passed".to_owned())?;
        match message.map_err(|error| error.to_string())? {
            Step::Send { message, .. } => {
                let answer = kdc::ask_one(&kdc, &message, deadline, deadline, &mut Vec::new()).await;
                answer.map(drop).map_err(|failure| failure.cause)
            }
            Step::Done => Ok(()),
        }
    }

    /// Verifies that the KDC of `initial` holds this host's key.
    ///
    /// For a moment after a change of the machine's password, the keytab is behind. Then the KDC must know
    /// the session key of the machine's ticket, which was obtained with the previous key (user-to-user).
    async fn verify(
        &self,
        initial: &Initial,
        account: &Account,
        deadline: Instant,
    ) -> Result<(), CheckError> {
        let (cache, name) = (initial.granted.cache.name().to_owned(), account.principal());
        let new = move || ServiceExchange::new(&cache, &name);
        let failure = match self.prove(initial, account, new, deadline).await {
            Err(CheckError::KeyVersion { kdc, cause }) => CheckError::KeyVersion { kdc, cause },
            other => return other,
        };
        let Some(own) = self.armour(account.realm(), deadline).await else { return Err(failure) };
        let (cache, name) = (initial.granted.cache.name().to_owned(), account.principal());
        let new = move || ServiceExchange::user_to_user(&cache, &name, own.tickets.cache.name());
        self.prove(initial, account, new, deadline).await
    }

    async fn prove(
        &self,
        initial: &Initial,
        account: &Account,
        new: impl FnOnce() -> Result<ServiceExchange, Failure> + Send + 'static,
        deadline: Instant,
    ) -> Result<(), CheckError> {
        let host = account.principal();
        let ticket = exchange::service(self.inner.for_users(), new, Some(&initial.kdc), deadline).await;
        let mut ticket = ticket.map_err(|failure| match failure {
            // The KDC recognises the ticket as its own, but takes its holder for another account.
            Ended::Refused { refused: krb5::Refused { code: TICKET_REVOKED, .. }, kdc, .. } => {
                CheckError::SomebodyElse { kdc, stranger: "it revokes the ticket".to_owned() }
            }
            // The password was right; a policy of the account or of this host forbids the ticket.
            Ended::Refused { refused: krb5::Refused { code: refusal::POLICY, .. }, kdc, .. } => {
                CheckError::Policy { kdc, host: host.clone() }
            }
            Ended::Refused { refused, .. } => {
                let cause = format!("it gives no ticket for {host}: {}", refusal::described(refused.code));
                unproven(&initial.kdc, Failure { code: error::library_code(refused.code), text: cause })
            }
            Ended::Library(failure, _) => unproven(&initial.kdc, failure),
            other => ended(other),
        })?;
        let verified = cpu::run(deadline, move || ticket.verify(&host)).await.map_err(|u| ended(u.into()))?;
        verified.map_err(|failure| unproven(&initial.kdc, failure))
    }
}

/// Interprets a failure to prove that `kdc`, which accepted the password, holds this host's key.
fn unproven(kdc: &str, Failure { code, text: cause }: Failure) -> CheckError {
    let kdc = kdc.to_owned();
    match code {
        BAD_KEY_VERSION => CheckError::KeyVersion { kdc, cause },
        code if error::is_of_clocks(code) => CheckError::Clocks { kdc, cause },
        _ => CheckError::Forged { kdc, cause },
    }
}

/// A refusal in an AS exchange.
pub(super) struct Refused {
    /// Its meaning.
    pub(super) refusal: Decided,
    /// Host of the KDC.
    pub(super) kdc: String,
    /// True if the exchange was armoured.
    pub(super) armoured: bool,
}

/// Returns true if the KDC refuses because of the time: that says nothing about the password.
fn is_of_clocks(refused: &krb5::Refused) -> bool {
    error::is_of_clocks(error::library_code(refused.code))
}

/// Interprets the end of an exchange as a refusal.
///
/// # Errors
/// Returns the failure if the end says nothing about the password.
pub(super) fn refused(end: Ended) -> Result<Refused, CheckError> {
    match end {
        Ended::Refused { refused, kdc, armoured, proved } if !is_of_clocks(&refused) => {
            Ok(Refused { refusal: refusal::read(refused.code, &refused.data, proved), kdc, armoured })
        }
        Ended::Library(Failure { code: BAD_INTEGRITY, .. }, kdc) => {
            let refusal = Decided {
                outcome: Outcome::WrongPassword,
                unexplained: false,
                before_proof: false,
                reason: "the KDC's answer cannot be opened with the password: it is wrong, and AD does not \
                         count it, because the account needs no pre-authentication; or the KDC is forged"
                    .to_owned(),
            };
            Ok(Refused { refusal, kdc, armoured: false })
        }
        other => Err(ended(other)),
    }
}

/// One check under way.
pub(super) struct Login<'a> {
    kerberos: &'a Kerberos,
    who: Who<'a>,
    password: &'a str,
    deadline: Instant,
    /// KDC to try first.
    pub(super) preferred: Option<&'a str>,
    /// KDCs that got the attempt and did not answer.
    pub(super) unanswered: Vec<String>,
}

impl<'a> Login<'a> {
    pub(super) fn new(kerberos: &'a Kerberos, who: Who<'a>, password: &'a str, deadline: Instant) -> Self {
        Login { kerberos, who, password, deadline, preferred: None, unanswered: Vec::new() }
    }

    /// Runs an AS exchange with the password, armoured if the KDC accepts that.
    pub(super) async fn ask(
        &mut self,
        armour: Option<&Credential>,
        change_password: bool,
    ) -> Result<Initial, Ended> {
        match self.ask_once(armour, change_password).await {
            // Nothing was proved, so nothing can have been counted. If the KDC does not know the machine's
            // ticket, the verification gives a clearer error.
            Err(Ended::ArmourRefused(_)) => self.ask_once(None, change_password).await,
            other => other,
        }
    }

    async fn ask_once(
        &mut self,
        armour: Option<&Credential>,
        change_password: bool,
    ) -> Result<Initial, Ended> {
        let client = Client::Person {
            sam: self.who.sam.to_owned(),
            upn: self.who.upn.map(str::to_owned),
            realm: self.who.realm.to_owned(),
        };
        let armour = armour.map(|credential| credential.tickets.cache.name().to_owned());
        let request = Request { client, change_password, lifetime: Some(LIFETIME), armour };
        // The capacity is exact, so that the buffer never grows and leaves a copy behind.
        let mut password = Zeroizing::new(Vec::with_capacity(self.password.len() + 1));
        password.extend_from_slice(self.password.as_bytes());
        password.push(0);
        let (access, key) = (self.kerberos.inner.for_users(), Key::Password(password));
        let proof = if self.who.uncounted { Proof::Spared } else { Proof::Wanted };
        let unanswered = &mut self.unanswered;
        exchange::initial(access, request, key, proof, self.preferred, self.deadline, unanswered).await
    }

    /// Checks an expired password by requesting a ticket for the service that changes passwords, which
    /// accepts expired ones. A KDC that checks the expiry first has not checked the password yet, so a wrong
    /// one is counted only once.
    async fn confirm(
        &mut self,
        armour: Option<&Credential>,
        expired: Decided,
    ) -> Result<Decided, CheckError> {
        match self.ask(armour, true).await {
            Ok(Initial { granted: Granted { stranger: Some(stranger), .. }, kdc, .. }) => {
                Err(CheckError::SomebodyElse { kdc, stranger })
            }
            Ok(_) => Ok(Decided { before_proof: false, ..expired }),
            Err(Ended::Refused { refused, proved, .. }) if !is_of_clocks(&refused) => {
                let mut second = refusal::read(refused.code, &refused.data, proved);
                if second.outcome.wants_new_password() {
                    opens_nothing(&mut second);
                }
                second.reason = format!("{}; for a change of the password {}", expired.reason, second.reason);
                Ok(second)
            }
            Err(other) => Err(ended(other)),
        }
    }
}

/// Marks the refusal of a KDC that rejects expired passwords even for the service that changes passwords: the
/// password may be right or wrong.
pub(super) fn opens_nothing(refusal: &mut Decided) {
    (refusal.outcome, refusal.unexplained) = (Outcome::Refused, false);
}

pub(super) fn ended(ended: Ended) -> CheckError {
    match ended {
        Ended::Skew(skew) => CheckError::ClockSkew(skew),
        Ended::Unanswered(none) => CheckError::Unavailable(none.causes),
        Ended::Late => CheckError::Unavailable("the deadline passed".to_owned()),
        Ended::Library(failure, kdc) if error::is_of_clocks(failure.code) => {
            CheckError::Clocks { kdc, cause: failure.text }
        }
        Ended::Library(failure, _) => CheckError::Failed(failure.text),
        Ended::ArmourRefused(text) => CheckError::Failed(text),
        Ended::NoPreauth(kdc) => CheckError::NoPreauth(kdc),
        Ended::Refused { refused, kdc, .. } if is_of_clocks(&refused) => {
            CheckError::Clocks { kdc, cause: refusal::described(refused.code) }
        }
        Ended::Refused { refused, kdc, .. } => {
            CheckError::Failed(format!("the KDC {kdc} says: {}", refusal::described(refused.code)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::kerberos::Kdcs;
    use crate::net::BoxFuture;

    #[test]
    fn a_ticket_that_the_clock_rejects_is_no_sign_of_a_forged_kdc() {
        let failure = |code| Failure { code: error::library_code(code), text: "Ticket expired".into() };
        // KRB_AP_ERR_TKT_EXPIRED, KRB_AP_ERR_TKT_NYV, KRB_AP_ERR_SKEW, KRB5_KDCREP_SKEW.
        for code in [32, 33, 37, 148] {
            let errors = [
                unproven("ad.acme.com", failure(code)),
                ended(Ended::Library(failure(code), "ad.acme.com".into())),
            ];
            for error in errors {
                let text = error.to_string();
                let expected = "the clocks of this host and of the KDC ad.acme.com differ too much (Ticket \
                                expired): synchronise this host's clock (NTP)";
                assert_eq!(text, expected, "{code}");
            }
        }
        let end = |code| {
            let refused = krb5::Refused { code, time: std::time::UNIX_EPOCH, data: Vec::new() };
            Ended::Refused { refused, kdc: "ad.acme.com".into(), armoured: true, proved: true }
        };
        // This host's clock may step after the proof, so that both agree again when the KDC answers.
        for code in [32, 33, 37] {
            let error = refused(end(code)).err().unwrap();
            assert!(matches!(&error, CheckError::Clocks { kdc, .. } if kdc == "ad.acme.com"), "{error}");
        }
        assert_eq!(refused(end(24)).ok().unwrap().refusal.outcome, Outcome::WrongPassword);
        // KRB_AP_ERR_BAD_INTEGRITY, KRB_AP_ERR_MODIFIED, KDC_ERR_S_PRINCIPAL_UNKNOWN.
        for code in [31, 41, 7] {
            let error = unproven("ad.acme.com", failure(code));
            assert!(matches!(error, CheckError::Forged { .. }), "{error}");
        }
        let error = unproven("ad.acme.com", failure(44));
        assert!(matches!(error, CheckError::KeyVersion { .. }), "{error}");
        assert!(matches!(ended(Ended::Library(failure(31), String::new())), CheckError::Failed(_)));
    }

    /// KDCs that no exchange may ask for.
    struct Untouched;

    impl Kdcs for Untouched {
        fn candidates<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
            panic!("a message for a KDC of {realm}");
        }
        fn answered(&self, _: &str) {}
        fn failed(&self, _: &str, _: &str) {}
    }

    #[tokio::test]
    async fn without_a_key_of_this_host_no_kdc_is_asked() {
        // No keytab has a key of this realm.
        let kerberos = Kerberos::of_realm(Arc::new(Untouched), "NOBODYS.EXAMPLE");
        let who = Who { sam: "john.doe", upn: None, realm: "NOBODYS.EXAMPLE", uncounted: false };
        let deadline = Instant::now() + Duration::from_secs(10);
        let checked = kerberos.check_password(who, "secret", deadline).await;
        assert!(matches!(checked, Err(CheckError::Keytab(_))), "{checked:?}");
    }
}
