//! The domain controllers of one domain: the list in force, and the state of each of them.
//!
//! Logins read from memory. A background task refreshes the list and probes domain controllers that failed;
//! logins wait only for the very first list.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::directory::controllers::discovery::{Controller, List, Role, Wanted, discover};
use crate::directory::controllers::dns::Names;
use crate::directory::controllers::health::{Change, Health, Service, State};
use crate::directory::controllers::lasting::Lasting;
use crate::directory::controllers::roster::{Listed, Roster};
use crate::directory::machine::{Server, Servers};
use crate::kerberos::LdapService;
use crate::net::BoxFuture;
use crate::protocol::{DEADLINE, report};
use crate::supervise::{self, Ended};

/// Minimum age of a list before it is refreshed because a host with several addresses failed.
const AGAIN: Duration = Duration::from_secs(2);
/// Time after a failed DNS query until the next one, while the last good list is used.
const STALE: Duration = Duration::from_secs(30);

/// Minimum time between two writes of a changed list to disk.
const KEEPING: Duration = Duration::from_secs(10);

/// Checks if a service of a domain controller works again; the error is a text for the administrator.
pub type Probe =
    Arc<dyn Fn(Arc<Controller>, Service) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Called when a circuit opens or closes.
pub type Observer = Box<dyn Fn(&Change) + Send + Sync>;

/// State and outage count of one service of a domain controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// The domain controller.
    pub host: String,
    /// The service.
    pub service: Service,
    /// True if its last use succeeded; `None` if it has not been used.
    pub works: Option<bool>,
    /// Number of times that it began to fail.
    pub outages: u64,
}

/// The domain controllers of one domain.
pub struct ServerList {
    wanted: Wanted,
    names: Arc<dyn Names>,
    roster: Arc<Roster>,
    observer: Observer,
    state: Mutex<Known>,
    /// State directory that the list is kept in.
    directory: Option<PathBuf>,
    /// Wakes the keeper when something is due earlier than it expected.
    changed: Arc<Notify>,
    /// Reference for the tasks that outlive a call.
    me: Weak<ServerList>,
}

#[derive(Default)]
struct Known {
    list: Option<Arc<List>>,
    /// Time of the next refresh of the list.
    due: Option<Instant>,
    /// Time of the last answer, a failure included.
    taken: Option<Instant>,
    /// Why the last attempt failed.
    problem: Option<String>,
    /// The attempt under way, while its sender lives.
    asking: Option<watch::Receiver<Option<Answer>>>,
    /// Another attempt has to follow the one under way.
    again: bool,
    health: Health,
}

type Answer = Result<Arc<List>, String>;

impl Known {
    fn take(&mut self, found: Result<List, String>) -> Answer {
        match found {
            Ok(list) => {
                let list = Arc::new(list);
                self.due = Some(list.until);
                self.problem = None;
                self.health.retain(|host| list.controllers.iter().any(|c| c.host == host));
                self.list = Some(Arc::clone(&list));
                Ok(list)
            }
            Err(cause) => {
                self.due = Some(Instant::now() + STALE);
                self.problem = Some(cause.clone());
                // The last good list stays in use.
                self.list.clone().ok_or(cause)
            }
        }
    }
}

impl ServerList {
    /// Creates the list of the domain controllers that are `wanted`, which `names` finds and `roster` bounds.
    /// The list kept in the state directory is in use until DNS has answered.
    pub fn new(wanted: Wanted, names: Arc<dyn Names>, roster: Arc<Roster>, observer: Observer) -> Arc<Self> {
        let directory = roster.directory().map(Path::to_owned);
        let mut known = Known::default();
        // An unusable file counts as none: DNS is queried anyway.
        let lasting =
            directory.as_ref().and_then(|at| Lasting::read(at, &wanted.domain, wanted.role).ok().flatten());
        if let Some((list, down)) = lasting.and_then(|lasting| lasting.list(|host| wanted.may_name(host))) {
            let now = Instant::now();
            for (host, service) in down {
                let cause = "it did not answer before the broker started";
                known.health.doubted(&host, service, cause, now);
            }
            known.list = Some(Arc::new(list));
            known.due = Some(now);
        }
        Arc::new_cyclic(|me| ServerList {
            wanted,
            names,
            roster,
            observer,
            state: Mutex::new(known),
            directory,
            changed: Arc::default(),
            me: me.clone(),
        })
    }

