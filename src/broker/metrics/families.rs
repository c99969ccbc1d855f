//! The table of metrics, and their text: OpenMetrics 1.0, written by prometheus-client.
//!
//! Only counters, gauges and histograms, without creation times, so that readers of Prometheus' older text
//! format can parse it, too: node-exporter's textfile collector, Zabbix.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// The prefix of every name.
const PREFIX: &str = "motion_ad";

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows; its name gets `_total`.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A gauge in seconds; its name gets `_seconds`.
    Seconds,
    /// A histogram of durations in seconds; its name gets `_seconds`.
    Times,
}

impl Kind {
    fn encoded(self) -> (MetricType, Option<Unit>) {
        match self {
            Kind::Counter => (MetricType::Counter, None),
            Kind::Gauge => (MetricType::Gauge, None),
            Kind::Seconds => (MetricType::Gauge, Some(Unit::Seconds)),
            Kind::Times => (MetricType::Histogram, Some(Unit::Seconds)),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Seconds | Kind::Times => "_seconds",
        }
    }
}

/// Declares the metrics as one table, so that a name or a text cannot be forgotten.
macro_rules! families {
    ($($variant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)+) => {
        /// A metric; with each set of labels it has one value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Family {
            $(#[doc = $help] $variant,)+
        }

        impl Family {
            /// Every family, in the order of the text.
            pub const ALL: &'static [Family] = &[$(Family::$variant,)+];

            /// Returns the kind of the metric.
            pub fn kind(self) -> Kind {
                match self { $(Family::$variant => Kind::$kind,)+ }
            }

            /// Returns the names of its labels.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Family::$variant => &[$($label),*],)+ }
            }

            /// Returns its help text.
            pub fn help(self) -> &'static str {
                match self { $(Family::$variant => $help,)+ }
            }

            /// Returns its name without the common prefix and the suffix.
            fn stem(self) -> &'static str {
                match self { $(Family::$variant => $name,)+ }
            }
        }
    };
}

families! {
    Serving = "serving", Gauge, [],
        "1 if a login can succeed now, as checked within the last 10 seconds; 0 if none can, for any cause.";
    Well = "well", Gauge, [],
        "1 if all is well, as in motion-ad status and motion-ad ready; 0 if there is a problem, even if \
         users can still log in.";
    ConfigCurrent = "config_current", Gauge, [],
        "0 while the last good configuration stays in force because the file on disk cannot be used; else 1.";
    BuildInfo = "build_info", Gauge, ["version"], "The version of the package; its value is always 1.";
    Started = "start_timestamp", Seconds, [],
        "When the broker started; it restarts after each change of its configuration or of the join, and \
         keeps its counters.";
    Logins = "logins", Counter, ["outcome"], "Logins by outcome.";
    LoginDuration = "login_duration", Times, ["method"],
        "Time that logins took in the broker, by the method that checked the password: ldap, kerberos, or \
         none.";
    AccountChecks = "account_checks", Counter, ["outcome"],
        "Checks of accounts whose password was checked elsewhere, by outcome.";
    Observed = "observed", Counter, ["outcome"],
        "Logins and account checks that were only observed (argument observe), by outcome; the two families \
         above count them, too.";
    PasswordProbes = "password_probes", Counter, ["outcome"],
        "Checks of the present password before a change, by outcome.";
    PasswordChanges = "password_changes", Counter, ["outcome"], "Changes of passwords by outcome.";
    SessionOpens = "session_opens", Counter, ["outcome"], "Calls of open_session by outcome.";
    SessionCloses = "session_closes", Counter, ["outcome"], "Calls of close_session by outcome.";
    Refused = "requests_refused", Counter, ["reason"],
        "Requests without a decision: from a user without the right (stranger), malformed, read too late \
         (overloaded), or whose answer no client read (unanswered).";
    Connections = "connections", Gauge, [], "Connections from applications.";
    ConnectionsMax = "connections_max", Gauge, [],
        "Maximum number of connections from applications (broker.connections).";
    LogLost = "log_lines_lost", Counter, [], "Lines of the log that were lost because syslog is too slow.";
    Panics = "panics", Counter, [],
        "Faults of the program (panics) that were caught; each is a line `event=panic` in the log.";
    TaskUp = "task_up", Gauge, ["task"],
        "1 if a background task runs; 0 while it waits for its restart after a failure.";
    TaskFailures = "task_failures", Counter, ["task"],
        "How many times a background task failed; it restarts each time.";
    PasswordMethod = "password_method", Gauge, ["domain", "method"],
        "How passwords are checked, once that is known; its value is always 1.";
    DcUp = "dc_up", Gauge, ["domain", "dc", "service"],
        "1 if the last request to this service of a domain controller succeeded, else 0; absent before the \
         first request.";
    DcOutages = "dc_outages", Counter, ["domain", "dc", "service"],
        "How often a service of a domain controller failed after it had worked.";
    DcCertificate = "dc_certificate_expiry_timestamp", Seconds, ["domain", "dc"],
        "When the last verified certificate of a domain controller expires.";
    DcListFresh = "dc_list_fresh", Gauge, ["domain"],
        "1 if the list of domain controllers is as DNS or the configuration has it; 0 if DNS did not answer.";
    Pool = "pool_connections", Gauge, ["domain", "state"],
        "Connections for binds: busy with a login, or idle.";
    PoolMax = "pool_connections_max", Gauge, ["domain"],
        "Maximum number of connections for binds (pool.connections).";
    PoolRefused = "pool_refused", Counter, ["domain"],
        "Logins that were denied because every connection was busy until their deadline.";
    MachineConnected = "machine_connected", Gauge, [],
        "1 if the machine account's connection is open, else 0; the domain controller may close an idle one.";
    MachineConnects = "machine_connects", Counter, [], "How often the machine account has connected.";
    MachineTicket = "machine_ticket_expiry_timestamp", Seconds, [],
        "When the ticket of the machine account's connection expires.";
    TrustRead = "trust_read_timestamp", Seconds, [],
        "When the forest's trusted roots were last read; absent if tls.ca_file names the roots.";
    TrustCrls = "trust_crls", Gauge, [], "Certificate revocation lists in use.";
    TrustRoot = "trust_root_expiry_timestamp", Seconds, ["subject", "sha256"],
        "When a root of tls.ca_file or of the forest expires; the system's roots are left out.";
    Sessions = "sessions", Gauge, [],
        "Open sessions in the register, of all servers that share it; absent if it does not answer.";
    SessionsEnded = "sessions_ended", Counter, ["reason"], "Sessions that this broker ended, by reason.";
    SessionWatchers = "session_watchers", Gauge, [], "Requests that wait for events of sessions.";
}

