//! Runs libkrb5's exchanges with the KDC over this program's own transport.

use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::cpu::{self, Unfinished};
use super::error::{self, KerberosError, Skew};
use super::kdc::Silence;
use super::kdcs::{Access, Answer, One, Unanswered, race};
use super::krb5::{Failure, Granted, InitialExchange, Key, Refused, Request, ServiceExchange, Step};
use super::refusal::{self, is_armoured};
use crate::patience::{Sending, Turn};

/// Maximum number of messages in one exchange, including referrals between realms.
const MAX_MESSAGES: usize = 16;

/// Maximum number of exchanges with a proof for one login. AD may have counted one that was not answered, so
/// few are started again.
const EXCHANGES: usize = 3;

/// `KDC_ERR_MORE_PREAUTH_DATA_REQUIRED` (RFC 6113, 3.1): the proof has several parts, and this was not the
/// last.
const MORE_PREAUTH_DATA_REQUIRED: u32 = 91;

/// Errors that reject the armour (RFC 4120, 7.5.9), sent before any proof: S_PRINCIPAL_UNKNOWN, the
/// KRB_AP_ERR codes of a ticket that is unreadable or out of date, and GENERIC.
const NO_ARMOUR: [u32; 10] = [7, 31, 32, 33, 34, 36, 41, 44, 45, 60];

/// Reason why an exchange ended without a ticket.
#[derive(Debug)]
pub(super) enum Ended {
    /// The KDC refused.
    Refused {
        /// The KDC's error.
        refused: Refused,
        /// Host of the KDC.
        kdc: String,
        /// True if the exchange was armoured.
        armoured: bool,
        /// True if the KDC had got a proof of the password or key. It may reject an account before that.
        proved: bool,
    },
    /// The KDC does not accept the armour. Nothing has been proved yet.
    ArmourRefused(String),
    /// The KDC issued a ticket without a proof, and the password was not tried on it; the text names the KDC.
    NoPreauth(String),
    /// The clocks differ too much.
    Skew(Skew),
    /// No KDC answered.
    Unanswered(Unanswered),
    /// libkrb5 rejects the answer, or its configuration is broken; the text names the KDC that answered last.
    Library(Failure, String),
    /// The deadline passed during work in this process.
    Late,
}

impl Ended {
    /// Returns the host of the KDC whose answer ended the exchange.
    pub(super) fn kdc(&self) -> Option<&str> {
        match self {
            Ended::Refused { kdc, .. } | Ended::Library(_, kdc) | Ended::NoPreauth(kdc) => Some(kdc),
            _ => None,
        }
    }

    /// Interprets the end of an exchange for `principal`, which requested `service`.
    pub(super) fn error(self, principal: &str, service: &str) -> KerberosError {
        match self {
            Ended::Refused { refused, kdc, .. } => {
                let code = error::library_code(refused.code);
                KerberosError::from_code(code, principal, service).unwrap_or_else(|| {
                    KerberosError::Other(format!(
                        "{kdc} refused {service}: {}",
                        refusal::described(refused.code)
                    ))
                })
            }
            Ended::Skew(skew) => KerberosError::ClockSkew(skew),
            Ended::Unanswered(none) if none.late => KerberosError::Stalled(format!(" ({})", none.causes)),
            Ended::Unanswered(none) => {
                KerberosError::KdcUnreachable { realm: none.realm, causes: none.causes }
            }
            Ended::Late => KerberosError::Stalled(String::new()),
            Ended::ArmourRefused(text) => KerberosError::Other(text),
            Ended::NoPreauth(kdc) => KerberosError::Other(format!("{kdc} asked for no proof")),
            Ended::Library(failure, _) => KerberosError::from_code(failure.code, principal, service)
                .unwrap_or(KerberosError::Other(failure.text)),
        }
    }
}

impl From<Unfinished> for Ended {
    fn from(unfinished: Unfinished) -> Self {
        match unfinished {
            Unfinished::Late => Ended::Late,
            Unfinished::Failed => {
                let failure = Failure { code: 0, text: "a Kerberos call failed".to_owned() };
                Ended::Library(failure, String::new())
            }
        }
    }
}

