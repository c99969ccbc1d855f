//! One sealed connection: the searches on it, and the check that it still answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ldap3::asn1::{PL, parse_tag};
use ldap3::controls::{ControlType, PagedResults, RawControl};
use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchOptions, SearchStream,
    StdStream,
};
use tokio::sync::{Notify, SetOnce};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Inner, MachineError, RootDse, Search, Server, Servers, Settings};
use crate::directory::entry::Entry;
use crate::directory::machine::{Part, Place};
use crate::kerberos::error::TransportError;
use crate::kerberos::sealing::{self, Relay};
use crate::kerberos::{Credential, Sealed};

/// Entries per page. AD returns at most 1,000 for an unpaged search (`MaxPageSize`, MS-ADTS 3.1.1.3.4.6).
const PAGE: usize = 500;

/// LDAP result codes (RFC 4511, 4.1.9).
const SUCCESS: u32 = 0;
const SIZE_LIMIT_EXCEEDED: u32 = 4;
const NO_SUCH_OBJECT: u32 = 32;

/// Reason why a search has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection broke before the answer; the search may be repeated on another one.
    Broken,
    /// The answer is an error.
    Answer(MachineError),
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        Failure::Answer(error)
    }
}

impl From<LdapError> for Failure {
    fn from(error: LdapError) -> Self {
        match error {
            LdapError::FilterParsing => Failure::Answer(MachineError::Filter),
            // Any other error of ldap3 means that the connection's driver is gone.
            _ => Failure::Broken,
        }
    }
}

/// Why a connection takes no further search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retired {
    /// A later connection to the same domain controller answered first. The kernel would have ended this one
    /// if the requests had not arrived (`TCP_USER_TIMEOUT`), so the domain controller is at work on them.
    Overtaken,
    /// The domain controller stopped answering.
    Silent,
}

impl Retired {
    fn cause(self) -> &'static str {
        match self {
            Retired::Overtaken => "a further connection to the same domain controller was faster",
            Retired::Silent => "the domain controller stopped answering",
        }
    }
}

/// A connection that is bound as the machine account.
pub(super) struct Link {
    pub(super) host: String,
    pub(super) address: SocketAddr,
    pub(super) principal: String,
    pub(super) root: Arc<RootDse>,
    /// Time when the ticket ends.
    pub(super) expires: Instant,
    /// Time when a successor should be opened.
    renew: Instant,
    ldap: Ldap,
    relay: Relay,
    /// The machine connection that it belongs to.
    machine: Weak<Inner>,
    servers: Arc<dyn Servers>,
    settings: Settings,
    searches: AtomicU64,
    probing: AtomicBool,
    superseded: AtomicBool,
    /// Why no further search is sent on it. Those under way may still be answered.
    retired: SetOnce<Retired>,
    broken: OnceLock<String>,
}

impl Link {
    /// Connects, binds and reads the rootDSE.
    pub(super) async fn connect(
        server: &Server,
        address: SocketAddr,
        credential: Credential,
        machine: &Arc<Inner>,
        deadline: Instant,
    ) -> Result<Self, TransportError> {
        let Sealed { stream, relay, expires } =
            sealing::connect(address, &server.service, &machine.kerberos, &credential, deadline).await?;
        let ldap_settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(stream));
        let (driver, ldap) = LdapConnAsync::with_settings(ldap_settings, "ldapi:///")
            .await
            .map_err(|_| TransportError::Protocol("ldap3 does not take the sealed stream"))?;
        // Ends when the last handle is dropped or the relay closes.
        tokio::spawn(driver.drive());
        let mut link = Link {
            host: server.service.host.clone(),
            address,
            principal: credential.principal().to_owned(),
            root: Arc::default(),
            expires,
            renew: renewal(Instant::now(), expires),
            ldap,
            relay,
            machine: Arc::downgrade(machine),
            servers: machine.servers.clone(),
            settings: machine.settings.clone(),
            searches: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            retired: SetOnce::new(),
            broken: OnceLock::new(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, link.read_root()).await {
            Ok(Ok(root)) => link.root = Arc::new(root),
            Ok(Err(_)) => {
                return Err(TransportError::Protocol("the server does not answer with its rootDSE"));
            }
            Err(_) => return Err(TransportError::Timeout),
        }
        Ok(link)
    }

