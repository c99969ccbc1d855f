//! The result of a password check at a domain controller, by either method.

use std::fmt;
use std::time::Duration;

use crate::verdict::Outcome;

/// A way to check a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A bind over verified TLS.
    Ldap,
    /// An AS exchange whose ticket is verified with the host's keytab.
    Kerberos,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Ldap => "ldap",
            Method::Kerberos => "kerberos",
        })
    }
}

/// A domain controller's decision about a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The outcome, as far as the domain controller reports it.
    pub outcome: Outcome,
    /// True if the account's state has to confirm or explain the outcome. A KDC may report less than it
    /// knows: a revoked account is disabled, expired, locked or outside its logon hours (Samba 4.17 reports
    /// no more of a locked one, whatever the password). An expired password needs confirmation because it
    /// leads to a change of the password and so to access, and a refusal does not prove the KDC's identity.
    pub unexplained: bool,
    /// True if the domain controller rejected the account before it got a proof of the password, which may be
    /// wrong.
    pub before_proof: bool,
    /// The answer, for the log; empty after a success.
    pub reason: String,
}

/// The result of a password check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The method that was used.
    pub method: Method,
    /// The decision of AD.
    pub outcome: Outcome,
    /// AD's answer, for the log; empty after a success.
    pub reason: String,
    /// True if the account's state has to confirm or explain the outcome, see [`Decided::unexplained`]. If
    /// the state does not, `outcome` stands.
    pub unexplained: bool,
    /// True if AD rejected the account before it got a proof of the password, see [`Decided::before_proof`].
    pub before_proof: bool,
    /// The domain controller that decided.
    pub dc: String,
    /// True if the exchange itself proved that the server is a domain controller: by its certificate, or
    /// because it was armoured with the machine's ticket. A refusal in armour proves nothing.
    pub proven: bool,
    /// Domain controllers that received the attempt earlier and did not answer: each may have counted it too.
    pub unanswered: Vec<String>,
    /// Time taken to open a connection; `None` if one was open or the method keeps none.
    pub connect: Option<Duration>,
    /// Time taken by the answer, and by the verification of the KDC.
    pub took: Duration,
}

impl Decided {
    /// The decision on a right password of an account in order.
    pub fn success() -> Self {
        Decided { outcome: Outcome::Success, unexplained: false, before_proof: false, reason: String::new() }
    }

    /// Returns the result of the check that `dc` decided by an AS exchange.
    pub fn by_kerberos(self, dc: String, proven: bool, unanswered: Vec<String>, took: Duration) -> Checked {
        Checked { proven, unanswered, ..self.by(Method::Kerberos, dc, took) }
    }

    /// Returns the result of the check that `dc` decided by a bind.
    pub fn by_ldap(self, dc: String, took: Duration) -> Checked {
        Checked { proven: true, ..self.by(Method::Ldap, dc, took) }
    }

    /// Returns the result of a check by `method` at a server that has not proved anything.
    fn by(self, method: Method, dc: String, took: Duration) -> Checked {
        let Decided { outcome, unexplained, before_proof, reason } = self;
        Checked {
            method,
            outcome,
            reason,
            unexplained,
            before_proof,
            dc,
            proven: false,
            unanswered: Vec::new(),
            connect: None,
            took,
        }
    }
}

impl Checked {
    /// Returns true if the rejection stands, whatever the account's state explains.
    pub fn is_final(&self) -> bool {
        !self.outcome.leads_to_access()
    }
}

impl AsRef<Checked> for Checked {
    fn as_ref(&self) -> &Checked {
        self
    }
}
