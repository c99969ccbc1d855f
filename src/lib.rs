//! Active Directory login for XCALLY Motion, through PAM.
//!
//! One login crosses this crate from top to bottom:
//!
//! | Module | Subject |
//! |---|---|
//! | [`module`] | the PAM side: hooks, arguments, conversation, verdict to PAM code |
//! | [`client`] | one question to the broker, within one deadline |
//! | [`protocol`] | what module and broker say to each other |
//! | [`broker`] | server, peer check, health, metrics, audit |
//! | [`login`] | the decision: a login, a change of a password |
//! | [`sessions`] | the register of sessions and its stores |
//! | [`bridge`] | an LDAP front on loopback for applications that only speak LDAP |
//! | [`libpam`] | libpam as an application calls it |
//! | [`name`] | XCALLY username to `user@domain` and back; pure |
//! | [`dn`] | distinguished names, read and compared; pure |
//! | [`directory`] | domain controllers, pooled binds, the machine connection, account state |
//! | [`checked`] | what became of a password at a domain controller |
//! | [`kerberos`] | the machine's credential and the sealed LDAP transport |
//! | [`ldap`] | binds, StartTLS and changes of passwords, byte by byte |
//! | [`ber`] | the headers of BER elements; pure |
//! | [`net`] | TCP: the first of several addresses that answers |
//! | [`log`] | the log, one line per event |
//! | [`patience`] | when a login asks the next domain controller in addition to a silent one |
//! | [`supervise`] | background work that is started again when it fails |
//! | [`threads`] | a runtime whose threads all start with the process |
//! | [`scarce`] | advice for errors of the kernel about a lack of descriptors, memory or threads; pure |
//! | [`config`] | `config.toml`, and what the realm join knows |
//! | [`doctor`] | everything between the application and AD, looked at one by one |
//! | [`helper`] | the commands of `motion-ad`, for people and scripts |
//! | [`texts`] | the texts that users see, in each language |
//! | [`verdict`] | every outcome of a login, once; pure |
//!
//! Without the feature `broker` only the module and the pure parts are compiled: that is the shared object
//! that the application loads, and the compiler itself keeps everything else out of it.

// No value from AD, DNS, a file or a client may panic or be cut: what indexes or casts is checked. Tests may
// be shorter.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod client;
pub mod module;
pub mod name;
pub mod protocol;
pub mod scarce;
pub mod texts;
pub mod verdict;

#[cfg(feature = "broker")]
pub mod ber;
#[cfg(feature = "broker")]
pub mod bridge;
#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "broker")]
pub mod checked;
#[cfg(feature = "broker")]
pub mod config;
#[cfg(feature = "broker")]
pub mod directory;
#[cfg(feature = "broker")]
pub mod dn;
#[cfg(feature = "broker")]
pub mod doctor;
#[cfg(all(feature = "broker", any(test, fuzzing)))]
pub mod fuzzing;
#[cfg(feature = "broker")]
pub mod helper;
#[cfg(feature = "broker")]
pub mod kerberos;
#[cfg(feature = "broker")]
pub mod ldap;
#[cfg(feature = "broker")]
pub mod libpam;
#[cfg(feature = "broker")]
pub mod log;
#[cfg(feature = "broker")]
pub mod login;
#[cfg(feature = "broker")]
pub mod net;
#[cfg(feature = "broker")]
pub mod patience;
#[cfg(feature = "broker")]
pub mod sessions;
#[cfg(feature = "broker")]
pub mod supervise;
#[cfg(feature = "broker")]
pub mod threads;
