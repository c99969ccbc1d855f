//! A proxy that passes on one byte at a time in both directions, so that both ends get short reads.
//!
//! It is part of the lab's suite, which starts itself on the joined host with these arguments.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::time::Duration;

use crate::lab::Lab;
use crate::report::equal;

/// First argument of this program when it runs as the proxy.
pub const PIECEWISE: &str = "--piecewise";
/// Pause after each byte, in which the other end reads it, also under strace on a busy machine.
const PAUSE: Duration = Duration::from_millis(1);

/// Runs as the proxy from one address to another until its standard input ends. An address is the path of a
/// Unix socket, or an IP address with a port.
///
/// # Errors
/// If it cannot listen.
pub fn run(from: &str, to: &str) -> Result<(), String> {
    let listener = Listener::bind(from).map_err(|e| format!("{from}: {e}"))?;
    println!("listening");
    io::stdout().flush().map_err(|e| e.to_string())?;
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    loop {
        let client = listener.accept().map_err(|e| format!("{from}: {e}"))?;
        // A client whose server does not answer finds its connection closed.
        if let Ok(server) = Socket::connect(to)
            && let (Ok(other_client), Ok(other_server)) = (client.try_clone(), server.try_clone())
        {
            std::thread::spawn(|| pass(client, server));
            std::thread::spawn(|| pass(other_server, other_client));
        }
    }
}

/// Passes bytes on until one end closes. An error means that the other end is gone, too.
fn pass(mut from: Socket, mut to: Socket) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        for byte in &bytes[..count] {
            if to.write_all(&[*byte]).is_err() {
                from.shutdown(Shutdown::Both);
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
    to.shutdown(Shutdown::Write);
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn bind(address: &str) -> io::Result<Self> {
        match address.starts_with('/') {
            true => UnixListener::bind(address).map(Listener::Unix),
            false => TcpListener::bind(address).map(Listener::Tcp),
        }
    }

    fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| Socket::Unix(stream)),
            Listener::Tcp(listener) => Socket::tcp(listener.accept()?.0),
        }
    }
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn connect(address: &str) -> io::Result<Self> {
        match address.starts_with('/') {
            true => UnixStream::connect(address).map(Socket::Unix),
            false => Socket::tcp(TcpStream::connect(address)?),
        }
    }

    /// Without Nagle's algorithm, each byte becomes a packet.
    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Socket::Tcp(stream))
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Socket::Unix(stream) => stream.try_clone().map(Socket::Unix),
            Socket::Tcp(stream) => stream.try_clone().map(Socket::Tcp),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // An error means that the connection has ended.
        let _ = match self {
            Socket::Unix(stream) => stream.shutdown(how),
            Socket::Tcp(stream) => stream.shutdown(how),
        };
    }
}

impl io::Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.read(bytes),
            Socket::Tcp(stream) => stream.read(bytes),
        }
    }
}

impl io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.write(bytes),
            Socket::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The proxy on the host, running as XCALLY's user. Dropping it ends it.
pub struct Piecewise(Child);

impl Piecewise {
    /// Starts it.
    pub fn start(lab: &Lab, from: &str, to: &str) -> Result<Self, String> {
        if from.starts_with('/') {
            lab.host("motion", &["rm", "-f", from], "").ok()?;
        }
        let mut proxy = Piecewise(lab.host_child("motion", &[lab.program()?, PIECEWISE, from, to])?);
        let mut first = String::new();
        let output = proxy.0.stdout.as_mut().ok_or("the proxy has no output")?;
        BufReader::new(output).read_line(&mut first).map_err(|e| e.to_string())?;
        equal("the proxy's first line", first.trim(), "listening")?;
        Ok(proxy)
    }
}

impl Drop for Piecewise {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
