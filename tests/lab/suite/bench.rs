//! Login times compared with other PAM modules for AD, and with the lower bound: binds on an open connection.
//!
//! All candidates run in turn, in one run of one long-lived application on the host, because a machine's
//! speed drifts. `tests/clients/bench` measures; this file controls it, and reads the CPU time and memory
//! from the kernel.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode};

use motion_ad_support::plan::{Block, Candidate, Done, Setup, Took, Way};

use crate::cast::person;
use crate::lab::{Lab, Size};
use crate::process::{Process, ours, processes};
use crate::report::{Check, Report};
use crate::{ONE_OF_EACH, join};

/// The measuring program, built by the Makefile.
const PROGRAM: &str = "target/release/bench";
/// Path of the same program on the host.
const ON_HOST: &str = "/usr/local/bin/bench";
const CA_FILE: &str = "/etc/motion-ad/ca.pem";
const DN: &str = "CN=john.doe,OU=People,DC=acme,DC=com";
/// Number of initial logins of each candidate that are not counted.
const WARM_UP: usize = 30;

/// Size of each measurement.
struct Effort {
    /// Logins per candidate, in turn, by one thread.
    alone: usize,
    /// Same, with wrong passwords.
    wrong: usize,
    /// Seconds per candidate with many threads, and number of rounds.
    block: f64,
    rounds: usize,
    /// Logins in one broker.
    many: usize,
    /// The candidates with the real and with the scripted domain controller.
    real: &'static [usize],
    scripted: &'static [usize],
}

const FULL: Effort =
    Effort { alone: 400, wrong: 100, block: 5.0, rounds: 3, many: 200_000, real: &REAL, scripted: &SCRIPTED };
const QUICK: Effort = Effort { alone: 300, wrong: 50, block: 2.5, many: 20_000, ..FULL };
/// The bridge beside PAM and the bare bind, without the other modules, which leave the caches cold.
const BRIDGE: Effort =
    Effort { alone: 1000, many: 0, real: &[0, 1, REAL.len() - 1], scripted: &[8, 9, 11], ..QUICK };

/// The candidates: name, PAM service, and the user's name there. The lower bound comes before them.
const SERVICES: [(&str, &str, &str); 6] = [
    ("pam_motion_ad", "motion", "john.doe"),
    ("pam_motion_ad+groups", "bench-groups", "john.doe"),
    ("pam_winbind", "bench-winbind", "john.doe"),
    ("pam_krb5", "bench-krb5", "john.doe"),
    ("pam_ldapd", "bench-ldapd", "john.doe"),
    ("pam_sss", "bench-sss", "john.doe@acme.com"),
];
/// Numbers of the candidates with the real domain controller: the lower bound, the services, and the LDAP
/// bridge.
const REAL: [usize; SERVICES.len() + 2] = numbers(0);
/// Same with the scripted one: the lower bound, this module, libpam with a module that does nothing, and the
/// bridge.
const SCRIPTED: [usize; 4] = numbers(REAL.len());
/// Addresses of the bridge, and of one whose service uses the scripted domain controller.
const BRIDGES: [&str; 2] = ["127.0.0.1:3890", "127.0.0.1:3891"];
/// Folder of the services that measure only this module's share. Its default service is one line. libpam
/// reads the default service at every login, and on a joined Debian it has about twenty lines.
const ALONE: &str = "/etc/bench-pam.d";
const ALONE_SERVICES: [&str; 2] = ["bench-scripted", "bench-permit"];
const THREADS: [usize; 2] = [8, 64];

/// From `lib/build-crowd.sh`: the user with a thousand groups, the common password, and the number of users
/// that have it.
const THOUSAND: &str = "thomas.thousand";
const CROWD_PASSWORD: &str = "Cr0wds-come-in-coaches";
const SHIFT: usize = 5000;
const SCALE_ROUNDS: usize = 10;

const fn numbers<const N: usize>(first: usize) -> [usize; N] {
    let mut numbers = [first; N];
    let mut index = 1;
    while index < N {
        numbers[index] += index;
        index += 1;
    }
    numbers
}

