//! The users of the lab's domain, from the lab's table.

use std::collections::BTreeMap;

const TABLE: &str = include_str!("../cast");

#[derive(Clone, Debug)]
pub struct Person {
    /// The key: `john`.
    pub key: &'static str,
    /// `sAMAccountName`.
    pub sam: &'static str,
    /// `userPrincipalName`; empty if there is none.
    pub upn: &'static str,
    pub password: &'static str,
    pub condition: &'static str,
}

/// Returns all users in the table's order.
pub fn everybody() -> Vec<Person> {
    let rows = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| match line.split('|').map(cell).collect::<Vec<_>>()[..] {
        [key, sam, upn, password, condition] => Person { key, sam, upn, password, condition },
        _ => panic!("the cast has a row without five cells: {line}"),
    })
    .collect()
}

/// Returns the user with this key.
pub fn person(key: &str) -> Person {
    let mut people: BTreeMap<_, _> = everybody().into_iter().map(|person| (person.key, person)).collect();
    people.remove(key).unwrap_or_else(|| panic!("nobody in the cast is {key}"))
}

fn cell(text: &'static str) -> &'static str {
    match text.trim() {
        "-" => "",
        text => text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text),
    }
}
