//! The events of `make soak`, and the rounds in which they happen.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use motion_ad::protocol::report::EndReason;

use crate::app::App;
use crate::cast::person;
use crate::lab::{self, wait};
use crate::pam::pam;
use crate::ready::{ready, start_after};
use crate::register::{end_of, of};
use crate::report::{Check, equal};
use crate::row::Method;
use crate::sessions::{PATIENT, came_in, login};
use crate::shared::Shared;

/// Time before the first event of a round, in seconds.
const CALM: u64 = 4;
/// Pauses between two events, in seconds.
const PAUSES: std::ops::RangeInclusive<u64> = 1..=4;
/// Number of events in a round without restarts.
const DEALT: usize = 6;

/// Offset of the broker's clock, which libfaketime reads every second. The lab's machines share the kernel's
/// clock, and none may set it.
const CLOCK: &str = "/run/motion-ad-clock";
/// Maximum time until the broker reads it.
const STEPPED: Duration = Duration::from_secs(10);
const DROP_IN: &str = "/run/systemd/system/motion-ad.service.d";

/// An event. Times are in seconds: it `lasts` until its end begins, which `takes` about that time.
#[derive(Clone, Copy)]
pub struct Event {
    pub name: &'static str,
    lasts: u64,
    takes: u64,
    pub begin: Act,
    pub end: Act,
    hides: Hides,
}

/// A step that begins or ends an event.
#[derive(Clone, Copy)]
pub enum Act {
    Nothing,
    /// A command of the lab.
    Lab(&'static [&'static str]),
    Do(fn(&Stage) -> Check),
}
use Act::{Do, Lab, Nothing};

/// The logins that get no answer of AD during an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hides {
    Nothing,
    /// No domain controller can be reached.
    Ad,
    /// A KDC rejects the requests of a host whose clock is off by more than five minutes.
    AdFromKerberos,
}

const fn event(name: &'static str, (lasts, takes): (u64, u64), begin: Act, end: Act) -> Event {
    Event { name, lasts, takes, begin, end, hides: Hides::Nothing }
}

impl Event {
    const fn hides(self, hides: Hides) -> Self {
        Event { hides, ..self }
    }

    /// Returns true if logins by this method may be answered as unavailable during the event.
    pub fn hides_ad(&self, method: Method) -> bool {
        match self.hides {
            Hides::Nothing => false,
            Hides::Ad => true,
            Hides::AdFromKerberos => method == Method::Kerberos,
        }
    }
}

const DC_KILLED: Event =
    event("a DC is killed", (8, 12), Lab(&["dc", "kill", "dc"]), Lab(&["dc", "start", "dc"]));
const SECOND_KILLED: Event =
    event("the second DC is killed", (8, 12), Lab(&["dc", "kill", "dc2"]), Lab(&["dc", "start", "dc2"]));
const SECOND_HANGS: Event =
    event("the second DC hangs", (7, 1), Lab(&["dc", "hang", "dc2"]), Lab(&["dc", "continue", "dc2"]));
const DC_SILENT: Event =
    event("packets to a DC vanish", (7, 1), Lab(&["net", "blackhole", "dc"]), Lab(&["net", "heal", "dc"]));
const BOTH_SILENT: Event =
    event("packets to both DCs vanish", (6, 3), Do(|s| s.both("blackhole")), Do(|s| s.both("heal")))
        .hides(Hides::Ad);
const REDIS_KILLED: Event =
    event("Redis is killed", (5, 3), Lab(&["redis", "kill"]), Lab(&["redis", "start"]));
const REDIS_RESTARTED: Event = event("Redis is restarted", (0, 4), Lab(&["redis", "restart"]), Nothing);
const DISK_FULL: Event = event("the disk is full", (7, 1), Do(|s| s.disk("full")), Do(|s| s.disk("free")));
const CLOCK_AHEAD: Event = event(
    "the broker's clock is two minutes ahead",
    (6, 2),
    Do(|s| clock(s.lab, 120)),
    Do(|s| clock(s.lab, 0)),
);
const CLOCK_OFF: Event =
    event("the broker's clock is an hour ahead", (6, 2), Do(|s| clock(s.lab, 3600)), Do(|s| clock(s.lab, 0)))
        .hides(Hides::AdFromKerberos);
