//! One connection: who it is bound as, and what it asks, one message after the other.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ber::Malformed;
use super::house::Guest;
use super::message::{self, Message, Outcome, Request, code};
use super::paging::Kept;
use super::stream::{Buffer, ReadError, send};
use super::{Bridge, bind, search};
use crate::broker::log::{Level, Line};
use crate::broker::peers::Peer;

/// A new connection must send a message within this time, as with AD (InitRecvTimeout, MS-ADTS 3.1.1.3.4.6).
pub const FIRST: Duration = Duration::from_secs(120);
/// A connection that asks nothing is closed after this time, as with AD (MaxConnIdleTime).
pub const IDLE: Duration = Duration::from_secs(900);
/// A TLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// The first byte of a TLS connection (RFC 8446, 5.1); a message of LDAP begins with another.
const TLS: u8 = 0x16;

/// Who a connection is bound as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// Nobody yet, or nobody any more.
    #[default]
    Anonymous,
    /// The local admin, by this name.
    Admin(String),
    /// A user, by the name that PAM was asked for.
    User(String),
}

/// What a connection remembers.
#[derive(Debug)]
pub struct State {
    /// Who is at the other end.
    pub peer: Peer,
    /// Who it is bound as.
    pub identity: Identity,
    /// The rest of a search that is fetched in pages.
    pub kept: Option<Kept>,
    /// TLS is on.
    pub is_tls: bool,
    buffer: Buffer,
    has_asked: bool,
}

/// How the exchange of messages goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// With the next message.
    Message,
    /// With a TLS handshake.
    Tls,
    /// Not at all.
    End,
}

/// Serves `stream` until its end.
pub async fn serve(bridge: &Bridge, mut stream: TcpStream, peer: Peer, guest: &Guest) {
    let _ = stream.set_nodelay(true);
    let mut state = State {
        peer,
        identity: Identity::Anonymous,
        kept: None,
        is_tls: false,
        buffer: Buffer::default(),
        has_asked: false,
    };
    let is_tls = tokio::select! {
        first = begins_with_tls(&stream) => first,
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

/// Looks at the first byte and leaves it where it is.
async fn begins_with_tls(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(timeout(FIRST, stream.peek(&mut first)).await, Ok(Ok(1)) if first == [TLS])
}

async fn talk<S>(bridge: &Bridge, stream: &mut S, state: &mut State, guest: &Guest) -> Next
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    loop {
        guest.waits();
        let idle = match (&state.kept, state.has_asked) {
            (Some(kept), _) => kept.left(),
            (None, false) => FIRST,
            (None, true) => IDLE,
        };
        let read = tokio::select! {
            biased;
            () = bridge.ends() => return notice(stream, code::UNAVAILABLE, "the server ends").await,
            () = guest.is_asked_to_leave() => {
                return notice(stream, code::BUSY, "another connection needs the place").await;
            }
            read = state.buffer.next(stream, idle) => read,
        };
        guest.works();
        let message = match read {
            Ok(bytes) => Message::decode(&bytes).map_err(ReadError::Malformed),
            // The rest of the pages is not kept for ever; the connection may stay.
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

/// Says that the connection is closed, and why.
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
        // What happens to every connection at last.
        ReadError::Closed => return Next::End,
        ReadError::Idle => return notice(stream, code::UNAVAILABLE, "the connection was idle").await,
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

async fn answer<S>(
    bridge: &Bridge,
    stream: &mut S,
    state: &mut State,
    message: Message,
) -> std::io::Result<Next>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let id = message.id;
    if let (Some(control), Some(answer)) = (message.unknown_control(), message.answer()) {
        let text = format!("the critical control {control} is not supported");
        let outcome = Outcome::new(code::UNAVAILABLE_CRITICAL_EXTENSION, text);
        send(stream, &message::done(id, answer, &outcome)).await?;
        return Ok(Next::Message);
    }
    match message.request {
        Request::Bind(bind) => {
            let outcome = bind::bind(bridge, state, bind).await;
            send(stream, &message::done(id, message::answer::BIND, &outcome)).await?;
        }
        Request::Search(search) => {
            search::search(bridge, stream, state, id, search, &message.controls).await?
        }
        Request::Extended(name) => return extended(bridge, stream, state, id, &name).await,
        Request::Refused(answer) => {
            let outcome =
                Outcome::new(code::UNWILLING_TO_PERFORM, "this server answers binds and searches alone");
            send(stream, &message::done(id, answer, &outcome)).await?;
        }
        // Messages are answered in their order, so there is nothing to abandon any more.
        Request::Abandon => {}
        Request::Unbind => return Ok(Next::End),
    }
    Ok(Next::Message)
}

async fn extended<S>(
    bridge: &Bridge,
    stream: &mut S,
    state: &mut State,
    id: u32,
    name: &str,
) -> std::io::Result<Next>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
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
        // What was sent before the handshake would be taken for what came inside it.
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
        // Who asked for it in the clear is not who binds inside it.
        state.identity = Identity::Anonymous;
        state.kept = None;
    }
    let repeated = (name == message::START_TLS).then_some(name);
    let answer = message::extended_done(id, &outcome, repeated, value.as_deref().map(str::as_bytes));
    send(stream, &answer).await?;
    Ok(next)
}

impl Bridge {
    /// Writes that a client was cut off, once a minute for each cause and user.
    fn complain(&self, peer: &Peer, reason: &str) {
        let line = Line::new("bridge").with("peer", peer).with("reason", reason);
        self.log.complain(Level::Warning, &format!("bridge {} {reason}", peer.uid), line);
    }
}
