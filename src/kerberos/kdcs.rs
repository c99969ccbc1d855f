//! The KDCs of a realm: which one gets a message, when the next one is tried, and how many exchanges run with
//! one of them at a time.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::kdc::{ANSWERS, Kdc, Kind, Silence, ask_one};
use super::krb5::Refused;
use crate::net::BoxFuture;
use crate::patience::{ATTEMPT, Others, Queue, first_of, stays};

/// Maximum number of concurrent exchanges with one KDC: of those that begin a login, and of those that
/// continue one.
const TURNS: usize = 16;
/// Number of KDCs that turns are kept for.
const HOSTS: usize = 256;
/// Pause before a busy KDC is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Source of the KDCs, and receiver of their failures.
pub trait Kdcs: Send + Sync + 'static {
    /// Returns the KDCs of `realm` that may receive the proof of a user's password, in the order to try; the
    /// error says why there are none.
    fn candidates<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>>;

    /// The same for exchanges with the machine's own key, which may use further KDCs; see
    /// [`Access::for_machine`].
    fn for_machine<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        self.candidates(realm)
    }

    /// Notes that `host` answered a message, even if with a refusal.
    fn answered(&self, host: &str);

    /// Notes that `host` did not answer.
    fn failed(&self, host: &str, cause: &str);

    /// Notes that `host` is slow, busy or dead: others come first until a probe shows which.
    fn silent(&self, host: &str, cause: &str) {
        self.failed(host, cause);
    }

    /// Returns true if `host` failed and has not worked since.
    fn is_down(&self, _host: &str) -> bool {
        false
    }

    /// Has all other KDCs probed now, because `host` is silent and they have all failed before.
    fn hurry(&self, _host: &str) {}

    /// Returns true if `host` answered any request at or after `since`: then it is slow and not dead.
    fn answered_since(&self, _host: &str, _since: Instant) -> bool {
        false
    }
}

/// The KDCs, for exchanges with one kind of key.
#[derive(Clone, Copy)]
pub(super) struct Access<'k> {
    pub(super) kdcs: &'k dyn Kdcs,
    turns: &'k Turns,
    is_for_machine: bool,
    /// Hosts of KDCs that are left out.
    without: &'k [String],
}

impl<'k> Access<'k> {
    /// The KDCs that a proof of a user's password may go to.
    pub(super) fn for_users(kdcs: &'k dyn Kdcs, turns: &'k Turns) -> Self {
        Access { kdcs, turns, is_for_machine: false, without: &[] }
    }

    /// The KDCs that the machine's own tickets may come from: all that DNS names.
    ///
    /// Their answer has to be made with the machine's key, or with the key of such a ticket, and only a KDC
    /// of the realm knows these. A stranger only learns a proof of a key that is too long to guess. A user's
    /// password is different: a stranger could guess it from the exchange, and could answer anything about
    /// it.
    pub(super) fn for_machine(kdcs: &'k dyn Kdcs, turns: &'k Turns) -> Self {
        Access { kdcs, turns, is_for_machine: true, without: &[] }
    }

    /// Leaves out the KDCs on these hosts.
    pub(super) fn without(self, hosts: &'k [String]) -> Self {
        Access { without: hosts, ..self }
    }

    /// Notes that a login at `host` took so long from its turn to its end.
    pub(super) fn took(&self, host: &str, time: Duration) {
        self.turns.of(host).beginning.took(time);
    }

    /// Returns the KDCs of `realm`, in the order to try; the error says why there are none.
    async fn candidates(&self, realm: &str) -> Result<Vec<Kdc>, String> {
        match self.is_for_machine {
            true => self.kdcs.for_machine(realm).await,
            false => self.kdcs.candidates(realm).await,
        }
    }
}

/// The turns for concurrent exchanges, a bounded number for each KDC: a busy KDC would break off many
/// connections at once.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<Line>>>);