const KICK: Event = event("an administrator evicts a user", (0, 2), Do(|s| kick(s.lab)), Nothing);

// These restart the broker, because a file that it was started from changes.
const NEW_KEY: Event = event(
    "the machine's password is renewed",
    (2, 2),
    Do(|s| s.sh("adcli update --domain=acme.com --computer-password-lifetime=0")),
    Lab(&["dc", "replicate"]),
);
const OTHER_METHOD: Event =
    event("the configuration has another method", (7, 3), Do(|s| s.other_method()), Do(|s| s.own_method()));
/// The files of these events.
pub const CHANGED: [&str; 3] = ["/etc/krb5.keytab", "/etc/motion-ad/config.toml", "/etc/motion-ad/ca.pem"];

/// A configuration, and the events that happen with it.
pub struct Round {
    pub name: &'static str,
    pub method: Method,
    in_redis: bool,
    events: &'static [Event],
    /// True if events restart the broker.
    pub restarts: bool,
}

/// Rounds with events that restart the broker. Together they have every event.
pub const CHANGING: [Round; 2] = [
    Round {
        name: "passwords by LDAP, the register in a file",
        method: Method::Ldap,
        in_redis: false,
        events: &[DC_KILLED, SECOND_HANGS, DISK_FULL, CLOCK_AHEAD, NEW_KEY, OTHER_METHOD],
        restarts: true,
    },
    Round {
        name: "passwords by Kerberos, the register in Redis",
        method: Method::Kerberos,
        in_redis: true,
        events: &[
            SECOND_KILLED,
            DC_SILENT,
            BOTH_SILENT,
            REDIS_KILLED,
            REDIS_RESTARTED,
            CLOCK_OFF,
            NEW_KEY,
            OTHER_METHOD,
            KICK,
        ],
        restarts: true,
    },
];

/// The rounds of the second half, in which one broker must live.
pub const LASTING: Round = Round {
    name: "one broker, passwords by LDAP, the register in Redis",
    method: Method::Ldap,
    in_redis: true,
    events: &[
        DC_KILLED,
        SECOND_KILLED,
        SECOND_HANGS,
        DC_SILENT,
        BOTH_SILENT,
        REDIS_KILLED,
        REDIS_RESTARTED,
        DISK_FULL,
        CLOCK_AHEAD,
        CLOCK_OFF,
        KICK,
    ],
    restarts: false,
};

/// An event and its time since the beginning of the round, in seconds.
pub struct Planned {
    pub at: u64,
    pub until: u64,
    pub event: Event,
}

/// The events of the lasting rounds that have not happened since all had.
#[derive(Default)]
pub struct Deck(Vec<Event>);

impl Round {
    /// Returns the round's events in a random order, and its length in seconds.
    pub fn plan(&self, random: &mut Rng, deck: &mut Deck) -> (Vec<Planned>, u64) {
        let mut events = match self.restarts {
            true => self.events.to_vec(),
            false => deck.deal(random, self.events),
        };
        random.shuffle(&mut events);
        let mut now = CALM;
        let planned = events.into_iter().map(|event| {
            let at = now;
            let until = at + event.lasts;
            now = until + event.takes + random.u64(PAUSES);
            Planned { at, until, event }
        });
        (planned.collect(), now)
    }
}

impl Deck {
    fn deal(&mut self, random: &mut Rng, all: &[Event]) -> Vec<Event> {
        let mut dealt: Vec<Event> = Vec::new();
        while dealt.len() < DEALT {
            if self.0.is_empty() {
                self.0 = all.to_vec();
                random.shuffle(&mut self.0);
            }
            dealt.extend(self.0.pop());
        }
        dealt
    }
}

/// The host, and the configuration of the present round.
pub struct Stage<'a> {
    pub lab: &'a lab::Lab,
    redis: Shared,
    method: Method,
    sessions: String,
}

