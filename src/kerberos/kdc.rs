//! One message to a KDC and its answer, over TCP (RFC 4120, 7.2.2), with the next KDC where one does not answer.
//!
//! libkrb5 would do that itself, but it blocks a thread, looks for KDCs in its own way and waits for up to half
//! a minute. UDP is left out: AD's answers are too long for it, and over it a lost message and a dead KDC look
//! alike.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::cpu;
use super::krb5::Refused;
use crate::patience::{ATTEMPT, Others, stays};

/// The longest answer. A ticket with the largest PAC that AD makes has some 100 KiB.
pub const MAX_REPLY: u32 = 1_048_576;

/// `KDC_ERR_SVC_UNAVAILABLE` (MS-KILE 2.2.2): this KDC cannot answer now, and says so before it looks at a password.
const SERVICE_UNAVAILABLE: u32 = 29;

/// The first bytes of what a KDC may answer: AS-REP, TGS-REP, KRB-ERROR (RFC 4120, 5.10).
const ANSWERS: [u8; 3] = [0x6b, 0x6d, 0x7e];

/// Addresses of one KDC that get the same message, because those before broke off.
const ADDRESSES: usize = 3;

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
    /// The KDCs of `realm` in the order to try, to which the proof of a user's password may go; the error says why there
    /// are none.
    fn candidates<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>>;

    /// The same for exchanges with the machine's own key, of which more may be known; see [`ForMachine`].
    fn for_machine<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        self.candidates(realm)
    }

    /// `host` answered a message, be it with a refusal.
    fn answered(&self, host: &str);

    /// `host` did not answer.
    fn failed(&self, host: &str, cause: &str);

    /// Whether `host` failed and has not been seen working since.
    fn is_down(&self, _host: &str) -> bool {
        false
    }

    /// `host` is silent, and everybody else failed before: whether one of them is back is to be found out now.
    fn hurry(&self, _host: &str) {}

    /// Whether `host` answered anybody at or after `since`: then it is slow and not dead.
    fn answered_since(&self, _host: &str, _since: Instant) -> bool {
        false
    }
}

/// The KDCs that the machine's own tickets may come from: whoever DNS names.
///
/// The answer has to be made with the machine's key, or with that of a ticket so made, which only a KDC of the realm
/// knows; a stranger learns a proof of a key that is too long to guess. Not so for a user: a stranger could guess the
/// password from the exchange, and tell of it what it likes.
pub(super) struct ForMachine(pub(super) Arc<dyn Kdcs>);

impl Kdcs for ForMachine {
    fn candidates<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        self.0.for_machine(realm)
    }
    fn answered(&self, host: &str) {
        self.0.answered(host);
    }
    fn failed(&self, host: &str, cause: &str) {
        self.0.failed(host, cause);
    }
    fn is_down(&self, host: &str) -> bool {
        self.0.is_down(host)
    }
    fn hurry(&self, host: &str) {
        self.0.hurry(host);
    }
    fn answered_since(&self, host: &str, since: Instant) -> bool {
        self.0.answered_since(host, since)
    }
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

impl Answer {
    /// Returns true for an AS-REP.
    pub(super) fn is_ticket(&self) -> bool {
        self.message.first() == Some(&ANSWERS[0])
    }
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

/// The KDCs of one realm within one login, and which of them did not answer.
pub(super) struct Walk<'a> {
    kdcs: &'a dyn Kdcs,
    deadline: Instant,
    /// The realm that was asked last.
    realm: String,
    /// Which did not answer, and why.
    failed: Vec<(String, String)>,
    /// Addresses that may have got a message before another address of the same KDC did.
    lost: Vec<String>,
}

impl<'a> Walk<'a> {
    /// Nobody has been asked yet, and nobody is waited for after `deadline`.
    pub(super) fn new(kdcs: &'a dyn Kdcs, deadline: Instant) -> Self {
        Walk { kdcs, deadline, realm: String::new(), failed: Vec::new(), lost: Vec::new() }
    }