    /// DNS name of the domain, or of the forest for the global catalogue.
    pub fn domain(&self) -> &str {
        &self.wanted.domain
    }

    /// The role that these domain controllers are needed for.
    pub fn role(&self) -> Role {
        self.wanted.role
    }

    /// Returns the domain controllers in the order to try for `service`, failed ones last. Each is on AD's
    /// own list or named by the administrator; if that list was never read, it is read first.
    ///
    /// # Errors
    /// Returns the cause if there is no such domain controller.
    pub async fn controllers(&self, service: Service) -> Result<Vec<Arc<Controller>>, String> {
        let named = self.named(service).await?;
        let admitted = |listed: Option<&Listed>| -> Vec<_> {
            named.iter().filter(|controller| self.admits(&controller.host, listed)).cloned().collect()
        };
        let listed = self.roster.listed();
        let controllers = admitted(listed.as_deref());
        if !controllers.is_empty() {
            return Ok(controllers);
        }
        // The list was never read, or every domain controller is new.
        if listed.is_none() || self.roster.is_due(Instant::now(), true) {
            let unread = |cause| format!("the domain controllers that AD lists cannot be read: {cause}");
            let controllers = admitted(Some(self.roster.refresh().await.map_err(unread)?.as_ref()));
            if !controllers.is_empty() {
                return Ok(controllers);
            }
        }
        let hosts: Vec<_> = named.iter().map(|controller| controller.host.as_str()).collect();
        Err(format!(
            "AD lists none of the hosts that DNS names as a domain controller ({})",
            hosts.join(", ")
        ))
    }

    /// Returns every host that DNS or the configuration names, in the order to try for `service`; hosts that
    /// AD does not list come last. Only for uses in which the host proves itself with a key that only a
    /// domain controller has.
    ///
    /// # Errors
    /// Returns the cause if there is no such host.
    pub async fn named(&self, service: Service) -> Result<Vec<Arc<Controller>>, String> {
        let known = self.state.lock().list.clone();
        let list = match known {
            Some(list) => list,
            None => self.refresh().await?,
        };
        let listed = self.roster.listed();
        let mut controllers = list.controllers.clone();
        let known = self.state.lock();
        controllers.sort_by_key(|controller| {
            let is_stranger = !self.admits(&controller.host, listed.as_deref());
            (is_stranger, known.health.rank(&controller.host, service))
        });
        Ok(controllers)
    }

    /// Returns the hosts that DNS names but AD does not list as domain controllers, as far as both are known.
    pub fn strangers(&self) -> Vec<String> {
        let Some(listed) = self.roster.listed() else { return Vec::new() };
        let list = self.state.lock().list.clone();
        let hosts = list.iter().flat_map(|list| &list.controllers).map(|controller| &controller.host);
        hosts.filter(|host| !self.admits(host, Some(&listed))).cloned().collect()
    }

    /// Returns true if `host` may receive what only a domain controller may have: the administrator named it,
    /// or AD lists it. A name in DNS, or a certificate for it, is no reason.
    fn admits(&self, host: &str, listed: Option<&Listed>) -> bool {
        let is_named =
            || self.wanted.servers.iter().chain(&self.wanted.backup).any(|name| name.to_lowercase() == host);
        listed.is_some_and(|listed| listed.admits(host, self.wanted.role)) || is_named()
    }

