//! The values of one scrape. Collecting them queries no domain controller and logs nothing.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::families::Page;
use super::{Event, Family, METHODS, Metrics, Refused};
use crate::broker::Broker;
use crate::broker::service::Service;
use crate::directory::controllers::discovery::Role;
use crate::directory::controllers::health::Service as Part;
use crate::supervise;

/// Longest wait for the register of sessions, which may be in a Redis.
const REGISTER: Duration = Duration::from_secs(1);
/// Number of hexadecimal digits of a fingerprint that tell roots of one name apart.
const FINGERPRINT: usize = 16;

impl Broker {
    /// Returns the present state of the broker in OpenMetrics' text format.
    ///
    /// # Errors
    /// Returns `fmt::Error` if the text cannot be written, for which there is no known reason.
    pub async fn metrics_text(&self) -> Result<String, fmt::Error> {
        let mut page = Page::default();
        let health = self.health_seen().await;
        page.add(Family::Serving, [], health.is_serving().into());
        page.add(Family::Well, [], health.problems.is_empty().into());
        page.add(Family::ConfigCurrent, [], self.kept.is_none().into());
        page.add(Family::BuildInfo, [env!("CARGO_PKG_VERSION")], 1);
        page.add(
            Family::Connections,
            [],
            self.connections.saturating_sub(self.room.available_permits()) as u64,
        );
        page.add(Family::ConnectionsMax, [], self.connections as u64);
        page.add(Family::LogLost, [], self.log().lost());
        self.metrics.measure(&mut page);
        measure_tasks(&mut page);
        if let Ok(service) = &self.service {
            service.measure(&mut page).await;
        }
        page.text()
    }
}

impl Metrics {
    fn measure(&self, page: &mut Page) {
        page.add(Family::Started, [], seconds(self.started));
        for event in Event::ALL {
            for (outcome, count) in self.outcomes(event) {
                page.add(event.family(), [outcome.name()], count);
            }
        }
        for (outcome, count) in self.observed_outcomes() {
            page.add(Family::Observed, [outcome.name()], count);
        }
        for (method, times) in METHODS.iter().zip(&self.logins) {
            let method = method.map_or_else(|| "none".to_owned(), |method| method.to_string());
            page.times(Family::LoginDuration, [&method], times.histogram());
        }
        for why in Refused::ALL {
            page.add(Family::Refused, [why.name()], self.refusals(why));
        }
    }
}

impl Service {
    async fn measure(&self, page: &mut Page) {
        self.measure_domains(page);
        self.measure_pools(page);
        let machine = self.machine.state();
        page.add(Family::MachineConnected, [], machine.connected.into());
        page.add(Family::MachineConnects, [], machine.connects);
        if let Some(ends) = machine.ticket.and_then(|left| SystemTime::now().checked_add(left)) {
            page.add(Family::MachineTicket, [], seconds(ends));
        }
        let trust = self.trust.report();
        if let Some(read) = self.trust.read() {
            page.add(Family::TrustRead, [], seconds(read));
        }
        page.add(Family::TrustCrls, [], trust.crls as u64);
        for root in &trust.roots {
            let fingerprint = root.sha256.get(..FINGERPRINT).unwrap_or_default();
            page.add(Family::TrustRoot, [&root.subject, fingerprint], root.not_after);
        }
        if let Some(open) = self.register.open_now(Instant::now() + REGISTER).await {
            page.add(Family::Sessions, [], open);
        }
        for (reason, count) in self.register.ended() {
            page.add(Family::SessionsEnded, [reason.name()], count);
        }
        page.add(Family::SessionWatchers, [], self.register.watching() as u64);
    }

    fn measure_domains(&self, page: &mut Page) {
        for servers in self.domains.all() {
            let (domain, is_domain) = (servers.domain(), servers.role() == Role::Domain);
            if let Some(fresh) = servers.is_fresh().filter(|_| is_domain) {
                page.add(Family::DcListFresh, [domain], fresh.into());
            }
            for circuit in servers.circuits() {
                // A catalogue serves reads only.
                let service = match circuit.service {
                    Part::Reading if !is_domain => "catalogue".to_owned(),
                    _ if !is_domain => continue,
                    service => service.to_string(),
                };
                let labels = [domain, &circuit.host, &service];
                if let Some(works) = circuit.works {
                    page.add(Family::DcUp, labels, works.into());
                }
                page.add(Family::DcOutages, labels, circuit.outages);
            }
        }
    }

    fn measure_pools(&self, page: &mut Page) {
        for (domain, pool) in self.logins.passwords.pools() {
            let method = self.logins.passwords.report(&domain).name;
            if !method.is_empty() {
                page.add(Family::PasswordMethod, [&domain, &method], 1);
            }
            let report = pool.report();
            page.add(Family::Pool, [&domain, "busy"], report.busy as u64);
            page.add(Family::Pool, [&domain, "idle"], report.idle as u64);
            page.add(Family::PoolMax, [&domain], report.max as u64);
            page.add(Family::PoolRefused, [&domain], pool.refused());
            for (dc, ends) in pool.certificates() {
                page.add(Family::DcCertificate, [&domain, &dc], ends);
            }
        }
    }
}

fn measure_tasks(page: &mut Page) {
    page.add(Family::Panics, [], supervise::tasks().panics());
    for (name, task) in supervise::tasks().report() {
        page.add(Family::TaskUp, [name], (task.waiting == 0).into());
        page.add(Family::TaskFailures, [name], task.failures);
    }
}

/// Converts `time` to seconds since 1970-01-01 UTC.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
