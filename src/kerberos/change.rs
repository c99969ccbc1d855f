//! Changes a user's password by kpasswd (RFC 3244), which also accepts expired passwords.
//!
//! An AS exchange with the present password obtains a ticket for nothing but the service that changes
//! passwords; it is the one attempt that AD counts. Then the new password goes to one domain controller,
//! once. Without that domain controller's protected reply, it stays unknown whether the change was made.
//!
//! The server that replies must be able to open the ticket. That proves its identity only if the exchange was
//! armoured with the machine's ticket: a forged KDC can invent an account with a password of the attacker's
//! choice, and also answer as kpasswd. So a change without that proof counts only if `pwdLastSet` confirms it
//! ([`Checked::proven`]).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::cpu;
use super::credential::Kerberos;
use super::exchange::Initial;
use super::kdc::{self, Kdc};
use super::krb5::{Cache, ChangeExchange, Granted};
use super::password::{CheckError, Login, Who, ended, opens_nothing, refused};
use crate::checked::{Checked, Decided};
use crate::net;

/// Port of the service that changes passwords (RFC 3244, 2).
const KPASSWD: u16 = 464;

/// An answer is read in a millisecond, unless all threads are busy; for that there is always so much time.
const READING: Duration = Duration::from_millis(200);

/// Result of a change that was sent.
#[derive(Clone, PartialEq, Eq)]
pub enum Sent {
    /// The domain controller replied.
    Answered {
        /// The result code (RFC 3244, 2).
        code: u16,
        /// The data of the reply.
        data: Vec<u8>,
        /// The domain controller.
        dc: String,
    },
    /// There was no trustworthy reply, so the change may have been made.
    Lost {
        /// Cause, for the log.
        cause: String,
        /// The domain controller.
        dc: String,
    },
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sent::Answered { code, dc, .. } => write!(f, "{dc} answered {code}"),
            Sent::Lost { cause, dc } => write!(f, "{dc} lost: {cause}"),
        }
    }
}

impl Kerberos {
    /// Checks that `present` is the password of `who` and opens the service that changes passwords, even if
    /// it has expired. Changes nothing.
    ///
    /// # Errors
    /// Returns an error if there is no trustworthy answer.
    pub async fn probe_change(
        &self,
        who: Who<'_>,
        present: &str,
        deadline: Instant,
    ) -> Result<Checked, CheckError> {
        let begun = Instant::now();
        let mut login = Login::new(self, who, present, deadline);
        Ok(match self.open(&mut login, who, deadline).await? {
            Ok(initial) => opened(&initial, login.unanswered, begun),
            Err(checked) => checked,
        })
    }

    /// Changes the password of `who` from `present` to `new`, at the domain controller `preferred` if
    /// possible. No change was sent if the result has no [`Sent`].
    ///
    /// # Errors
    /// Returns an error if there is no trustworthy answer; then no change was sent.
    pub async fn change_password(
        &self,
        who: Who<'_>,
        present: &str,
        new: &str,
        preferred: Option<&str>,
        deadline: Instant,
    ) -> Result<(Checked, Option<Sent>), CheckError> {
        let begun = Instant::now();
        let mut login = Login::new(self, who, present, deadline);
        login.preferred = preferred;
        let initial = match self.open(&mut login, who, deadline).await? {
            Ok(initial) => initial,
            Err(checked) => return Ok((checked, None)),
        };
        let checked = opened(&initial, login.unanswered, begun);
        let kdcs = timeout_at(deadline, self.inner.kdcs.candidates(who.realm)).await;
        let mut kdcs =
            kdcs.unwrap_or_else(|_| Err("no answer in time".to_owned())).map_err(CheckError::Unavailable)?;
        // The KDC that has just checked the present password comes first; the others keep their order.
        kdcs.sort_by_key(|kdc| kdc.host != initial.kdc);
        let addresses: Vec<_> = kdcs.iter().flat_map(services).collect();
        let sent = send(&addresses, initial.granted.cache, new, deadline).await?;
        Ok((checked, Some(sent)))
    }

