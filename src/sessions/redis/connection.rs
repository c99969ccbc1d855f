//! Connections to a Redis: the address, TLS, the user, and the server that the Sentinels name.
//!
//! The library does not make them, for three reasons: this program has one TLS, with roots of our choosing;
//! each step has its bound; and the library would keep the password in its buffers.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, cmd};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::trouble::{Kind, Trouble};
use crate::config::{Redis, RedisAt, Server, text};
use crate::directory::controllers::dns::Names;
use crate::directory::trust::Trust;
use crate::directory::trust::verifier::Distrust;
use crate::net::connect_tuned;
use crate::protocol::Secret;

/// Maximum time for querying the Sentinels, all together.
const SENTINELS: Duration = Duration::from_millis(500);
/// Maximum size of a password file, in bytes; the rest is not read.
const PASSWORD_FILE: u64 = 4096;
/// Maximum length of the reply to a password, in bytes.
const ANSWER: usize = 512;

/// An open connection, which carries the calls of several requests at a time.
pub(super) struct Line {
    pub(super) connection: MultiplexedConnection,
    pub(super) heard: Heard,
    /// Task that reads and writes; it ends with the connection, and when this is dropped.
    driver: JoinSet<()>,
}

impl Line {
    /// Returns when the connection has ended.
    pub(super) async fn ended(&mut self) {
        self.driver.join_next().await;
    }
}

/// Time when the server last sent a byte on a connection. Replies come in order: while any of them arrives,
/// the server is busy and not dead, and a later reply will come.
#[derive(Clone)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    fn new() -> Self {
        Heard(Arc::new(Mutex::new(Instant::now())))
    }

    fn last(&self) -> Instant {
        *self.0.lock()
    }

    fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Awaits `work` until the deadline, or until the server has been silent for `silence`.
    pub(super) async fn in_time<T>(
        &self,
        deadline: Instant,
        silence: Duration,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let begun = Instant::now();
        let mut work = pin!(work);
        loop {
            let until = deadline.min(self.last().max(begun) + silence);
            if Instant::now() >= until {
                return Err(Trouble::silent());
            }
            if let Ok(done) = timeout_at(until, &mut work).await {
                return done;
            }
        }
    }
}

/// A stream that notes when it receives bytes.
struct Noted<S> {
    stream: S,
    heard: Heard,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.heard.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Settings for making connections.
pub(super) struct Connector {
    pub(super) redis: Redis,
    pub(super) names: Arc<dyn Names>,
}

/// TLS and password for the connections of one attempt. The files are read for each attempt, so that a new
/// password or CA needs no restart.
pub(super) struct Access {
    tls: Option<Arc<ClientConfig>>,
    password: Option<Secret>,
}

/// Credentials for the server.
#[derive(Clone, Copy)]
struct Login<'a> {
    /// The user; `None` is the default user.
    user: Option<&'a str>,
    password: &'a Secret,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Access {
    /// Reads the files with the CA and the password.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be used.
    pub(super) fn read(redis: &Redis) -> Result<Self, Trouble> {
        let barred = |cause: String, advice| Trouble::new(Kind::Barred, cause, advice);
        let tls = match redis.tls {
            true => {
                let trust =
                    Trust::load(redis.ca_file.as_deref(), None).map_err(|e| barred(e.to_string(), ""))?;
                Some(trust.config())
            }
            false => None,
        };
        let password = match (&redis.password_file, &redis.user) {
            (Some(file), _) => Some(password(file)?),
            (None, None) => None,
            (None, Some(user)) => {
                let cause = format!("sessions.store names the user {user}, and there is no password");
                return Err(barred(cause, "put it into a file and name that as sessions.password_file"));
            }
        };
        Ok(Access { tls, password })
    }
}

impl Connector {
    /// Reads the settings for connections again.
    ///
    /// # Errors
    /// Returns the same errors as [`Access::read`].
    pub(super) async fn access(&self) -> Result<Arc<Access>, Trouble> {
        let redis = self.redis.clone();
        let reading = tokio::task::spawn_blocking(move || Access::read(&redis).map(Arc::new));
        reading.await.unwrap_or_else(|e| Err(Trouble::lost(e.to_string())))
    }

