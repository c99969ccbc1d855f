use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::directory::scripted::{Answer, Scripted, unreachable};
use crate::protocol::{Reply, Secret, encode_up_to};

const JOHN: &str = "CN=John Doe,OU=Agents,DC=acme,DC=com";

/// A directory of acme.com with these lines of names.map, and AD's answers.
fn directory(
    map: &str,
    more: &str,
    answers: impl IntoIterator<Item = Answer>,
) -> (Directory<Scripted>, Rules) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), map).unwrap();
    let text = format!("names.map_file = {:?}\n[domain]\nname = \"acme.com\"\n{more}", file.path());
    let config = Config::load_text("config.toml".as_ref(), text, "/nonexistent".as_ref()).unwrap();
    (Directory::new(Scripted::new(answers), &config), config.names)
}

fn search(filter: &str) -> asked::Search {
    asked::Search { base: "dc=acme,dc=com".into(), filter: filter.into(), ..asked::Search::default() }
}

async fn look(directory: &(Directory<Scripted>, Rules), search: &asked::Search) -> Found {
    let found = directory.0.lookup(&directory.1, search, Instant::now() + Duration::from_secs(5)).await;
    directory.0.machine().is_finished();
    found
}

/// Looks up `filter`, with `entries` as AD's answer to the search with `asked` in its text.
async fn found(filter: &str, asked: &'static str, entries: Vec<Entry>) -> Vec<FoundEntry> {
    let found = look(&directory("", "", [(asked, Ok(entries))]), &search(filter)).await;
    assert_eq!((found.code, found.text.as_str()), (code::SUCCESS, ""), "{filter}");
    found.entries
}

fn user(number: u8, dn: &str, sam: &str) -> Entry {
    let entry = Entry::new(dn).with("objectGUID", [vec![number; 16]]).with("sAMAccountName", [sam]);
    entry.with("sAMAccountType", [USER]).with("userAccountControl", ["512"])
}

fn john() -> Entry {
    user(1, JOHN, "john.doe").with("userPrincipalName", ["john.doe@acme.com"]).with("cn", ["John Doe"])
}

fn text(entry: &FoundEntry, attribute: &str) -> Option<String> {
    let values = &entry.attributes.iter().find(|(name, _)| name == attribute)?.1;
    Some(
        values
            .iter()
            .map(|value| String::from_utf8_lossy(value.bytes()).into_owned())
            .collect::<Vec<_>>()
            .join("|"),
    )
}