/// Runs `make bench`.
pub fn run() -> Result<ExitCode, String> {
    let effort = match std::env::var("BENCH").as_deref() {
        Ok("quick") => &QUICK,
        Ok("bridge") => &BRIDGE,
        Ok("scale") => return scale().map(|()| ExitCode::SUCCESS),
        _ => &FULL,
    };
    let lab = joined(ONE_OF_EACH)?;
    lab.run(&["peers", "up"]).ok()?;
    let _server = prepare(&lab)?;
    Bench::start(&lab, effort)?.measure()?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a lab with the package installed on its host.
fn joined(size: Size) -> Result<Lab, String> {
    let lab = Lab::up(size)?;
    let mut report = Report::quiet();
    join::chapter(&lab, &mut report)?;
    report.all_passed()?;
    fs::copy(PROGRAM, lab.path(ON_HOST)).map_err(|e| format!("{PROGRAM}: {e}"))?;
    broker(&lab, "groups", "[login]\nmethod = \"ldap\"\nallow_groups = [\"XCALLY Agents\"]\n")?;
    Ok(lab)
}

/// `BENCH=scale make bench`: compares a domain of 50,000 users with one of about thirty, at the same time and
/// in turn.
fn scale() -> Check {
    let labs = [("small", joined(ONE_OF_EACH)?), ("crowd", joined(Size { crowd: true, ..ONE_OF_EACH })?)];
    let mut table = Vec::new();
    let mut clients = Vec::new();
    for (name, lab) in &labs {
        // No user of the small domain has as many groups.
        let thousand = (*name == "crowd").then_some(("thousand", THOUSAND, CROWD_PASSWORD));
        let john = ("john", person("john").sam, person("john").password);
        let mut candidates = Vec::new();
        for (who, sam, password) in [Some(john), thousand].into_iter().flatten() {
            let people = |name: String| vec![(name, password.to_owned())];
            let dn = format!("CN={sam},OU=People,DC=acme,DC=com");
            candidates.push(Candidate {
                people: people(dn),
                ..bind(lab, &format!("{name}/{who}/bare_bind"), "dc", "ad.acme.com")?
            });
            for (ours, service) in [("pam_motion_ad", "motion"), ("pam_motion_ad+groups", "bench-groups")] {
                let way = pam(service);
                candidates.push(Candidate {
                    name: format!("{name}/{who}/{ours}"),
                    way,
                    people: people(sam.to_owned()),
                });
            }
        }
        let figures: Vec<_> = candidates.iter().map(|_| Figures::default()).collect();
        let names: Vec<_> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
        clients.push((client(lab, &Setup { keep: modules(lab)?, candidates })?, names, figures));
    }
    for round in 0..SCALE_ROUNDS + 1 {
        for (client, names, figures) in &mut clients {
            // There are few logins of the user with a thousand groups, because each costs the domain
            // controller so much.
            let john = Block {
                candidates: vec![0, 1, 2],
                threads: 1,
                seconds: 60.0,
                logins: 20,
                rate: 0.0,
                wrong: false,
            };
            let thousand = Block { candidates: (3..names.len()).collect(), logins: 4, ..john.clone() };
            for block in [john, thousand].iter().filter(|block| !block.candidates.is_empty()) {
                let done = client.block(block)?;
                for (number, took) in block.candidates.iter().zip(done.results) {
                    if let Some(failure) = &took.failure {
                        return Err(format!("{}: {failure}", names[*number]));
                    }
                    // The first round is a warm-up.
                    if round > 0 {
                        let seconds = took.micros.iter().map(|micros| f64::from(*micros) / 1e6).sum();
                        figures[*number].add(took, seconds);
                    }
                }
            }
        }
    }
    for (_, names, figures) in &clients {
        for (three, names) in figures.chunks(3).zip(names.chunks(3)) {
            let floor = three.first().map_or(1.0, |floor| floor.quantile(50));
            table.extend(names.iter().zip(three).map(|(name, figures)| figures.row(name, floor)));
        }
    }
    drop(clients);
    table.push(shift(&labs[1].1)?);
    println!("\nname p50_ms p99_ms logins_per_s ratio_to_floor");
    table.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Simulates the start of a shift: 5,000 users log in within a minute, all unknown to the broker until then.
fn shift(lab: &Lab) -> Result<String, String> {
    let people = (1..=SHIFT).map(|number| (format!("u{number:05}"), CROWD_PASSWORD.to_owned())).collect();
    let way = pam("bench-groups");
    let candidate = Candidate { name: "shift".to_owned(), way, people };
    let mut client = client(lab, &Setup { keep: modules(lab)?, candidates: vec![candidate] })?;
    let rate = SHIFT as f64 / 60.0;
    let block = Block { candidates: vec![0], threads: 64, seconds: 120.0, logins: SHIFT, rate, wrong: false };
    let done = client.block(&block)?;
    let mut figures = Figures::default();
    figures.add(done.results.into_iter().next().unwrap_or_default(), done.seconds);
    println!(
        "shift: {} people in {:.1} s, {} failed ({:?})",
        figures.micros.len(),
        done.seconds,
        figures.failed,
        figures.failure
    );
    Ok(figures.row("crowd/shift/pam_motion_ad+groups", figures.quantile(50)))
}

/// Installs all candidates on the host, and starts the scripted domain controller.
fn prepare(lab: &Lab) -> Result<Running, String> {
    // A high threshold: wrong passwords count, but lock no account.
    lab.dc(&["samba-tool", "domain", "passwordsettings", "set", "--account-lockout-threshold=60000"]).ok()?;
    let files = lab.run(&["fake", "up"]).ok()?;
    let files: Vec<_> = files.split_whitespace().collect();
    let program = fs::canonicalize(PROGRAM).map_err(|e| format!("{PROGRAM}: {e}"))?;
    let program = program.to_string_lossy();
    let mut command = vec!["fake", "run", "--", &*program, "server"];
    command.extend(files);
    let server = Running::start(lab.child(&command)?)?;
    let servers = "[domain]\nservers = [\"fake.acme.com\", \"ad.acme.com\"]\n[login]\nmethod = \"ldap\"\n";
    broker(lab, "scripted", servers)?;
    service(lab, "bench-permit", "auth required pam_permit.so\naccount required pam_permit.so\n")?;
    lab.write(&format!("{ALONE}/other"), "auth required pam_deny.so\n")?;
    bridges(lab)?;
    Ok(server)
}

/// Starts the LDAP bridge, and a second one whose logins use the scripted domain controller.
fn bridges(lab: &Lab) -> Check {
    // The bridge reads the services of /etc/pam.d.
    let service =
        fs::read_to_string(lab.path(&format!("{ALONE}/bench-scripted"))).map_err(|e| e.to_string())?;
    lab.write("/etc/pam.d/bench-scripted", &service)?;
    let file = "/etc/motion-ad/bench-bridge.toml";
    lab.write(file, "[bridge]\nservice = \"bench-scripted\"\n")?;
    let address = BRIDGES[1];
    lab.host_sh(&format!(
        "systemctl cat motion-ad-ldap.service | sed -e 's,^ExecStart=.*,& --config {file} --listen \
            {address},' -e '/^Requires=/d' -e '/^Sockets=/d' >/run/systemd/system/bench-bridge.service
        systemctl daemon-reload && systemctl restart bench-bridge.service && \
        systemctl enable --now motion-ad-ldap.socket"
    ))
    .ok()
    .map(drop)
}

/// Writes a PAM service.
fn service(lab: &Lab, name: &str, lines: &str) -> Check {
    let folder = folder(name).unwrap_or("/etc/pam.d");
    fs::create_dir_all(lab.path(folder)).map_err(|e| format!("{folder}: {e}"))?;
    lab.write(&format!("{folder}/{name}"), lines)
}

/// Returns the folder of a service if it is not libpam's default.
fn folder(service: &str) -> Option<&'static str> {
    ALONE_SERVICES.contains(&service).then_some(ALONE)
}

/// Returns the way through a PAM service.
fn pam(service: &str) -> Way {
    Way::Pam { service: service.to_owned(), folder: folder(service).map(str::to_owned), account: true }
}

/// Starts a second broker next to the host's, with another configuration, as the PAM service bench-NAME. Its
/// unit is the host's with all drop-ins, one of which hands over the join's secrets. The LDAP bridge may
/// connect, too.
fn broker(lab: &Lab, name: &str, config: &str) -> Check {
    let file = format!("/etc/motion-ad/{name}.toml");
    lab.write(&file, &format!("[tls]\nca_file = \"{CA_FILE}\"\n{config}"))?;
    let socket = format!("/run/bench-{name}/broker.sock");
    let lines = format!(
        "auth required pam_motion_ad.so socket={socket}\naccount required pam_motion_ad.so socket={socket}\n"
    );
    service(lab, &format!("bench-{name}"), &lines)?;
    lab.host_sh(&format!(
        "systemctl cat motion-ad.service | sed -e 's,^ExecStart=.*,& --config {file} --listen {socket},' -e \
            '/^Requires=/d' -e \
            's,^StateDirectory=.*,StateDirectory=bench-{name}\\nRuntimeDirectory=bench-{name},' \
            >/run/systemd/system/bench-{name}.service
        systemctl daemon-reload && systemctl restart bench-{name}.service && chmod 666 {socket}"
    ))
    .ok()?;
    Ok(())
}

/// A running program that prints one line when it is ready.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut child: Child) -> Result<Self, String> {
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let mut running = Running { child, stdin, lines };
        running.read()?;
        Ok(running)
    }

    /// Wraps the client, and sends it the setup.
    fn client(mut child: Child, setup: &Setup) -> Result<Self, String> {
        let mut stdin = child.stdin.take().ok_or("no standard input")?;
        let text = serde_json::to_string(setup).map_err(|e| e.to_string())?;
        writeln!(stdin, "{text}").map_err(|e| e.to_string())?;
        child.stdin = Some(stdin);
        Running::start(child)
    }

    fn read(&mut self) -> Result<String, String> {
        self.lines.next().ok_or("the program ended")?.map_err(|e| e.to_string())
    }

    fn block(&mut self, block: &Block) -> Result<Done, String> {
        let text = serde_json::to_string(block).map_err(|e| e.to_string())?;
        let stdin = self.stdin.as_mut().ok_or("no standard input")?;
        writeln!(stdin, "{text}").map_err(|e| e.to_string())?;
        serde_json::from_str(&self.read()?).map_err(|e| e.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The client ends with its standard input; the server does not.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All candidates, ready to run.
struct Bench<'a> {
    lab: &'a Lab,
    effort: &'a Effort,
    client: Running,
    names: Vec<String>,
    /// Lines of the last table.
    table: Vec<String>,
}

/// Results of a series of logins.
#[derive(Default)]
struct Figures {
    micros: Vec<u32>,
    seconds: f64,
    failed: usize,
    failure: Option<String>,
    /// CPU seconds of the domain controller, the brokers and the client.
    dc: f64,
    broker: f64,
    client: f64,
}

impl Figures {
    fn add(&mut self, took: Took, seconds: f64) {
        self.micros.extend(took.micros);
        self.seconds += seconds;
        self.failed += took.failed;
        self.failure = self.failure.take().or(took.failure);
    }

    /// Returns the quantile in milliseconds.
    fn quantile(&self, percent: usize) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let at = sorted.len().saturating_sub(1) * percent / 100;
        sorted.get(at).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }

    fn rate(&self) -> f64 {
        self.micros.len() as f64 / self.seconds.max(1e-9)
    }

    /// Returns a line of the last table.
    fn row(&self, name: &str, floor: f64) -> String {
        let (half, most, rate) = (self.quantile(50), self.quantile(99), self.rate());
        format!("{name:36} {half:8.3} {most:8.3} {rate:8.1} {:6.2}", half / floor)
    }
}