impl Family {
    /// Returns its whole name, as a query has it; for [`Kind::Times`], the common start of the names of its
    /// parts.
    pub fn name(self) -> String {
        format!("{PREFIX}_{}{}", self.stem(), self.kind().suffix())
    }
}

/// A histogram to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// Sum in seconds.
    pub(super) sum: f64,
    /// Upper bounds in seconds, each with the count of the values above the one before.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(u64),
    Histogram(Histogram),
}

type Labels = Vec<(&'static str, String)>;

/// The values of one scrape.
#[derive(Debug, Default)]
pub(super) struct Page(BTreeMap<Family, BTreeMap<Labels, Value>>);

impl Page {
    /// Sets the value of `family` for these values of its labels, in their order. A later call with the same
    /// labels replaces the value.
    pub(super) fn add<const N: usize>(&mut self, family: Family, labels: [&str; N], value: u64) {
        self.put(family, labels, Value::Number(value));
    }

    /// Sets a histogram in the same way.
    pub(super) fn times(&mut self, family: Family, labels: [&str; 1], value: Histogram) {
        self.put(family, labels, Value::Histogram(value));
    }

    fn put<const N: usize>(&mut self, family: Family, labels: [&str; N], value: Value) {
        let labels = family.labels().iter().copied().zip(labels.map(str::to_owned)).collect();
        self.0.entry(family).or_default().insert(labels, value);
    }

    /// Returns the text, including its last line.
    ///
    /// # Errors
    /// Returns `fmt::Error` if prometheus-client cannot write to a string, for which there is no known
    /// reason.
    pub(super) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (family, values) in &self.0 {
            let (kind, unit) = family.kind().encoded();
            let mut metric = encoder.encode_descriptor(family.stem(), family.help(), unit.as_ref(), kind)?;
            for (labels, value) in values {
                let mut metric = metric.encode_family(labels)?;
                match value {
                    Value::Histogram(times) => metric.encode_histogram::<NoLabelSet>(
                        times.sum,
                        times.count(),
                        &times.buckets,
                        None,
                    )?,
                    Value::Number(value) if family.kind() == Kind::Counter => {
                        metric.encode_counter::<NoLabelSet, u64, f64>(value, None)?;
                    }
                    Value::Number(value) => metric.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use motion_ad_support::openmetrics;

    use super::*;

    /// A page with a value for every family.
    fn full() -> Page {
        let mut page = Page::default();
        for (value, family) in (1..).zip(Family::ALL) {
            for hostile in ["a\"b\\c\nd}", "ö=\u{202e},"] {
                let labels = family.labels().iter().map(|label| (*label, hostile.to_owned())).collect();
                let value = match family.kind() {
                    Kind::Times => {
                        Value::Histogram(Histogram { sum: 0.5, buckets: vec![(0.1, 2), (f64::INFINITY, 1)] })
                    }
                    _ => Value::Number(value),
                };
                page.0.entry(*family).or_default().insert(labels, value);
            }
        }
        page
    }

    #[test]
    fn the_text_keeps_every_rule_of_openmetrics_whatever_a_label_holds() {
        let text = full().text().unwrap();
        let read = openmetrics::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(read.len(), Family::ALL.len());
        let domain = &read["motion_ad_dc_up"].samples[0].1["domain"];
        assert_eq!(domain, "a\"b\\c\nd}");
    }

    #[test]
    fn names_are_as_queries_have_them() {
        let text = full().text().unwrap();
        for family in Family::ALL {
            let name = family.name();
            let part = if family.kind() == Kind::Times { "_bucket{" } else { "" };
            assert!(text.lines().any(|line| line.starts_with(&format!("{name}{part}"))), "{name}");
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(is_plain) && !family.help().contains(['\n', '\\']), "{name}");
        }
    }

    #[test]
    fn nobody_is_named() {
        let people =
            ["user", "name", "principal", "guid", "dn", "peer", "uid", "service_name", "rhost", "session"];
        for family in Family::ALL {
            assert!(!family.labels().iter().any(|label| people.contains(label)), "{family:?}");
        }
    }

    #[test]
    fn of_two_values_with_the_same_labels_one_is_told() {
        let mut page = Page::default();
        page.add(Family::DcUp, ["acme.com", "dc1", "binds"], 1);
        page.add(Family::DcUp, ["acme.com", "dc1", "binds"], 0);
        let text = page.text().unwrap();
        assert!(
            text.ends_with("motion_ad_dc_up{domain=\"acme.com\",dc=\"dc1\",service=\"binds\"} 0\n# EOF\n"),
            "{text}"
        );
        assert_eq!(openmetrics::parse(&text).unwrap()["motion_ad_dc_up"].samples.len(), 1);
    }
}
