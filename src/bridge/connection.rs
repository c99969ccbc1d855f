//! One connection: its identity and its requests, which are answered one after the other.

use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::ber::Malformed;
use super::bind::Bound;
use super::house::Guest;
use super::message::{self, Message, Outcome, Request, code};
use super::state::{Identity, State};
use super::stream::{Buffer, Client, ReadError, send};
use super::{Bridge, bind, search};
use crate::log::{Level, Line};
use crate::protocol::Peer;

/// Time limit for the first message of a connection. AD's limit is the same (InitRecvTimeout, MS-ADTS
/// 3.1.1.3.4.6).
pub const FIRST: Duration = Duration::from_secs(120);
/// Idle time after which a connection is closed. AD's limit is the same (MaxConnIdleTime).
pub const IDLE: Duration = Duration::from_secs(900);
/// Time limit for a TLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Notice to a client that sends nothing.
const IDLED: &str = "the connection was idle";
/// First byte of a TLS connection (RFC 8446, 5.1). No LDAP message starts with it.
const TLS: u8 = 0x16;

/// Next step of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Read the next message.
    Message,
    /// Perform a TLS handshake.
    Tls,
    /// Close the connection.
    End,
}

/// Serves `stream` until one side closes it.
pub async fn serve(bridge: &Bridge, mut stream: TcpStream, peer: Peer, guest: &Guest) {
    let _ = stream.set_nodelay(true);
    let mut state = State {
        peer,
        identity: Identity::Anonymous,
        kept: None,
        is_tls: false,
        buffer: Buffer::default(),
        first: Instant::now() + FIRST,
        has_asked: false,
        session: None,
    };
    let is_tls = tokio::select! {
        first = begins_with_tls(&stream, state.first) => match first {
            Some(is_tls) => is_tls,
            None => {
                notice(&mut stream, code::UNAVAILABLE, IDLED).await;
                return;
            }
        },
        () = bridge.ends() => return,
        () = guest.is_asked_to_leave() => return,
    };
    if !is_tls && talk(bridge, &mut stream, &mut state, guest).await != Next::Tls {
        return;
    }
    let Some(acceptor) = &bridge.tls else {
        bridge.complain(&state.peer, "a client wants TLS, and there is no certificate (bridge.certificate)");
        return;
    };
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(mut stream)) => {
            state.is_tls = true;
            talk(bridge, &mut stream, &mut state, guest).await;
            let _ = timeout(HANDSHAKE, tokio::io::AsyncWriteExt::shutdown(&mut stream)).await;
        }
        Ok(Err(error)) => bridge.complain(&state.peer, &format!("no TLS: {error}")),
        Err(_) => bridge.complain(&state.peer, "no TLS: the handshake took too long"),
    }
}

/// Returns true if the connection starts with TLS, or `None` if no byte arrives by `deadline`. The first byte
/// stays in the socket's buffer.
async fn begins_with_tls(stream: &TcpStream, deadline: Instant) -> Option<bool> {
    let mut first = [0];
    let peeked = timeout_at(deadline, stream.peek(&mut first)).await.ok()?;
    Some(matches!(peeked, Ok(1) if first == [TLS]))
}