impl<'a> Bench<'a> {
    fn start(lab: &'a Lab, effort: &'a Effort) -> Result<Self, String> {
        let password = || person("john").password.to_owned();
        let through = |(name, service, user): (&str, &str, &str)| Candidate {
            name: name.to_owned(),
            way: pam(service),
            people: vec![(user.to_owned(), password())],
        };
        let mut candidates = vec![bind(lab, "bare_bind", "dc", "ad.acme.com")?];
        let bridge = |address: &str| Candidate {
            name: "motion-ad-ldap".to_owned(),
            way: Way::Bridge { address: address.to_owned() },
            people: vec![("john.doe".to_owned(), password())],
        };
        candidates.extend(SERVICES.map(through));
        candidates.push(bridge(BRIDGES[0]));
        candidates.push(bind(lab, "bare_bind", "fake", "fake.acme.com")?);
        candidates.push(through(("pam_motion_ad", "bench-scripted", "john.doe")));
        candidates.push(through(("pam_permit", "bench-permit", "john.doe")));
        candidates.push(bridge(BRIDGES[1]));
        let names = candidates.iter().map(|candidate| candidate.name.clone()).collect();
        let client = client(lab, &Setup { keep: modules(lab)?, candidates })?;
        Ok(Bench { lab, effort, client, names, table: Vec::new() })
    }

