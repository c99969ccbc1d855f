//! A search: the bridge answers for the root of the directory, and the broker for everything else.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::Bridge;
use super::message::{self, Control, Outcome, PAGED, START_TLS, Search, WHO_AM_I, answer, code};
use super::paging::Kept;
use super::state::{Identity, State};
use super::stream::send;
use crate::protocol::search::{self as asked, Found, FoundEntry, MAX_FILTER, Scope, Value};

/// Maximum number of searches in progress at once. A search is in progress until its entries are sent.
pub const SEARCHES: usize = 4;
/// Maximum time a search waits for its turn. A domain controller needs some seconds for one search for each
/// of a user's hundreds of groups, which some libraries send at once.
pub const QUEUED: Duration = Duration::from_secs(30);
/// Time limit for the broker's reply to a search.
pub const SEARCH: Duration = Duration::from_secs(10);
/// Size in bytes from which encoded entries are sent, before further ones are encoded.
pub const CHUNK: usize = 65_536;

/// AD's diagnostic text for an operation on a connection without a successful bind.
const UNBOUND: &str = "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this operation a \
    successful bind must be completed on the connection., data 0, v1db1";

/// Performs a search and sends the reply.
///
/// # Errors
/// Returns an error if the reply cannot be sent in time.
pub async fn search<S: AsyncWrite + Unpin>(
    bridge: &Bridge,
    stream: &mut S,
    state: &mut State,
    id: u32,
    search: Search,
    controls: &[Control],
) -> io::Result<()> {
    let end = |outcome: &Outcome| message::done(id, answer::SEARCH, outcome);
    if search.base.is_empty() && search.scope == Scope::Base {
        let Ok(Ok(_turn)) = timeout(QUEUED, bridge.searches.acquire()).await else {
            return send(stream, &end(&busy())).await;
        };
        let mut bytes = message::entry(id, root(bridge, &search.attributes), search.types_only);
        bytes.extend(end(&Outcome::success()));
        return send(stream, &bytes).await;
    }
    if state.identity == Identity::Anonymous {
        return send(stream, &end(&Outcome::new(code::OPERATIONS_ERROR, UNBOUND))).await;
    }
    let page =
        controls.iter().find(|control| control.oid == PAGED).map(|control| message::page(&control.value));
    let page = match page.transpose() {
        Ok(page) => page,
        Err(error) => {
            return send(stream, &end(&Outcome::new(code::PROTOCOL_ERROR, error.to_string()))).await;
        }
    };
    match page {
        Some((size, cookie)) => paged(bridge, stream, state, id, search, size, &cookie).await,
        None => {
            let Ok(Ok(_turn)) = timeout(QUEUED, bridge.searches.acquire()).await else {
                return send(stream, &end(&busy())).await;
            };
            let types_only = search.types_only;
            let found = ask(bridge, search);
            let outcome = Outcome::new(found.code, found.text);
            entries(stream, id, found.entries, types_only, end(&outcome)).await
        }
    }
}

fn busy() -> Outcome {
    Outcome::new(code::BUSY, "too many searches are running; try again in a moment")
}

