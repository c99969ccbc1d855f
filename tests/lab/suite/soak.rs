//! Endurance: logins, sessions, changes of passwords and binds at the bridge, while everything around the
//! broker fails in turn, for an hour. Every answer is compared with the truth, every counter of AD with the
//! number of wrong passwords, and the processes and the log with their bounds.
//!
//! A run consists of rounds, each with every fault in an order that `SOAK_SEED` decides. In the first half of
//! the time the rounds have events that restart the broker; in the second half one broker must last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::app::{App, Done};
use crate::bridge;
use crate::cast::person;
use crate::doctor::healthy;
use crate::failover::{Control, DEADLINE, NOBODYS, ONCE, RIGHT, Tried, WRONG};
use crate::failover::{carried, counters, figures, none, reasons, right};
use crate::health::well;
use crate::lab::{Lab, LogPosition, of_broker, wait};
use crate::load::{Load, Login};
use crate::pam::Answer;
use crate::passwords::{is_true, typed};
use crate::register::{self, clear, of, one_remains};
use crate::report::{Check, Report, equal};
use crate::row::{Method, fields};
use crate::sessions::{PATIENT, came_in, login, services};
use crate::soak_bounds::{Rest, log, marks};
use crate::soak_events::{CHANGED, CHANGING, Deck, LASTING, Planned, Round, Stage, steps};

/// Length of a run in minutes, unless `SOAK_MINUTES` says otherwise.
const MINUTES: u64 = 60;
/// Maximum time until all is well after a round.
const BACK: Duration = Duration::from_secs(60);
/// Maximum time until the broker has written its lines.
const WRITTEN: Duration = Duration::from_secs(20);
/// Delays of wrong passwords in milliseconds: two after the beginning of an event, one after its end.
const WRONG_AFTER: [u64; 2] = [100, 1500];
const WRONG_AT_END: u64 = 1500;
/// Wrong passwords of one user in a round: fewer than lock an account out.
const TRIES: usize = 2;
/// Number of binds of which one has a wrong password, while there are tries.
const WRONG_BIND: usize = 20;
/// Attempts of the control at rest.
const CONTROLS: usize = 3;
/// Pause between two session logins, and between two binds.
const PAUSE: Duration = Duration::from_millis(500);

/// The code of a login that was not decided.
const UNDECIDED: &str = "PAM_AUTHINFO_UNAVAIL";

/// User of the session logins. All of them replace each other.
const SEATED: &str = "seth";
/// Users that bind at the bridge: with the right password, and with a wrong one.
const BINDS: &str = "sophie";
const BINDS_WRONG: &str = "greta";
/// Users that change the password, each with the new one. max's has expired, so kpasswd changes it.
const CHANGES: [(&str, &str); 2] = [("sven", "Sv3n-soaks-his-sofas"), ("max", "M4x-may-mop-mops")];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let whole = Duration::from_secs(60 * number("SOAK_MINUTES").unwrap_or(MINUTES));
    println!("         SOAK_SEED={seed} repeats the order of the events");
    services(lab)?;
    bridge::enable(lab)?;
    let stage = Stage::set(lab)?;
    report.check("the broker's clock steps while it runs", || steps(lab));
    lab.run(&["cast", "reset"]).ok()?;
    let mut soak = Soak::new(stage, seed);
    // Every round with restarts has both methods, and this one the rate that both carry.
    soak.stage.configure(&CHANGING[1])?;
    soak.rate(&CHANGING[1])?;
    let mut rounds = CHANGING.iter().cycle();
    let (begun, mut left) = (Instant::now(), CHANGING.len());
    while left > 0 || begun.elapsed() < whole / 2 {
        let Some(round) = rounds.next() else { break };
        soak.stage.configure(round)?;
        soak.round(report, round)?;
        left = left.saturating_sub(1);
    }
    soak.stage.configure(&LASTING)?;
    soak.rest.take(lab)?;
    loop {
        soak.round(report, &LASTING)?;
        if begun.elapsed() >= whole {
            break;
        }
    }
    println!("         {} in {:.0} minutes", soak.sum, begun.elapsed().as_secs_f64() / 60.0);
    report.check("this machine carried the logins in half of the rounds or more", || {
        equal("enough", soak.sum.unjudged * 2 <= soak.sum.rounds, true)
    });
    soak.quiet(report, &LASTING);
    soak.rest.check(report, soak.fastest);
    report.check("the doctor says that all is well", || healthy(lab, ""));
    soak.stage.clear()?;
    bridge::disable(lab)
}