    fn measure(mut self) -> Check {
        let Effort { real, scripted, .. } = *self.effort;
        for candidates in [real, scripted] {
            let warm_up = self.alone(candidates, WARM_UP, false)?;
            let failed = warm_up.iter().zip(candidates).find(|(figures, _)| figures.failed > 0);
            if let Some((figures, number)) = failed {
                return Err(format!("{}: {:?}", self.names[*number], figures.failure));
            }
        }
        println!(
            "# logins per candidate: {}, with a wrong password {}",
            self.effort.alone, self.effort.wrong
        );
        println!(
            "name p50_ms p99_ms logins_per_s ratio_to_floor   failed, CPU ms per login: dc brokers client"
        );
        let alone = self.alone(real, self.effort.alone, false)?;
        self.rows("1", real, &alone);
        let wrong = self.alone(real, self.effort.wrong, true)?;
        self.rows("wrong", real, &wrong);
        for threads in THREADS {
            let figures = self.blocks(real, threads)?;
            self.rows(&threads.to_string(), real, &figures);
        }
        let alone = self.alone(scripted, self.effort.alone * 10, false)?;
        self.rows("scripted-1", scripted, &alone);
        for threads in THREADS {
            let figures = self.blocks(scripted, threads)?;
            self.rows(&format!("scripted-{threads}"), scripted, &figures);
        }
        if self.effort.many > 0 {
            self.many()?;
            self.module()?;
        }
        println!("\nname p50_ms p99_ms logins_per_s ratio_to_floor");
        self.table.iter().for_each(|line| println!("{line}"));
        Ok(())
    }