    /// Runs the AS exchange. The inner error is a refusal to open the service.
    async fn open(
        &self,
        login: &mut Login<'_>,
        who: Who<'_>,
        deadline: Instant,
    ) -> Result<Result<Initial, Checked>, CheckError> {
        let begun = Instant::now();
        let armour = self.armour(who.realm, deadline).await;
        match login.ask(armour.as_ref(), true).await {
            Ok(Initial { granted: Granted { stranger: Some(stranger), .. }, kdc, .. }) => {
                Err(CheckError::SomebodyElse { kdc, stranger })
            }
            Ok(initial) => Ok(Ok(initial)),
            Err(end) => {
                let mut refused = refused(end)?;
                if refused.refusal.outcome.wants_new_password() {
                    opens_nothing(&mut refused.refusal);
                }
                let unanswered = std::mem::take(&mut login.unanswered);
                let (kdc, armoured) = (refused.kdc, refused.armoured);
                Ok(Err(refused.refusal.by_kerberos(kdc, armoured, unanswered, begun.elapsed())))
            }
        }
    }
}

/// Result of a check that accepted the present password.
fn opened(initial: &Initial, unanswered: Vec<String>, begun: Instant) -> Checked {
    Decided::success().by_kerberos(initial.kdc.clone(), initial.armoured, unanswered, begun.elapsed())
}

/// Addresses of the password service at the domain controller of a KDC.
fn services(kdc: &Kdc) -> impl Iterator<Item = (String, SocketAddr)> + '_ {
    kdc.addresses.iter().map(|address| (kdc.host.clone(), SocketAddr::new(address.ip(), KPASSWD)))
}

/// Sends the new password, with the ticket in `cache`, to the first of `addresses` that accepts a connection,
/// and to no other.
async fn send(
    addresses: &[(String, SocketAddr)],
    cache: Cache,
    new: &str,
    deadline: Instant,
) -> Result<Sent, CheckError> {
    let (stream, dc) = reached(addresses, deadline).await.map_err(CheckError::Unavailable)?;
    let local = stream.local_addr().map_err(|e| CheckError::Unavailable(format!("{dc}: {e}")))?.ip();
    let (exchange, request) = request(cache, new, local, deadline).await?;
    // From here on the change may have been made.
    let reply = match timeout_at(deadline, kdc::exchange(stream, &request)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(e)) => return Ok(Sent::Lost { cause: format!("{dc}: {}", kdc::in_words(&e)), dc }),
        Err(_) => return Ok(Sent::Lost { cause: format!("{dc}: no answer to the change in time"), dc }),
    };
    let reading = deadline.max(Instant::now() + READING);
    Ok(match cpu::run(reading, move || exchange.read(&reply)).await {
        Ok(Ok((code, data))) => Sent::Answered { code, data, dc },
        Ok(Err(failure)) => Sent::Lost { cause: format!("{dc}: {}", failure.text), dc },
        Err(_) => Sent::Lost { cause: format!("{dc}: its answer could not be read in time"), dc },
    })
}

async fn reached(
    addresses: &[(String, SocketAddr)],
    deadline: Instant,
) -> Result<(TcpStream, String), String> {
    let host =
        |at: SocketAddr| addresses.iter().find(|(_, address)| *address == at).map(|(host, _)| host.as_str());
    let places: Vec<_> = addresses.iter().map(|(_, address)| *address).collect();
    // An address that is slow is waited for while the next one is tried: nothing has been sent yet.
    let causes = match net::connect(&places, deadline).await {
        Ok((stream, at)) => return Ok((stream, host(at).unwrap_or_default().to_owned())),
        Err(failed) if failed.causes.is_empty() => "none is known".to_owned(),
        Err(failed) => {
            let causes = failed.causes.iter();
            let causes =
                causes.map(|(at, cause)| format!("{}: {at}: {cause}", host(*at).unwrap_or_default()));
            causes.collect::<Vec<_>>().join("; ")
        }
    };
    Err(format!("no domain controller changes passwords (port {KPASSWD}): {causes}"))
}

