//! The broker: start-up only.

use std::error::Error;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use listenfd::ListenFd;
use motion_ad::broker::cli::Arguments;
use motion_ad::broker::server::{End, serve};
use motion_ad::broker::{Broker, Start, health, metrics, pulse};
use motion_ad::config::{Credentials, Store};
use motion_ad::directory::trust::Trust;
use motion_ad::kerberos;
use motion_ad::log::{Level, Line, Log};
use motion_ad::sessions::redis::Redis;
use motion_ad::supervise;
use motion_ad::threads;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// Wipes what it frees: LDAP, TLS and the runtime copy the passwords that they send.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// Name of the socket for metrics (`FileDescriptorName=`, systemd.socket(5)).
const METRICS: &str = "metrics";
/// Number of threads for files and for revocation lists.
const FILES: usize = 4;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
    let credentials = Credentials::find(directory.as_deref().map(Path::new));
    let done = match arguments.check_config {
        true => check_config(&arguments.config, &credentials),
        false => run(arguments, credentials),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("motion-ad-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check_config(path: &Path, credentials: &Credentials) -> Result<(), Box<dyn Error>> {
    let config = credentials.config(path)?;
    let trust = Trust::load(config.tls.ca_file.as_deref(), None)?;
    if let Store::Redis(redis) = &config.sessions.store {
        Redis::check(redis)?;
    }
    println!("{}: ok, domain {}, trusted roots from {}", path.display(), config.domain.name, trust.source());
    Ok(())
}

fn run(arguments: Arguments, credentials: Credentials) -> Result<(), Box<dyn Error>> {
    // Neither a core dump nor another process of our user may see a password.
    nix::sys::prctl::set_dumpable(false)?;
    supervise::report_panics();
    let (log, writer) = Log::open()?;
    let runtime = threads::runtime(kerberos::THREADS + FILES)?;
    let end: Result<(), Box<dyn Error>> = runtime.block_on(async {
        let mut told = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let (listener, watched) = listen(&arguments)?;
        let broker = Broker::new(Start { config: arguments.config, credentials, log })?;
        tokio::spawn({
            let broker = broker.clone();
            async move { broker.warm_up().await }
        });
        if let Some(watched) = watched {
            let (watched, broker) = (Arc::new(watched), broker.clone());
            supervise::spawn("metrics", move || metrics::http::serve(watched.clone(), broker.clone()));
        }
        sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&broker.state(None))])?;
        supervise::spawn("pulse", {
            let broker = broker.clone();
            move || pulse::keep(broker.clone())
        });
        supervise::spawn("health", {
            let broker = broker.clone();
            move || health::keep(broker.clone())
        });
        let told = async move {
            tokio::select! { _ = told.recv() => {}, _ = interrupted.recv() => {} }
        };
        // On a worker thread, like the connections that it accepts: otherwise each one would have to wake
        // this thread.
        let end = tokio::spawn(serve(listener, broker.clone(), told)).await??;
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        if let End::Stale(file) = &end {
            let line = Line::new("restart").with("changed", file);
            broker.log().write(Level::Info, &line);
            broker.hand_over();
        }
        Ok(())
    });
    // Work that is still running may write to the log.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    writer.finish();
    end
}

/// The socket for logins, and the one for metrics, where there is one.
fn listen(arguments: &Arguments) -> Result<(UnixListener, Option<UnixListener>), Box<dyn Error>> {
    if let Some(path) = &arguments.listen {
        let watched = arguments.metrics.as_deref().map(UnixListener::bind).transpose()?;
        return Ok((UnixListener::bind(path)?, watched));
    }
    // systemd does not guarantee the order of the sockets (sd_listen_fds(3)).
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    let (mut logins, mut watched) = (None, None);
    for index in 0..passed.len() {
        let is_watched = names.split(':').nth(index) == Some(METRICS);
        let place = if is_watched { &mut watched } else { &mut logins };
        *place = passed.take_unix_listener(index)?;
    }
    let missing = "no socket was passed: `systemctl start motion-ad.socket`, or use --listen PATH";
    Ok((logins.ok_or(missing)?, watched))
}