/// The turns at one KDC. Exchanges that continue a login do not queue behind those that begin one: otherwise
/// a login would queue twice, and while more arrive than the KDC serves, none would end in time.
struct Line {
    beginning: Queue,
    continuing: Arc<Semaphore>,
}

impl Default for Line {
    fn default() -> Self {
        Line { beginning: Queue::new(TURNS), continuing: Arc::new(Semaphore::new(TURNS)) }
    }
}

impl Turns {
    fn of(&self, host: &str) -> Arc<Line> {
        let mut turns = self.0.lock();
        // Domain controllers come and go; a turn in use keeps its semaphore.
        if turns.len() > HOSTS && !turns.contains_key(host) {
            turns.clear();
        }
        turns.entry(host.to_owned()).or_default().clone()
    }
}

/// A KDC's answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The message.
    pub(super) message: Vec<u8>,
    /// Host of the KDC.
    pub(super) host: String,
    /// Its content, if it is a KRB-ERROR.
    pub(super) refused: Option<Refused>,
}

impl Answer {
    /// Returns true for an AS-REP.
    pub(super) fn is_ticket(&self) -> bool {
        self.message.first() == Some(&ANSWERS[0])
    }
}

/// Reason why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    /// The realm of the KDCs.
    pub(super) realm: String,
    /// The cause for each KDC.
    pub(super) causes: String,
    /// True if the deadline passed.
    pub(super) late: bool,
}

/// A KDC, as one login uses it.
pub(super) struct One<'a> {
    access: Access<'a>,
    kdc: Kdc,
    /// True if another KDC would be better, so that connecting to this one is bounded by [`ATTEMPT`].
    has_better: bool,
    deadline: Instant,
}

impl One<'_> {
    /// Time by which it has to answer.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Its host name.
    pub(super) fn host(&self) -> &str {
        &self.kdc.host
    }

    /// Waits for the turn to begin a login; few run concurrently with this KDC.
    ///
    /// # Errors
    /// Returns a failure of this host if the time that is left is too short for a login.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, Silence> {
        let turn = self.access.turns.of(&self.kdc.host).beginning.turn(self.deadline).await;
        turn.ok_or_else(|| Silence::unasked("more logins than it answers in time"))
    }

    /// Waits for the turn to continue a login that has a ticket.
    pub(super) async fn turn_to_continue(&self) -> Option<OwnedSemaphorePermit> {
        let turns = self.access.turns.of(&self.kdc.host).continuing.clone();
        timeout_at(self.deadline, turns.acquire_owned()).await.ok()?.ok()
    }

    /// Sends `message` and waits for the answer until the deadline. A message that arrived without an answer
    /// may have been counted as a wrong password; `lost` gets the addresses that broke off before another one
    /// got the message. If the caller gives up before the message has arrived, it never arrives: the
    /// connection is reset, so that this host's kernel does not send it again later.
    pub(super) async fn ask(&self, message: &[u8], lost: &mut Vec<String>) -> Result<Answer, Silence> {
        if Instant::now() >= self.deadline {
            return Err(Silence::slow());
        }
        let connected = match self.has_better {
            true => self.deadline.min(Instant::now() + ATTEMPT),
            false => self.deadline,
        };
        let (message, refused) = ask_one(&self.kdc, message, connected, self.deadline, lost).await?;
        self.access.kdcs.answered(&self.kdc.host);
        Ok(Answer { message, host: self.kdc.host.clone(), refused })
    }
}

/// An attempt that has no answer yet.
struct Running<F> {
    kdc: Kdc,
    future: Pin<Box<F>>,
    /// Start of the attempt.
    begun: Instant,
    /// The same, or the time of its last check.
    since: Instant,
    /// Time when the login next checks if the wait is worthwhile.
    until: Instant,
}

