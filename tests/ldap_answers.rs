//! Answers of a server to the first messages of a connection, over real sockets. `ldap::exchange` returns an
//! answer, or reports at once that a response is malformed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use motion_ad::ldap::{
    BIND_RESPONSE, EXTENDED_RESPONSE, ExchangeError, Response, exchange, simple_bind, start_tls,
};
use motion_ad_support::scripted::*;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const JOHN: &str = "CN=john.doe,OU=People,DC=acme,DC=com";
const PASSWORD: &str = "J0hn-rides-a-tandem";
/// Time limit of a test: much longer than any answer takes, and shorter than the silence that follows some.
const WAIT: Duration = Duration::from_secs(5);

/// Starts a server on the loopback that answers a bind with `actions`, and connects to it.
async fn answering(actions: impl IntoIterator<Item = Action>) -> (Server, TcpStream) {
    connected(Script::default().on(Event::bind(), actions)).await
}

async fn connected(script: Script) -> (Server, TcpStream) {
    let mut server = Server::new(script);
    let address = server.listen("127.0.0.1:0", Security::Plain).await.unwrap();
    (server, TcpStream::connect(address).await.unwrap())
}

/// Binds as John with the message id 7.
async fn bind(stream: &mut TcpStream) -> Result<Response, ExchangeError> {
    let request = simple_bind(7, JOHN, PASSWORD).unwrap();
    timeout(WAIT, exchange(stream, 7, request, BIND_RESPONSE)).await.expect("no end of waiting")
}

/// Answers a bind with `actions`, then keeps the connection open in silence. Only the answer itself can end
/// the wait.
async fn answered(actions: impl IntoIterator<Item = Action>) -> Result<Response, ExchangeError> {
    let (server, mut stream) = answering(actions.into_iter().chain([Action::Silence])).await;
    let answer = bind(&mut stream).await;
    assert_eq!((server.log().binds(), server.log().binds_as(JOHN)), (1, 1));
    answer
}

#[tokio::test]
async fn results_come_with_their_code_and_their_text() {
    for (action, code, text) in [
        (success(), 0, ""),
        (
            refused(0x525),
            49,
            "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 525, v1db1",
        ),
        (busy(), 51, "busy"),
        (unavailable(), 52, "shutting down"),
        (unwilling(), 53, "WILL_NOT_PERFORM"),
        (referral("ldap://dc2.acme.com/"), 10, "1 access points"),
    ] {
        let answer = answered([action]).await.unwrap();
        assert_eq!((answer.code, answer.token), (code, None));
        assert!(answer.text.contains(text) && !answer.text.ends_with('\0'), "{:?}", answer.text);
    }
}

#[tokio::test]
async fn an_answer_in_pieces_is_one() {
    let answer = answered([refused(0x52e).dripped(Duration::from_millis(1))]).await.unwrap();
    assert!(answer.code == 49 && answer.text.contains("data 52e"), "{answer:?}");
}

#[tokio::test]
async fn a_late_answer_is_waited_for() {
    let begun = Instant::now();
    let answer = answered([Action::Delay(Duration::from_millis(200)), success()]).await.unwrap();
    assert!(answer.code == 0 && begun.elapsed() >= Duration::from_millis(200));
}

/// The client must reject each of them without further waiting, although the connection stays open.
#[tokio::test]
async fn what_is_no_answer_is_known_as_soon_as_it_is_there() {
    for (name, actions) in [
        ("another message's id", vec![success().other_id(1)]),
        ("an earlier message's id", vec![success().other_id(-1)]),
        ("two answers", vec![success().twice()]),
        ("another kind of answer", vec![entry("", &[("cn", &[b"john"])])]),
        ("a search's reference", vec![reference("ldap://dc2.acme.com/")]),
        ("HTTP", vec![Action::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]),
        ("a TLS alert", vec![Action::Bytes(vec![0x15, 3, 3, 0, 2, 2, 40])]),
        ("zeros", vec![Action::Bytes(vec![0; 64])]),
        // An inner field is longer than the message.
        ("an inner length that is too long", vec![Action::Bytes(b"\x30\x05\x02\x01\x07\x61\x07".to_vec())]),
        ("an empty message", vec![Action::Bytes(b"\x30\x00".to_vec())]),
        ("a message of 2 GiB", vec![Action::Oversized { announced: 0x8000_0000, sent: 0 }]),
        ("a message of 2 GiB that comes", vec![Action::Oversized { announced: 0x8000_0000, sent: 64 << 20 }]),
        ("a message of 1 MiB", vec![Action::Oversized { announced: 1 << 20, sent: 0 }]),
        ("a message of 50,000 sequences in each other", vec![Action::Nested(50_000)]),
    ] {
        match answered(actions).await {
            Err(ExchangeError::Malformed) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_notice_of_disconnection_is_no_answer_to_the_bind() {
    match answered([notice(52, "The server is shutting down"), Action::Close]).await {
        Err(ExchangeError::Notice { code: 52, text }) => assert_eq!(text, "The server is shutting down"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connection_that_ends_instead_of_an_answer() {
    assert!(matches!(answered([Action::Close]).await, Err(ExchangeError::Closed)));
    for end in [Action::Close, Action::Reset] {
        let cut = answered([success().cut(5), end]).await;
        assert!(matches!(cut, Err(ExchangeError::Truncated)), "{cut:?}");
    }
    match answered([Action::Reset]).await {
        Err(ExchangeError::Io(e)) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn silence_is_the_callers_to_bound() {
    for actions in [vec![Action::Silence], vec![success().cut(5), Action::Silence]] {
        let (_server, mut stream) = answering(actions).await;
        let request = simple_bind(1, JOHN, PASSWORD).unwrap();
        let waiting = exchange(&mut stream, 1, request, BIND_RESPONSE);
        assert!(timeout(Duration::from_millis(200), waiting).await.is_err());
    }
}

/// Plaintext after the answer to StartTLS must not be read as if TLS protected it (injection).
#[tokio::test]
async fn nothing_in_the_clear_may_follow_the_answer_to_starttls() {
    for (actions, ends_well) in
        [(vec![success()], true), (vec![success().twice()], false), (vec![busy()], true)]
    {
        let (server, mut stream) = connected(Script::default().on(Event::StartTls, actions)).await;
        let request = start_tls(1).unwrap();
        let answer = timeout(WAIT, exchange(&mut stream, 1, request, EXTENDED_RESPONSE)).await.unwrap();
        assert_eq!(answer.is_ok(), ends_well, "{answer:?}");
        assert_eq!(server.log().count(|received| *received == Received::StartTls), 1);
    }
}

#[tokio::test]
async fn one_connection_carries_many_binds() {
    let script = Script::default()
        .rule(Rule::new(Event::bind_as(JOHN), [refused(0x52e)]).times(2))
        .on(Event::bind_as(&JOHN.to_uppercase()), [success()]);
    let (server, mut stream) = connected(script).await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(bind(&mut stream).await.unwrap().code);
    }
    assert_eq!(codes, [49, 49, 0, 0]);
    assert_eq!((server.log().binds_as(JOHN), server.log().connections()), (4, 1));
}
