//! The form of a CRL, as far as this program reads it itself: the text around it, and its time of issue.
//! rustls reads the rest.

use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::time::ASN1Time;

/// Returns the list in the body of a server's answer, in DER. RFC 5280 demands DER, but some servers publish
/// PEM.
pub(crate) fn of_body(body: Vec<u8>) -> Vec<u8> {
    match pem::parse(&body) {
        Ok(list) if issued(&body).is_none() => list.into_contents(),
        _ => body,
    }
}

/// Returns the time when a list was issued (`thisUpdate`), in seconds since 1970; `None` if it cannot be
/// read, or if bytes follow the list.
///
/// Reads only what precedes this time (RFC 5280, 5.1). So every list that rustls can use has one, also if
/// its entries or its extensions are unusual.
pub(crate) fn issued(list: &[u8]) -> Option<i64> {
    let (list, []) = content(list, Tag::Sequence)? else { return None };
    let (signed, _) = content(list, Tag::Sequence)?;
    let (_version, rest) = content(signed, Tag::Integer)?;
    let (_algorithm, rest) = content(rest, Tag::Sequence)?;
    let (_issuer, rest) = content(rest, Tag::Sequence)?;
    Some(ASN1Time::from_der(rest).ok()?.1.timestamp())
}

/// Splits off the element with this tag that `bytes` begin with: its content, and what follows it.
fn content(bytes: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (rest, element) = Any::from_der(bytes).ok()?;
    (element.tag() == tag).then_some((element.data, rest))
}

/// Checks that `list` may replace the list `known` of the same distribution point: the server there must not
/// be able to take a revocation back.
///
/// # Errors
/// Returns the reason if it may not: its time of issue cannot be read, or it is older.
pub(crate) fn replaces(list: &[u8], known: Option<&[u8]>) -> Result<(), String> {
    let at = issued(list).ok_or(UNDATED)?;
    // A known list without a time is not in use either.
    match known.and_then(issued).is_some_and(|known| known > at) {
        true => Err("it is older than the one that is in use".to_owned()),
        false => Ok(()),
    }
}

/// Cause for a list that is not used.
pub(super) const UNDATED: &str = "its time of issue cannot be read";

#[cfg(test)]
mod tests {
    use super::super::tests::{ca, crl_of};
    use super::*;

    /// A list with another `thisUpdate`, as long as before.
    fn dated(list: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = list.windows(from.len()).position(|window| window == from).unwrap();
        [&list[..at], to, &list[at + to.len()..]].concat()
    }

    #[test]
    fn a_list_without_a_time_of_issue_or_with_bytes_after_it_replaces_none() {
        let ours = ca("Acme Root");
        let [older, list] = [2021, 2022].map(|year| crl_of(&ours, 66, year, 2040));
        assert_eq!(issued(&list), Some(1_640_995_200));
        assert_eq!(issued(&older), Some(1_609_459_200));
        let undated = dated(&list, b"220101000000Z", b"221301000000Z");
        let longer = [&list, &b"\0"[..]].concat();
        for wrong in [&undated, &longer, &list[..list.len() - 1].to_vec(), &Vec::new()] {
            assert_eq!(issued(wrong), None);
            assert_eq!(replaces(wrong, Some(&older)), Err(UNDATED.to_owned()));
            assert_eq!(replaces(wrong, None), Err(UNDATED.to_owned()));
        }
        assert_eq!(replaces(&list, Some(&older)), Ok(()));
        assert_eq!(replaces(&list, Some(&list)), Ok(()));
        assert_eq!(replaces(&list, None), Ok(()));
        assert!(replaces(&older, Some(&list)).is_err_and(|cause| cause.contains("older")));
    }

    #[test]
    fn the_body_is_der_or_pem() {
        let list = crl_of(&ca("Acme Root"), 66, 2022, 2040);
        let text = pem::encode(&pem::Pem::new("X509 CRL", list.clone()));
        for body in [list.clone(), text.clone().into_bytes(), format!("issuer=CN = x\r\n{text}").into_bytes()]
        {
            assert_eq!(of_body(body), list);
        }
        assert_eq!(of_body(b"<html>".to_vec()), b"<html>");
        // A text within a list is not the list.
        let element = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82], &length[..], content].concat()
        };
        let before = b"\x02\x01\x01\x30\x00\x30\x00\x17\x0d220101000000Z";
        let outer = element(0x30, &element(0x30, &[&before[..], &element(4, text.as_bytes())].concat()));
        assert_eq!(issued(&outer), Some(1_640_995_200));
        assert_eq!(of_body(outer.clone()), outer);
    }
}