    /// Returns the addresses at which the last message was lost before its KDC got it at another one, and forgets them.
    pub(super) fn take_lost(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lost)
    }

    /// Sends `message` to a KDC of `realm`, `preferred` first, until one answers.
    ///
    /// A message that arrived and was not answered may have been counted as a wrong password; the next KDC is asked
    /// all the same, because nobody could log in otherwise while one is silent. What is given up before it arrived
    /// never arrives: the connection is reset, so that this host's kernel does not send it again later.
    pub(super) async fn ask(
        &mut self,
        realm: &str,
        message: &[u8],
        preferred: Option<&str>,
    ) -> Result<Answer, Unanswered> {
        let mut candidates = self.candidates(realm).await?;
        // Stable: the others keep their order.
        candidates.sort_by_key(|kdc| Some(kdc.host.as_str()) != preferred);
        let mut rest = candidates.as_slice();
        while let [kdc, others @ ..] = rest {
            if Instant::now() >= self.deadline {
                break;
            }
            if let Some(answer) = self.ask_one(kdc, others, message).await {
                return Ok(answer);
            }
            rest = others;
        }
        Err(self.unanswered())
    }

    /// Sends `message` to `host`, and to nobody else; there is no answer where it fails.
    pub(super) async fn ask_again(
        &mut self,
        realm: &str,
        message: &[u8],
        host: &str,
    ) -> Result<Option<Answer>, Unanswered> {
        let (kdc, others): (Vec<_>, Vec<_>) =
            self.candidates(realm).await?.into_iter().partition(|kdc| kdc.host == host);
        Ok(match kdc.first() {
            Some(kdc) => self.ask_one(kdc, &others, message).await,
            None => None,
        })
    }

    /// That nobody answered.
    pub(super) fn unanswered(&self) -> Unanswered {
        let causes = match self.failed.is_empty() {
            true => "none is known".to_owned(),
            false => {
                let causes = self.failed.iter().map(|(host, cause)| format!("{host}: {cause}"));
                causes.collect::<Vec<_>>().join("; ")
            }
        };
        Unanswered { realm: self.realm.clone(), causes, late: Instant::now() >= self.deadline }
    }

    /// Those that have not failed yet.
    async fn candidates(&mut self, realm: &str) -> Result<Vec<Kdc>, Unanswered> {
        realm.clone_into(&mut self.realm);
        let mut candidates = match timeout_at(self.deadline, self.kdcs.candidates(realm)).await {
            Ok(Ok(candidates)) => candidates,
            Ok(Err(causes)) => return Err(Unanswered { realm: realm.to_owned(), causes, late: false }),
            Err(_) => Vec::new(),
        };
        candidates.retain(|kdc| {
            !kdc.addresses.is_empty() && !self.failed.iter().any(|(failed, _)| *failed == kdc.host)
        });
        Ok(candidates)
    }

    /// Those that could be asked instead of `kdc`.
    fn others(&self, kdc: &Kdc, others: &[Kdc]) -> Others {
        let is_down = |kdc: &Kdc| self.kdcs.is_down(&kdc.host);
        Others::new(is_down(kdc), others.iter().map(is_down))
    }

    /// Whether an exchange goes on waiting for `kdc`, which was looked at last at `since`: one that answered somebody in
    /// the moment before it fell silent is not slow for ever.
    fn stays(&self, kdc: &Kdc, others: &[Kdc], since: Instant) -> bool {
        let answers_others = self.kdcs.answered_since(&kdc.host, since);
        let others = self.others(kdc, others);
        if others == Others::Failed && !answers_others {
            self.kdcs.hurry(&kdc.host);
        }
        stays(answers_others, others, self.deadline.saturating_duration_since(Instant::now()))
    }

    /// Asks `kdc`, and leaves it for `others` where it is silent; see [`stays`].
    async fn ask_one(&mut self, kdc: &Kdc, others: &[Kdc], message: &[u8]) -> Option<Answer> {
        let mut since = Instant::now();
        let mut until = self.deadline.min(since + ATTEMPT);
        let mut lost = Vec::new();
        let result = {
            // Its addresses share what it has for certain.
            let connected = match self.others(kdc, others) {
                Others::Better => until,
                Others::Failed | Others::None => self.deadline,
            };
            let answer = ask_one(kdc, message, connected, self.deadline, &mut lost);
            tokio::pin!(answer);
            loop {
                match timeout_at(until, &mut answer).await {
                    Ok(result) => break result,
                    Err(_) if self.stays(kdc, others, since) => {
                        since = Instant::now();
                        until = self.deadline.min(until + ATTEMPT);
                    }
                    Err(_) => break Err("no answer in time".to_owned()),
                }
            }
        };
        self.lost.append(&mut lost);
        match result {
            Ok((message, refused)) => {
                self.kdcs.answered(&kdc.host);
                Some(Answer { message, host: kdc.host.clone(), refused })
            }
            Err(cause) => {
                self.kdcs.failed(&kdc.host, &cause);
                self.failed.push((kdc.host.clone(), cause));
                None
            }
        }
    }
}

/// Asks one KDC. Its addresses share the time until `connected`; the first that accepts has until `deadline`. Where an
/// address breaks off, the message may have arrived: `lost` gets that address before the next one gets the message.
pub(super) async fn ask_one(
    kdc: &Kdc,
    message: &[u8],
    connected: Instant,
    deadline: Instant,
    lost: &mut Vec<String>,
) -> Result<(Vec<u8>, Option<Refused>), String> {
    let mut cause = String::new();
    let mut broke_off = None;
    for (index, address) in kdc.addresses.iter().enumerate() {
        let left = connected.saturating_duration_since(Instant::now());
        let share = u32::try_from(kdc.addresses.len() - index).unwrap_or(1);
        let stream = match timeout_at(Instant::now() + left / share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                cause = in_words(&error);
                continue;
            }
            Err(_) => {
                cause = "no answer in time".to_owned();
                continue;
            }
        };
        lost.extend(broke_off.take());
        let reply = match timeout_at(deadline, exchange(stream, message)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                cause = in_words(&error);
                broke_off = Some(format!("{} ({address})", kdc.host));
                // Few get a message that may count against an account.
                match lost.len() + 1 < ADDRESSES {
                    true => continue,
                    false => break,
                }
            }
            Err(_) => return Err("no answer in time".to_owned()),
        };
        // libkrb5 reads its configuration for that.
        let read = move || (Refused::read(&reply), reply);
        return match cpu::run(deadline, read).await {
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

/// Why an exchange failed.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection instead of an answer".to_owned(),
        _ => error.to_string(),
    }
}