/// A ticket-granting ticket.
pub(super) struct Initial {
    /// The ticket.
    pub(super) granted: Granted,
    /// Host of the KDC that issued it.
    pub(super) kdc: String,
    /// True if the KDC opened the armour, and so has proved that it knows the machine's ticket.
    pub(super) armoured: bool,
    /// Time when the exchange got its turn.
    pub(super) begun: Instant,
}

/// Requirement that the KDC asks for a proof before it issues a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Required: a ticket without a proof ends the exchange. AD would not count passwords that are tried on
    /// such a ticket, so they could be guessed without limit.
    Wanted,
    /// Not required: a ticket without a proof is accepted.
    Spared,
}

/// Messages that this side of an AS exchange has sent. They show if a proof was among them.
#[derive(Debug, Default)]
struct Sent {
    plain: usize,
    armoured: usize,
    proof: bool,
    /// True if the last message was armoured. libkrb5 accepts the answer to such a message only from within
    /// the armour. But a KDC can make it start again without armour (KDC_ERR_PREAUTH_EXPIRED), so an earlier
    /// message proves nothing.
    in_armour: bool,
}

impl Sent {
    /// Notes a message. libkrb5 proves nothing in the first one, nor in the first one in armour: these ask
    /// for the KDC's requirements (this program names no type of proof in advance). Every later one may hold
    /// a proof.
    fn note(&mut self, armoured: bool) {
        let count = if armoured { &mut self.armoured } else { &mut self.plain };
        *count += 1;
        self.proof = *count > 1;
        self.in_armour = armoured;
    }

    /// Returns true if another message may follow a refusal. After a proof, that may only be another part of
    /// it: libkrb5 would try its next kind of proof with the same password, and each counts as an attempt.
    fn may_go_on(&self, code: u32) -> bool {
        !self.proof || code == MORE_PREAUTH_DATA_REQUIRED
    }
}

/// An exchange of libkrb5.
trait Exchange: Send + 'static {
    fn step(&mut self, reply: &[u8]) -> Result<Step, Failure>;
}

impl Exchange for InitialExchange {
    fn step(&mut self, reply: &[u8]) -> Result<Step, Failure> {
        InitialExchange::step(self, reply)
    }
}

impl Exchange for ServiceExchange {
    fn step(&mut self, reply: &[u8]) -> Result<Step, Failure> {
        ServiceExchange::step(self, reply)
    }
}

/// Passes the last answer to an exchange, none at first; returns both with the next step.
async fn advance<E: Exchange>(
    mut exchange: E,
    last: Option<Answer>,
    deadline: Instant,
) -> Result<(E, Result<Step, Failure>, Option<Answer>), Unfinished> {
    cpu::run(deadline, move || {
        let message = last.as_ref().map(|answer| answer.message.as_slice()).unwrap_or_default();
        let step = exchange.step(message);
        (exchange, step, last)
    })
    .await
}

/// The proofs of a password that one login has sent.
#[derive(Default)]
struct Proofs {
    sending: Sending,
    outstanding: Mutex<Outstanding>,
}

#[derive(Default)]
struct Outstanding {
    /// Number of exchanges that have reached a proof.
    exchanges: usize,
    /// KDCs, or addresses of KDCs, that got a proof and have not answered; each may have counted it.
    unanswered: Vec<String>,
}

impl Proofs {
    /// Notes that `host` is about to get a proof, the first of its exchange if `is_first`; returns false if
    /// the maximum was already sent.
    fn send(&self, host: &str, is_first: bool) -> bool {
        let mut outstanding = self.outstanding.lock();
        if is_first && outstanding.exchanges == EXCHANGES {
            return false;
        }
        outstanding.exchanges += usize::from(is_first);
        outstanding.unanswered.push(host.to_owned());
        true
    }

    /// Notes that `host` answered, after these addresses had broken off.
    fn answered(&self, host: &str, lost: Vec<String>) {
        let mut outstanding = self.outstanding.lock();
        if let Some(at) = outstanding.unanswered.iter().position(|known| known == host) {
            outstanding.unanswered.remove(at);
        }
        outstanding.unanswered.extend(lost);
    }
}

/// Reason why an exchange with one KDC ended without a ticket.
enum Stop {
    /// Final.
    Ended(Ended),
    /// The KDC has not answered, and another one may.
    Silent(Silence),
}

impl From<Ended> for Stop {
    fn from(ended: Ended) -> Self {
        Stop::Ended(ended)
    }
}

