//! One long-lived application with many threads that logs in through each candidate of the comparison.

use std::error::Error;
use std::ffi::{CStr, CString, c_int};
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use motion_ad_support::libpam::{self, Handle, Password};
use motion_ad_support::plan::{Block, Candidate, Done, Setup, Took, Way};

use crate::bind::{self, Connection};

/// Suffix that makes a right password wrong.
const WRONG: &str = "-no";
/// PAM_AUTH_ERR, and the return codes of libwbclient and nslcd for a wrong password.
const REFUSALS: [c_int; 3] = [7, 6, 4];

/// A candidate that is ready to log in.
struct Ready {
    candidate: Candidate,
    service: CString,
    folder: Option<CString>,
    people: Vec<Person>,
    /// Open connections that no thread uses yet.
    open: Mutex<Vec<Connection>>,
    next: AtomicUsize,
}

struct Person {
    name: CString,
    right: CString,
    wrong: CString,
}

/// Reads the setup and then block after block from standard input, until its end.
pub fn run() -> Result<(), Box<dyn Error>> {
    let mut lines = std::io::stdin().lock().lines();
    let setup: Setup = serde_json::from_str(&lines.next().ok_or("no setup")??)?;
    for object in &setup.keep {
        let path = CString::new(object.as_str())?;
        // SAFETY: these are PAM modules, which applications load the same way. They are never unloaded.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            return Err(format!("{object} cannot be loaded").into());
        }
    }
    let ready = setup.candidates.into_iter().map(Ready::new).collect::<Result<Vec<_>, _>>()?;
    println!();
    for line in lines {
        let block: Block = serde_json::from_str(&line?)?;
        let done = run_block(&ready, &block)?;
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &done)?;
        writeln!(out)?;
    }
    Ok(())
}

impl Ready {
    fn new(candidate: Candidate) -> Result<Self, Box<dyn Error>> {
        let (service, folder) = match &candidate.way {
            Way::Pam { service, folder, .. } => {
                (CString::new(service.as_str())?, folder.as_deref().map(CString::new).transpose()?)
            }
            Way::Bind { .. } | Way::Bridge { .. } => (CString::default(), None),
        };
        let person = |(name, password): &(String, String)| {
            Ok::<_, Box<dyn Error>>(Person {
                name: CString::new(name.as_str())?,
                right: CString::new(password.as_str())?,
                wrong: CString::new(password.clone() + WRONG)?,
            })
        };
        let people = candidate.people.iter().map(person).collect::<Result<_, _>>()?;
        Ok(Ready { candidate, service, folder, people, open: Mutex::default(), next: AtomicUsize::new(0) })
    }

    /// Opens a connection for each of `threads` threads.
    fn open(&self, threads: usize) -> Result<(), Box<dyn Error>> {
        let connect: Box<dyn Fn() -> Result<Connection, Box<dyn Error>>> = match &self.candidate.way {
            Way::Pam { .. } => return Ok(()),
            Way::Bridge { address } => Box::new(|| Connection::open_plain(address)),
            Way::Bind { address, host, ca_file } => {
                let config = bind::trust(ca_file)?;
                Box::new(move || Connection::open(address, host, &config))
            }
        };
        let mut open = self.open.lock().map_err(|e| e.to_string())?;
        while open.len() < threads {
            let mut connection = connect()?;
            if let Some(person) = self.people.first() {
                connection.bind(person.name.to_str()?, person.right.to_str()?)?;
            }
            open.push(connection);
        }
        Ok(())
    }