#[tokio::test]
async fn an_entry_is_as_ad_gives_it_with_the_attributes_that_were_asked_for() {
    let asked = "own dc=acme,dc=com (sAMAccountName=john\\2edoe)";
    let [entry] =
        &found("(sAMAccountName=john.doe)", asked, vec![john().with("unicodePwd", ["x"])]).await[..]
    else {
        panic!()
    };
    assert_eq!((entry.dn.as_str(), entry.login.as_deref()), (JOHN, Some("ACME\\john.doe")));
    assert_eq!(text(entry, "cn").as_deref(), Some("John Doe"));
    assert_eq!(text(entry, "unicodePwd"), None);
    let only = asked::Search {
        attributes: vec!["CN".into(), "unicodePwd".into(), "dn".into(), "sn".into()],
        ..search("(cn=x)")
    };
    let directory = directory("", "", [("(cn=x)", Ok(vec![john().with("unicodePwd", ["x"])]))]);
    let entry = &look(&directory, &only).await.entries[0];
    assert_eq!(entry.attributes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cn"]);
}

#[tokio::test]
async fn uid_and_mail_are_filled_where_ad_has_none() {
    let asked = "(|(uid=john\\2edoe)(&(sAMAccountName=john\\2edoe)(sAMAccountType=805306368)(!(uid=*))))";
    let entries = found("(uid=john.doe)", asked, vec![john()]).await;
    assert_eq!(text(&entries[0], "uid").as_deref(), Some("john.doe"));
    assert_eq!(text(&entries[0], "mail").as_deref(), Some("john.doe@acme.com"));
    let own = john().with("uid", ["jd"]).with("mail", ["j@acme.example"]);
    let asked = "(|(mail=j\\40acme\\2eexample)(&(userPrincipalName=j\\40acme\\2eexample)\
                 (sAMAccountType=805306368)(!(mail=*))))";
    let entries = found("(mail=j@acme.example)", asked, vec![own]).await;
    assert_eq!(text(&entries[0], "uid").as_deref(), Some("jd"));
    assert_eq!(text(&entries[0], "mail").as_deref(), Some("j@acme.example"));
    // A group has neither, and no login is for a group.
    let group =
        Entry::new("CN=G,DC=acme,DC=com").with("sAMAccountName", ["G"]).with("sAMAccountType", ["268435456"]);
    let entries = found("(cn=G)", "(cn=G)", vec![group]).await;
    assert_eq!((text(&entries[0], "uid"), text(&entries[0], "sAMAccountName").as_deref()), (None, Some("G")));
    assert_eq!(entries[0].login, None);
}

#[tokio::test]
async fn a_mapped_name_finds_the_account_that_a_login_by_it_is_for() {
    let by_guid = "(objectGUID=\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01)";
    for (filter, sam) in [
        ("(sAMAccountName=jd)", "jd"),
        ("(&(objectCategory=User)(|(sAMAccountName=JD)(userPrincipalName=JD)))", "JD"),
        ("(uid=jd)", "john.doe"),
        ("(userPrincipalName=jd@acme.com)", "john.doe"),
    ] {
        let bearer = ("(userPrincipalName=john.doe@acme.com)", Ok(vec![john()]));
        let directory = directory("jd = john.doe@acme.com\n", "", [bearer, (by_guid, Ok(vec![john()]))]);
        let found = look(&directory, &search(filter)).await;
        let [entry] = &found.entries[..] else { panic!("{filter}: {found:?}") };
        assert_eq!(entry.dn, JOHN);
        assert_eq!(text(entry, "sAMAccountName").as_deref(), Some(sam), "{filter}");
        assert_eq!(text(entry, "uid").unwrap().to_lowercase(), "jd", "{filter}");
        assert_eq!(entry.login.as_deref().map(str::to_lowercase).as_deref(), Some("jd"), "{filter}");
    }
    // The account with that sAMAccountName is not the one that logs in by the mapped name, and is not found.
    let bearer = ("(userPrincipalName=no.body@acme.com)", Ok(Vec::new()));
    let nobody = directory("jd = no.body@acme.com\n", "", [bearer]);
    assert_eq!(look(&nobody, &search("(sAMAccountName=jd)")).await, Found::default());
    // Nor is a name that may not log in; an unmapped name is searched for as it is.
    let refused = directory("jd = root@acme.com\n", "", []);
    assert_eq!(look(&refused, &search("(uid=jd)")).await, Found::default());
    let other = directory("jd = john.doe@acme.com\n", "", [("(sAMAccountName=mary)", Ok(Vec::new()))]);
    assert_eq!(look(&other, &search("(sAMAccountName=mary)")).await, Found::default());
    let away = directory("jd = john.doe@acme.com\n", "", [("john.doe", Err(unreachable()))]);
    assert_eq!(look(&away, &search("(uid=jd)")).await.code, code::UNAVAILABLE);
    let many: String = (0..=MAPPED).map(|number| format!("m{number} = x{number}@acme.com\n")).collect();
    let asked: String = (0..=MAPPED).map(|number| format!("(uid=m{number})")).collect();
    let found = look(&directory(&many, "", []), &search(&format!("(|{asked})"))).await;
    assert_eq!(found.code, code::ADMIN_LIMIT_EXCEEDED, "{found:?}");
}

#[tokio::test]
async fn who_may_write_an_attribute_of_the_own_account_bears_nobody_elses_name() {
    let thief = || user(2, "CN=Thief,DC=acme,DC=com", "thief");
    for (filter, thief) in [
        ("(uid=John.Doe)", thief().with("uid", ["john.doe"])),
        ("(mail=john.doe@acme.com)", thief().with("mail", ["John.Doe@acme.com"])),
    ] {
        let limit = asked::Search { size_limit: 1, ..search(filter) };
        for entries in [vec![thief.clone(), john()], vec![john(), thief.clone()]] {
            let found = look(&directory("", "", [("own ", Ok(entries))]), &limit).await;
            assert_eq!(found.entries.iter().map(|entry| entry.dn.as_str()).collect::<Vec<_>>(), [JOHN]);
            assert_eq!(found.code, code::SUCCESS, "{found:?}");
        }
        // If no other account logs in by the name, it stays the account's own.
        let alone = look(&directory("", "", [("own ", Ok(vec![thief.clone()]))]), &limit).await;
        assert_eq!(alone.entries.len(), 1, "{filter}");
    }
}

#[tokio::test]
async fn nothing_outside_the_base_is_asked_for_or_shown() {
    const BASE: &str = "base_dn = \"OU=Agents,DC=acme,DC=com\"\n";
    let of = |base: &str, scope| asked::Search { base: base.into(), scope, ..search("(cn=*)") };
    let (sub, one, alone) = (asked::Scope::Sub, asked::Scope::One, asked::Scope::Base);
    // The requested base and scope; the base that AD is queried with, or the code.
    let cases: [(&str, asked::Scope, Result<&str, u8>); 13] = [
        ("ou=agents, dc=acme, dc=com", sub, Ok("own ou=agents, dc=acme, dc=com (cn=*)")),
        ("CN=John Doe,OU=Agents,DC=acme,DC=com", alone, Ok("own CN=John Doe,OU=Agents,DC=acme,DC=com")),
        ("dc=acme,dc=com", sub, Ok("own OU=Agents,DC=acme,DC=com (cn=*)")),
        ("dc=com", sub, Ok("own OU=Agents,DC=acme,DC=com (cn=*)")),
        ("", sub, Ok("own OU=Agents,DC=acme,DC=com (cn=*)")),
        ("dc=acme,dc=com", one, Err(code::SUCCESS)),
        ("dc=acme,dc=com", alone, Err(code::NO_SUCH_OBJECT)),
        ("OU=Other,DC=acme,DC=com", sub, Err(code::NO_SUCH_OBJECT)),
        ("CN=Configuration,DC=acme,DC=com", sub, Err(code::NO_SUCH_OBJECT)),
        ("nonsense", sub, Err(code::INVALID_DN_SYNTAX)),
        ("<GUID=01010101010101010101010101010101>", alone, Err(code::INVALID_DN_SYNTAX)),
        ("<SID=S-1-5-18>;OU=Agents,DC=acme,DC=com", alone, Err(code::INVALID_DN_SYNTAX)),
        ("CN=a\\,OU=Agents,DC=acme,DC=com", alone, Err(code::NO_SUCH_OBJECT)),
    ];
    for (base, scope, expected) in cases {
        let asked = expected.ok().map(|asked: &'static str| (asked, Ok(vec![john()])));
        let found = look(&directory("", BASE, asked), &of(base, scope)).await;
        assert_eq!(found.code, expected.err().unwrap_or_default(), "{base}: {found:?}");
        assert_eq!(found.entries.len(), usize::from(expected.is_ok()), "{base}");
    }
    // However AD interprets the base.
    let strange = vec![user(3, "CN=x,OU=Other,DC=acme,DC=com", "x"), john(), Entry::new("no name")];
    let found = look(&directory("", BASE, [("own ", Ok(strange))]), &of("dc=acme,dc=com", sub)).await;
    assert_eq!(found.entries.len(), 1);
}

#[tokio::test]
async fn what_may_not_be_read_is_not_asked_for_either() {
    for filter in ["(unicodePwd=*)", "(!(ms-Mcs-AdmPwd=a*))", "(&(cn=a)(msLAPS-Password=*))", "(|)"] {
        assert_eq!(look(&directory("", "", []), &search(filter)).await, Found::default(), "{filter}");
    }
    let found = look(&directory("", "", []), &search("(cn=")).await;
    assert_eq!((found.code, found.text.as_str()), (code::PROTOCOL_ERROR, "the filter is malformed"));
    let attributes = vec!["cn".to_owned(); MAX_ATTRIBUTES + 1];
    let found = look(&directory("", "", []), &asked::Search { attributes, ..search("(cn=a)") }).await;
    assert_eq!(found.code, code::PROTOCOL_ERROR);
}

#[tokio::test]
async fn a_reply_is_bounded_in_entries_and_bytes() {
    let some = |count: usize, length: usize| -> Vec<Entry> {
        let one = |number| {
            Entry::new(format!("CN={number},DC=acme,DC=com")).with("description", ["x".repeat(length)])
        };
        (0..count).map(one).collect()
    };
    let of = |size_limit| asked::Search { size_limit, ..search("(cn=*)") };
    for (size_limit, entries, code, shown) in [
        (0, some(3, 1), code::SUCCESS, 3),
        (3, some(3, 1), code::SUCCESS, 3),
        (2, some(3, 1), code::SIZE_LIMIT_EXCEEDED, 2),
        (0, some(MAX_ENTRIES + 1, 1), code::ADMIN_LIMIT_EXCEEDED, MAX_ENTRIES),
        (5000, some(MAX_ENTRIES + 1, 1), code::ADMIN_LIMIT_EXCEEDED, MAX_ENTRIES),
        (0, some(100, 100_000), code::ADMIN_LIMIT_EXCEEDED, 41),
        // Each byte takes six in JSON.
        (
            0,
            vec![Entry::new("CN=a,DC=acme,DC=com").with("cn", [vec![1; 1_000_000]])],
            code::ADMIN_LIMIT_EXCEEDED,
            0,
        ),
    ] {
        let found = look(&directory("", "", [("(cn=*)", Ok(entries))]), &of(size_limit)).await;
        assert_eq!((found.code, found.entries.len()), (code, shown), "{size_limit} {}", found.text);
        encode_up_to(&Reply::Found(Box::new(found)), &Secret::default(), MAX_FOUND).unwrap();
    }
}

#[tokio::test]
async fn what_goes_wrong_is_a_result() {
    let refused = |code| MachineError::Refused { code, text: "00002020: x".into() };
    for (error, code) in [
        (unreachable(), code::UNAVAILABLE),
        (MachineError::Timeout("x".into()), code::TIME_LIMIT_EXCEEDED),
        (refused(3), code::TIME_LIMIT_EXCEEDED),
        (refused(34), code::INVALID_DN_SYNTAX),
        (refused(50), code::OTHER),
        (MachineError::NoSuchObject("x".into()), code::NO_SUCH_OBJECT),
    ] {
        let said = error.to_string();
        let found = look(&directory("", "", [("(cn=a)", Err(error))]), &search("(cn=a)")).await;
        assert_eq!((found.code, found.text.as_str()), (code, said.as_str()));
    }
}
