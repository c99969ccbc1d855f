//! Requests to the LDAP bridge.

use ldap3::asn1::{ASNTag as _, PL, StructureTag};

use crate::bridge;
use crate::bridge::message::{self, Message, Request as BridgeRequest};
use crate::directory::lookup::filter::{Filter, FilterError};

/// The text loses three things of an extensible match: the order, the flag `dnAttributes: false`, and which
/// byte stands for true.
fn normal(tag: StructureTag) -> StructureTag {
    let StructureTag { class, id, payload } = tag;
    let payload = match payload {
        PL::C(parts) => {
            let mut parts: Vec<_> = parts.into_iter().map(normal).collect();
            if id == 9 {
                parts.retain_mut(|part| match &mut part.payload {
                    PL::P(flag) if part.id == 4 => {
                        let is_set = flag.iter().any(|byte| *byte != 0);
                        *flag = vec![0xff];
                        is_set
                    }
                    _ => true,
                });
                parts.sort_by_key(|part| part.id);
            }
            PL::C(parts)
        }
        value @ PL::P(_) => value,
    };
    StructureTag { class, id, payload }
}

/// A message of a client. Its filter keeps its shape and its values on the way through the text.
pub(super) fn bridge_message(data: &[u8]) {
    let _ = message::page(data);
    let Ok(message) = Message::decode(data) else { return };
    assert_eq!(bridge::ber::length(data), Ok(Some(data.len())));
    assert!(Message::decode(&[data, b"\0"].concat()).is_err());
    message.unknown_control();
    message.answer();
    let BridgeRequest::Search(search) = message.request else { return };
    let parts = bridge::ber::decode(data).unwrap().expect_constructed().unwrap();
    let fields = parts.into_iter().nth(1).unwrap().expect_constructed().unwrap();
    let original = normal(fields.into_iter().nth(6).unwrap());
    let Ok(parsed) = ldap3::parse_filter(&search.filter) else { panic!("{:?}", search.filter) };
    assert_eq!(normal(parsed.into_structure()), original, "{:?}", search.filter);
    assert_ne!(Filter::parse(&search.filter), Err(FilterError::Malformed), "{:?}", search.filter);
}