    /// Measures the candidates in turn with one thread, with `logins` logins of each.
    fn alone(&mut self, candidates: &[usize], logins: usize, wrong: bool) -> Result<Vec<Figures>, String> {
        let candidates = candidates.to_vec();
        let done =
            self.client.block(&Block { candidates, threads: 1, seconds: 600.0, logins, rate: 0.0, wrong })?;
        let figures = |took: Took| {
            let seconds = took.micros.iter().map(|micros| f64::from(*micros) / 1e6).sum();
            let mut figures = Figures::default();
            figures.add(took, seconds);
            figures
        };
        Ok(done.results.into_iter().map(figures).collect())
    }

    /// Measures each candidate for a while with many threads, in several rounds.
    fn blocks(&mut self, candidates: &[usize], threads: usize) -> Result<Vec<Figures>, String> {
        let mut all: Vec<_> = candidates.iter().map(|_| Figures::default()).collect();
        // The warm-up opens the connections and starts the threads.
        let warm_up = Block {
            candidates: Vec::new(),
            threads,
            seconds: 0.5,
            logins: usize::MAX,
            rate: 0.0,
            wrong: false,
        };
        let block = Block { seconds: self.effort.block, ..warm_up.clone() };
        let mut client_before = 0.0;
        for _ in 0..self.effort.rounds {
            // In a new order, as in the client: the block before may leave work to do.
            let mut order: Vec<_> = candidates.iter().zip(&mut all).collect();
            fastrand::shuffle(&mut order);
            for (number, figures) in order {
                client_before = self
                    .client
                    .block(&Block { candidates: vec![*number], ..warm_up.clone() })?
                    .cpu
                    .max(client_before);
                let before = self.accounts()?;
                let mut done = self.client.block(&Block { candidates: vec![*number], ..block.clone() })?;
                let after = self.accounts()?;
                figures.dc += after.0 - before.0;
                figures.broker += after.1 - before.1;
                figures.client += done.cpu - client_before;
                client_before = done.cpu;
                figures.add(done.results.pop().unwrap_or_default(), done.seconds);
            }
        }
        Ok(all)
    }

    /// Returns the CPU seconds of the domain controller, and of the brokers and bridges, until now.
    fn accounts(&self) -> Result<(f64, f64), String> {
        let dc = self.lab.run(&["pid", "dc"]).ok()?;
        let dc = processes(dc.trim())?.iter().map(|process| process.cpu).sum();
        let brokers = ours(self.lab, &["motion-ad-broker", "motion-ad-ldap"])?;
        let brokers = brokers.iter().map(|process| process.cpu).sum();
        Ok((dc, brokers))
    }