/// A run, and what the rounds know of each other.
struct Soak<'a> {
    stage: Stage<'a>,
    random: Rng,
    deck: Deck,
    /// Logins per second: now, and with Kerberos when that was last measured.
    rate: usize,
    by_kerberos: usize,
    /// Highest rate of a round.
    fastest: usize,
    control: Control,
    rest: Rest,
    sum: Sum,
}

/// Numbers of all rounds together.
#[derive(Default)]
struct Sum {
    rounds: usize,
    /// Rounds during which this machine was too busy for the logins.
    unjudged: usize,
    logins: usize,
    wrong: usize,
    unavailable: usize,
    seats: usize,
    binds: usize,
    events: usize,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sum { rounds, unjudged, logins, wrong, unavailable, seats, binds, events } = self;
        write!(
            f,
            "{rounds} rounds, {unjudged} of them on a machine that was too busy; {events} events; {logins} \
             logins and {binds} binds, {wrong} of them with a wrong password, {unavailable} unavailable; \
             {seats} session logins"
        )
    }
}

/// Everything that users did in one round.
struct Seen {
    /// Logins and binds, by the time in milliseconds since the round began.
    logins: Vec<Login>,
    binds: Vec<Login>,
    seats: Vec<Done>,
    changes: Vec<Answer>,
    happened: Happened,
}

/// The events as they happened, in milliseconds.
#[derive(Default)]
struct Happened {
    /// Beginnings and ends.
    all: Vec<(f64, String)>,
    /// Times in which AD could not be reached.
    hidden: Vec<(f64, f64)>,
}

impl Happened {
    /// Returns true if AD could not be reached during a part of the login.
    fn hides(&self, login: &Login) -> bool {
        let (from, to) = (login.due + login.late, login.due + login.late + login.took);
        self.hidden.iter().any(|(begun, over)| from < *over && to > *begun)
    }
}

impl<'a> Soak<'a> {
    fn new(stage: Stage<'a>, seed: u64) -> Self {
        Soak {
            stage,
            random: Rng::with_seed(seed),
            deck: Deck::default(),
            rate: 1,
            by_kerberos: 1,
            fastest: 1,
            control: Control { slowest: 0.0, latest: 0.0 },
            rest: Rest::default(),
            sum: Sum::default(),
        }
    }

    /// Lets the events of one round happen, and compares everything with the truth.
    fn round(&mut self, report: &mut Report, round: &Round) -> Check {
        let lab = self.stage.lab;
        self.sum.rounds += 1;
        report.note(&format!("round {}: {}", self.sum.rounds, round.name));
        clear(lab)?;
        let mut is_carried = self.quiet(report, round);
        let (planned, seconds) = round.plan(&mut self.random, &mut self.deck);
        let (position, cursor, pid) = (lab.log_position()?, register::now(lab)?, lab.broker()?);
        let mut app = App::start(lab)?;
        let done = self.let_happen(report, &planned, seconds, &mut app)?;
        let lines = self.lines(report, &done, &position)?;
        safe(report, &done);
        self.log(report, round, &position, planned.len(), pid)?;
        report.check("one session remains, and every other was told", || {
            let last = wait(BACK, || came_in(&[app.run(login("last", SEATED, PATIENT))?], true))?;
            let known = [came_in(&done.seats, false)?, last].concat();
            println!("         {} of {} session logins came in", known.len(), done.seats.len() + 1);
            let mine = of(lab, person(SEATED).sam)?;
            let principal = mine.first().map(|session| session.principal.clone()).unwrap_or_default();
            let mut events = register::since(lab, &cursor)?;
            events.retain(|event| event.session.principal == principal);
            one_remains(&events, &mine, &known).map(drop)
        });
        report.check("each wrong password counted once, no right one did", || {
            lab.run(&["dc", "replicate"]).ok()?;
            let wrong = done.all().filter(|login| is_wrong(login));
            let users = RIGHT.iter().chain(&WRONG).chain(&[SEATED, BINDS, BINDS_WRONG]);
            counters(lab, users, &Tried::of(wrong), &lines)
        });
        report.check("each change of a password did what its user was told", || {
            let pairs = CHANGES.iter().zip(&done.changes);
            let checks: Vec<_> = pairs
                .map(|((who, new), answer)| {
                    let checked = is_true(lab, &person(who), new, answer);
                    lab.run(&["cast", "restore", who]).ok().and(checked)
                })
                .collect();
            checks.into_iter().collect()
        });
        lab.run(&["cast", "reset"]).ok()?;
        let after = Control::at(lab, self.rate);
        is_carried &= after.is_ok();
        match (is_carried, after) {
            (true, _) => self.available(report, &done),
            (false, after) => {
                self.sum.unjudged += 1;
                let why = after.err().unwrap_or_else(|| "see above".to_owned());
                report.note(&format!("times and availability are not judged: {why}"));
            }
        }
        self.rest.take(lab)
    }