    /// Describes for the administrator the step that a search for domain controllers is waiting for.
    pub fn awaited(&self) -> &'static str {
        match self.state.lock().list.is_some() {
            true => "the domain controllers that AD lists were not read in time",
            false => "DNS did not answer in time",
        }
    }

    /// Notes that `service` of `host` worked.
    pub fn answered(&self, host: &str, service: Service) {
        self.note(|health| health.answered(host, service, Instant::now()));
    }

    /// Notes that `service` of `host` failed, and why.
    pub fn failed(&self, host: &str, service: Service, cause: &str) {
        self.note(|health| health.failed(host, service, cause, false, Instant::now()));
        self.look_again(host);
        self.changed.notify_one();
    }

    /// Notes that `service` of `host` is slow or dead: it is probed at once, and others come first until
    /// the probe ends.
    pub fn doubted(&self, host: &str, service: Service, cause: &str) {
        self.state.lock().health.doubted(host, service, cause, Instant::now());
        self.changed.notify_one();
    }

    /// Notes that `service` of `host` did not answer at all, which makes the whole host suspect. The first
    /// time a probe shows if it is only slow.
    pub fn silent(&self, host: &str, service: Service, cause: &str) {
        self.note(|health| health.silent(host, service, cause, Instant::now()));
        self.look_again(host);
        self.changed.notify_one();
    }

    /// Notes that a probe or a new connection reached `service` of `host`. Only a bind shows that it answers
    /// binds.
    pub fn reached(&self, host: &str, service: Service) {
        self.note(|health| match service {
            Service::Binds => health.reached(host, service, Instant::now()),
            Service::Reading | Service::Kdc => health.answered(host, service, Instant::now()),
        });
    }

    /// Notes that a probe of `service` of `host`, which began at `begun`, failed.
    pub fn probe_failed(&self, host: &str, service: Service, cause: &str, begun: Instant) {
        self.note(|health| health.probe_failed(host, service, cause, begun, Instant::now()));
        self.look_again(host);
        self.changed.notify_one();
    }

    /// Returns true if `service` of `host` failed and has not worked since.
    pub fn is_down(&self, host: &str, service: Service) -> bool {
        self.state.lock().health.is_down(host, service)
    }

    /// Returns true if the server behind `service` of `host` answered any request at or after `since`.
    pub fn answered_since(&self, host: &str, service: Service, since: Instant) -> bool {
        self.state.lock().health.answered_since(host, service, since)
    }

    /// Probes the domain controllers that failed at `service` ahead of time, because a login needs one now.
    pub fn hurry(&self, service: Service) {
        self.state.lock().health.hurry(service, Instant::now());
        self.changed.notify_one();
    }

    /// Returns true if a domain controller other than `host` is not known to have failed at `service`.
    pub fn has_other(&self, host: &str, service: Service) -> bool {
        let listed = self.roster.listed();
        let known = self.state.lock();
        let other = |controller: &Arc<Controller>| {
            controller.host != host
                && !controller.addresses.is_empty()
                && self.admits(&controller.host, listed.as_deref())
                && !known.health.is_down(&controller.host, service)
        };
        known.list.as_ref().is_some_and(|list| list.controllers.iter().any(other))
    }

    /// Returns true if `host` is in the list.
    pub fn knows(&self, host: &str) -> bool {
        self.state.lock().list.as_ref().is_some_and(|list| list.controllers.iter().any(|c| c.host == host))
    }

    /// Returns true if `host` stands before `other` in the list.
    pub fn is_preferred(&self, host: &str, other: &str) -> bool {
        let listed = self.roster.listed();
        let known = self.state.lock();
        let place = |host: &str| {
            let controllers = known.list.as_ref().map(|list| list.controllers.as_slice());
            let place = controllers.unwrap_or_default().iter().position(|controller| controller.host == host);
            place.map(|place| (!self.admits(host, listed.as_deref()), place))
        };
        matches!((place(host), place(other)), (Some(host), Some(other)) if host < other)
    }

    /// Reports the list and the state of every domain controller to the administrator.
    pub fn report(&self) -> report::Servers {
        let listed = self.roster.listed();
        let known = self.state.lock();
        let text = |state: Option<State>| match state {
            None => "unknown".to_owned(),
            Some(State::Up(_)) => "ok".to_owned(),
            Some(State::Down(cause)) => cause,
        };
        let now = Instant::now();
        type Ages = (Option<u64>, Option<u64>);
        let ages = |controller: &Arc<Controller>, which: fn(Ages) -> Option<u64>| {
            let age = |service| Some((service, which(known.health.ages(&controller.host, service, now))?));
            let ages = Service::ALL.into_iter().filter_map(age);
            ages.map(|(service, age)| (service.to_string(), age)).collect()
        };
        let server = |controller: &Arc<Controller>| report::Server {
            host: controller.host.clone(),
            addresses: controller.addresses.iter().map(IpAddr::to_string).collect(),
            in_site: controller.in_site,
            is_stranger: listed.is_some() && !self.admits(&controller.host, listed.as_deref()),
            services: Service::ALL
                .into_iter()
                .map(|service| (service.to_string(), text(known.health.state(&controller.host, service))))
                .collect(),
            answered: ages(controller, |(answered, _)| answered),
            failing: ages(controller, |(_, failing)| failing),
        };
        let controllers = known.list.as_ref().map(|list| list.controllers.as_slice()).unwrap_or_default();
        report::Servers {
            site: known.list.as_ref().and_then(|list| list.site.clone()),
            problem: known.problem.clone(),
            list: controllers.iter().map(server).collect(),
        }
    }

    /// Returns the first `at_most` domain controllers, each with those of `services` that are not known to
    /// fail and have not answered since `since`. Hosts that only DNS names are left out.
    pub fn quiet(
        &self,
        services: &[Service],
        since: Instant,
        at_most: usize,
    ) -> Vec<(Arc<Controller>, Service)> {
        let listed = self.roster.listed();
        let known = self.state.lock();
        let controllers = known.list.as_ref().map(|list| list.controllers.as_slice()).unwrap_or_default();
        let admitted =
            controllers.iter().filter(|controller| self.admits(&controller.host, listed.as_deref()));
        let quiet = admitted.take(at_most).flat_map(|controller| {
            let is_quiet = |service: &&Service| known.health.is_quiet(&controller.host, **service, since);
            services.iter().filter(is_quiet).map(|service| (controller.clone(), *service))
        });
        quiet.collect()
    }

    /// Returns the state of every service of every domain controller; hosts that only DNS names are left out.
    pub fn circuits(&self) -> Vec<Circuit> {
        let listed = self.roster.listed();
        let known = self.state.lock();
        let controllers = known.list.as_ref().map(|list| list.controllers.as_slice()).unwrap_or_default();
        let admitted =
            controllers.iter().filter(|controller| self.admits(&controller.host, listed.as_deref()));
        let circuits = admitted.flat_map(|controller| {
            Service::ALL.into_iter().map(|service| Circuit {
                host: controller.host.clone(),
                service,
                works: known
                    .health
                    .state(&controller.host, service)
                    .map(|state| matches!(state, State::Up(_))),
                outages: known.health.outages(&controller.host, service),
            })
        });
        circuits.collect()
    }

    /// Returns true if the last refresh did not fail; `None` if there was neither a refresh nor a kept list.
    pub fn is_fresh(&self) -> Option<bool> {
        let known = self.state.lock();
        known.due.is_some().then_some(known.problem.is_none())
    }

    /// Keeps the list fresh and probes failed services until the list is dropped.
    pub fn keep(&self, probe: Probe) {
        let (me, changed) = (self.me.clone(), self.changed.clone());
        supervise::spawn("servers", move || keep(me.clone(), changed.clone(), probe.clone()));
    }

    /// Refreshes the list; concurrent callers share one attempt.
    pub async fn refresh(&self) -> Answer {
        let mut asking = self.asking();
        let answer = match asking.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None,
        };
        answer.unwrap_or_else(|| Err("the search for domain controllers was given up".to_owned()))
    }

    /// Returns the attempt under way, or starts one. It continues if a caller that waits for it gives up.
    fn asking(&self) -> watch::Receiver<Option<Answer>> {
        let mut known = self.state.lock();
        if let Some(asking) = known.asking.as_ref().filter(|asking| asking.has_changed().is_ok()) {
            return asking.clone();
        }
        let (sender, receiver) = watch::channel(None);
        known.asking = Some(receiver.clone());
        let (names, wanted, me) = (Arc::clone(&self.names), self.wanted.clone(), self.me.clone());
        tokio::spawn(async move {
            let mut found = discover(&names, &wanted, |below| fastrand::u32(..below)).await;
            let last = me.upgrade().and_then(|servers| servers.state.lock().list.clone());
            if let (Ok(list), Some(last), Some(servers)) = (&found, last, me.upgrade()) {
                let listed = servers.roster.listed();
                let admitted = |host: &str| servers.admits(host, listed.as_deref());
                found = Ok(list.clone().keeping(&last, &names, wanted.role.port(), admitted).await);
            }
            if let Some(servers) = me.upgrade() {
                let _ = sender.send(Some(servers.take(found)));
                servers.changed.notify_one();
            }
        });
        receiver
    }

    fn take(&self, found: Result<List, String>) -> Answer {
        let mut known = self.state.lock();
        known.asking = None;
        known.taken = Some(Instant::now());
        let again = std::mem::take(&mut known.again);
        let answer = known.take(found);
        if again {
            known.due = known.taken;
        }
        answer
    }

    /// Refreshes the list now because the DNS configuration changed. The last list stays in use until the
    /// answer.
    pub fn ask_again(&self) {
        let mut known = self.state.lock();
        known.again = known.asking.is_some();
        known.due = known.due.map(|_| Instant::now());
        drop(known);
        self.changed.notify_one();
    }

    /// Returns the LDAP service of `host`. Global catalogues belong to any domain of the forest; their names
    /// tell which.
    fn service(&self, host: &str) -> LdapService {
        let wanted = &self.wanted.domain;
        match (self.wanted.role, host.split_once('.')) {
            (Role::Domain, _) => LdapService::of_domain(host, wanted),
            (Role::GlobalCatalogue, Some((_, domain))) => LdapService::of_catalogue(host, domain, wanted),
            (Role::GlobalCatalogue, None) => LdapService::of_catalogue(host, wanted, wanted),
        }
    }

    /// Has the list refreshed soon if `host` has several addresses: another one may answer by now.
    fn look_again(&self, host: &str) {
        let mut known = self.state.lock();
        let list = known.list.clone();
        let controller =
            list.iter().flat_map(|list| &list.controllers).find(|controller| controller.host == host);
        if controller.is_some_and(|controller| controller.addresses.len() > 1) {
            let soon = known.taken.map_or_else(Instant::now, |taken| taken + AGAIN);
            known.due = known.due.map(|due| due.min(soon));
        }
    }

    /// Passes a change to the observer, outside the lock.
    fn note(&self, seen: impl FnOnce(&mut Health) -> Option<Change>) {
        let change = seen(&mut self.state.lock().health);
        if let Some(change) = change {
            (self.observer)(&change);
        }
    }

    /// Returns the list in the form kept on disk, and its directory; `None` before DNS has answered.
    fn lasting(&self) -> Option<(PathBuf, Lasting)> {
        let known = self.state.lock();
        let (list, directory) = (known.list.as_ref()?, self.directory.clone()?);
        known.taken?;
        let lasting = Lasting::of(&self.wanted.domain, list, |host, service| {
            matches!(known.health.state(host, service), Some(State::Down(_)))
        });
        Some((directory, lasting))
    }

    /// Returns the work that is due at `now`.
    fn due(&self, now: Instant) -> Due {
        let mut known = self.state.lock();
        let list = known.due.is_some_and(|due| due <= now);
        if list {
            // Holds until the answer sets a better time.
            known.due = Some(now + STALE);
        }
        let due = known.health.due(now);
        let controllers = known.list.as_ref().map(|list| list.controllers.as_slice()).unwrap_or_default();
        let find = |host: &str| controllers.iter().find(|controller| controller.host == host).cloned();
        let probes = due.into_iter().filter_map(|(host, service)| Some((find(&host)?, service))).collect();
        let next = known.due.into_iter().chain(known.health.next()).min();
        Due { list, probes, next }
    }
}