impl From<Silence> for Stop {
    fn from(silence: Silence) -> Self {
        Stop::Silent(silence)
    }
}

impl From<Unfinished> for Stop {
    fn from(unfinished: Unfinished) -> Self {
        Stop::Ended(unfinished.into())
    }
}

/// Runs an AS exchange: from a password or a key to a ticket-granting ticket.
///
/// A KDC's answers are only valid for that KDC: another one cannot read its cookie (RFC 6113, 5.2; Samba 4.17
/// then answers as if the password were wrong). So if the first KDC falls silent, a separate exchange starts
/// with another one in parallel. `unanswered` gets the KDCs that may still have counted an attempt. The
/// `preferred` one comes first.
pub(super) async fn initial(
    access: Access<'_>,
    request: Request,
    key: Key,
    proof: Proof,
    preferred: Option<&str>,
    deadline: Instant,
    unanswered: &mut Vec<String>,
) -> Result<Initial, Ended> {
    let proofs = Proofs::default();
    let ended = race(access, request.client.realm(), preferred, deadline, |one| {
        let (request, key, proofs) = (request.clone(), key.clone(), &proofs);
        async move {
            match initial_at_one(one, request, key, proof, deadline, proofs).await {
                Ok(initial) => Ok(Ok(initial)),
                Err(Stop::Ended(ended)) => Ok(Err(ended)),
                Err(Stop::Silent(failure)) => Err(failure),
            }
        }
    });
    let ended = ended.await;
    unanswered.append(&mut proofs.outstanding.lock().unanswered);
    ended.map_err(Ended::Unanswered)?
}

/// Runs an AS exchange with one KDC.
async fn initial_at_one(
    one: One<'_>,
    request: Request,
    key: Key,
    proof: Proof,
    deadline: Instant,
    proofs: &Proofs,
) -> Result<Initial, Stop> {
    let wants_armour = request.armour.is_some();
    let library = |failure| Ended::Library(failure, String::new());
    // One turn for the whole exchange. If there are more logins than the KDC can serve, those that have
    // started can finish; with turns for single messages all of them would be late.
    let _turn = one.turn().await?;
    let begun = Instant::now();
    let mut exchange =
        cpu::run(deadline, move || InitialExchange::new(&request, key)).await?.map_err(library)?;
    let mut sent = Sent::default();
    // Kept until the exchange ends: between an answer and what it means nobody else may get the password.
    let mut under_way = None;
    // An account is searched for in its own realm; a password follows no referral to another.
    let mut asked: Option<String> = None;
    let mut last: Option<Answer> = None;
    for _ in 0..MAX_MESSAGES {
        let is_unasked = |answer: &mut Answer| proof == Proof::Wanted && !sent.proof && answer.is_ticket();
        if let Some(answer) = last.take_if(is_unasked) {
            return Err(Ended::NoPreauth(answer.host).into());
        }
        let (step, reply);
        (exchange, step, reply) = advance(exchange, last, deadline).await?;
        // The code inside the armour counts; outside of it is another one.
        let outer = reply.as_ref().and_then(|answer| answer.refused.clone());
        let refused = exchange.refused().or(outer);
        let kdc = reply.map(|answer| answer.host);
        let (armoured, proved) = (sent.in_armour, sent.proof);
        match step {
            Ok(Step::Done) => {
                let granted = cpu::run(deadline, move || exchange.finish()).await?.map_err(library)?;
                return Ok(Initial { granted, kdc: kdc.unwrap_or_default(), armoured, begun });
            }
            Ok(Step::Send { realm, message }) => {
                let asked = asked.get_or_insert_with(|| realm.clone());
                if let (Some(refused), Some(kdc)) = (refused, &kdc)
                    && (*asked != realm || !sent.may_go_on(refused.code))
                {
                    return Err(Ended::Refused { refused, kdc: kdc.clone(), armoured, proved }.into());
                }
                last = Some(
                    send(&one, &mut sent, &message, proofs, &mut under_way).await.map_err(Stop::Silent)?,
                );
                last.as_ref().map_or(Ok(()), clock)?;
            }
            Err(failure) => {
                let code = refused.as_ref().map(|refused| refused.code);
                let no_armour = code.is_none_or(|code| NO_ARMOUR.contains(&code));
                if wants_armour && !sent.proof && no_armour {
                    return Err(Ended::ArmourRefused(failure.text).into());
                }
                let ended = match refused {
                    Some(refused) => {
                        Ended::Refused { refused, kdc: kdc.unwrap_or_default(), armoured, proved }
                    }
                    None => Ended::Library(failure, kdc.unwrap_or_default()),
                };
                return Err(ended.into());
            }
        }
    }
    Err(endless().into())
}