/// Starts an `attempt` at a KDC of `realm`, `preferred` first. While it is silent, another one starts at the
/// next KDC, see [`stays`]. The first answer counts, and then the other attempts are reset. A silent attempt
/// goes on: if the others do not answer at all, the login waits for it until the deadline. A busy KDC is
/// tried again.
pub(super) async fn race<'k, T, F: Future<Output = Result<T, Silence>>>(
    access: Access<'k>,
    realm: &str,
    preferred: Option<&str>,
    deadline: Instant,
    attempt: impl Fn(One<'k>) -> F,
) -> Result<T, Unanswered> {
    let none = |causes: String, late| Unanswered { realm: realm.to_owned(), causes, late };
    let mut candidates = match timeout_at(deadline, access.candidates(realm)).await {
        Ok(candidates) => candidates.map_err(|causes| none(causes, false))?,
        Err(_) => return Err(none("none is known".to_owned(), true)),
    };
    let kdcs = access.kdcs;
    candidates.retain(|kdc| !kdc.addresses.is_empty() && !access.without.contains(&kdc.host));
    // Stable: the others keep their order.
    candidates.sort_by_key(|kdc| Some(kdc.host.as_str()) != preferred || kdcs.is_down(&kdc.host));
    let mut race =
        Race { access, deadline, attempt, waiting: candidates.into(), busy: Vec::new(), running: Vec::new() };
    let mut failed: Vec<(String, String)> = Vec::new();
    race.begin();
    while !(race.running.is_empty() && race.busy.is_empty()) && Instant::now() < deadline {
        match race.next().await {
            Some((_, Ok(answer))) => return Ok(answer),
            Some((kdc, Err(failure))) => {
                let known = failed.iter_mut().find(|(host, _)| *host == kdc.host);
                match known {
                    Some((_, cause)) => cause.clone_from(&failure.cause),
                    None => failed.push((kdc.host.clone(), failure.cause.clone())),
                }
                race.failed(kdc, &failure);
            }
            None => race.look(),
        }
    }
    for running in race.running {
        let cause = "no answer in time".to_owned();
        // A short wait shows nothing, and one that answered others is slow.
        let host = &running.kdc.host;
        if running.begun.elapsed() >= ATTEMPT && !kdcs.answered_since(host, running.begun) {
            kdcs.silent(host, &cause);
        }
        failed.push((running.kdc.host, cause));
    }
    let causes: Vec<_> = failed.iter().map(|(host, cause)| format!("{host}: {cause}")).collect();
    let causes = if causes.is_empty() { "none is known".to_owned() } else { causes.join("; ") };
    Err(none(causes, Instant::now() >= deadline))
}

/// The KDCs of one login.
struct Race<'k, A, F> {
    access: Access<'k>,
    deadline: Instant,
    attempt: A,
    /// KDCs that were not tried yet.
    waiting: VecDeque<Kdc>,
    /// Busy KDCs, with the time of their next attempt.
    busy: Vec<(Instant, Kdc)>,
    running: Vec<Running<F>>,
}