/// The keeper's work.
struct Due {
    /// The list has to be refreshed.
    list: bool,
    /// Services to probe.
    probes: Vec<(Arc<Controller>, Service)>,
    /// Time of the next work.
    next: Option<Instant>,
}

async fn keep(servers: Weak<ServerList>, changed: Arc<Notify>, probe: Probe) -> Ended {
    // Bounded by the list: two probes of one service are at least a second apart, and each takes at most
    // [`DEADLINE`].
    let mut probes = JoinSet::new();
    // The content on disk, and the earliest time of the next write.
    let (mut kept, mut keeping) = (Lasting::default(), Instant::now());
    loop {
        let next = {
            let Some(servers) = servers.upgrade() else { return Ok(()) };
            let lasting = servers.lasting().filter(|(_, lasting)| *lasting != kept);
            if let Some((directory, lasting)) = lasting.filter(|_| keeping <= Instant::now()) {
                (kept, keeping) = (lasting.clone(), Instant::now() + KEEPING);
                let role = servers.role();
                // If the write fails, DNS finds the list again.
                tokio::task::spawn_blocking(move || lasting.write(&directory, role));
            }
            let due = servers.due(Instant::now());
            if due.list {
                servers.asking();
            }
            for (controller, service) in due.probes {
                let (work, begun) = (probe(Arc::clone(&controller), service), Instant::now());
                probes.spawn(async move {
                    let result = timeout(DEADLINE, work).await;
                    let result = result.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                    (controller, service, begun, result)
                });
            }
            due.next
        };
        tokio::select! {
            () = changed.notified() => {}
            () = sleep_until(next.unwrap_or_else(far)) => {}
            Some(done) = probes.join_next() => {
                let Some(servers) = servers.upgrade() else { return Ok(()) };
                match done {
                    Ok((controller, service, _, Ok(()))) => servers.reached(&controller.host, service),
                    Ok((controller, service, begun, Err(cause))) => {
                        servers.probe_failed(&controller.host, service, &cause, begun);
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

impl Drop for ServerList {
    fn drop(&mut self) {
        // Wakes the keeper so that it ends with the list.
        self.changed.notify_one();
    }
}

/// Stands for "never" if nothing is due: a day from now.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

impl Servers for ServerList {
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
        Box::pin(async move {
            let controllers = match self.wanted.role {
                // The ticket is for a name that AD gives to domain controllers of this domain only. The
                // roster itself is read over the connection that is made here.
                Role::Domain => self.named(Service::Reading).await?,
                Role::GlobalCatalogue => self.controllers(Service::Reading).await?,
            };
            let port = self.wanted.role.port();
            let server = |controller: &Arc<Controller>| Server {
                service: self.service(&controller.host),
                addresses: controller.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
            };
            Ok(controllers.iter().map(server).filter(|server| !server.addresses.is_empty()).collect())
        })
    }

    fn failed(&self, host: &str, cause: &str) {
        ServerList::failed(self, host, Service::Reading, cause);
    }

    fn silent(&self, host: &str, cause: &str) {
        ServerList::silent(self, host, Service::Reading, cause);
    }

    fn doubted(&self, host: &str, cause: &str) {
        ServerList::doubted(self, host, Service::Reading, cause);
    }

    fn answered(&self, host: &str) {
        ServerList::answered(self, host, Service::Reading);
    }

    fn is_preferred(&self, host: &str, other: &str) -> bool {
        ServerList::is_preferred(self, host, other)
    }

    fn is_worth_waiting_for(&self, host: &str, since: Instant) -> bool {
        self.answered_since(host, Service::Reading, since) || !self.has_other(host, Service::Reading)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::directory::controllers::discovery::tests::{Scripted, Zone, zone};
    use crate::directory::controllers::roster::tests::unread;

    const B: Service = Service::Binds;

    struct Bench {
        names: Arc<Scripted>,
        servers: Arc<ServerList>,
        changes: Arc<Mutex<Vec<Change>>>,
    }

    fn bench(zone: Zone) -> Bench {
        let all = Roster::fixed(["a", "b", "c"].map(|host| (host, true)).into_iter().collect());
        bounded(zone, all, &[])
    }

    fn bounded(zone: Zone, roster: Arc<Roster>, servers: &[&str]) -> Bench {
        let names = Arc::new(Scripted(Mutex::new(zone)));
        let changes = Arc::new(Mutex::new(Vec::new()));
        let seen = changes.clone();
        let servers = servers.iter().map(|host| (*host).to_owned()).collect();
        let wanted = Wanted { domain: "acme.com".into(), servers, ..Wanted::default() };
        let observer: Observer = Box::new(move |change| seen.lock().push(change.clone()));
        Bench { servers: ServerList::new(wanted, names.clone(), roster, observer), names, changes }
    }

    impl Bench {
        async fn hosts(&self) -> Result<Vec<String>, String> {
            let controllers = self.servers.controllers(B).await?;
            Ok(controllers.iter().map(|controller| controller.host.clone()).collect())
        }

        fn questions(&self) -> usize {
            self.names.0.lock().asked.len()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_those_that_ad_lists_or_the_administrator_names_are_used() {
        let hosts = async |bench: &Bench, service| -> Vec<String> {
            let controllers = bench.servers.controllers(service).await.unwrap();
            controllers.iter().map(|controller| controller.host.clone()).collect()
        };
        // The roster is read before the first use, and only then.
        let bench = bounded(zone(), unread(&["b"]), &[]);
        let named = bench.servers.named(Service::Reading).await.unwrap();
        assert_eq!(named.len(), 3);
        assert_eq!(bench.servers.strangers(), Vec::<String>::new());
        for service in [B, Service::Kdc] {
            assert_eq!(hosts(&bench, service).await, ["b"]);
        }
        assert_eq!(bench.servers.named(Service::Kdc).await.unwrap()[0].host, "b");
        assert_eq!(bench.servers.strangers().len(), 2);
        assert!(!bench.servers.has_other("b", B));
        assert!(bench.servers.is_preferred("b", "c") && !bench.servers.is_preferred("a", "b"));
        let strangers = bench.servers.report().list.into_iter().filter(|server| server.is_stranger);
        assert_eq!(strangers.count(), 2);
        assert!(bench.servers.circuits().iter().all(|circuit| circuit.host == "b"));

        // A host that the administrator names needs no roster; upper and lower case do not matter.
        let bench = bounded(zone(), Roster::load("acme.com", None), &["X", "_srv_"]);
        assert_eq!(hosts(&bench, B).await, ["x"]);

        // No host is used if the roster cannot be read or names others.
        for (roster, cause) in [
            (Roster::load("acme.com", None), "AD lists cannot be read: there is no machine connection yet"),
            (unread(&["d"]), "AD lists none of the hosts that DNS names as a domain controller ("),
        ] {
            let bench = bounded(zone(), roster, &[]);
            let error = bench.servers.controllers(B).await.unwrap_err();
            assert!(error.contains(cause), "{error}");
        }
    }

    /// Succeeds once `working` has counted down to one.
    fn probe(working: &Arc<AtomicUsize>) -> Probe {
        let working = working.clone();
        Arc::new(move |_, _| {
            let left = working.fetch_sub(1, Ordering::SeqCst);
            Box::pin(async move { if left == 1 { Ok(()) } else { Err("refused".to_owned()) } })
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_tried_last_until_a_probe_finds_it_working() {
        let bench = bench(zone());
        let first = bench.hosts().await.unwrap();
        let refusals = Arc::new(AtomicUsize::new(3));
        bench.servers.keep(probe(&refusals));
        bench.servers.failed(&first[0], B, "refused");
        assert_eq!(bench.hosts().await.unwrap().last(), first.first());
        assert!(!bench.servers.has_other("none", B) || bench.servers.is_down(&first[0], B));
        // Probes after 1, 2 and 4 seconds; the third one succeeds.
        tokio::time::sleep(Duration::from_millis(6500)).await;
        assert_eq!(bench.hosts().await.unwrap().last(), first.first());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(bench.hosts().await.unwrap(), first);
        let changes = bench.changes.lock();
        let states: Vec<_> = changes.iter().map(|change| change.state.clone()).collect();
        assert_eq!(states, [State::Down("refused".into()), State::Up(Some(Duration::from_secs(7)))]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_list_survives_a_silent_dns() {
        let bench = bench(zone());
        let first = bench.hosts().await.unwrap();
        bench.servers.keep(probe(&Arc::default()));
        bench.names.0.lock().silent = true;
        tokio::time::sleep(Duration::from_secs(601)).await;
        assert_eq!(bench.hosts().await.unwrap(), first);
        assert_eq!(bench.servers.report().problem.unwrap(), "no _ldap._tcp.dc._msdcs.acme.com");
        bench.names.0.lock().silent = false;
        tokio::time::sleep(STALE).await;
        assert_eq!(bench.servers.report().problem, None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_dns_loses_none_of_those_that_are_known() {
        let bench = bench(zone());
        let first = bench.hosts().await.unwrap();
        bench.servers.keep(probe(&Arc::default()));
        let settle = async || {
            bench.servers.ask_again();
            tokio::time::sleep(Duration::from_secs(1)).await;
            bench.servers.report().list
        };
        let addresses = |list: &[report::Server]| -> Vec<String> {
            list.iter().flat_map(|server| server.addresses.clone()).collect()
        };
        // DNS does not answer.
        bench.names.0.lock().silent = true;
        let questions = bench.questions();
        settle().await;
        assert!(bench.questions() > questions, "it was asked at once");
        assert_eq!(bench.hosts().await.unwrap(), first);
        // DNS names hosts that AD does not list.
        {
            let mut zone = bench.names.0.lock();
            zone.silent = false;
            for records in zone.srv.values_mut() {
                records.iter_mut().for_each(|record| record.host = "x".into());
            }
        }
        assert!(settle().await.iter().any(|server| server.host == "x"));
        let mut kept = bench.hosts().await.unwrap();
        kept.sort();
        assert_eq!(kept, ["a", "b", "c"]);
        // DNS names another address, where nothing listens; then one that answers.
        let (former, dead, new) = ([10, 0, 0, 1].into(), [10, 0, 0, 9].into(), [10, 0, 0, 7].into());
        *bench.names.0.lock() = zone();
        settle().await;
        let mut other = zone();
        other.dead = vec![dead];
        other.addresses.values_mut().for_each(|addresses| *addresses = vec![dead]);
        *bench.names.0.lock() = other;
        let list = settle().await;
        assert_eq!(list.len(), 3);
        let both: [IpAddr; 2] = [former, dead];
        assert_eq!(list[0].addresses, both.map(|ip| ip.to_string()));
        let mut other = zone();
        other.addresses.values_mut().for_each(|addresses| *addresses = vec![new]);
        *bench.names.0.lock() = other;
        let new: IpAddr = new;
        assert_eq!(addresses(&settle().await), [new.to_string(), new.to_string(), new.to_string()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_start_knows_the_last_domain_controllers_and_begins_with_those_that_worked() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |zone: Zone, servers: &[&str]| {
            let all = ["a", "b", "c"].map(|host| (host, true)).into_iter().collect();
            bounded(zone, Roster::fixed_in(all, folder.path()), servers)
        };
        let before = begin(zone(), &[]);
        let first = before.hosts().await.unwrap();
        before.servers.keep(probe(&Arc::default()));
        before.servers.failed(&first[0], B, "refused");
        before.servers.failed(&first[1], B, "refused");
        let file = folder.path().join("last-domain-acme.com.json");
        // Written by a thread that does not follow the test's clock; the second failure may come later.
        for _ in 0..1000 {
            tokio::time::sleep(KEEPING).await;
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if text.matches("\"binds\"").count() == 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(before);
        let after = begin(Zone { silent: true, ..zone() }, &[]);
        let hosts = after.hosts().await.unwrap();
        assert_eq!((hosts.len(), &hosts[0]), (3, &first[2]));
        assert_eq!(after.questions(), 0, "no login waits for DNS");
        // A doubt is not reported: a probe decides.
        assert_eq!(*after.changes.lock(), []);
        // Hosts that the administrator names are the whole list.
        let after = begin(Zone { silent: true, ..zone() }, &["B"]);
        assert_eq!(after.hosts().await.unwrap(), ["b"]);
        let after = begin(Zone { silent: true, ..zone() }, &["x"]);
        after.hosts().await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_dies_is_left_for_the_hosts_other_one() {
        let [one, two] = [1, 2].map(|end| IpAddr::from([10, 0, 0, end]));
        let mut zone = zone();
        zone.addresses.insert("a".to_owned(), vec![one, two]);
        let bench = bench(zone);
        let first = async || {
            let controllers = bench.servers.controllers(B).await.unwrap();
            controllers.iter().find(|controller| controller.host == "a").unwrap().addresses[0]
        };
        assert_eq!(first().await, one);
        bench.servers.keep(probe(&Arc::default()));
        bench.names.0.lock().dead = vec![one];
        bench.servers.silent("a", B, "no answer in time");
        tokio::time::sleep(AGAIN + Duration::from_millis(1)).await;
        assert_eq!(first().await, two);
    }

    #[tokio::test(start_paused = true)]
    async fn many_wait_for_one_question() {
        let bench = Arc::new(bench(Zone { silent: true, ..zone() }));
        let mut waiting = JoinSet::new();
        for _ in 0..100 {
            let bench = bench.clone();
            waiting.spawn(async move { bench.hosts().await });
        }
        while let Some(answer) = waiting.join_next().await {
            assert!(answer.unwrap().unwrap_err().contains("_msdcs"));
        }
        assert_eq!(bench.questions(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_asked_for_again_when_its_time_is_over() {
        let bench = bench(zone());
        bench.hosts().await.unwrap();
        bench.servers.keep(probe(&Arc::default()));
        let before = bench.questions();
        tokio::time::sleep(Duration::from_secs(590)).await;
        assert_eq!(bench.questions(), before);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(bench.questions() > before);
    }
}