async fn talk<S: Client>(bridge: &Bridge, stream: &mut S, state: &mut State, guest: &Guest) -> Next {
    loop {
        guest.waits();
        let idle = match (&state.kept, state.has_asked) {
            (Some(kept), _) => kept.left(),
            (None, false) => state.first.saturating_duration_since(Instant::now()),
            (None, true) => IDLE,
        };
        let read = tokio::select! {
            biased;
            () = bridge.ends() => return notice(stream, code::UNAVAILABLE, "the server ends").await,
            () = guest.is_asked_to_leave() => {
                return notice(stream, code::BUSY, "another connection needs its place").await;
            }
            read = state.buffer.next(stream, idle) => read,
        };
        guest.works();
        if let Some(session) = state.session.take()
            && stream.is_reset()
        {
            session
                .end(bridge, state.peer, "the client closed the connection without reading the reply")
                .await;
        }
        let message = match read {
            Ok(bytes) => Message::decode(&bytes).map_err(ReadError::Malformed),
            // The remaining pages expire; the connection stays open.
            Err(ReadError::Idle) if state.kept.take().is_some() => continue,
            Err(error) => Err(error),
        };
        state.has_asked = true;
        let next = match message {
            Ok(message) => answer(bridge, stream, state, message).await,
            Err(error) => return malformed(bridge, stream, state, &error).await,
        };
        match next {
            Ok(Next::Message) => {}
            Ok(next) => return next,
            Err(error) => {
                bridge.complain(&state.peer, &error.to_string());
                return Next::End;
            }
        }
    }
}

/// Tells the client why the connection is closed.
async fn notice<S: AsyncWrite + Unpin>(stream: &mut S, code: u8, text: &str) -> Next {
    let _ = send(stream, &message::disconnection(&Outcome::new(code, text))).await;
    Next::End
}

async fn malformed<S: AsyncWrite + Unpin>(
    bridge: &Bridge,
    stream: &mut S,
    state: &State,
    error: &ReadError,
) -> Next {
    let code = match error {
        // The normal end of a connection.
        ReadError::Closed => return Next::End,
        ReadError::Idle => return notice(stream, code::UNAVAILABLE, IDLED).await,
        ReadError::Io(_) => {
            bridge.complain(&state.peer, &error.to_string());
            return Next::End;
        }
        ReadError::Slow => code::TIME_LIMIT_EXCEEDED,
        ReadError::Malformed(Malformed::TooLong | Malformed::TooDeep | Malformed::TooMany) => {
            code::ADMIN_LIMIT_EXCEEDED
        }
        ReadError::Malformed(_) => code::PROTOCOL_ERROR,
    };
    bridge.complain(&state.peer, &error.to_string());
    notice(stream, code, &error.to_string()).await
}

async fn answer<S: Client>(
    bridge: &Bridge,
    stream: &mut S,
    state: &mut State,
    message: Message,
) -> std::io::Result<Next> {
    let id = message.id;
    if let (Some(control), Some(answer)) = (message.unknown_control(), message.answer()) {
        let text = format!("the critical control {control} is not supported");
        let outcome = Outcome::new(code::UNAVAILABLE_CRITICAL_EXTENSION, text);
        send(stream, &message::done(id, answer, &outcome)).await?;
        return Ok(Next::Message);
    }
    match message.request {
        Request::Bind(bind) => return bound(bridge, stream, state, id, bind).await,
        Request::Search(search) => {
            search::search(bridge, stream, state, id, search, &message.controls).await?
        }
        Request::Extended(name) => return extended(bridge, stream, state, id, &name).await,
        Request::Refused(answer) => {
            let outcome =
                Outcome::new(code::UNWILLING_TO_PERFORM, "this server answers only binds and searches");
            send(stream, &message::done(id, answer, &outcome)).await?;
        }
        // Messages are answered in order, so the earlier one has been answered already.
        Request::Abandon => {}
        Request::Unbind => return Ok(Next::End),
    }
    Ok(Next::Message)
}

/// Performs a bind and sends its result. If the client has given up, the session of the bind ends.
async fn bound<S: Client>(
    bridge: &Bridge,
    stream: &mut S,
    state: &mut State,
    id: u32,
    bind: message::Bind,
) -> std::io::Result<Next> {
    let Bound { outcome, session, logged: _logged } = bind::bind(bridge, state, bind).await;
    if let Some(session) = session {
        if stream.is_closed() {
            session.end(bridge, state.peer, "the client closed the connection before the reply").await;
            return Ok(Next::End);
        }
        state.session = Some(session);
    }
    let sent = send(stream, &message::done(id, message::answer::BIND, &outcome)).await;
    if let Err(error) = &sent
        && let Some(session) = state.session.take()
    {
        session.end(bridge, state.peer, &format!("the reply could not be sent: {error}")).await;
    }
    sent.map(|()| Next::Message)
}