    /// Returns true if a search may be sent.
    pub(super) fn is_usable(&self) -> bool {
        self.broken.get().is_none() && !self.is_retired() && self.is_open() && Instant::now() < self.expires
    }

    /// Returns true if messages can be sent and received.
    fn is_open(&self) -> bool {
        !self.relay.is_closed() && !self.ldap.clone().is_closed()
    }

    /// Returns true if a successor should be opened: the ticket is about to end, ldap3 has handled many
    /// messages, or a better domain controller works again.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.renew
            || self.searches() >= self.settings.searches
            || self.superseded.load(Ordering::Relaxed)
    }

    /// Makes a successor due.
    pub(super) fn supersede(&self) {
        self.superseded.store(true, Ordering::Relaxed);
    }

    /// Number of searches so far.
    pub(super) fn searches(&self) -> u64 {
        self.searches.load(Ordering::Relaxed)
    }

    /// Returns true if it did not answer in time, so that another connection takes its place.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.initialized()
    }

    /// Takes no further search. Those under way keep waiting, because a domain controller that needs long for
    /// one would need as long on every connection.
    fn retire(&self, cause: Retired) {
        let _ = self.retired.set(cause);
    }

    /// Returns the reason for the end of the connection.
    pub(super) fn end(&self) -> String {
        let end = self.relay.end().or_else(|| self.broken.get().map(String::as_str));
        let end = end.or_else(|| self.retired.get().map(|retired| retired.cause()));
        end.unwrap_or("the connection was closed").to_owned()
    }

    /// Closes the connection; searches that wait on it fail at once.
    pub(super) fn close(&self, cause: &str) {
        let _ = self.broken.set(cause.to_owned());
        self.relay.close();
    }

    /// Runs one search, page by page. With `bytes`, the result is also cut at that size, and the domain
    /// controller gets `deadline` as its time limit. After `silence` the connection is probed. If it is
    /// retired, the search goes on, and `repeat` is told when another connection should try as well: at once
    /// if the domain controller is silent; if it is at work on the search, after as long again, and only if
    /// nothing was received in that time.
    pub(super) async fn search(
        self: &Arc<Self>,
        search: &Search,
        bytes: Option<usize>,
        deadline: Instant,
        silence: Duration,
        repeat: &Notify,
    ) -> Result<Part, Failure> {
        let begun = Instant::now();
        let asked = self.ask(search, bytes, deadline);
        tokio::pin!(asked);
        while !self.is_retired() {
            let before = self.relay.received();
            tokio::select! {
                answer = &mut asked => return answer,
                _ = self.retired.wait() => {}
                () = sleep(silence) => {
                    if self.relay.received() == before {
                        self.probe();
                    }
                }
            }
        }
        if self.retired.get() == Some(&Retired::Overtaken) {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut patience = begun.elapsed().min(left / 2);
            loop {
                let before = self.relay.received();
                if let Ok(answer) = timeout(patience, &mut asked).await {
                    return answer;
                }
                if self.relay.received() == before {
                    break;
                }
                // The domain controller works through the searches that it has.
                patience = begun.elapsed();
            }
        }
        repeat.notify_one();
        match asked.await {
            // The repetition decides.
            Err(Failure::Broken) => std::future::pending().await,
            answer => answer,
        }
    }

    async fn ask(
        self: &Arc<Self>,
        search: &Search,
        bytes: Option<usize>,
        deadline: Instant,
    ) -> Result<Part, Failure> {
        let (mut entries, mut length) = (Vec::new(), 0_usize);
        let room = bytes.unwrap_or(usize::MAX);
        let mut cookie = (search.limit > PAGE).then(Vec::new);
        loop {
            self.searches.fetch_add(1, Ordering::Relaxed);
            let mut ldap = self.ldap.clone();
            let mut options = SearchOptions::new();
            if bytes.is_some() {
                let left = deadline.saturating_duration_since(Instant::now()).as_secs();
                options = options.timelimit(i32::try_from(left).unwrap_or(i32::MAX).saturating_add(1));
            }
            if let Some(cookie) = cookie.take() {
                let size = i32::try_from(PAGE).unwrap_or(i32::MAX);
                ldap.with_controls(RawControl::from(PagedResults { size, cookie }));
            } else {
                // One more than wanted shows that there are too many; without pages the server stops at that
                // number.
                let limit = i32::try_from(search.limit).unwrap_or(i32::MAX).saturating_add(1);
                options = options.sizelimit(limit);
            }
            ldap.with_search_options(options);
            let mut pending = Pending::start(self, ldap, search).await?;
            while let Some(entry) = pending.next().await? {
                length = length.saturating_add(entry.length());
                if entries.len() == search.limit || length > room {
                    return Ok(Part { entries, is_cut: true });
                }
                entries.push(entry);
            }
            let result = pending.finish().await;
            match result.rc {
                SUCCESS => {}
                SIZE_LIMIT_EXCEEDED => return Ok(Part { entries, is_cut: true }),
                NO_SUCH_OBJECT => return Err(MachineError::NoSuchObject(search.base.clone()).into()),
                code => return Err(MachineError::Refused { code, text: result.text }.into()),
            }
            cookie = next_page(&result);
            if cookie.is_none() {
                return Ok(Part { entries, is_cut: false });
            }
        }
    }

    /// Reads the rootDSE (RFC 4512, 5.1), which every server answers at once.
    async fn read_root(&self) -> Result<RootDse, Failure> {
        let search = Search {
            place: Place::default(),
            base: String::new(),
            scope: Scope::Base,
            filter: "(objectClass=*)".to_owned(),
            attributes: RootDse::ATTRIBUTES.iter().map(|name| (*name).to_owned()).collect(),
            limit: 1,
        };
        let mut stream = self
            .ldap
            .clone()
            .streaming_search(&search.base, search.scope, &search.filter, search.attributes)
            .await?;
        let mut root = None;
        while let Some(item) = stream.next().await? {
            root = Some(Entry::decode(item.0).map_err(MachineError::from)?);
        }
        stream.finish().await;
        let root = root.ok_or_else(|| MachineError::NoSuchObject("rootDSE".to_owned()))?;
        Ok(RootDse::from_entry(&root).map_err(MachineError::from)?)
    }

    /// Probes the connection, one probe at a time, and retires it if there is no sign of life. Any received
    /// byte counts, because a server may be busy with the answer to another search.
    pub(super) fn probe(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_retired() || self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let link = Arc::clone(self);
        runtime.spawn(async move {
            // Cleared however the probe ends: a flag that stayed set would prevent every later probe.
            let _probing = Probing(&link);
            link.retire_if_silent().await;
        });
    }

    async fn retire_if_silent(&self) {
        let (before, begun) = (self.relay.received(), Instant::now());
        let answer = self.read_root();
        tokio::pin!(answer);
        let silent = || self.relay.received() == before;
        if timeout(self.settings.probe, &mut answer).await.is_ok() || !silent() {
            return;
        }
        if self.servers.is_worth_waiting_for(&self.host, begun) {
            // The server is slow, or only this connection is dead: the outcome of another connection decides.
            let fresh = async {
                match self.machine.upgrade() {
                    Some(machine) => machine.fresh().await,
                    None => std::future::pending().await,
                }
            };
            let is_overtaken = tokio::select! {
                _ = &mut answer => return,
                fresh = fresh => fresh.host == self.host,
                () = sleep_until(begun + self.settings.connect) => false,
            };
            if !silent() {
                return;
            }
            if is_overtaken {
                self.retire(Retired::Overtaken);
                return;
            }
        }
        self.servers.silent(&self.host, Retired::Silent.cause());
        self.retire(Retired::Silent);
    }
}