async fn paged<S: AsyncWrite + Unpin>(
    bridge: &Bridge,
    stream: &mut S,
    state: &mut State,
    id: u32,
    search: Search,
    size: u32,
    cookie: &[u8],
) -> io::Result<()> {
    let types_only = search.types_only;
    let kept = state.kept.take();
    let mut kept = match cookie {
        [] => {
            let Ok(Ok(_turn)) = timeout(QUEUED, bridge.searches.acquire()).await else {
                return send(stream, &message::page_done(id, &busy(), &[])).await;
            };
            let found = ask(bridge, search.clone());
            let outcome = Outcome::new(found.code, found.text);
            // Libraries request pages for every search. A result that fits into the first page needs no
            // place. A size of zero in the first request asks for the number of entries; the entries
            // themselves answer that, too.
            if usize::try_from(size).is_ok_and(|size| size == 0 || found.entries.len() <= size) {
                let end = message::page_done(id, &outcome, &[]);
                return entries(stream, id, found.entries, types_only, end).await;
            }
            let Ok(place) = bridge.kept.clone().try_acquire_owned() else {
                return send(stream, &message::page_done(id, &busy(), &[])).await;
            };
            Kept::new(search, found.entries, outcome, place)
        }
        cookie => match kept.filter(|kept| kept.is_next(&search, cookie)) {
            Some(kept) => kept,
            None => {
                let text = "the cookie belongs to no search of this connection, or to one that took too long";
                let outcome = Outcome::new(code::UNWILLING_TO_PERFORM, text);
                return send(stream, &message::page_done(id, &outcome, &[])).await;
            }
        },
    };
    if size == 0 && !cookie.is_empty() {
        // The client abandons the search (RFC 2696, 3).
        return send(stream, &message::page_done(id, &Outcome::success(), &[])).await;
    }
    let (page, outcome, next) = kept.page(usize::try_from(size).unwrap_or(usize::MAX));
    if !next.is_empty() {
        state.kept = Some(kept);
    }
    entries(stream, id, page, types_only, message::page_done(id, &outcome, &next)).await
}

/// Sends `entries` and then `end`, in chunks, so that the encoded entries are never all in memory at once.
async fn entries<S: AsyncWrite + Unpin>(
    stream: &mut S,
    id: u32,
    entries: Vec<FoundEntry>,
    types_only: bool,
    end: Vec<u8>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend(message::entry(id, entry, types_only));
        if bytes.len() >= CHUNK {
            send(stream, &bytes).await?;
            bytes.clear();
        }
    }
    bytes.extend(end);
    send(stream, &bytes).await
}

fn ask(bridge: &Bridge, search: Search) -> Found {
    if search.filter.len() > MAX_FILTER {
        return Found::failed(
            code::ADMIN_LIMIT_EXCEEDED,
            format!("the filter is longer than {MAX_FILTER} bytes"),
        );
    }
    let wanted = match search.time_limit {
        0 => SEARCH,
        seconds => SEARCH.min(Duration::from_secs(seconds.into())),
    };
    let search = asked::Search {
        base: search.base,
        scope: search.scope,
        filter: search.filter,
        attributes: search.attributes,
        size_limit: search.size_limit,
    };
    block_in_place(|| bridge.directory.search(search, wanted))
}

/// Returns the root of the directory with the attributes that clients use (RFC 4512, 5.1).
fn root(bridge: &Bridge, wanted: &[String]) -> FoundEntry {
    let domain = block_in_place(|| bridge.directory.domain());
    let mut extensions = vec![WHO_AM_I.to_owned()];
    if bridge.tls.is_some() {
        extensions.push(START_TLS.to_owned());
    }
    let contexts: Vec<_> = domain.into_iter().collect();
    let all = [
        ("objectClass", vec!["top".to_owned()]),
        ("defaultNamingContext", contexts.clone()),
        ("namingContexts", contexts),
        ("supportedLDAPVersion", vec!["3".to_owned()]),
        ("supportedControl", vec![PAGED.to_owned()]),
        ("supportedExtension", extensions),
        ("vendorName", vec!["motion-ad".to_owned()]),
    ];
    let is_wanted = |name: &str| {
        let named =
            |wanted: &String| ["*", "+"].contains(&wanted.as_str()) || wanted.eq_ignore_ascii_case(name);
        wanted.is_empty() || wanted.iter().any(named)
    };
    let value = |text: String| Value::from(text.into_bytes());
    let attributes = all
        .into_iter()
        .filter(|(name, values)| is_wanted(name) && !values.is_empty())
        .map(|(name, values)| (name.to_owned(), values.into_iter().map(value).collect()))
        .collect();
    FoundEntry { dn: String::new(), login: None, attributes }
}