    /// Returns the servers that may be the master, the likeliest first; at least one.
    ///
    /// # Errors
    /// Returns an error if no Sentinel names a server.
    pub(super) async fn servers(self: &Arc<Self>, access: &Arc<Access>) -> Result<Vec<Server>, Trouble> {
        let (sentinels, service) = match &self.redis.at {
            RedisAt::Server(server) => return Ok(vec![server.clone()]),
            RedisAt::Sentinel { sentinels, service } => (sentinels, service),
        };
        let until = Instant::now() + SENTINELS;
        let mut asked = JoinSet::new();
        for sentinel in sentinels {
            let (me, access) = (self.clone(), access.clone());
            let (sentinel, service) = (sentinel.clone(), service.clone());
            asked.spawn(async move {
                let answer = in_time(until, me.ask(&sentinel, &service, &access, until)).await;
                answer.map_err(|trouble| trouble.of(&format!("Sentinel {sentinel}")))
            });
        }
        let (mut votes, mut troubles): (Vec<(Server, usize)>, Vec<Trouble>) = Default::default();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(server)) => {
                    match votes.iter_mut().find(|(named, _)| *named == server) {
                        Some((_, votes)) => *votes += 1,
                        None => votes.push((server, 1)),
                    }
                    // A Sentinel that was cut off names the former master: only a majority ends the search
                    // early.
                    if votes.iter().any(|(_, votes)| *votes > sentinels.len() / 2) {
                        break;
                    }
                }
                Ok(Err(trouble)) => troubles.push(trouble),
                Err(error) => troubles.push(Trouble::lost(error.to_string())),
            }
        }
        if votes.is_empty() {
            let causes = troubles.iter().map(|trouble| trouble.cause.as_str()).collect::<Vec<_>>().join("; ");
            // A cause that an administrator must fix is reported before one that may pass.
            let worst = troubles.iter().find(|trouble| trouble.kind == Kind::Barred).or(troubles.first());
            let (kind, advice) = worst.map_or((Kind::Lost, ""), |worst| (worst.kind, worst.advice));
            return Err(Trouble::new(kind, causes, advice));
        }
        votes.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        Ok(votes.into_iter().map(|(server, _)| server).collect())
    }

    /// Returns the server that `sentinel` names (redis.io/docs/reference/sentinel-clients).
    async fn ask(
        &self,
        sentinel: &Server,
        service: &str,
        access: &Access,
        until: Instant,
    ) -> Result<Server, Trouble> {
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        // Sentinels often have no users, or no password where their servers have one. A Sentinel that does
        // not require the password does not get it.
        let users = [self.redis.user.as_deref(), None];
        let password = access.password.as_ref();
        let logins = users.into_iter().filter_map(|user| Some(Login { user, password: password? }));
        let mut answer = Err(Trouble::lost(""));
        for login in [None].into_iter().chain(logins.map(Some)) {
            answer = match self.line(sentinel, access, login, 0, until).await {
                Ok(mut line) => {
                    question.query_async::<Option<_>>(&mut line.connection).await.map_err(Trouble::from)
                }
                Err(trouble) => Err(trouble),
            };
            if !matches!(&answer, Err(trouble) if trouble.kind == Kind::Barred) {
                break;
            }
        }
        let (host, port) = answer?.ok_or_else(|| {
            let cause = format!("it knows no {service}");
            Trouble::new(
                Kind::Barred,
                cause,
                "sessions.store ends with the name that sentinel.conf gives the master",
            )
        })?;
        Ok(Server { host, port })
    }

    /// Opens a connection to `server`, as the user that may use the register.
    ///
    /// # Errors
    /// Returns an error if the server was not reached or the user is rejected.
    pub(super) async fn connect(
        &self,
        server: &Server,
        access: &Access,
        until: Instant,
    ) -> Result<Line, Trouble> {
        let user = self.redis.user.as_deref();
        let login = access.password.as_ref().map(|password| Login { user, password });
        let line = self.line(server, access, login, self.redis.database, until);
        in_time(until, line).await
    }

    async fn line(
        &self,
        server: &Server,
        access: &Access,
        login: Option<Login<'_>>,
        database: u32,
        until: Instant,
    ) -> Result<Line, Trouble> {
        let mut stream = self.stream(server, access.tls.as_ref(), until).await?;
        if let Some(login) = login {
            authenticate(&mut stream, login).await?;
        }
        let info = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(database.into());
        // Each call has its own deadline.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let heard = Heard::new();
        let stream = Noted { stream, heard: heard.clone() };
        let (connection, work) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
        let mut driver = JoinSet::new();
        driver.spawn(work);
        Ok(Line { connection, heard, driver })
    }

    async fn stream(
        &self,
        server: &Server,
        tls: Option<&Arc<ClientConfig>>,
        until: Instant,
    ) -> Result<Box<dyn Stream>, Trouble> {
        let addresses = match server.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.names.addresses(&server.host).await.map_err(Trouble::lost)?.0,
        };
        let addresses: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip, server.port)).collect();
        let (tcp, _) = connect_tuned(&addresses, until).await.map_err(Trouble::lost)?;
        // When a connection is given up, the kernel must not deliver its unsent data later.
        tcp.set_zero_linger()?;
        let Some(config) = tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(server.host.clone()).map_err(|e| Trouble::lost(e.to_string()))?;
        let handshake = TlsConnector::from(config.clone()).connect(name, tcp);
        let connected = timeout_at(until, handshake).await.map_err(|_| {
            let advice = "name a port where the server speaks TLS (tls-port of its configuration)";
            Trouble::new(Kind::Silent, "no answer to TLS in time", advice)
        })?;
        let stream = connected.map_err(|error| match Distrust::of(&error) {
            Some(distrust) => Trouble::new(
                Kind::Barred,
                format!("TLS: {distrust}"),
                "let sessions.ca_file name the CA that issued it; the certificate must bear the name in \
                 sessions.store",
            ),
            None => Trouble::lost(format!("TLS: {error}")),
        })?;
        Ok(Box::new(stream))
    }
}