    /// Measures how many logins this machine carries, as busy as it is now, and how long they take while
    /// nothing happens. A machine that is too busy for that gets further attempts. Returns true if it carries
    /// them.
    fn quiet(&mut self, report: &mut Report, round: &Round) -> bool {
        let lab = self.stage.lab;
        let mut control = Err("no control".to_owned());
        report.check("at rest all is well, and logins succeed", || {
            for _ in 0..CONTROLS {
                wait(BACK, || well(lab))?;
                control = self.rate(round).and_then(|rate| Ok((rate, Control::at(lab, rate)?)));
                match &control {
                    Ok(_) => return Ok(()),
                    Err(error) => println!("         {error}"),
                }
            }
            control.clone().map(drop)
        });
        match control {
            Ok((rate, control)) => {
                (self.rate, self.control) = (rate, control);
                true
            }
            Err(_) => false,
        }
    }

    /// Returns the number of logins per second that this machine carries by every method of the round.
    fn rate(&mut self, round: &Round) -> Result<usize, String> {
        let rate = carried(self.stage.lab, round.method)?;
        if round.method == Method::Kerberos {
            self.by_kerberos = rate;
        }
        let rate = if round.restarts { rate.min(self.by_kerberos) } else { rate };
        println!("         this round makes {rate} logins per second");
        Ok(rate)
    }

    /// Runs the events, and everything that users do during them.
    fn let_happen(
        &mut self,
        report: &mut Report,
        planned: &[Planned],
        seconds: u64,
        app: &mut App,
    ) -> Result<Seen, String> {
        let lab = self.stage.lab;
        self.fastest = self.fastest.max(self.rate);
        let plan = logins(planned, self.rate, seconds);
        let mut moments = [(); CHANGES.len()].map(|()| self.random.u64(0..seconds));
        moments.sort_unstable();
        let load = Load::start(lab, self.rate, plan.iter().copied())?;
        let over = AtomicBool::new(false);
        let (happened, seats, binds, changes) = thread::scope(|scope| {
            let seats = scope.spawn(|| seats(app, &over));
            let binds = scope.spawn(|| binds(lab, &load, &over));
            let changes = scope.spawn(|| {
                let one = |((who, new), moment): (&(&str, &str), &u64)| {
                    load.wait_until(Duration::from_secs(*moment));
                    let person = person(who);
                    typed(lab, "motion", &person, person.password, new)
                };
                CHANGES.iter().zip(&moments).map(one).collect::<Vec<_>>()
            });
            let happened = self.events(report, planned, &load);
            load.wait_until(Duration::from_secs(seconds));
            over.store(true, Ordering::Relaxed);
            (happened, seats.join(), binds.join(), changes.join())
        });
        let gone = |_| "a thread of the users ended".to_owned();
        let done = Seen {
            logins: load.finish()?,
            binds: binds.map_err(gone)?,
            seats: seats.map_err(gone)??,
            changes: changes.map_err(gone)?,
            happened: happened?,
        };
        report.check("every login was answered", || equal("logins", done.logins.len(), plan.len()));
        self.sum.add(&done);
        Ok(done)
    }

