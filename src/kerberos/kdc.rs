//! One message to a KDC and its answer, over TCP (RFC 4120, 7.2.2), with the next KDC where one does not answer.
//!
//! libkrb5 would do that itself, but it blocks a thread, looks for KDCs in its own way and waits for up to half
//! a minute. UDP is left out: AD's answers are too long for it, and over it a lost message and a dead KDC look
//! alike.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::cpu;
use super::krb5::Refused;

/// How long a KDC has for its answer while there is another one to ask; the last one has until the deadline.
pub const ATTEMPT: Duration = Duration::from_secs(1);

/// The longest answer. A ticket with the largest PAC that AD makes has some 100 KiB.
pub const MAX_REPLY: u32 = 1_048_576;

/// `KDC_ERR_SVC_UNAVAILABLE` (MS-KILE 2.2.2): this KDC cannot answer now, and says so before it looks at a password.
const SERVICE_UNAVAILABLE: u32 = 29;

/// The first bytes of what a KDC may answer: AS-REP, TGS-REP, KRB-ERROR (RFC 4120, 5.10).
const ANSWERS: [u8; 3] = [0x6b, 0x6d, 0x7e];

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A KDC to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kdc {
    /// Its name, for the log.
    pub host: String,
    /// Where it listens, port 88 included, in the order to try.
    pub addresses: Vec<SocketAddr>,
}

/// Who knows the KDCs.
pub trait Kdcs: Send + Sync + 'static {
    /// The KDCs of `realm` in the order to try; the error says why there are none.
    fn candidates<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>>;

    /// `host` answered a message, be it with a refusal.
    fn answered(&self, host: &str);

    /// `host` did not answer.
    fn failed(&self, host: &str, cause: &str);
}

/// A KDC's answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The message.
    pub(super) message: Vec<u8>,
    /// Whose it is.
    pub(super) host: String,
    /// What it says, if it is a KRB-ERROR.
    pub(super) refused: Option<Refused>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    /// The realm whose KDCs were asked.
    pub(super) realm: String,
    /// Why each did not answer.
    pub(super) causes: String,
    /// Whether the deadline passed.
    pub(super) late: bool,
}

/// Sends `message` to a KDC of `realm`, `preferred` first, until one answers.
///
/// A message that arrived and was not answered may have been counted as a wrong password; the next KDC is asked
/// all the same, because nobody could log in otherwise while one is silent. What is given up before it arrived
/// never arrives: the connection is reset, so that this host's kernel does not send it again later.
pub(super) async fn ask(
    kdcs: &dyn Kdcs,
    realm: &str,
    message: &[u8],
    preferred: Option<&str>,
    deadline: Instant,
) -> Result<Answer, Unanswered> {
    let mut causes = Vec::new();
    let mut candidates = match timeout_at(deadline, kdcs.candidates(realm)).await {
        Ok(Ok(candidates)) => candidates,
        Ok(Err(cause)) => {
            return Err(Unanswered { realm: realm.to_owned(), causes: cause, late: false });
        }
        Err(_) => Vec::new(),
    };
    candidates.retain(|kdc| !kdc.addresses.is_empty());
    // Stable: the others keep their order.
    candidates.sort_by_key(|kdc| Some(kdc.host.as_str()) != preferred);
    let count = candidates.len();
    for (index, kdc) in candidates.into_iter().enumerate() {
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        let end = if index + 1 < count { deadline.min(now + ATTEMPT) } else { deadline };
        match ask_one(&kdc, message, end).await {
            Ok((message, refused)) => {
                kdcs.answered(&kdc.host);
                return Ok(Answer { message, host: kdc.host, refused });
            }
            Err(cause) => {
                kdcs.failed(&kdc.host, &cause);
                causes.push(format!("{}: {cause}", kdc.host));
            }
        }
    }
    if causes.is_empty() {
        causes.push("none is known".to_owned());
    }
    let late = Instant::now() >= deadline;
    Err(Unanswered { realm: realm.to_owned(), causes: causes.join("; "), late })
}