    /// Logs the next user in. Returns the cause if that failed.
    fn login(&self, connection: Option<&mut Connection>, wrong: bool) -> Option<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.people.len();
        let person = &self.people[number];
        let password = if wrong { &person.wrong } else { &person.right };
        match (&self.candidate.way, connection) {
            (Way::Pam { account, .. }, _) => {
                let code = pam_login(self, &person.name, password, *account);
                let expected = if wrong { REFUSALS.contains(&code) } else { code == 0 };
                (!expected).then(|| libpam::name(code))
            }
            (Way::Bind { .. } | Way::Bridge { .. }, Some(connection)) => {
                let text = |text: &CString| text.to_string_lossy().into_owned();
                match connection.bind(&text(&person.name), &text(password)) {
                    Ok(code) if (code == bind::SUCCESS) != wrong => None,
                    Ok(code) => Some(format!("LDAP result {code}")),
                    Err(error) => Some(error.to_string()),
                }
            }
            (Way::Bind { .. } | Way::Bridge { .. }, None) => Some("no connection".to_owned()),
        }
    }
}

fn run_block(ready: &[Ready], block: &Block) -> Result<Done, Box<dyn Error>> {
    let chosen: Vec<_> = block.candidates.iter().filter_map(|number| ready.get(*number)).collect();
    for candidate in &chosen {
        candidate.open(block.threads)?;
    }
    let results = Mutex::new(vec![Took::default(); chosen.len()]);
    let start = Barrier::new(block.threads + 1);
    // Number of the login within each candidate.
    let number = AtomicUsize::new(0);
    let begun = std::thread::scope(|scope| {
        for _ in 0..block.threads {
            scope.spawn(|| thread(&chosen, block, &start, &number, &results));
        }
        start.wait();
        Instant::now()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let results = results.into_inner().map_err(|e| e.to_string())?;
    Ok(Done { seconds, private_kib: private_kib()?, cpu: cpu(), results })
}

fn thread(
    chosen: &[&Ready],
    block: &Block,
    start: &Barrier,
    number: &AtomicUsize,
    results: &Mutex<Vec<Took>>,
) {
    let mut connections: Vec<_> =
        chosen.iter().map(|candidate| candidate.open.lock().ok().and_then(|mut open| open.pop())).collect();
    let mut took = vec![Took::default(); chosen.len()];
    let mut order: Vec<_> = (0..chosen.len()).collect();
    start.wait();
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(block.seconds);
    while let number = number.fetch_add(1, Ordering::Relaxed)
        && number < block.logins
        && Instant::now() < end
    {
        // What a module leaves to do after its answer (SSSD writes its cache) is a cost for whatever comes
        // next. In a new order each time, no candidate always pays for the same one.
        fastrand::shuffle(&mut order);
        for &index in &order {
            let (candidate, connection, took) = (chosen[index], &mut connections[index], &mut took[index]);
            let mut due = Instant::now();
            if block.rate > 0.0 {
                due = begun + Duration::from_secs_f64(number as f64 / block.rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let failure = candidate.login(connection.as_mut(), block.wrong);
            took.micros.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
            took.failed += usize::from(failure.is_some());
            took.failure = took.failure.take().or(failure);
        }
    }
    for (candidate, connection) in chosen.iter().zip(connections) {
        if let Ok(mut open) = candidate.open.lock() {
            open.extend(connection);
        }
    }
    if let Ok(mut results) = results.lock() {
        for (all, took) in results.iter_mut().zip(took) {
            all.micros.extend(took.micros);
            all.failed += took.failed;
            all.failure = all.failure.take().or(took.failure);
        }
    }
}

/// Returns the private memory of this process in KiB.
fn private_kib() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    Ok(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}

/// Returns the CPU time of this process in seconds.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists, and `time` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Logs in on a new handle: authenticate and, if it succeeds and `account` is set, acct_mgmt.
fn pam_login(Ready { service, folder, .. }: &Ready, user: &CStr, password: &CStr, account: bool) -> c_int {
    let handle = match Handle::start(service, user, folder.as_deref(), Password(password)) {
        Ok(handle) => handle,
        Err(code) => return code,
    };
    match handle.authenticate(0) {
        libpam::PAM_SUCCESS if account => handle.acct_mgmt(0),
        code => code,
    }
}