    /// Lets each event begin and end at its time, one after the other. Returns the times.
    fn events(&mut self, report: &mut Report, planned: &[Planned], load: &Load) -> Result<Happened, String> {
        let lab = self.stage.lab;
        let now = || load.elapsed().as_secs_f64() * 1000.0;
        let mut happened = Happened::default();
        for Planned { at, until, event } in planned {
            load.wait_until(Duration::from_secs(*at));
            let begun = now();
            happened.all.push((begun, event.name.to_owned()));
            let hides = event.hides_ad(lab.method());
            let begin = self.stage.act(event.begin);
            load.wait_until(Duration::from_secs(*until));
            self.rest.sample(lab)?;
            happened.all.push((now(), format!("  it ends ({})", event.name)));
            let end = self.stage.act(event.end);
            if hides {
                happened.hidden.push((begun, now() + self.control.slowest + ONCE));
            }
            self.rest.sample(lab)?;
            if let Err(error) = begin.and(end) {
                report.check(event.name, || Err(error));
            }
        }
        Ok(happened)
    }

    /// Returns the broker's lines of the round, which are complete.
    fn lines(&self, report: &mut Report, done: &Seen, position: &LogPosition) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        report.check("each login has one line in the log, or did not reach the broker", || {
            wait(WRITTEN, || {
                lines = self.stage.lab.log_since(position)?;
                one_line_each(&done.logins, &lines)
            })
        });
        let (wrong, right): (Vec<_>, Vec<_>) = done.logins.iter().partition(|login| is_wrong(login));
        figures(&done.logins, &right, &wrong, &done.happened.all, &reasons(&lines)?);
        Ok(lines)
    }

    /// Checks that logins were decided whenever AD could be reached, and in time.
    fn available(&self, report: &mut Report, done: &Seen) {
        let expected = |login: &Login| if is_wrong(login) { "PAM_AUTH_ERR" } else { "PAM_SUCCESS" };
        report.check("every login was decided while AD could be reached", || {
            none(done.all(), |login| login.code != expected(login) && !done.happened.hides(login))
        });
        report.check("no login took longer than its deadline", || {
            // The clients of the bridge are started on the host for each bind.
            none(&done.logins, |login| login.took > DEADLINE)
        });
        report.check("the load itself was in time", || {
            none(&done.logins, |login| login.late > self.control.latest + ONCE)
        });
    }

    /// Checks restarts of the broker, and everything that the log says about faults in the program.
    fn log(
        &self,
        report: &mut Report,
        round: &Round,
        position: &LogPosition,
        events: usize,
        pid: u32,
    ) -> Check {
        let lab = self.stage.lab;
        let journal = lab.journal_since(position)?;
        let lines: Vec<_> = journal.iter().filter_map(|line| of_broker(line)).collect();
        report.check("the broker restarted where a changed file says so, and nowhere else", || {
            const EVENTS: [&str; 2] = ["event=restart ", "event=start "];
            let restarts: Vec<_> = lines.iter().filter(|line| line.starts_with(EVENTS[0])).collect();
            let starts = lines.iter().filter(|line| line.starts_with(EVENTS[1])).count();
            println!("         {starts} starts");
            let ordered =
                |line: &&&String| CHANGED.iter().any(|file| line.contains(&format!("changed={file}")));
            equal("restarts for a changed file", restarts.iter().filter(ordered).count(), restarts.len())?;
            // A file that is written twice can end a process before it has logged its start.
            let mut events = lines.iter().filter(|line| EVENTS.iter().any(|event| line.starts_with(event)));
            let goes_on = events.next_back().is_none_or(|line| line.starts_with(EVENTS[1]));
            equal("the last restart was followed by a start", goes_on, true)?;
            equal("more starts than restarts", starts > restarts.len(), false)?;
            match round.restarts {
                true => equal("restarted", starts > 0, true),
                false => equal("starts", starts, 0).and(equal("the broker's pid", lab.broker()?, pid)),
            }
        });
        report
            .check("no panic, no failed task, no lost line, no process that was killed", || marks(&journal));
        report.check("the log is within its bound", || log(&journal, events));
        Ok(())
    }
}

/// Checks what must hold however busy the machine is: no answer says the opposite of the truth.
fn safe(report: &mut Report, done: &Seen) {
    let other = |login: &Login, code: &str| ![code, UNDECIDED].contains(&login.code.as_str());
    report.check("no wrong password was accepted, or answered as anything but wrong or unavailable", || {
        none(done.all().filter(|login| is_wrong(login)), |login| other(login, "PAM_AUTH_ERR"))
    });
    report.check("no right password was rejected: it was accepted, or answered as unavailable", || {
        none(done.all().filter(|login| !is_wrong(login)), |login| other(login, "PAM_SUCCESS"))
    });
}