/// Sends the next message of an AS exchange to its KDC.
async fn send<'a>(
    one: &One<'_>,
    sent: &mut Sent,
    message: &[u8],
    proofs: &'a Proofs,
    under_way: &mut Option<Turn<'a>>,
) -> Result<Answer, Silence> {
    let was_proof = sent.proof;
    sent.note(is_armoured(message));
    if !sent.proof {
        return one.ask(message, &mut Vec::new()).await;
    }
    let late = |_| Silence::unasked("the password was on its way to another one");
    if under_way.is_none() {
        *under_way = Some(timeout_at(one.deadline(), proofs.sending.turn()).await.map_err(late)?);
    }
    if !proofs.send(one.host(), !was_proof) {
        return Err(Silence::unasked("the password was sent as often as it may count"));
    }
    let mut lost = Vec::new();
    let answer = one.ask(message, &mut lost).await.map_err(Silence::for_good)?;
    proofs.answered(one.host(), lost);
    Ok(answer)
}

/// Runs a TGS exchange, which `new` begins: from a ticket-granting ticket to a ticket for a service.
pub(super) async fn service(
    access: Access<'_>,
    new: impl FnOnce() -> Result<ServiceExchange, Failure> + Send + 'static,
    preferred: Option<&str>,
    deadline: Instant,
) -> Result<ServiceExchange, Ended> {
    let library = |failure| Ended::Library(failure, String::new());
    let mut exchange = cpu::run(deadline, new).await?.map_err(library)?;
    let mut last: Option<Answer> = None;
    for _ in 0..MAX_MESSAGES {
        let (step, reply);
        (exchange, step, reply) = advance(exchange, last, deadline).await?;
        match step {
            Ok(Step::Done) => return Ok(exchange),
            Ok(Step::Send { realm, message }) => {
                let preferred = reply.as_ref().map(|answer| answer.host.as_str()).or(preferred);
                // AD counts nothing in it, so any number of KDCs may get it.
                let answer = race(access, &realm, preferred, deadline, |one| {
                    let message = &message;
                    async move {
                        let _turn = one.turn_to_continue().await;
                        one.ask(message, &mut Vec::new()).await
                    }
                });
                let answer = answer.await.map_err(Ended::Unanswered)?;
                clock(&answer)?;
                last = Some(answer);
            }
            Err(failure) => {
                return Err(match reply {
                    Some(Answer { refused: Some(refused), host: kdc, .. }) => {
                        Ended::Refused { refused, kdc, armoured: false, proved: true }
                    }
                    Some(Answer { host, .. }) => Ended::Library(failure, host),
                    None => Ended::Library(failure, String::new()),
                });
            }
        }
    }
    Err(endless())
}

fn endless() -> Ended {
    let text = format!("the KDC wants more than {MAX_MESSAGES} messages");
    Ended::Library(Failure { code: 0, text }, String::new())
}

