//! Two hosts and one register in Redis: a user has one seat on both together, whichever part fails.

use std::fs;
use std::time::Duration;

use motion_ad::protocol::report::EndReason;

use crate::app::App;
use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::ready::{ready, start_after};
use crate::register::{self, clear, end_of, of, one_remains};
use crate::report::{Check, Report, contains, equal};
use crate::sessions::{PATIENT, came_in, kill_broker, login, services};

const PASSWORD: &str = "/etc/motion-ad/redis.password";
const CA: &str = "/etc/motion-ad/redis-ca.pem";
/// Maximum time until a new master of Redis is elected and both brokers find it.
const ELECTED: Duration = Duration::from_secs(60);
/// Twice the interval of the check for ended processes.
const SWEPT: Duration = Duration::from_secs(60);

/// Faults on the two hosts and in Redis during concurrent logins.
struct Trouble {
    name: &'static str,
    /// Number of times that each host's broker is killed.
    kills: u32,
    /// A command for Redis, and the number of its runs.
    redis: Option<(&'static str, u32)>,
}

const CALM: Trouble = Trouble { name: "", kills: 0, redis: None };
const KILLED: Trouble = Trouble { name: ", both brokers killed", kills: 3, ..CALM };
const RESTARTED: Trouble =
    Trouble { name: ", both brokers killed and Redis restarted", kills: 3, redis: Some(("restart", 2)) };
const CRASHED: Trouble = Trouble { name: ", Redis killed and started", kills: 0, redis: Some(("kill", 2)) };

/// The hosts, and their register in Redis.
struct Stage<'a> {
    lab: &'a Lab,
    hosts: [&'a Lab; 2],
    register: Shared,
}

/// A register of sessions in the lab's Redis, for which hosts have the files.
pub struct Shared {
    url: String,
    tls: bool,
}

impl Shared {
    /// Starts an empty Redis with these options of `lab redis up`.
    pub fn up(lab: &Lab, hosts: &[&Lab], options: &[&str]) -> Result<Self, String> {
        let printed = lab.run(&[&["redis", "up"], options].concat()).ok()?;
        let [url, password, ca] = printed.lines().collect::<Vec<_>>()[..] else {
            return Err(format!("lab redis up said {printed:?}"));
        };
        for host in hosts {
            for (from, to) in [(password, PASSWORD), (ca, CA)] {
                fs::copy(from, host.path(to)).map_err(|e| format!("{to}: {e}"))?;
            }
            host.host_sh(&format!("chown motion-ad {PASSWORD} && chmod 400 {PASSWORD} && chmod 644 {CA}"))
                .ok()?;
        }
        Ok(Shared { url: url.to_owned(), tls: options.contains(&"--tls") })
    }

    /// Returns the section of `config.toml`.
    pub fn section(&self) -> String {
        let ca = if self.tls { format!("ca_file = \"{CA}\"\n") } else { String::new() };
        format!("[sessions]\nstore = \"{}\"\npassword_file = \"{PASSWORD}\"\n{ca}", self.url)
    }

    /// Removes the Redis, and the files from the hosts.
    pub fn down(lab: &Lab, hosts: &[&Lab]) -> Check {
        for host in hosts {
            host.host_sh(&format!("rm -f {PASSWORD} {CA}")).ok()?;
            host.configure("")?;
        }
        lab.run(&["redis", "down"]).ok().map(drop)
    }
}

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let second = lab.second()?.ok_or("this chapter needs two hosts")?;
    let hosts = [lab, &second];
    for host in hosts {
        services(host)?;
    }
    for options in [&[][..], &["--tls"], &["--tls", "--sentinel"]] {
        report.note(&format!("lab redis up {}", options.join(" ")));
        let stage = Stage::set(lab, hosts, options)?;
        stage.seats(report);
        stage.kick(report);
        match options {
            [] => {
                stage.storms(report, &[CALM, KILLED, RESTARTED, CRASHED]);
                stage.identities(report)?;
            }
            [_] => {
                stage.storms(report, &[CALM, RESTARTED]);
                stage.refused(report)?;
            }
            _ => stage.failover(report)?,
        }
    }
    Shared::down(lab, &hosts)
}