async fn request(
    cache: Cache,
    new: &str,
    local: IpAddr,
    deadline: Instant,
) -> Result<(ChangeExchange, Vec<u8>), CheckError> {
    let new = Zeroizing::new(new.as_bytes().to_vec());
    let made = cpu::run(deadline, move || ChangeExchange::new(cache.name(), &new, local)).await;
    let made = made.map_err(|unfinished| ended(unfinished.into()))?;
    made.map_err(|failure| CheckError::Failed(failure.text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::krb5::changepw::Service;
    use super::*;

    const NEW: &str = "N3w-secret";

    /// Behaviour of the service after a request.
    #[derive(Clone, Copy)]
    enum Manner {
        Answers(&'static [u8]),
        /// Sends only this many bytes of the reply, and closes.
        Cut(usize),
        /// Replies like another service, which has another key.
        Forges,
        Closes,
        Resets,
        IsSilent,
    }

    /// A service, its address, and the number of connections that it got.
    async fn service(manner: Manner) -> (Cache, SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (service, count) = (Service::new(), asked.clone());
        let cache = Service::new().cache;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut request = vec![0; stream.read_u32().await.unwrap().try_into().unwrap()];
                stream.read_exact(&mut request).await.unwrap();
                let reply = |result: &[u8]| {
                    let accepted = service.accept(&request);
                    assert_eq!(accepted.password, NEW.as_bytes());
                    let reply = accepted.reply(result);
                    [&u32::try_from(reply.len()).unwrap().to_be_bytes(), &reply[..]].concat()
                };
                match manner {
                    Manner::Answers(result) => stream.write_all(&reply(result)).await.unwrap(),
                    Manner::Cut(length) => stream.write_all(&reply(b"\0\0")[..length]).await.unwrap(),
                    Manner::Forges => {
                        let mut reply = reply(b"\0\0");
                        *reply.last_mut().unwrap() ^= 1;
                        stream.write_all(&reply).await.unwrap();
                    }
                    Manner::Closes => {}
                    Manner::Resets => stream.set_zero_linger().unwrap(),
                    Manner::IsSilent => std::future::pending().await,
                }
            }
        });
        (cache, address, asked)
    }

    async fn sent(addresses: &[SocketAddr], cache: Cache) -> Result<Sent, CheckError> {
        let addresses: Vec<_> = addresses.iter().map(|address| (address.to_string(), *address)).collect();
        send(&addresses, cache, NEW, Instant::now() + Duration::from_secs(3)).await
    }

    #[tokio::test]
    async fn whatever_is_no_answer_leaves_it_open_and_nobody_else_is_asked() {
        let cases = [
            (Manner::Answers(b"\0\0Password changed"), Ok((0, "Password changed"))),
            (Manner::Answers(b"\0\x04no"), Ok((4, "no"))),
            (Manner::Answers(b"\0\x09no"), Err("no result")),
            (Manner::Cut(3), Err("closed the connection")),
            (Manner::Cut(40), Err("closed the connection")),
            (Manner::Forges, Err("integrity")),
            (Manner::Closes, Err("closed the connection")),
            (Manner::Resets, Err("reset")),
            (Manner::IsSilent, Err("no answer to the change in time")),
        ];
        for (manner, expected) in cases {
            let (cache, first, asked) = service(manner).await;
            let (_, second, other) = service(Manner::Answers(b"\0\0")).await;
            match (sent(&[first, second], cache).await.unwrap(), expected) {
                (Sent::Answered { code, data, dc }, Ok((expected, text))) => {
                    assert_eq!((code, data.as_slice(), dc), (expected, text.as_bytes(), first.to_string()));
                }
                (Sent::Lost { cause, dc }, Err(words)) => {
                    assert!(cause.contains(words), "{cause}, not {words}");
                    assert_eq!(dc, first.to_string());
                }
                (sent, expected) => panic!("{sent:?}, not {expected:?}"),
            }
            assert_eq!((asked.load(Ordering::SeqCst), other.load(Ordering::SeqCst)), (1, 0));
        }
    }

    #[tokio::test]
    async fn before_anything_is_sent_the_next_one_is_tried() {
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        let (cache, address, _) = service(Manner::Answers(b"\0\0")).await;
        let answer = sent(&[closed, address], cache).await.unwrap();
        assert!(matches!(&answer, Sent::Answered { dc, .. } if *dc == address.to_string()), "{answer:?}");
        for addresses in [&[closed][..], &[]] {
            let error = sent(addresses, Service::new().cache).await.unwrap_err();
            assert!(matches!(&error, CheckError::Unavailable(text) if text.contains("port 464")), "{error}");
        }
    }
}
