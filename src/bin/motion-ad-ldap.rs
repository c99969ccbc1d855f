//! The LDAP bridge: start-up only.

use std::error::Error;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use listenfd::ListenFd;
use motion_ad::bridge::admin::{Admin, CREDENTIAL};
use motion_ad::bridge::bind::THREADS;
use motion_ad::bridge::cli::Arguments;
use motion_ad::bridge::directory::Broker;
use motion_ad::bridge::logins::Pam;
use motion_ad::bridge::search::SEARCHES;
use motion_ad::bridge::{Bridge, Parts, server, tls};
use motion_ad::broker::peers::{Nss, Peers};
use motion_ad::config::admin::{ADMIN, LocalAdmin};
use motion_ad::config::{Front, Source, Sources};
use motion_ad::libpam::SERVICES;
use motion_ad::log::{self, Level, Line, Log};
use motion_ad::supervise;
use motion_ad::threads;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// Wipes what it frees: LDAP, TLS and libpam copy the passwords that they are given.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// The name in the log.
const NAME: &str = "motion-ad-ldap";
/// The service whose modules libpam loads in addition for every other one.
const DEFAULT: &str = "other";
/// Interval between checks for changed files.
const LOOK: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // Neither a core dump nor another process of our user may see a password.
    nix::sys::prctl::set_dumpable(false)?;
    supervise::report_panics();
    let (log, writer) = Log::open_as(NAME)?;
    let log = Arc::new(log);
    log::report_tasks(&log);
    // Logins and searches each block a thread while they wait, and another one takes over its tasks. A few
    // more are on their way back.
    let runtime = threads::runtime(THREADS + SEARCHES + 4)?;
    let end: Result<(), Box<dyn Error>> = runtime.block_on(async {
        let mut told = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let listeners = listen(arguments)?;
        let (bridge, files) = bridge(arguments, &log)?;
        sd_notify::notify(&[NotifyState::Ready])?;
        let (changed, config) = (log.clone(), arguments.config.clone());
        let told = async move {
            tokio::select! {
                _ = told.recv() => {}
                _ = interrupted.recv() => {}
                file = stale(files, config, &changed) => {
                    changed.write(Level::Info, &Line::new("restart").with("changed", file));
                }
            }
        };
        server::serve(listeners, bridge, told).await?;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    writer.finish();
    end
}

/// Creates the bridge, and returns it with the files that it was created from.
fn bridge(arguments: &Arguments, log: &Arc<Log>) -> Result<(Arc<Bridge>, Vec<Source>), Box<dyn Error>> {
    let mut files = vec![Source::read(arguments.config.clone())];
    let Front { users, bridge: settings } = Front::load(&arguments.config)?;
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
    let copy = directory.map(|directory| Path::new(&directory).join(CREDENTIAL));
    files.extend(copy.iter().map(|copy| Source::of(Path::new(ADMIN), copy)));
    let admin = copy.and_then(|copy| load_admin(&copy, log));
    files.extend([&settings.certificate, &settings.key].map(|file| Source::read(file.clone())));
    let tls = tls::load_if_there(&settings.certificate, &settings.key)?;
    let mut pam = Pam::new(&settings.service, None, &arguments.socket)?;
    // The services first: a change while libpam reads them must be noticed.
    files.extend([&settings.service, DEFAULT].map(|name| Source::read(Path::new(SERVICES).join(name))));
    files.extend(pam.keep_modules().into_iter().map(Source::read));
    let parts = Parts {
        logins: Arc::new(pam),
        directory: Arc::new(Broker { socket: arguments.socket.clone() }),
        admin,
        tls,
        peers: Peers::new(users, Nss)?,
        log: log.clone(),
    };
    let line = Line::new("start")
        .with("service", &settings.service)
        .with("admin", if parts.admin.is_some() { "yes" } else { "no" })
        .with("tls", if parts.tls.is_some() { "yes" } else { "no" });
    log.write(Level::Info, &line);
    Ok((Bridge::new(parts), files))
}

/// Reads the local admin from systemd's copy of root's file. If it cannot be used, no application can bind as
/// the admin, and the logins of users go on.
fn load_admin(copy: &Path, log: &Log) -> Option<Admin> {
    match LocalAdmin::load(copy) {
        Ok(admin) => admin.map(Admin::from),
        Err(problem) => {
            let line = Line::new("config")
                .with("problem", format!("{ADMIN}: {problem}"))
                .with("consequence", "no application can bind as the local admin")
                .with(
                    "advice",
                    "correct the file, or run `motion-ad setup --bridge --new-secret`; the bridge notices it",
                );
            log.write(Level::Error, &line);
            None
        }
    }
}

/// Returns the first file that has changed, once a new process can use the configuration, the certificate and
/// the key. Until then this process serves with those that it has read. It cannot read the admin's file,
/// which does not keep a new process from starting.
async fn stale(files: Vec<Source>, config: PathBuf, log: &Log) -> String {
    let files = Sources::of(files);
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        if let Some(file) = files.stale() {
            match usable(&config) {
                Ok(()) => return file.display().to_string(),
                Err(problem) => {
                    let line = Line::new("config")
                        .with("problem", problem)
                        .with("consequence", "the bridge keeps what it has read before");
                    log.complain(Level::Error, "config", line);
                }
            }
        }
    }
}

/// Checks that a new process could start.
///
/// # Errors
/// Returns the file and the cause if the configuration, the certificate or the key cannot be used.
fn usable(config: &Path) -> Result<(), String> {
    let Front { bridge, .. } = Front::load(config).map_err(|problem| problem.to_string())?;
    tls::load_if_there(&bridge.certificate, &bridge.key).map(drop)
}

/// The sockets that systemd passed, or those of the arguments.
fn listen(arguments: &Arguments) -> Result<Vec<TcpListener>, Box<dyn Error>> {
    if !arguments.listen.is_empty() {
        for address in &arguments.listen {
            server::check(*address)?;
        }
        return Ok(arguments.listen.iter().map(TcpListener::bind).collect::<Result<_, _>>()?);
    }
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        listeners.extend(passed.take_tcp_listener(index)?);
    }
    match listeners.is_empty() {
        true => Err("no socket was passed: `systemctl start motion-ad-ldap.socket`, or use --listen".into()),
        false => Ok(listeners),
    }
}