/// Returns true if the line reports a login that failed, or a problem with the register.
fn is_of_failure(line: &str) -> bool {
    let signs = ["pam_motion_ad(", "event=refused", "event=unanswered", "event=sessions", "outcome="];
    signs.iter().any(|sign| line.contains(sign)) && !line.contains("outcome=success")
}

impl<'a> Stage<'a> {
    fn set(lab: &'a Lab, hosts: [&'a Lab; 2], options: &[&str]) -> Result<Self, String> {
        let stage = Stage { lab, hosts, register: Shared::up(lab, &hosts, options)? };
        for host in hosts {
            stage.configure(host)?;
            clear(host)?;
        }
        Ok(stage)
    }

    fn configure(&self, host: &Lab) -> Check {
        let sessions = self.register.section();
        // The broker may have looked at its files just before another certificate or password came: the next
        // look is two seconds later.
        start_after(host, || host.configure(&sessions))?;
        ready(host)
    }

    /// One seat on both hosts together; the replaced session gets an event on each.
    fn seats(&self, report: &mut Report) {
        let [here, there] = self.hosts;
        let seth = person("seth").sam;
        report.check(
            "who logs in on one host takes the place of the one on the other, who is told there",
            || {
                let (mut on_here, mut on_there) = (App::start(here)?, App::start(there)?);
                let (at_here, at_there) = (register::now(here)?, register::now(there)?);
                let mut known = Vec::new();
                for (app, handle) in [(&mut on_here, "1"), (&mut on_there, "2")] {
                    known.extend(came_in(&[app.run(login(handle, "seth", PATIENT))?], true)?);
                }
                known.extend(came_in(&[on_here.run(login("3", "seth", PATIENT))?], true)?);
                for (host, cursor) in [(here, at_here), (there, at_there)] {
                    let open = of(host, seth)?;
                    let last = one_remains(&register::since(host, &cursor)?, &open, &known)?;
                    equal("who remains", Some(&last), known.last())?;
                }
                equal(
                    "the hosts differ",
                    of(here, seth)?[0].host == register::show(there, &known[1])?.host,
                    false,
                )
            },
        );
    }

    /// An administrator on one host evicts a session of the other, where the event arrives.
    fn kick(&self, report: &mut Report) {
        let [here, there] = self.hosts;
        report.check("an administrator evicts a session of the other host, whose watchers are told", || {
            let mut app = App::start(here)?;
            let id = came_in(&[app.run(login("kicked", "seth", PATIENT))?], true)?.remove(0);
            let cursor = register::now(here)?;
            let said = there.host("root", &["motion-ad", "sessions", "kick", &id[..8]], "").ok()?;
            equal("kick", said, format!("{id}: evicted\n"))?;
            let events = register::since(here, &cursor)?;
            let ended = events.first().and_then(|event| event.session.ended.clone()).ok_or("no event")?;
            equal("the reason", ended.reason, EndReason::Kicked)?;
            contains("the detail", &ended.detail, "by uid:0,pid:")
        });
    }

    /// The second host takes the name of the first one, and then also its machine-id.
    fn identities(&self, report: &mut Report) -> Check {
        let [here, there] = self.hosts;
        let seth = person("seth").sam;
        let id = |host: &Lab| host.host_sh("cat /etc/machine-id").ok();
        let (name, machine) = (there.host_sh("hostname").ok()?, id(there)?);
        let shared = here.host_sh("hostname").ok()?;
        let call = |host: &Lab, name: &str, machine: &str| -> Check {
            let (name, machine) = (name.trim(), machine.trim());
            let renamed = format!("hostname {name}; echo {machine} >/etc/machine-id");
            host.host_sh(&format!("{renamed}; systemctl restart motion-ad.service")).ok()?;
            ready(host)
        };
        clear(here)?;
        let mut app = App::start(here)?;
        report.check("two servers of one name: neither ends the other's sessions", || {
            call(there, &shared, &machine)?;
            let known = came_in(&[app.run(login("name", "seth", PATIENT))?], true)?;
            // Both brokers have checked the processes of their sessions at least once.
            std::thread::sleep(SWEPT);
            equal("its end", end_of(here, &known[0])?, None)?;
            equal("open", of(there, seth)?.len(), 1)
        });
        report.check("a clone of a server is refused, and the log says why; the original goes on", || {
            let position = there.log_position()?;
            call(there, &shared, &id(here)?)?;
            let line = there.wait_for_log(&position, &["has the machine-id and the name of this one"])?;
            println!("         {line}");
            let done = App::start(there)?.run(login("clone", "sally", "motion"))?;
            equal("PAM at the clone", done.code(), "PAM_SESSION_ERR")?;
            came_in(&[app.run(login("original", "seth", PATIENT))?], true).map(drop)
        });
        call(there, &name, &machine)?;
        report.check("with a machine-id of its own it is a server again", || {
            wait(ELECTED, || {
                came_in(&[App::start(there)?.run(login("own", "sally", PATIENT))?], true).map(drop)
            })
        });
        Ok(())
    }

    fn storms(&self, report: &mut Report, troubles: &[Trouble]) {
        for trouble in troubles {
            let name = format!(
                "100 logins at once on each of two hosts{}: one session remains, and every other was told",
                trouble.name
            );
            report.check(&name, || self.storm(trouble));
        }
    }

    fn storm(&self, trouble: &Trouble) -> Check {
        let logins = 100;
        let [here, there] = self.hosts;
        clear(here)?;
        let cursors = [register::now(here)?, register::now(there)?];
        let positions = [here.log_position()?, there.log_position()?];
        let mut apps = [App::start(here)?, App::start(there)?];
        let done = std::thread::scope(|scope| {
            let jobs: Vec<_> =
                (0..logins).map(|number| login(&format!("storm-{number}"), "seth", PATIENT)).collect();
            for app in &mut apps {
                app.begin(&jobs)?;
            }
            let killing = self.hosts.map(|host| scope.spawn(move || kill_broker(host, trouble.kills)));
            let redis = self.redis(trouble);
            for killed in killing {
                killed.join().map_err(|_| "the killing thread ended".to_owned()).and_then(|killed| killed)?;
            }
            redis?;
            apps.iter_mut().map(|app| app.finish(logins)).collect::<Result<Vec<_>, _>>()
        })?;
        let done: Vec<_> = done.into_iter().flat_map(|done| done.into_values()).collect();
        let calm = trouble.kills == 0 && trouble.redis.is_none();
        let mut known = came_in(&done, calm).or_else(|error| {
            let mut lines = vec![error];
            for (host, position) in self.hosts.iter().zip(&positions) {
                let ours = host.our_lines_since(position)?;
                lines.extend(ours.into_iter().filter(|line| is_of_failure(line)).take(10));
            }
            Err(lines.join("\n"))
        })?;
        println!("         {} of {} came in", known.len(), done.len());
        let seth = person("seth").sam;
        // The number of successes depends on the load. One login at the end must succeed.
        let last = wait(ELECTED, || came_in(&[apps[0].run(login("last", "seth", PATIENT))?], true))?;
        known.extend(last);
        for (host, cursor) in self.hosts.iter().zip(&cursors) {
            wait(ELECTED, || ready(host))?;
            one_remains(&register::since(host, cursor)?, &of(host, seth)?, &known)?;
        }
        Ok(())
    }

    /// Applies the fault to Redis during the logins.
    fn redis(&self, trouble: &Trouble) -> Check {
        let Some((verb, times)) = trouble.redis else { return Ok(()) };
        for _ in 0..times {
            std::thread::sleep(Duration::from_millis(fastrand::u64(100..900)));
            self.lab.run(&["redis", verb]).ok()?;
            // No effect if Redis has already restarted.
            self.lab.run(&["redis", "start"]).ok()?;
        }
        Ok(())
    }

    /// Redis rejects the broker, has another certificate, or is full.
    fn refused(&self, report: &mut Report) -> Check {
        let [host, _] = self.hosts;
        let other = self.lab.run(&["ca", "--other"]).ok()?;
        let denied = |words: &[&str]| -> Check {
            let position = host.log_position()?;
            let mut app = App::start(host)?;
            let done = app.run(login("refused", "seth", "motion"))?;
            equal("PAM", done.code(), "PAM_SESSION_ERR")?;
            host.wait_for_log(&position, words).map(|line| println!("         {line}"))
        };
        report.check("another CA than Redis's: refused, and the log says why", || {
            let own = fs::read(host.path(CA)).map_err(|e| e.to_string())?;
            fs::copy(other.trim(), host.path(CA)).map_err(|e| e.to_string())?;
            let seen = self.configure(host).and_then(|()| denied(&["outcome=session_store", "TLS"]));
            fs::write(host.path(CA), own).map_err(|e| e.to_string())?;
            seen
        });
        report.check("another password than Redis's: refused, and the log says why", || {
            let own = fs::read(host.path(PASSWORD)).map_err(|e| e.to_string())?;
            fs::write(host.path(PASSWORD), "wrong\n").map_err(|e| e.to_string())?;
            let seen = self.configure(host).and_then(|()| denied(&["outcome=session_store", "password"]));
            fs::write(host.path(PASSWORD), own).map_err(|e| e.to_string())?;
            seen
        });
        report.check("Redis takes no more data: refused, and with room again the next login works", || {
            self.configure(host)?;
            self.lab.run(&["redis", "full"]).ok()?;
            let seen = denied(&["outcome=session_store"]);
            self.lab.run(&["redis", "free"]).ok()?;
            seen?;
            let mut app = App::start(host)?;
            came_in(&[app.run(login("after", "seth", "motion"))?], true).map(drop)
        });
        self.configure(host)
    }

    /// Waits until the master counts `number` replicas for min-replicas-to-write. Before the first one it
    /// accepts no writes.
    fn replicas(&self, number: u32) -> Check {
        wait(ELECTED, || {
            let state = self.lab.run(&["redis", "cli", "info", "replication"]).ok()?;
            contains("the master", &state, &format!("min_slaves_good_slaves:{number}"))
        })
    }

    /// The master dies, and the sentinels promote a replica.
    fn failover(&self, report: &mut Report) -> Check {
        let [here, there] = self.hosts;
        let seth = person("seth").sam;
        report.check("failover: both hosts find the new master, and the session is there", || {
            clear(here)?;
            let (mut on_here, mut on_there) = (App::start(here)?, App::start(there)?);
            let cursor = register::now(there)?;
            let first = came_in(&[on_here.run(login("1", "seth", PATIENT))?], true)?;
            // Replication takes a moment.
            std::thread::sleep(Duration::from_secs(1));
            self.lab.run(&["redis", "failover"]).ok()?;
            for host in self.hosts {
                wait(ELECTED, || equal("open", of(host, seth)?.len(), 1))?;
            }
            self.replicas(1)?;
            let second = came_in(&[on_there.run(login("2", "seth", PATIENT))?], true)?;
            equal("the first", end_of(here, &first[0])?, Some(EndReason::Replaced))?;
            let known = [first, second].concat();
            one_remains(&register::since(there, &cursor)?, &of(here, seth)?, &known).map(drop)
        });
        // The former master becomes a replica again.
        self.lab.run(&["redis", "start"]).ok()?;
        self.replicas(2)?;
        self.storms(report, &[CALM, KILLED]);
        report.check("motion-ad sessions list says the same on both hosts", || {
            // The lists show the age of a session in seconds, which may pass between the two commands.
            wait(ELECTED, || {
                let list = |host: &Lab| host.host("root", &["motion-ad", "sessions", "list"], "").ok();
                let (here, there) = (list(here)?, list(there)?);
                contains("the list", &here, seth)?;
                equal("the lists", here, there)
            })
        });
        Ok(())
    }
}