impl Seen {
    fn all(&self) -> impl Iterator<Item = &Login> {
        self.logins.iter().chain(&self.binds)
    }
}

impl Sum {
    fn add(&mut self, done: &Seen) {
        self.logins += done.logins.len();
        self.binds += done.binds.len();
        self.wrong += done.all().filter(|login| is_wrong(login)).count();
        self.unavailable += done.all().filter(|login| login.code == UNDECIDED).count();
        self.seats += done.seats.len();
        self.events += done.happened.all.len() / 2;
    }
}

/// Returns true if the login was one with a wrong password.
fn is_wrong(login: &Login) -> bool {
    static USERS: LazyLock<BTreeSet<&str>> =
        LazyLock::new(|| WRONG.iter().chain(&[BINDS_WRONG]).map(|who| person(who).sam).collect());
    USERS.contains(login.user.as_str())
}

/// Returns all logins of a round in order: sAMAccountName and password.
fn logins(planned: &[Planned], rate: usize, seconds: u64) -> Vec<(&'static str, &'static str)> {
    let mut plan: Vec<_> = right(rate * seconds as usize).collect();
    let moments = planned.iter().flat_map(|Planned { at, until, .. }| {
        let [first, second] = WRONG_AFTER.map(|after| at * 1000 + after);
        [first, second, until * 1000 + WRONG_AT_END]
    });
    let users = WRONG.iter().cycle().take(WRONG.len() * TRIES);
    for (moment, who) in moments.zip(users) {
        plan[moment as usize * rate / 1000] = (person(who).sam, NOBODYS);
    }
    plan
}

/// Logs one user in with a session, again and again.
fn seats(app: &mut App, over: &AtomicBool) -> Result<Vec<Done>, String> {
    let mut all = Vec::new();
    while !over.load(Ordering::Relaxed) {
        all.push(app.run(login(&format!("seat-{}", all.len()), SEATED, PATIENT))?);
        thread::sleep(PAUSE);
    }
    Ok(all)
}

/// Binds at the bridge, again and again.
fn binds(lab: &Lab, load: &Load, over: &AtomicBool) -> Vec<Login> {
    let mut all: Vec<Login> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let number = all.len();
        let is_wrong = number % WRONG_BIND == WRONG_BIND / 2 && number < WRONG_BIND * TRIES;
        let (person, password) = match !is_wrong {
            true => (person(BINDS), person(BINDS).password),
            false => (person(BINDS_WRONG), NOBODYS),
        };
        let due = load.elapsed().as_secs_f64() * 1000.0;
        let ran = bridge::whoami(lab, "motion", person.sam, password, &[]);
        let code = match ran.code {
            // A bridge that restarts may end the connection between the bind and the next request.
            1 if !ran.stderr.contains("ldap_bind") => "PAM_SUCCESS",
            0 => "PAM_SUCCESS",
            49 => "PAM_AUTH_ERR",
            51 | 52 => UNDECIDED,
            code => {
                println!("         LDAP's {code}: {}", ran.stderr.trim());
                UNDECIDED
            }
        };
        let took = load.elapsed().as_secs_f64() * 1000.0 - due;
        all.push(Login { number, user: person.sam.to_owned(), due, late: 0.0, took, code: code.to_owned() });
        thread::sleep(PAUSE);
    }
    all
}

/// Checks that each user has a line for each login. A login that did not reach the broker is unavailable.
fn one_line_each(logins: &[Login], lines: &[String]) -> Check {
    let mut counts: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for login in logins {
        let (all, unavailable, _) = counts.entry(&login.user).or_default();
        *all += 1;
        *unavailable += usize::from(login.code == UNDECIDED);
    }
    for line in lines.iter().filter(|line| line.starts_with("event=login ")) {
        if let Some((_, _, lines)) = counts.get_mut(fields(line)?["user"].as_str()) {
            *lines += 1;
        }
    }
    counts.iter().try_for_each(|(user, (all, unavailable, lines))| {
        match (all.saturating_sub(*unavailable)..=*all).contains(lines) {
            true => Ok(()),
            false => {
                Err(format!("{user}: {all} logins, {unavailable} of them unavailable, and {lines} lines"))
            }
        }
    })
}