/// A probe that is under way until this is dropped.
struct Probing<'a>(&'a Link);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.probing.store(false, Ordering::Release);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.relay.close();
    }
}

/// Returns the time for a renewal: five minutes before the ticket ends, or at half of a short life.
fn renewal(now: Instant, expires: Instant) -> Instant {
    let life = expires.saturating_duration_since(now);
    now + life.saturating_sub(Duration::from_secs(300)).max(life / 2)
}

/// Returns the cookie of the next page (RFC 2696, 2); `None` after the last page.
fn next_page(result: &LdapResult) -> Option<Vec<u8>> {
    let control = result.ctrls.iter().find(|control| matches!(control.0, Some(ControlType::PagedResults)))?;
    let (_, value) = parse_tag(control.1.val.as_deref()?).ok()?;
    match value.expect_constructed()?.pop()?.payload {
        PL::P(cookie) if !cookie.is_empty() => Some(cookie),
        _ => None,
    }
}

/// A search under way. If dropped before its end, it is abandoned (RFC 4511, 4.11), so that the server stops
/// and ldap3 forgets it.
struct Pending<'a> {
    link: &'a Arc<Link>,
    stream: SearchStream<'a, String, Vec<String>>,
    done: bool,
}

impl<'a> Pending<'a> {
    async fn start(link: &'a Arc<Link>, mut ldap: Ldap, search: &Search) -> Result<Self, Failure> {
        let attributes = search.attributes.clone();
        let stream = ldap.streaming_search(&search.base, search.scope, &search.filter, attributes).await?;
        Ok(Pending { link, stream, done: false })
    }