/// Awaits `work` until the deadline.
pub(super) async fn in_time<T>(
    until: Instant,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    timeout_at(until, work).await.unwrap_or_else(|_| Err(Trouble::silent()))
}

/// Sends the user and the password, and waits for the reply.
async fn authenticate(stream: &mut Box<dyn Stream>, login: Login<'_>) -> Result<(), Trouble> {
    let mut auth = cmd("AUTH");
    auth.arg(login.user).arg(login.password.bytes());
    let auth = Zeroizing::new(auth.get_packed_command());
    stream.write_all(&auth).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && line.len() < ANSWER {
        line.push(stream.read_u8().await?);
    }
    accepted(&line)
}

/// Reads the reply to a password.
///
/// # Errors
/// Returns the server's reason if it rejects the password, and an error if the reply is no line of Redis.
pub(crate) fn accepted(reply: &[u8]) -> Result<(), Trouble> {
    let line = String::from_utf8_lossy(reply);
    match line.trim_end().split_at_checked(1) {
        Some(("+", _)) if reply.ends_with(b"\r\n") => Ok(()),
        Some(("-", text)) => Err(Trouble::answered(text)),
        _ => Err(Trouble::lost("the server does not speak Redis's protocol")),
    }
}

/// Returns the first line of the file at `path`.
fn password(path: &Path) -> Result<Secret, Trouble> {
    let barred =
        |cause: String, advice| Trouble::new(Kind::Barred, format!("{}: {cause}", path.display()), advice);
    let unreadable =
        |e: io::Error| barred(format!("cannot be read: {e}"), "chown root:motion-ad and chmod 640 the file");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.permissions().mode() & 0o007 != 0 {
        return Err(barred(
            "every user may read the password file".to_owned(),
            "chown root:motion-ad and chmod 640 the file",
        ));
    }
    // Allocated at full size, because growing would leave copies of the password behind.
    let mut text = Zeroizing::new(Vec::with_capacity(
        usize::try_from(PASSWORD_FILE).unwrap_or_default().saturating_add(1),
    ));
    file.take(PASSWORD_FILE).read_to_end(&mut text).map_err(unreadable)?;
    let text = text::unmarked(&text).map_err(|flaw| barred(flaw.text, "its first line is the password"))?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let secret = Secret::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    match secret.password() {
        Ok(_) => Ok(secret),
        Err(error) => Err(barred(error.to_string(), "its first line is the password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_line_of_redis_accepts_a_password() {
        assert_eq!(accepted(b"+OK\r\n"), Ok(()));
        let endless = [&b"+"[..], &[b'x'; ANSWER - 1]].concat();
        for (reply, kind, cause) in [
            (&b"-WRONGPASS invalid username-password pair\r\n"[..], Kind::Barred, "WRONGPASS"),
            (b"+OK", Kind::Lost, "does not speak"),
            (&endless, Kind::Lost, "does not speak"),
            (b"HTTP/1.1 400 Bad Request\r\n", Kind::Lost, "does not speak"),
            (b"\r\n", Kind::Lost, "does not speak"),
            (b"", Kind::Lost, "does not speak"),
        ] {
            let trouble = accepted(reply).unwrap_err();
            assert_eq!(trouble.kind, kind);
            assert!(trouble.cause.contains(cause), "{}", trouble.cause);
        }
    }
}
