//! The broker as a process, started as systemd starts it.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use motion_ad::client::{ask_verdict, request};
use motion_ad::protocol::{Operation, Secret};
use motion_ad::verdict::Verdict;
use nix::unistd::geteuid;
use tempfile::TempDir;

/// A broker process that is killed when dropped.
pub struct Broker {
    /// The folder with its configuration, socket and state.
    pub folder: Rc<TempDir>,
    pub process: Child,
}

impl Broker {
    /// Starts a broker as systemd does, with the two credentials in a folder. Here they are those of a host
    /// that is not joined.
    pub fn start(config: &str) -> Self {
        Broker::start_in(Rc::new(tempfile::tempdir().unwrap()), config)
    }

    /// Starts a broker in a folder that an earlier one used.
    pub fn start_in(folder: Rc<TempDir>, config: &str) -> Self {
        let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
        write("names.map", b"# nobody\n");
        write("keytab", b"\x05\x02");
        write("sssd.conf", b"\n");
        let map = folder.path().join("names.map");
        let user =
            format!("[broker]\nusers = [\"{}\"]\n[names]\nmap_file = \"{}\"\n", geteuid(), map.display());
        write("config.toml", (config.to_owned() + &user).as_bytes());
        let socket = folder.path().join("broker.sock");
        for socket in ["broker.sock", "metrics.sock"] {
            let _ = std::fs::remove_file(folder.path().join(socket));
        }
        let process = Command::new(env!("CARGO_BIN_EXE_motion-ad-broker"))
            .arg("--listen")
            .arg(socket)
            .arg("--metrics")
            .arg(folder.path().join("metrics.sock"))
            .arg("--config")
            .arg(folder.path().join("config.toml"))
            .env("CREDENTIALS_DIRECTORY", folder.path())
            .env("STATE_DIRECTORY", folder.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let broker = Broker { folder, process };
        let begun = Instant::now();
        while UnixStream::connect(broker.socket()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the broker does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        broker
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("broker.sock")
    }

    pub fn metrics(&self) -> PathBuf {
        self.folder.path().join("metrics.sock")
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    pub fn login(&self) -> Verdict {
        let request = request(
            Operation::Authenticate { register: false, warn: false },
            "john.doe",
            Duration::from_secs(10),
        );
        ask_verdict(&self.socket(), &request, &Secret::new(b"secret".to_vec())).unwrap()
    }

    /// Waits up to 20 s for the process to end by itself, and returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the broker did not end");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Configuration of a domain on a host that is not joined. It names the servers and the CA file, so that the
/// broker takes neither from this machine.
pub const DOMAIN: &str = concat!(
    "[domain]\nname = \"acme.example\"\nservers = [\"dc.invalid\"]\n[tls]\nca_file = \"",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/ca.pem\"\n"
);