/// Checks the KDC's clock, which a refusal contains.
fn clock(answer: &Answer) -> Result<(), Ended> {
    let Some(refused) = &answer.refused else { return Ok(()) };
    let skew = Skew::between(SystemTime::now(), refused.time, &answer.host);
    if skew.is_too_much() { Err(Ended::Skew(skew)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, UNIX_EPOCH};

    use time::macros::format_description;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use zeroize::Zeroizing;

    use super::*;
    use crate::kerberos::Kdc;
    use crate::kerberos::kdcs::{Kdcs, Turns};
    use crate::kerberos::krb5::Client;
    use crate::net::BoxFuture;

    #[test]
    fn a_skew_is_told_with_size_and_direction() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let cases = [
            (1612, 1000, "the clocks differ by 612 s: this host is ahead of ad.acme.com", true),
            (1000, 1612, "the clocks differ by 612 s: this host is behind ad.acme.com", true),
            (1300, 1000, "the clocks differ by 300 s: this host is ahead of ad.acme.com", false),
            (1000, 1000, "the clocks differ by 0 s: this host is ahead of ad.acme.com", false),
        ];
        for (now, theirs, text, too_much) in cases {
            let skew = Skew::between(at(now), at(theirs), "ad.acme.com");
            assert_eq!((skew.to_string().as_str(), skew.is_too_much()), (text, too_much));
        }
    }

    #[test]
    fn nothing_follows_a_proof_but_the_rest_of_it() {
        let mut sent = Sent::default();
        // Plain request, plain proof.
        sent.note(false);
        assert!(sent.may_go_on(25));
        sent.note(false);
        assert!(!sent.may_go_on(24) && !sent.may_go_on(25));
        assert!(sent.may_go_on(MORE_PREAUTH_DATA_REQUIRED));
        // Plain request, request in armour, proof in armour.
        let mut sent = Sent::default();
        sent.note(false);
        sent.note(true);
        assert!(sent.may_go_on(25));
        sent.note(true);
        assert!(!sent.may_go_on(25));
    }

    #[test]
    fn an_exchange_that_ends_without_armour_proves_nothing() {
        let mut sent = Sent::default();
        sent.note(false);
        assert!(!sent.in_armour);
        sent.note(true);
        assert!(sent.in_armour);
        // KDC_ERR_PREAUTH_EXPIRED makes libkrb5 start again without armour.
        sent.note(false);
        assert!(!sent.in_armour);
    }

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    /// METHOD-DATA of a KDC that requires an encrypted timestamp with an AES-256 key.
    fn method_data() -> Vec<u8> {
        let pa = |kind: u8, value: &[u8]| {
            let kind = tagged(0xa1, &tagged(0x02, &[kind]));
            tagged(0x30, &[kind, tagged(0xa2, &tagged(0x04, value))].concat())
        };
        let salt = tagged(0xa1, &tagged(0x1b, b"ACME.COMjohn.doe"));
        let entry = tagged(0x30, &[tagged(0xa0, &tagged(0x02, &[18])), salt].concat());
        tagged(0x30, &[pa(2, b""), pa(19, &tagged(0x30, &entry))].concat())
    }

    /// A KRB-ERROR with this code, from a clock that is this many seconds ahead.
    fn refusal(code: u8, ahead: i64) -> Vec<u8> {
        let now = time::OffsetDateTime::now_utc() + time::Duration::seconds(ahead);
        let now = now.format(format_description!("[year][month][day][hour][minute][second]Z")).unwrap();
        let name = tagged(0x30, &[tagged(0x1b, b"krbtgt"), tagged(0x1b, b"ACME.COM")].concat());
        let fields = [
            b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x1e".to_vec(),
            tagged(0xa4, &tagged(0x18, now.as_bytes())),
            b"\xa5\x03\x02\x01\x00".to_vec(),
            tagged(0xa6, &tagged(0x02, &[code])),
            tagged(0xa9, &tagged(0x1b, b"ACME.COM")),
            tagged(0xaa, &tagged(0x30, &[&b"\xa0\x03\x02\x01\x02"[..], &tagged(0xa1, &name)].concat())),
            tagged(0xac, &tagged(0x04, &method_data())),
        ];
        let body = fields.concat();
        let length = u8::try_from(body.len()).unwrap();
        let body = [&[0x30, 0x81, length], &body[..]].concat();
        [&[0x7e, 0x81, length + 3], &body[..]].concat()
    }

    /// A KDC that gives these answers, each after its delay, and repeats the last one; an empty one means no
    /// answer.
    struct Scripted {
        address: SocketAddr,
        asked: std::sync::Arc<AtomicUsize>,
    }

    impl Scripted {
        async fn new(answers: Vec<Vec<u8>>) -> Self {
            Scripted::slow(answers.into_iter().map(|answer| (0, answer)).collect()).await
        }

        async fn slow(answers: Vec<(u64, Vec<u8>)>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let scripted =
                Scripted { address: listener.local_addr().unwrap(), asked: std::sync::Arc::default() };
            let asked = scripted.asked.clone();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let length = stream.read_u32().await.unwrap();
                    let mut request = vec![0; usize::try_from(length).unwrap()];
                    stream.read_exact(&mut request).await.unwrap();
                    let index = asked.fetch_add(1, Ordering::SeqCst);
                    let (after, answer) = &answers[index.min(answers.len() - 1)];
                    tokio::time::sleep(Duration::from_millis(*after)).await;
                    if answer.is_empty() {
                        continue;
                    }
                    stream.write_u32(u32::try_from(answer.len()).unwrap()).await.unwrap();
                    stream.write_all(answer).await.unwrap();
                }
            });
            scripted
        }

        async fn login(&self) -> Ended {
            login(self, &mut Vec::new()).await
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    async fn login(kdcs: &dyn Kdcs, unanswered: &mut Vec<String>) -> Ended {
        login_with(Proof::Wanted, kdcs, unanswered).await
    }

    async fn login_with(proof: Proof, kdcs: &dyn Kdcs, unanswered: &mut Vec<String>) -> Ended {
        let client = Client::Person { sam: "john.doe".into(), upn: None, realm: "ACME.COM".into() };
        let request = Request { client, change_password: false, lifetime: None, armour: None };
        let key = Key::Password(Zeroizing::new(b"secret\0".to_vec()));
        let deadline = Instant::now() + Duration::from_secs(10);
        initial(Access::for_users(kdcs, &Turns::default()), request, key, proof, None, deadline, unanswered)
            .await
            .err()
            .unwrap()
    }

    impl Kdcs for Scripted {
        fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
            Box::pin(async { Ok(vec![Kdc { host: "ad.acme.com".into(), addresses: vec![self.address] }]) })
        }
        fn answered(&self, _: &str) {}
        fn failed(&self, _: &str, cause: &str) {
            panic!("{cause}");
        }
    }

    #[tokio::test]
    async fn a_password_is_sent_once_whatever_the_answer_invites_to() {
        // On 25, libkrb5 would send the same proof again, and on 24 another kind.
        for code in [24, 25] {
            let kdc = Scripted::new(vec![refusal(25, 0), refusal(code, 0)]).await;
            let ended = kdc.login().await;
            let Ended::Refused { refused, kdc: host, armoured: false, .. } = ended else {
                panic!("{ended:?}")
            };
            assert_eq!((refused.code, host.as_str()), (code.into(), "ad.acme.com"));
            assert_eq!(kdc.asked(), 2, "{code}");
        }
    }

    /// Two KDCs, each with its own answers and failures.
    struct Two([Scripted; 2]);

    impl Kdcs for Two {
        fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
            let kdc = |(index, kdc): (usize, &Scripted)| Kdc {
                host: format!("ad{index}"),
                addresses: vec![kdc.address],
            };
            Box::pin(async move { Ok(self.0.iter().enumerate().map(kdc).collect()) })
        }
        fn answered(&self, _: &str) {}
        fn failed(&self, host: &str, _: &str) {
            assert_eq!(host, "ad0");
        }
    }

    #[tokio::test]
    async fn another_kdc_gets_an_exchange_of_its_own() {
        // The second one would not understand the first one's exchange.
        let two = [vec![refusal(25, 0), vec![]], vec![refusal(25, 0), refusal(24, 0)]].map(Scripted::new);
        let [first, second] = two;
        let two = Two([first.await, second.await]);
        let mut unanswered = Vec::new();
        let ended = login(&two, &mut unanswered).await;
        let Ended::Refused { refused, kdc, .. } = ended else { panic!("{ended:?}") };
        assert_eq!((refused.code, kdc.as_str()), (24, "ad1"));
        assert_eq!(two.0.each_ref().map(Scripted::asked), [2, 2]);
        assert_eq!(unanswered, ["ad0"], "it had the proof");
    }

    #[tokio::test]
    async fn two_slow_ones_do_not_get_the_proof_at_once() {
        // The second one is tried after 0.8 s and has the proof from then on. The first one asks for it 0.2 s
        // later, and the second one answers after another 0.2 s. At 1.6 s the first one would get the proof
        // as well.
        for _ in 0..20 {
            let first = Scripted::slow(vec![(1000, refusal(25, 0)), (0, refusal(24, 0))]).await;
            let second = Scripted::slow(vec![(0, refusal(25, 0)), (400, refusal(24, 0))]).await;
            let two = Two([first, second]);
            let mut unanswered = Vec::new();
            let begun = Instant::now();
            let ended = login(&two, &mut unanswered).await;
            // A busy machine can be late; then the first one may have it.
            if begun.elapsed() > Duration::from_millis(1500) {
                continue;
            }
            let Ended::Refused { refused, kdc, .. } = ended else { panic!("{ended:?}") };
            assert_eq!((refused.code, kdc.as_str()), (24, "ad1"));
            assert_eq!(two.0.each_ref().map(Scripted::asked), [1, 2]);
            assert_eq!(unanswered, [""; 0]);
            return;
        }
        panic!("the machine was late twenty times");
    }

    /// One KDC with two addresses.
    struct Multihomed([Scripted; 2]);

    impl Kdcs for Multihomed {
        fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
            let addresses = self.0.each_ref().map(|kdc| kdc.address).to_vec();
            Box::pin(async { Ok(vec![Kdc { host: "ad.acme.com".into(), addresses }]) })
        }
        fn answered(&self, _: &str) {}
        fn failed(&self, _: &str, cause: &str) {
            panic!("{cause}");
        }
    }

    #[tokio::test]
    async fn an_address_that_breaks_off_with_the_proof_may_have_counted_it() {
        // The request is answered, the proof is not; the other address rejects it.
        let first = Scripted::new(vec![refusal(25, 0), vec![]]).await;
        let second = Scripted::new(vec![refusal(24, 0)]).await;
        let lost = format!("ad.acme.com ({})", first.address);
        let kdc = Multihomed([first, second]);
        let mut unanswered = Vec::new();
        let ended = login(&kdc, &mut unanswered).await;
        assert!(matches!(&ended, Ended::Refused { refused, .. } if refused.code == 24), "{ended:?}");
        assert_eq!(kdc.0.each_ref().map(Scripted::asked), [2, 1]);
        assert_eq!(unanswered, [lost]);
        // A request without a proof cannot have counted.
        let kdc = Multihomed([
            Scripted::new(vec![vec![]]).await,
            Scripted::new(vec![refusal(25, 0), refusal(24, 0)]).await,
        ]);
        let mut unanswered = Vec::new();
        login(&kdc, &mut unanswered).await;
        assert_eq!(unanswered.len(), 1, "the proof went to the first address first: {unanswered:?}");
        assert_eq!(kdc.0.each_ref().map(Scripted::asked), [2, 2]);
    }

    #[tokio::test]
    async fn a_ticket_without_a_proof_gets_no_password() {
        // As for an account with DONT_REQ_PREAUTH. Only the first byte matters.
        let ticket = || vec![0x6b, 0x02, b'a', b'b'];
        let kdc = Scripted::new(vec![ticket()]).await;
        let ended = kdc.login().await;
        assert!(matches!(&ended, Ended::NoPreauth(kdc) if kdc == "ad.acme.com"), "{ended:?}");
        assert_eq!(kdc.asked(), 1);
        let kdc = Scripted::new(vec![ticket()]).await;
        let ended = login_with(Proof::Spared, &kdc, &mut Vec::new()).await;
        assert!(matches!(ended, Ended::Library(..)), "{ended:?}");
        // After a proof, the ticket is its answer.
        let kdc = Scripted::new(vec![refusal(25, 0), ticket()]).await;
        assert!(matches!(kdc.login().await, Ended::Library(..)));
    }

    #[tokio::test]
    async fn a_kdc_that_refuses_at_once_gets_no_password() {
        for code in [6, 18] {
            let kdc = Scripted::new(vec![refusal(code, 0)]).await;
            let ended = kdc.login().await;
            assert!(
                matches!(&ended, Ended::Refused { refused, .. } if refused.code == u32::from(code)),
                "{ended:?}"
            );
            assert_eq!(kdc.asked(), 1);
        }
    }

    #[tokio::test]
    async fn a_kdc_with_another_time_gets_no_password() {
        for (ahead, words) in [(-612, "this host is ahead of ad.acme.com"), (612, "behind ad.acme.com")] {
            let kdc = Scripted::new(vec![refusal(25, ahead)]).await;
            let ended = kdc.login().await;
            let Ended::Skew(skew) = ended else { panic!("{ended:?}") };
            assert!(skew.to_string().contains(words), "{skew}");
            assert!((610..=614).contains(&skew.ahead.abs()), "{skew}");
            assert_eq!(kdc.asked(), 1);
        }
    }
}