/// Asks one KDC at each of its addresses, which share the time until `end`.
pub(super) async fn ask_one(
    kdc: &Kdc,
    message: &[u8],
    end: Instant,
) -> Result<(Vec<u8>, Option<Refused>), String> {
    let mut cause = String::new();
    for (index, address) in kdc.addresses.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let share = u32::try_from(kdc.addresses.len() - index).unwrap_or(1);
        let reply = match timeout_at(Instant::now() + left / share, exchange(*address, message)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                cause = match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        "it closed the connection instead of an answer".to_owned()
                    }
                    _ => error.to_string(),
                };
                continue;
            }
            Err(_) => {
                cause = "no answer in time".to_owned();
                continue;
            }
        };
        // libkrb5 reads its configuration for that.
        let read = move || (Refused::read(&reply), reply);
        return match cpu::run(end, read).await {
            Ok((Ok(Some(Refused { code: SERVICE_UNAVAILABLE, .. })), _)) => {
                Err("it is not available (KDC_ERR_SVC_UNAVAILABLE)".to_owned())
            }
            Ok((Ok(refused), reply)) if reply.first().is_some_and(|tag| ANSWERS.contains(tag)) => {
                Ok((reply, refused))
            }
            Ok(_) => Err("its answer is no Kerberos message".to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        };
    }
    Err(cause)
}