    async fn next(&mut self) -> Result<Option<Entry>, Failure> {
        loop {
            match self.stream.next().await {
                // Referrals lead to other domains and are never followed.
                Ok(Some(item)) if item.is_ref() || item.is_intermediate() => {}
                Ok(Some(item)) => return Ok(Some(Entry::decode(item.0).map_err(MachineError::from)?)),
                Ok(None) => return Ok(None),
                Err(error) => {
                    // There is nothing left to abandon.
                    self.done = true;
                    return Err(error.into());
                }
            }
        }
    }

    async fn finish(mut self) -> LdapResult {
        self.done = true;
        // Also frees the message id, which ldap3's own `search` forgets to do.
        self.stream.finish().await
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.done || !self.link.is_open() {
            return;
        }
        let mut ldap = self.link.ldap.clone();
        let id = self.stream.ldap_handle().last_id();
        runtime.spawn(async move { ldap.abandon(id).await });
    }
}

#[cfg(test)]
mod tests {
    use ldap3::controls::Control;

    use super::*;

    #[test]
    fn a_connection_is_renewed_well_before_its_ticket_ends() {
        let now = Instant::now();
        let after = |life: u64| renewal(now, now + Duration::from_secs(life)) - now;
        assert_eq!(after(36_000), Duration::from_secs(35_700));
        assert_eq!(after(600), Duration::from_secs(300));
        assert_eq!(after(100), Duration::from_secs(50));
        assert_eq!(after(0), Duration::ZERO);
    }

    #[test]
    fn pages_end_with_an_empty_cookie_and_broken_controls_end_them_too() {
        let result = |value: Option<&[u8]>| LdapResult {
            rc: 0,
            matched: String::new(),
            text: String::new(),
            refs: vec![],
            ctrls: vec![Control(
                Some(ControlType::PagedResults),
                RawControl { ctype: String::new(), crit: false, val: value.map(<[u8]>::to_vec) },
            )],
        };
        assert_eq!(next_page(&result(Some(b"\x30\x07\x02\x01\x00\x04\x02ab"))), Some(b"ab".to_vec()));
        for end in
            [Some(&b"\x30\x05\x02\x01\x00\x04\x00"[..]), Some(b"\x30\x00"), Some(b"\x30"), Some(b""), None]
        {
            assert_eq!(next_page(&result(end)), None, "{end:?}");
        }
    }
}
