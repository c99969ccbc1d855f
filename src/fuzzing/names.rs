//! Names as users type them, distinguished names and filters.

use std::sync::LazyLock;

use ldap3::asn1::{ASNTag as _, PL, StructureTag};

use crate::config::Base;
use crate::directory::lookup::filter::{Filter, FilterError};
use crate::directory::machine::Place as Partition;
use crate::directory::people::find::{named_explicitly, named_implicitly};
use crate::directory::people::person::people_search;
use crate::dn::{Dn, Place};
use crate::kerberos::sasl::LdapService;
use crate::name::{Form, Known, NameError, NameMap, Principal, Rules, fold};

/// The lines of a map, written again, are the same map; and a name of the map leads to its account.
pub(super) fn names_map(data: &[u8]) {
    let Ok(map) = std::str::from_utf8(data).map(NameMap::parse) else { return };
    let Ok(map) = map else { return };
    let target = |principal: &Principal| match principal.form() {
        Form::Account => format!("{}\\{}", principal.domain(), principal.typed_user()),
        Form::Bare | Form::Full => format!("{}@{}", principal.typed_user(), principal.domain()),
    };
    let lines: Vec<_> = map.lines().into_iter().map(|(_, name, of)| (name.to_owned(), of.clone())).collect();
    let written: String = lines.iter().map(|(name, of)| format!("{name} = {}\n", target(of))).collect();
    let again = NameMap::parse(&written).unwrap_or_else(|error| panic!("{error}: {written:?}"));
    let same: Vec<_> = again.lines().into_iter().map(|(_, name, of)| (name.to_owned(), of.clone())).collect();
    assert_eq!(same, lines);
    let rules = Rules { domain: "acme.com".into(), netbios: "ACME".into(), map, ..Rules::default() };
    for (name, target) in &lines {
        let Ok(target) = rules.target(target, &Known::default()) else {
            assert!(rules.principal(name).is_err());
            continue;
        };
        let principal = rules.principal(name).unwrap();
        assert_eq!(principal, target);
        for name in rules.names(&principal) {
            assert_eq!(rules.principal(&name).unwrap().to_string(), principal.to_string(), "{name:?}");
        }
    }
}

/// How names are read on a host with everything configured.
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    domain: "acme.com".into(),
    domains: vec!["emea.acme.com".into(), "sales.example".into()],
    netbios: "ACME".into(),
    refuse: vec!["administrator".into(), "root".into()],
    map: NameMap::parse("jd = john.doe@acme.com\nboss = ACME\\ceo\nj\u{f6}rg = joerg@sales.example\n")
        .unwrap(),
});

/// The structure of a filter without the values in it.
fn shape(tag: &StructureTag) -> String {
    let inner = match (&tag.payload, tag.id) {
        (PL::C(parts), 3 | 5 | 6 | 8) => match parts.first().map(|name| &name.payload) {
            Some(PL::P(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        },
        (PL::C(parts), _) => parts.iter().map(shape).collect(),
        (PL::P(_), _) => String::new(),
    };
    format!("({}{inner})", tag.id)
}

/// The shape of the search for an account of this name.
fn search_of(principal: &Principal) -> String {
    let names = named_explicitly(principal) + &named_implicitly(principal);
    let filter = people_search(Partition::Own, "", &names, 2).filter;
    let parsed = ldap3::parse_filter(&filter).unwrap_or_else(|()| panic!("{filter:?}"));
    shape(&parsed.into_structure())
}

/// A name as a user types it. It never yields a filter of another shape, nor a domain that is not accepted,
/// and its letter case does not matter.
pub(super) fn name(data: &[u8]) {
    let Ok(typed) = std::str::from_utf8(data) else { return };
    assert_eq!(fold(&fold(typed)), fold(typed));
    let known = Known {
        suffixes: vec!["upn.example".into()],
        netbios: vec![("EMEA".into(), "emea.acme.com".into()), ("SUB".into(), "sub.acme.com".into())],
    };
    let principal = RULES.principal_among(typed, &known);
    match RULES.principal_among(&fold(typed), &known) {
        Err(NameError::TooLong) => {}
        folded => match (&principal, folded) {
            (Ok(one), Ok(other)) => assert_eq!(*one, other),
            (one, other) => assert!(one.is_err() && other.is_err(), "{one:?} {other:?}"),
        },
    }
    if let Ok(alone) = RULES.principal(typed) {
        assert_eq!(principal.as_ref(), Ok(&alone));
    }
    let Ok(principal) = principal else { return };
    assert!(!RULES.refuse.contains(&fold(typed)) && !RULES.refuse.contains(&principal.user().to_owned()));
    let accepted = RULES.domains.iter().chain([&RULES.domain]).chain(&known.suffixes);
    assert!(accepted.into_iter().any(|domain| domain == principal.domain()), "{principal}");
    let written = Principal::parse(&principal.to_string());
    assert!(written.is_err() || written.is_ok_and(|written| written.to_string() == principal.to_string()));
    let plain = match principal.form() {
        Form::Bare => "x",
        Form::Full => "x@acme.com",
        Form::Account => "ACME\\x",
    };
    assert_eq!(search_of(&principal), search_of(&RULES.principal(plain).unwrap()), "{typed:?}");
    for service in
        [LdapService::of_domain(typed, "acme.com"), LdapService::of_catalogue("dc", "acme.com", typed)]
    {
        if let Ok(service) = service.principal() {
            assert!(service.matches('/').count() == 2 && service.matches('@').count() == 1, "{service}");
        }
    }
}

/// A distinguished name is the same after it was written.
pub(super) fn dn(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(dn) = Dn::parse(text) else { return };
    let written = dn.to_string();
    let again = Dn::parse(&written).unwrap_or_else(|error| panic!("{error}: {written:?}"));
    assert_eq!(again, dn, "{written:?}");
    assert_eq!(again.to_string(), written);
    assert_eq!(dn.place(&again), Place::Same);
    assert!(dn.is_root() == written.is_empty());
    let below = Dn::parse(&format!("CN=x,{written}"));
    assert!(dn.is_root() || below.is_ok_and(|below| below.place(&dn) == Place::Below), "{written:?}");
    dn.domain();
    Base::of(text, "acme.com");
}

/// A filter of a client, written again: AD understands it, and it means the same.
pub(super) fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(filter) = Filter::parse(text) else { return };
    let written = filter.to_string();
    assert!(ldap3::parse_filter(&written).is_ok(), "{written:?}");
    match Filter::parse(&written) {
        Ok(again) => assert_eq!(again.to_string(), written),
        // Longer and deeper than a client may write it.
        Err(error) => assert!(error != FilterError::Malformed, "{written:?}"),
    }
    filter.visit(&mut |attribute, _| assert!(written.contains(attribute)));
}