/// One message each way: four bytes of length, then the message.
async fn exchange(address: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(message.len()).map_err(|_| io::Error::other("the message is too long"))?;
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // However this future ends before the answer is there, closing resets the connection.
    linger(&stream, Some(0))?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u32().await?;
    // The highest bit is reserved for extensions.
    if length == 0 || length > MAX_REPLY {
        return Err(io::Error::other(format!("it announced an answer of {length} bytes")));
    }
    // Grows with what really comes, not with what was announced.
    let mut reply = Vec::new();
    (&mut stream).take(length.into()).read_to_end(&mut reply).await?;
    if u32::try_from(reply.len()).ok() != Some(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    linger(&stream, None)?;
    Ok(reply)
}

/// SO_LINGER (socket(7)): for how many seconds closing waits; 0 resets the connection instead.
fn linger(stream: &TcpStream, seconds: Option<i32>) -> io::Result<()> {
    let linger = libc::linger { l_onoff: seconds.is_some().into(), l_linger: seconds.unwrap_or(0) };
    Ok(setsockopt(stream, sockopt::Linger, &linger)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::net::TcpListener;

    use super::*;

    /// What a KDC of these tests does with a connection.
    #[derive(Clone, Copy)]
    enum Manner {
        /// Answers with these bytes, the length included, and closes.
        Says(&'static [u8]),
        /// Reads and says nothing.
        Silent,
        /// Closes at once, with a reset.
        Resets,
    }

    /// AS-REP in the first byte; nothing here looks further.
    const GOOD: &[u8] = b"\0\0\0\x04\x6b\x02ab";
    /// SVC_UNAVAILABLE.
    const UNAVAILABLE: &[u8] = b"\0\0\0\x45\x7e\x43\x30\x41\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x1e\
        \xa4\x11\x18\x0f20261123184937Z\xa5\x03\x02\x01\x00\xa6\x03\x02\x01\x1d\
        \xa9\x03\x1b\x01A\xaa\x13\x30\x11\xa0\x03\x02\x01\x02\xa1\x0a\x30\x08\x1b\x06krbtgt";

    async fn kdc(manner: Manner) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 11];
                    match manner {
                        Manner::Resets => linger(&stream, Some(0)).unwrap(),
                        Manner::Silent => std::future::pending().await,
                        Manner::Says(reply) => {
                            stream.read_exact(&mut request).await.unwrap();
                            assert_eq!(&request, b"\0\0\0\x07message");
                            stream.write_all(reply).await.unwrap();
                        }
                    }
                });
            }
        });
        address
    }

    #[derive(Default)]
    struct Known {
        kdcs: Vec<Kdc>,
        said: Mutex<Vec<String>>,
    }

    impl Kdcs for Known {
        fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
            Box::pin(async { Ok(self.kdcs.clone()) })
        }
        fn answered(&self, host: &str) {
            self.said.lock().unwrap().push(format!("{host} answered"));
        }
        fn failed(&self, host: &str, cause: &str) {
            self.said.lock().unwrap().push(format!("{host}: {cause}"));
        }
    }

    async fn known(manners: &[Manner]) -> Known {
        let mut kdcs = Vec::new();
        for (index, manner) in manners.iter().enumerate() {
            kdcs.push(Kdc { host: format!("kdc{index}"), addresses: vec![kdc(*manner).await] });
        }
        Known { kdcs, said: Mutex::default() }
    }

    async fn asked(known: &Known, preferred: Option<&str>, seconds: f32) -> Result<Answer, Unanswered> {
        let deadline = Instant::now() + Duration::from_secs_f32(seconds);
        ask(known, "ACME.COM", b"message", preferred, deadline).await
    }

    #[tokio::test]
    async fn the_next_one_is_asked_and_each_cause_is_told() {
        let cases: [(Manner, &str); 8] = [
            (Manner::Resets, "reset"),
            (Manner::Silent, "no answer in time"),
            (Manner::Says(b""), "closed the connection"),
            (Manner::Says(b"\0\0\0\x09\x6bshort"), "closed the connection"),
            (Manner::Says(b"\x80\0\0\x01\x6b"), "an answer of 2147483649 bytes"),
            (Manner::Says(b"\0\x10\0\x01\x6b"), "an answer of 1048577 bytes"),
            (Manner::Says(b"\0\0\0\x04HTTP"), "no Kerberos message"),
            (Manner::Says(UNAVAILABLE), "not available"),
        ];
        for (manner, cause) in cases {
            let known = known(&[manner, Manner::Says(GOOD)]).await;
            let answer = asked(&known, None, 5.0).await.unwrap();
            assert_eq!((answer.host.as_str(), &answer.message[..]), ("kdc1", &GOOD[4..]), "{cause}");
            let said = known.said.lock().unwrap().clone();
            assert!(said[0].starts_with("kdc0: ") && said[0].contains(cause), "{said:?}");
            assert_eq!(said[1..], ["kdc1 answered"]);
        }
    }

    #[tokio::test]
    async fn an_answer_is_the_last_word() {
        let known = known(&[Manner::Says(GOOD), Manner::Says(GOOD)]).await;
        asked(&known, None, 5.0).await.unwrap();
        assert_eq!(*known.said.lock().unwrap(), ["kdc0 answered"]);
        asked(&known, Some("kdc1"), 5.0).await.unwrap();
        assert_eq!(*known.said.lock().unwrap(), ["kdc0 answered", "kdc1 answered"]);
    }

    #[tokio::test]
    async fn silence_costs_an_attempt_each_and_never_more_than_the_deadline() {
        let known = known(&[Manner::Silent, Manner::Silent]).await;
        let start = Instant::now();
        let none = asked(&known, None, 1.5).await.unwrap_err();
        assert!((1.4..1.8).contains(&start.elapsed().as_secs_f32()), "{:?}", start.elapsed());
        assert!(none.late, "{none:?}");
        assert_eq!(none.causes, "kdc0: no answer in time; kdc1: no answer in time");
    }

    #[tokio::test]
    async fn what_is_given_up_is_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = Kdc { host: "kdc".into(), addresses: vec![listener.local_addr().unwrap()] };
        let known = Known { kdcs: vec![one], ..Known::default() };
        asked(&known, None, 0.1).await.unwrap_err();
        let (mut stream, _) = listener.accept().await.unwrap();
        // What had arrived stays readable; after it comes no orderly end.
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 11);
        let end = stream.read(&mut [0; 64]).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn the_addresses_of_one_share_its_time() {
        let (hole, good) = (kdc(Manner::Silent).await, kdc(Manner::Says(GOOD)).await);
        let one = Kdc { host: "kdc".into(), addresses: vec![hole, good] };
        let known = Known { kdcs: vec![one], ..Known::default() };
        let start = Instant::now();
        asked(&known, None, 1.0).await.unwrap();
        assert!((0.4..0.8).contains(&start.elapsed().as_secs_f32()), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn none_at_all_is_told() {
        let none = asked(&Known::default(), None, 1.0).await.unwrap_err();
        assert_eq!((none.causes.as_str(), none.late), ("none is known", false));
    }
}