impl<'k, T, A, F> Race<'k, A, F>
where
    A: Fn(One<'k>) -> F,
    F: Future<Output = Result<T, Silence>>,
{
    /// Starts an attempt at the next KDC, if there is one.
    fn begin(&mut self) {
        if let Some(kdc) = self.waiting.pop_front() {
            self.begin_at(kdc);
        }
    }

    fn begin_at(&mut self, kdc: Kdc) {
        let since = Instant::now();
        let until = self.deadline.min(since + ATTEMPT);
        let has_better = self.others(&kdc) == Others::Better;
        let one = One { access: self.access, kdc: kdc.clone(), has_better, deadline: self.deadline };
        self.running.push(Running { kdc, future: Box::pin((self.attempt)(one)), begun: since, since, until });
    }

    /// Waits for the next attempt to end; `None` when the last one is due for a check, or a busy KDC for
    /// another attempt.
    async fn next(&mut self) -> Option<(Kdc, Result<T, Silence>)> {
        let until = match self.running.last() {
            Some(_) if self.waiting.is_empty() && self.busy.is_empty() => None,
            Some(last) => Some(last.until),
            None => self.busy.iter().map(|(due, _)| *due).min(),
        };
        let until = until.unwrap_or(self.deadline).min(self.deadline);
        let running = &mut self.running;
        let ended = first_of(running, |running| &mut running.future);
        let (index, result) = timeout_at(until, ended).await.ok()?;
        Some((running.remove(index).kdc, result))
    }

    /// Notes that an attempt at `kdc` has failed, and starts the next one at once.
    fn failed(&mut self, kdc: Kdc, failure: &Silence) {
        match failure.kind {
            Kind::Dead => self.access.kdcs.failed(&kdc.host, &failure.cause),
            Kind::Slow => self.access.kdcs.silent(&kdc.host, &failure.cause),
            Kind::Unasked => {}
            Kind::Busy => {
                self.access.kdcs.silent(&kdc.host, &failure.cause);
                self.busy.push((Instant::now() + PAUSE, kdc));
            }
        }
        self.begin();
    }

    /// If no running attempt is worth the wait, starts one at the next KDC, or at those that were busy.
    fn look(&mut self) {
        let now = Instant::now();
        if self.running.last().is_some_and(|last| last.until > now) {
            return;
        }
        if self.waiting.is_empty() {
            let due: Vec<_> = self.busy.extract_if(.., |(due, _)| *due <= now).collect();
            due.into_iter().for_each(|(_, kdc)| self.begin_at(kdc));
        }
        let Some(last) = self.running.last().filter(|last| last.until <= now) else { return };
        let answers_others = self.access.kdcs.answered_since(&last.kdc.host, last.since);
        let others = self.others(&last.kdc);
        if others == Others::Failed && !answers_others {
            self.access.kdcs.hurry(&last.kdc.host);
        }
        let stays = stays(answers_others, others, self.deadline.saturating_duration_since(now));
        let host = last.kdc.host.clone();
        if let Some(last) = self.running.last_mut() {
            // An answer just before it fell silent does not make it slow for ever.
            (last.since, last.until) = (now, self.deadline.min(last.until + ATTEMPT));
        }
        if !stays && !self.waiting.is_empty() {
            self.access.kdcs.silent(&host, "no answer in time");
            self.begin();
        }
    }

    /// Returns the KDCs that could be tried instead of `kdc`.
    fn others(&self, kdc: &Kdc) -> Others {
        let is_down = |kdc: &Kdc| self.access.kdcs.is_down(&kdc.host);
        Others::new(is_down(kdc), self.waiting.iter().map(is_down))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Behaviour of a test KDC on a connection.
    #[derive(Clone, Copy)]
    enum Manner {
        /// Answers with these bytes, the length included, and closes.
        Says(&'static [u8]),
        /// Reads and does not answer.
        Silent,
        /// Closes at once, with a reset.
        Resets,
        /// Sends these bytes on the first connection, and an answer on the others.
        BusyOnce(&'static [u8]),
    }

    /// Marked as AS-REP by the first byte; these tests read no further.
    const GOOD: &[u8] = b"\0\0\0\x04\x6b\x02ab";
    /// The same, later than [`ATTEMPT`].
    const LATE: &[u8] = b"\0\0\0\x04\x6b\x02zz";
    /// The same, after this number of seconds.
    const AFTER_1: &[u8] = b"\0\0\0\x04\x6b\x0211";
    const AFTER_2: &[u8] = b"\0\0\0\x04\x6b\x0222";
    const AFTER_4: &[u8] = b"\0\0\0\x04\x6b\x0244";
    /// SVC_UNAVAILABLE.
    const UNAVAILABLE: &[u8] = b"\0\0\0\x45\x7e\x43\x30\x41\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x1e\
        \xa4\x11\x18\x0f20261123184937Z\xa5\x03\x02\x01\x00\xa6\x03\x02\x01\x1d\
        \xa9\x03\x1b\x01A\xaa\x13\x30\x11\xa0\x03\x02\x01\x02\xa1\x0a\x30\x08\x1b\x06krbtgt";

    async fn kdc(manner: Manner) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut connections = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                connections += 1;
                let manner = match manner {
                    Manner::BusyOnce(first) if connections == 1 => Manner::Says(first),
                    Manner::BusyOnce(_) => Manner::Says(GOOD),
                    manner => manner,
                };
                tokio::spawn(async move {
                    let mut request = [0; 11];
                    match manner {
                        Manner::BusyOnce(_) => {}
                        Manner::Resets => stream.set_zero_linger().unwrap(),
                        Manner::Silent => std::future::pending().await,
                        Manner::Says(reply) => {
                            stream.read_exact(&mut request).await.unwrap();
                            assert_eq!(&request, b"\0\0\0\x07message");
                            let after = match reply {
                                LATE => ATTEMPT + Duration::from_secs(2),
                                AFTER_1 => Duration::from_secs(1),
                                AFTER_2 => Duration::from_secs(2),
                                AFTER_4 => Duration::from_secs(4),
                                _ => Duration::ZERO,
                            };
                            tokio::time::sleep(after).await;
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
            self.said.lock().push(format!("{host} answered"));
        }
        fn failed(&self, host: &str, cause: &str) {
            self.said.lock().push(format!("{host}: {cause}"));
        }
        fn is_down(&self, host: &str) -> bool {
            self.down.contains(&host)
        }
        fn answered_since(&self, _: &str, _: Instant) -> bool {
            self.answers_others
        }
        fn hurry(&self, host: &str) {
            self.said.lock().push(format!("hurry, {host} is silent"));
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
        race(Access::for_users(known, &Turns::default()), "ACME.COM", preferred, deadline, |one| async move {
            let _turn = one.turn().await?;
            one.ask(b"message", &mut Vec::new()).await
        })
        .await
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
            let said = known.said.lock().clone();
            assert!(said[0].starts_with("kdc0: ") && said[0].contains(cause), "{said:?}");
            assert_eq!(said[1..], ["kdc1 answered"]);
        }
    }

    #[tokio::test]
    async fn an_answer_is_the_last_word() {
        let known = known(&[Manner::Says(GOOD), Manner::Says(GOOD)]).await;
        asked(&known, None, 5.0).await.unwrap();
        assert_eq!(*known.said.lock(), ["kdc0 answered"]);
        asked(&known, Some("kdc1"), 5.0).await.unwrap();
        assert_eq!(*known.said.lock(), ["kdc0 answered", "kdc1 answered"]);
    }

    #[tokio::test]
    async fn silence_costs_an_attempt_each_and_never_more_than_the_deadline() {
        let known = known(&[Manner::Silent, Manner::Silent]).await;
        let start = Instant::now();
        let none = asked(&known, None, 1.5).await.unwrap_err();
        // A busy test machine is late, but never by another attempt.
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
        // The data that had arrived stays readable, without an orderly end after it.
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 11);
        let end = stream.read(&mut [0; 64]).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    /// An address that does not answer a SYN: the queue of its listener is full.
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
    async fn a_dead_address_before_the_good_one_costs_a_moment() {
        let (hole, _filling, _listener) = black_hole().await;
        let one = Kdc { host: "kdc".into(), addresses: vec![hole, kdc(Manner::Says(GOOD)).await] };
        let known = Known { kdcs: vec![one], ..Known::default() };
        let start = Instant::now();
        asked(&known, None, 60.0).await.unwrap();
        // The addresses of the only KDC do not share its deadline: that were half a minute.
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
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
        // Two attempts, and then almost as long as one: a busy machine needs some of it.
        assert_eq!(asked(&known, None, 2.3).await.unwrap().host, "kdc1");
        assert_eq!(known.said.lock()[0], "hurry, kdc0 is silent");
    }

    #[tokio::test]
    async fn a_slow_one_is_waited_for_until_the_deadline_where_the_others_refuse() {
        // Concurrently, so that it takes no longer than the slowest.
        let slow = async |seconds: u64| {
            let after = Manner::Says(match seconds {
                1 => AFTER_1,
                2 => AFTER_2,
                _ => AFTER_4,
            });
            let mut known = known(&[after]).await;
            let closed = SocketAddr::from(([127, 0, 0, 1], 1));
            known.kdcs.push(Kdc { host: "dead".into(), addresses: vec![closed] });
            let answer = asked(&known, None, 8.0).await.unwrap();
            assert_eq!(answer.host, "kdc0", "{seconds}");
            // It was tried once: nothing could count twice.
            let said = known.said.lock().clone();
            assert_eq!(said.iter().filter(|said| said.starts_with("kdc0 answered")).count(), 1, "{said:?}");
            assert_eq!(said.iter().filter(|said| said.starts_with("dead: ")).count(), 1, "{said:?}");
        };
        tokio::join!(slow(1), slow(2), slow(4));
    }

    #[tokio::test]
    async fn a_busy_one_is_asked_again() {
        for manner in [Manner::BusyOnce(b""), Manner::BusyOnce(UNAVAILABLE)] {
            let known = known(&[manner]).await;
            assert_eq!(asked(&known, None, 8.0).await.unwrap().host, "kdc0");
        }
        // One that refuses the connection is dead, and no login waits for it.
        let closed = Kdc { host: "dead".into(), addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1))] };
        let known = Known { kdcs: vec![closed], ..Known::default() };
        let begun = Instant::now();
        asked(&known, None, 60.0).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn messages_to_one_kdc_queue_at_a_bound() {
        let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = Kdc { host: "kdc".into(), addresses: vec![listener.local_addr().unwrap()] };
        let (seen, open) = (most.clone(), now.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, open) = (seen.clone(), open.clone());
                tokio::spawn(async move {
                    seen.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    stream.read_exact(&mut [0; 11]).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                    stream.write_all(GOOD).await.unwrap();
                });
            }
        });
        let queue = Arc::new((Known { kdcs: vec![one], ..Known::default() }, Turns::default()));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..60 {
            let queue = queue.clone();
            asking.spawn(async move {
                let deadline = Instant::now() + Duration::from_secs(20);
                let answer = race(
                    Access::for_users(&queue.0, &queue.1),
                    "ACME.COM",
                    None,
                    deadline,
                    |one| async move {
                        let _turn = one.turn().await?;
                        one.ask(b"message", &mut Vec::new()).await
                    },
                );
                answer.await.map(|answer| answer.host)
            });
        }
        while let Some(answer) = asking.join_next().await {
            assert_eq!(answer.unwrap().unwrap(), "kdc");
        }
        assert!((2..=TURNS).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    }

    #[tokio::test]
    async fn who_waited_too_long_for_a_turn_takes_none_and_who_has_a_ticket_does_not_queue_again() {
        let known = known(&[Manner::Says(GOOD)]).await;
        let turns = Turns::default();
        let access = Access::for_users(&known, &turns);
        let one = |milliseconds| One {
            access,
            kdc: known.kdcs[0].clone(),
            has_better: false,
            deadline: Instant::now() + Duration::from_millis(milliseconds),
        };
        for _ in 0..64 {
            access.took("kdc0", Duration::from_secs(30));
        }
        // A turn that is free needs no prediction.
        let mut taken = Vec::new();
        for _ in 0..TURNS {
            taken.push(one(1000).turn().await.unwrap());
        }
        assert!(one(60_000).turn_to_continue().await.is_some());
        let begin = async |milliseconds| one(milliseconds).turn().await;
        assert_eq!(begin(50).await.unwrap_err().kind, Kind::Unasked, "there was none");
        // Polled after the first one has begun to wait.
        let (late, ()) = tokio::join!(begin(20_000), async { drop(taken.pop()) });
        assert_eq!(late.unwrap_err().kind, Kind::Unasked, "too little time is left");
        assert!(begin(60_000).await.is_ok());
    }

    #[tokio::test]
    async fn none_at_all_is_told() {
        let none = asked(&Known::default(), None, 1.0).await.unwrap_err();
        assert_eq!((none.causes.as_str(), none.late), ("none is known", false));
    }
}