    fn rows(&mut self, what: &str, candidates: &[usize], figures: &[Figures]) {
        let floor = figures.first().map_or(1.0, |floor| floor.quantile(50));
        for (number, figures) in candidates.iter().zip(figures) {
            let name = format!("{what}/{}", self.names[*number]);
            let row = figures.row(&name, floor);
            let each = |cpu: f64| cpu * 1000.0 / figures.micros.len().max(1) as f64;
            let (dc, broker, client) = (each(figures.dc), each(figures.broker), each(figures.client));
            println!("{row}   {:6} {dc:8.3} {broker:8.3} {client:8.3}", figures.failed);
            if let Some(failure) = &figures.failure {
                println!("  the first failure: {failure}");
            }
            self.table.push(row);
        }
    }

    /// Makes very many logins in one broker, and compares its memory and descriptors before and after.
    fn many(&mut self) -> Check {
        let is_meant = |process: &Process| process.command.contains("scripted.toml");
        let mut logins = 0;
        while logins < self.effort.many {
            let block = Block {
                candidates: vec![SCRIPTED[1]],
                threads: 16,
                seconds: 600.0,
                logins: self.effort.many / 4,
                rate: 0.0,
                wrong: false,
            };
            let done = self.client.block(&block)?;
            let took = done.results.into_iter().next().unwrap_or_default();
            logins += took.micros.len();
            let broker = ours(self.lab, &["motion-ad-broker"])?
                .into_iter()
                .find(is_meant)
                .ok_or("the broker is gone")?;
            let mut figures = Figures::default();
            figures.add(took, done.seconds);
            println!(
                "broker after {logins} logins by 16 threads: {} KiB resident, {} descriptors; p50 {:.3} ms, \
                 p99 {:.3} ms, {:.0}/s, {} failed",
                broker.resident,
                broker.descriptors,
                figures.quantile(50),
                figures.quantile(99),
                figures.rate(),
                figures.failed
            );
        }
        Ok(())
    }

    /// Measures the cost that the module adds to an application that already uses libpam.
    fn module(&mut self) -> Check {
        let candidate = |service: &str| Candidate {
            name: service.to_owned(),
            way: pam(service),
            people: vec![("john.doe".to_owned(), person("john").password.to_owned())],
        };
        let keep = modules(self.lab)?.into_iter().filter(|module| !module.contains("motion")).collect();
        let setup = Setup { keep, candidates: vec![candidate("bench-permit"), candidate("bench-scripted")] };
        let mut client = client(self.lab, &setup)?;
        let mut private = |number| {
            let block = Block {
                candidates: vec![number],
                threads: 8,
                seconds: 60.0,
                logins: 4000,
                rate: 0.0,
                wrong: false,
            };
            Ok::<_, String>(client.block(&block)?.private_kib)
        };
        let (before, after) = (private(0)?, private(1)?);
        println!(
            "application without the module {before} KiB of its own, with it {after} KiB: {} KiB more",
            after.saturating_sub(before)
        );
        Ok(())
    }
}

/// Returns a candidate that binds as John at `node`, whose host name is `host`.
fn bind(lab: &Lab, name: &str, node: &str, host: &str) -> Result<Candidate, String> {
    let address = lab.run(&["addr", node]).ok()?;
    let (address, host, ca_file) = (format!("{}:636", address.trim()), host.to_owned(), CA_FILE.to_owned());
    let people = vec![(DN.to_owned(), person("john").password.to_owned())];
    Ok(Candidate { name: name.to_owned(), way: Way::Bind { address, host, ca_file }, people })
}

fn client(lab: &Lab, setup: &Setup) -> Result<Running, String> {
    Running::client(lab.host_child("root", &[ON_HOST, "client"])?, setup)
}

/// Returns the modules in the bench's services and the default service, as libpam names them.
fn modules(lab: &Lab) -> Result<Vec<String>, String> {
    let found = lab.host_sh(
        "cd /etc/pam.d; cat motion other common-* bench-* | grep -o '^[^#]*' | grep -o 'pam_[a-z0-9_]*\\.so' \
         | sort -u; dirname /lib/*/security/pam_unix.so",
    );
    let found = found.ok()?;
    let mut lines: Vec<_> = found.lines().collect();
    let folder = lines.pop().ok_or("no PAM modules")?;
    Ok(lines.iter().map(|name| format!("{folder}/{name}")).collect())
}