async fn extended<S: Client>(
    bridge: &Bridge,
    stream: &mut S,
    state: &mut State,
    id: u32,
    name: &str,
) -> std::io::Result<Next> {
    let (outcome, value, next) = match name {
        message::WHO_AM_I => {
            let who = match &state.identity {
                Identity::Anonymous => String::new(),
                Identity::Admin(name) | Identity::User(name) => format!("u:{name}"),
            };
            (Outcome::success(), Some(who), Next::Message)
        }
        message::START_TLS if state.is_tls => {
            (Outcome::new(code::OPERATIONS_ERROR, "TLS is on already"), None, Next::Message)
        }
        message::START_TLS if bridge.tls.is_none() => (
            Outcome::new(code::PROTOCOL_ERROR, "there is no certificate (bridge.certificate)"),
            None,
            Next::Message,
        ),
        // Otherwise, plaintext from before the handshake would be treated as if TLS had protected it.
        message::START_TLS if !state.buffer.is_empty() => {
            (Outcome::new(code::OPERATIONS_ERROR, "something follows StartTLS without TLS"), None, Next::End)
        }
        message::START_TLS => (Outcome::success(), None, Next::Tls),
        _ => (
            Outcome::new(code::PROTOCOL_ERROR, "this extended operation is not supported"),
            None,
            Next::Message,
        ),
    };
    if next == Next::Tls {
        // An identity from a bind without TLS does not carry over into TLS.
        state.identity = Identity::Anonymous;
        state.kept = None;
    }
    let repeated = (name == message::START_TLS).then_some(name);
    let answer = message::extended_done(id, &outcome, repeated, value.as_deref().map(str::as_bytes));
    send(stream, &answer).await?;
    Ok(next)
}

impl Bridge {
    /// Logs a problem with a client, at most once a minute for each cause and user.
    fn complain(&self, peer: &Peer, reason: &str) {
        let line = Line::new("bridge").with("peer", peer).with("reason", reason);
        self.log.complain(Level::Warning, &format!("bridge {} {reason}", peer.uid), line);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::super::Parts;
    use super::super::answer::Answer;
    use super::super::directory::Directory;
    use super::super::house::House;
    use super::super::logins::Logins;
    use super::*;
    use crate::broker::peers::{Nss, Peers};
    use crate::log::Log;
    use crate::protocol::Secret;
    use crate::protocol::search::{Found, Search};

    /// A PAM and a directory that no request reaches.
    struct Nothing;

    impl Logins for Nothing {
        fn login(&self, _: &str, _: &Secret) -> Answer {
            unreachable!("no login")
        }

        fn end(&self, _: &str, _: &str) -> Result<(), String> {
            unreachable!("no session")
        }
    }

    impl Directory for Nothing {
        fn search(&self, _: Search, _: Duration) -> Found {
            unreachable!("no search")
        }

        fn domain(&self) -> Option<String> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_is_disconnected_after_two_minutes() {
        let bridge = Bridge::new(Parts {
            logins: Arc::new(Nothing),
            directory: Arc::new(Nothing),
            admin: None,
            tls: None,
            peers: Peers::new(Vec::new(), Nss).unwrap(),
            log: Arc::new(Log::open().unwrap().0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let stay = House::new(1).enter().await.unwrap();
        let begun = Instant::now();
        serve(&bridge, server, Peer { uid: 0, pid: 0 }, stay.guest()).await;
        assert_eq!(begun.elapsed().as_secs(), FIRST.as_secs());
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        assert!(said.windows(IDLED.len()).any(|text| text == IDLED.as_bytes()), "{said:x?}");
    }
}