impl<'a> Stage<'a> {
    /// Prepares the host for every event.
    pub fn set(lab: &'a lab::Lab) -> Result<Self, String> {
        let redis = Shared::up(lab, &[lab], &["--tls"])?;
        let stage = Stage { lab, redis, method: Method::Ldap, sessions: String::new() };
        stage.disk("small")?;
        // The doctor would warn of it.
        stage.sh("sed -i '/XC_ACTIVEDIRECTORY_PASSWORD/d' /var/opt/motion2/.env")?;
        clock(lab, 0)?;
        let script = format!(
            "mkdir -p {DROP_IN} && printf '[Service]\\nEnvironment=FAKETIME_TIMESTAMP_FILE={CLOCK} \
             FAKETIME_CACHE_DURATION=1 DONT_FAKE_MONOTONIC=1 FAKETIME_DISABLE_SHM=1 LD_PRELOAD=%s\\n' \
             /usr/lib/*/faketime/libfaketime.so.1 >{DROP_IN}/clock.conf && systemctl daemon-reload && \
             systemctl restart motion-ad.service"
        );
        stage.sh(&script)?;
        Ok(stage)
    }

    /// Leaves the host as it was.
    pub fn clear(self) -> Check {
        self.sh(&format!("rm -rf {DROP_IN} {CLOCK} && systemctl daemon-reload"))?;
        self.disk("whole")?;
        self.lab.set_method(Method::Ldap);
        Shared::down(self.lab, &[self.lab])
    }

    /// Starts a broker with the round's configuration.
    pub fn configure(&mut self, round: &Round) -> Check {
        self.method = round.method;
        self.sessions = if round.in_redis { self.redis.section() } else { String::new() };
        self.lab.set_method(self.method);
        start_after(self.lab, || self.lab.configure(&self.sessions))?;
        ready(self.lab)
    }

    fn other_method(&self) -> Check {
        self.lab.set_method(match self.method {
            Method::Ldap => Method::Kerberos,
            Method::Kerberos => Method::Ldap,
        });
        self.lab.configure(&self.sessions)
    }

    fn own_method(&self) -> Check {
        self.lab.set_method(self.method);
        self.lab.configure(&self.sessions)
    }

    /// Begins or ends an event.
    pub fn act(&self, act: Act) -> Check {
        match act {
            Nothing => Ok(()),
            Lab(command) => self.lab(command),
            Do(act) => act(self),
        }
    }

    fn lab(&self, command: &[&str]) -> Check {
        self.lab.run(command).ok().map(drop)
    }

    fn sh(&self, script: &str) -> Check {
        self.lab.host_sh(script).ok().map(drop)
    }

    fn both(&self, verb: &str) -> Check {
        self.lab.dcs().iter().try_for_each(|dc| self.lab(&["net", verb, dc]))
    }

    fn disk(&self, verb: &str) -> Check {
        self.lab(&["disk", verb, self.lab.host_name()])
    }
}

/// Sets the broker's clock ahead by these seconds. Within a second it steps.
pub fn clock(lab: &lab::Lab, ahead: u64) -> Check {
    // A reader finds the old or the new line, never an empty file.
    lab.host_sh(&format!("echo +{ahead} >{CLOCK}.new && mv {CLOCK}.new {CLOCK}")).ok().map(drop)
}

/// Checks that the broker's clock steps while it runs, ahead and back: a session says when it was opened.
pub fn steps(lab: &lab::Lab) -> Check {
    let sally = person("sally");
    for ahead in [120, 0] {
        clock(lab, ahead)?;
        wait(STEPPED, || {
            let calls = ["authenticate", "open_session"];
            equal("PAM", pam(lab, "motion", sally.sam, sally.password, &calls).code.as_str(), "PAM_SUCCESS")?;
            let opened = of(lab, sally.sam)?.last().map(|session| session.since).unwrap_or_default();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            equal("the clock is ahead", opened / 1000 > now + 60, ahead > 0)
        })?;
    }
    Ok(())
}

fn kick(lab: &lab::Lab) -> Check {
    let mut app = App::start(lab)?;
    let id = came_in(&[app.run(login("kicked", "sally", PATIENT))?], true)?.remove(0);
    lab.host("root", &["motion-ad", "sessions", "kick", &id], "").ok()?;
    equal(person("sally").sam, end_of(lab, &id)?, Some(EndReason::Kicked))
}