/// One message each way: four bytes of length, then the message.
pub(super) async fn exchange(mut stream: TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(message.len()).map_err(|_| io::Error::other("the message is too long"))?;
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
    use std::time::Duration;

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
    /// The same, later than [`ATTEMPT`].
    const LATE: &[u8] = b"\0\0\0\x04\x6b\x02zz";
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
                            if reply == LATE {
                                tokio::time::sleep(ATTEMPT + Duration::from_secs(2)).await;
                            }
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
        down: Vec<&'static str>,
        answers_others: bool,
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
        fn is_down(&self, host: &str) -> bool {
            self.down.contains(&host)
        }
        fn answered_since(&self, _: &str, _: Instant) -> bool {
            self.answers_others
        }
        fn hurry(&self, host: &str) {
            self.said.lock().unwrap().push(format!("hurry, {host} is silent"));
        }
    }

    async fn known(manners: &[Manner]) -> Known {
        let mut kdcs = Vec::new();
        for (index, manner) in manners.iter().enumerate() {
            kdcs.push(Kdc { host: format!("kdc{index}"), addresses: vec![kdc(*manner).await] });
        }
        Known { kdcs, ..Known::default() }
    }

    async fn asked(known: &Known, preferred: Option<&str>, seconds: f32) -> Result<Answer, Unanswered> {
        let deadline = Instant::now() + Duration::from_secs_f32(seconds);
        Walk::new(known, deadline).ask("ACME.COM", b"message", preferred).await
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
        // A busy machine is late, but never by another attempt.
        assert!((1.4..2.9).contains(&start.elapsed().as_secs_f32()), "{:?}", start.elapsed());
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

    /// An address at which nobody answers a SYN: the queue of its listener is full.
    async fn black_hole() -> (SocketAddr, Vec<TcpStream>, std::net::TcpListener) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap().into_std().unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
        {
            filling.push(stream.unwrap());
        }
        (address, filling, listener)
    }

    #[tokio::test]
    async fn the_addresses_of_one_share_its_time() {
        let (hole, _filling, _listener) = black_hole().await;
        let one = Kdc { host: "kdc".into(), addresses: vec![hole, kdc(Manner::Says(GOOD)).await] };
        let known = Known { kdcs: vec![one], ..Known::default() };
        let start = Instant::now();
        asked(&known, None, 4.0).await.unwrap();
        assert!((1.9..4.0).contains(&start.elapsed().as_secs_f32()), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn who_answers_others_is_waited_for() {
        let kdcs = [Manner::Says(LATE), Manner::Says(GOOD)];
        for (answers_others, host) in [(false, "kdc1"), (true, "kdc0")] {
            let known = Known { answers_others, ..known(&kdcs).await };
            assert_eq!(asked(&known, None, 5.0).await.unwrap().host, host);
        }
    }

    #[tokio::test]
    async fn who_works_is_not_left_for_who_does_not() {
        let kdcs = [Manner::Says(LATE), Manner::Resets];
        let known = Known { down: vec!["kdc1"], ..known(&kdcs).await };
        assert_eq!(asked(&known, None, 5.0).await.unwrap().host, "kdc0");
    }

    #[tokio::test]
    async fn who_failed_before_gets_the_last_moments_of_who_is_silent() {
        let kdcs = [Manner::Silent, Manner::Says(GOOD)];
        let known = Known { down: vec!["kdc1"], ..known(&kdcs).await };
        assert_eq!(asked(&known, None, 2.5).await.unwrap().host, "kdc1");
        assert_eq!(known.said.lock().unwrap()[0], "hurry, kdc0 is silent");
    }

    #[tokio::test]
    async fn asked_again_is_only_one() {
        let known = known(&[Manner::Says(GOOD), Manner::Resets]).await;
        let mut walk = Walk::new(&known, Instant::now() + Duration::from_secs(5));
        assert!(walk.ask_again("ACME.COM", b"message", "kdc1").await.unwrap().is_none());
        let left = walk.unanswered();
        assert!(left.realm == "ACME.COM" && left.causes.starts_with("kdc1: ") && !left.late, "{left:?}");
        // Who failed is not asked again.
        assert!(walk.ask_again("ACME.COM", b"message", "kdc1").await.unwrap().is_none());
        assert_eq!(known.said.lock().unwrap().len(), 1);
        assert_eq!(walk.ask("ACME.COM", b"message", None).await.unwrap().host, "kdc0");
    }

    #[tokio::test]
    async fn none_at_all_is_told() {
        let none = asked(&Known::default(), None, 1.0).await.unwrap_err();
        assert_eq!((none.causes.as_str(), none.late), ("none is known", false));
    }
}
