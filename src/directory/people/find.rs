//! Finds the one account that a name means, in this domain or in another one of the forest.
//!
//! The search order is that of AD's own domain controllers (MS-ADTS 5.1.1.1.1): first this domain, then the
//! global catalogue. The catalogue only identifies the account. Its state and groups are read in its own
//! domain, because the catalogue holds only part of each object, and receives changes late.

use std::time::Duration;

use tokio::time::Instant;

use crate::directory::entry::Entry;
use crate::directory::forest::{DOMAINS, Forest};
use crate::directory::machine::{Machine, MachineError, Place, Search, base_search};
use crate::directory::people::person::{
    ATTRIBUTES, CANDIDATES, Found, Person, named, people_of, people_search,
};
use crate::directory::people::{Clash, Directory, DirectoryError};
use crate::name::{Form, NameError, Principal, Rules, fold};

/// Time for which a principal's account is remembered. Its state is never remembered.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Returns the filter for accounts with `principal` as their explicit name; AD itself compares the typed
/// name.
pub(crate) fn named_explicitly(principal: &Principal) -> String {
    match principal.form() {
        Form::Account => String::new(),
        Form::Bare | Form::Full => {
            named("userPrincipalName", &format!("{}@{}", principal.typed_user(), principal.domain()))
        }
    }
}

pub(crate) fn named_implicitly(principal: &Principal) -> String {
    named("sAMAccountName", principal.typed_user())
}

impl<M: Machine> Directory<M> {
    /// Returns the principal of a name as the user typed it: by `rules` alone if they decide it, otherwise
    /// with the forest's names.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`; the inner error says why the name has no
    /// principal.
    pub async fn principal(
        &self,
        rules: &Rules,
        name: &str,
        deadline: Instant,
    ) -> Result<Result<Principal, NameError>, DirectoryError> {
        match rules.principal(name) {
            Err(NameError::Domain(_)) => {
                Ok(rules.principal_among(name, self.forest(deadline).await?.known()))
            }
            decided => Ok(decided),
        }
    }

    /// Finds the account that `principal` means, by the names that its [`Form`] stands for.
    ///
    /// # Errors
    /// Returns an error if there is none or more than one, or if AD does not answer before `deadline`.
    pub async fn find(&self, principal: &Principal, deadline: Instant) -> Result<Found, DirectoryError> {
        if let Some((person, until)) = self.people.lock().get(principal)
            && *until > Instant::now()
        {
            return Ok(Found { person: person.clone(), remembered: true, hides: None });
        }
        self.find_afresh(principal, deadline).await
    }

    /// Like [`Directory::find`], but never from memory.
    ///
    /// # Errors
    /// Like [`Directory::find`].
    pub async fn find_afresh(
        &self,
        principal: &Principal,
        deadline: Instant,
    ) -> Result<Found, DirectoryError> {
        let found = match self.find_here(principal, deadline).await {
            Err(DirectoryError::Unknown(_)) => self.find_elsewhere(principal, deadline).await,
            other => other,
        };
        match &found {
            Ok(found) => {
                let until = Instant::now() + REMEMBERED;
                self.people.lock().put(principal.clone(), (found.person.clone(), until));
            }
            // Without an answer from AD, nothing new is known about the account.
            Err(DirectoryError::Machine(_)) => {}
            Err(_) => {
                self.people.lock().pop(principal);
            }
        }
        found
    }

    /// Returns true if an object has the distinguished name of `person` now.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`.
    pub async fn exists(&self, person: &Person, deadline: Instant) -> Result<bool, DirectoryError> {
        let search = base_search(person.dn.clone(), vec!["objectGUID".to_owned()]);
        let search = Search { place: self.place(&person.domain), ..search };
        match self.machine.search(&search, deadline).await {
            Ok(entries) => Ok(!entries.is_empty()),
            Err(MachineError::NoSuchObject(_)) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Searches this host's domain.
    async fn find_here(&self, principal: &Principal, deadline: Instant) -> Result<Found, DirectoryError> {
        let names = self.named_here(principal);
        if names.is_empty() {
            return Err(DirectoryError::Unknown(principal.clone()));
        }
        self.look_up(principal, names, deadline).await
    }

    /// Returns the filter for accounts of this domain that `principal` may mean; empty if there can be none.
    pub(super) fn named_here(&self, principal: &Principal) -> String {
        let mut names = named_explicitly(principal);
        if self.is_own(principal.domain()) {
            names += &named_implicitly(principal);
        }
        names
    }

    /// Searches the rest of the forest. For names of this domain, the forest is not read first: its last
    /// known state decides.
    pub(super) async fn find_elsewhere(
        &self,
        principal: &Principal,
        deadline: Instant,
    ) -> Result<Found, DirectoryError> {
        let unknown = || DirectoryError::Unknown(principal.clone());
        let is_here_alone = principal.form() == Form::Account && self.is_own(principal.domain());
        // If the administrator limits searches to part of this domain, other domains are excluded.
        if !self.is_whole || is_here_alone {
            return Err(unknown());
        }
        let forest = match self.is_own(principal.domain()) {
            true => self.forest.last(),
            false => Some(self.forest(deadline).await?),
        };
        let forest = forest.filter(|forest| forest.has_further(&self.domain)).ok_or_else(unknown)?;
        let found = self.find_in_catalogue(&forest, principal, deadline).await?;
        // The account may have been renamed or disabled since the catalogue was updated.
        let now = match self.read(&found.person, &ATTRIBUTES, deadline).await {
            Err(DirectoryError::Machine(MachineError::NoSuchObject(_))) => return Err(unknown()),
            other => other?,
        };
        let now = choose(&self.netbios, principal, people_of(&[now], |_| found.person.domain.clone())?)?;
        Ok(Found { hides: found.hides, ..now })
    }

    async fn find_in_catalogue(
        &self,
        forest: &Forest,
        principal: &Principal,
        deadline: Instant,
    ) -> Result<Found, DirectoryError> {
        let name = named_explicitly(principal);
        let mut entries = Vec::new();
        if !name.is_empty() {
            let explicit = people_search(Place::GlobalCatalogue, "", &name, CANDIDATES);
            entries = self.candidates(principal, &explicit, deadline).await?;
        }
        if let Some(domain) = forest.by_name(principal.domain()).filter(|domain| !self.is_own(&domain.name)) {
            let name = named_implicitly(principal);
            // Each domain below it may have another account of that name.
            let limit = CANDIDATES + DOMAINS;
            let implicit = people_search(Place::GlobalCatalogue, &domain.dn, &name, limit);
            entries.extend(self.candidates(principal, &implicit, deadline).await?);
        }
        let domain = |dn: &str| match forest.of_object(dn) {
            Some(domain) => domain.name.clone(),
            None => self.own_domain(),
        };
        let mut people = people_of(&entries, domain)?;
        // One account may have both names.
        people.sort_by_key(|person| person.guid);
        people.dedup_by_key(|person| person.guid);
        choose(&self.netbios, principal, people)
    }

    pub(super) async fn candidates(
        &self,
        principal: &Principal,
        search: &Search,
        deadline: Instant,
    ) -> Result<Vec<Entry>, DirectoryError> {
        match self.machine.search(search, deadline).await {
            Err(MachineError::TooMany(limit)) => {
                let dns = format!("more than {limit}");
                Err(DirectoryError::Ambiguous { principal: principal.clone(), dns })
            }
            other => Ok(other?),
        }
    }
}

/// Returns the one of `people` that has the name. AD compares more loosely than readers do (accents, spaces),
/// so each must also have the name by this program's comparison. `netbios` is the short name of this host's
/// domain, for messages.
pub(crate) fn choose(
    netbios: &str,
    principal: &Principal,
    people: Vec<Person>,
) -> Result<Found, DirectoryError> {
    let (name, form) = (principal.to_string(), principal.form());
    let is_explicit =
        |person: &Person| form != Form::Account && person.upn.as_deref().is_some_and(|upn| fold(upn) == name);
    let (mut explicit, others): (Vec<_>, Vec<_>) = people.into_iter().partition(is_explicit);
    let is_implicit =
        |person: &Person| fold(&person.domain) == principal.domain() && fold(&person.sam) == principal.user();
    let mut implicit: Vec<_> = others.into_iter().filter(is_implicit).collect();
    let hides = implicit.first().map(|person| person.dn.clone());
    let (chosen, hides) = match (explicit.first(), hides) {
        (None, _) => (&mut implicit, None),
        // Only the administrator knows which account the bare name means.
        (Some(first), Some(other)) if form == Form::Bare => {
            let (explicit, implicit) = (first.dn.clone(), other);
            let account = format!("{netbios}\\{}", principal.user());
            let principal = principal.clone();
            return Err(DirectoryError::Clash(Box::new(Clash { principal, explicit, implicit, account })));
        }
        (Some(_), hides) => (&mut explicit, hides),
    };
    match (chosen.pop(), chosen.is_empty()) {
        (Some(person), true) => Ok(Found { person, remembered: false, hides }),
        (None, _) => Err(DirectoryError::Unknown(principal.clone())),
        (Some(last), false) => {
            chosen.push(last);
            let dns = chosen.iter().map(|person| person.dn.as_str()).collect::<Vec<_>>().join(" and ");
            Err(DirectoryError::Ambiguous { principal: principal.clone(), dns })
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::directory::scripted::{Answer, Scripted, config, forest, unreachable};

    fn principal(text: &str) -> Principal {
        Principal::parse(text).unwrap()
    }

    fn person(sam: &str, upn: Option<&str>) -> Person {
        Person {
            dn: format!("CN={sam}"),
            guid: Uuid::nil(),
            sam: sam.into(),
            upn: upn.map(str::to_owned),
            domain: "acme.com".into(),
        }
    }

    #[test]
    fn an_explicit_name_hides_an_implicit_one() {
        let people =
            vec![person("clash", Some("clash.b@acme.com")), person("clash.a", Some("Clash@acme.com"))];
        let found = choose("ACME", &principal("clash@acme.com"), people).unwrap();
        assert_eq!((found.person.sam.as_str(), found.hides.as_deref()), ("clash.a", Some("CN=clash")));
    }

    /// The principal of a name typed on a host in acme.com.
    fn typed(name: &str, map: &str) -> Principal {
        let map = crate::name::NameMap::parse(map).unwrap();
        Rules { map, ..config("").names }.principal(name).unwrap()
    }

    #[test]
    fn a_bare_name_of_two_accounts_is_refused_until_the_map_decides() {
        let people =
            || vec![person("ceo", Some("the.boss@acme.com")), person("helped", Some("CEO@acme.com"))];
        let chosen =
            |name: &str, map: &str| choose("ACME", &typed(name, map), people()).map(|found| found.person.sam);
        let error = chosen("ceo", "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "ceo is the userPrincipalName of CN=helped and the sAMAccountName of CN=ceo; a line in names.map \
             decides: \"ceo = ceo@acme.com\" for the first, \"ceo = ACME\\ceo\" for the second"
        );
        // Typed in full, as domain controllers accept it.
        assert_eq!(chosen("ceo@acme.com", "").unwrap(), "helped");
        assert_eq!(chosen("ACME\\ceo", "").unwrap(), "ceo");
        assert_eq!(chosen("ceo@ACME", "").unwrap(), "ceo");
        assert_eq!(chosen("ceo", "ceo = ACME\\ceo").unwrap(), "ceo");
        assert_eq!(chosen("ceo", "ceo = the.boss@acme.com").unwrap(), "ceo");
        assert_eq!(chosen("ceo", "ceo = ceo@acme.com").unwrap(), "helped");
        // A name after a NetBIOS domain and a backslash is no userPrincipalName.
        assert!(matches!(chosen("ACME\\the.boss", "").unwrap_err(), DirectoryError::Unknown(_)));
        // One account with both names is unambiguous.
        let both = vec![person("ceo", Some("ceo@acme.com"))];
        assert_eq!(choose("ACME", &typed("ceo", ""), both).unwrap().hides, None);
        // As XCALLY does it: the first part of a userPrincipalName that is not the sAMAccountName.
        let apart = vec![person("jdoe", Some("john.doe@acme.com"))];
        assert_eq!(choose("ACME", &typed("john.doe", ""), apart).unwrap().person.sam, "jdoe");
    }

    #[test]
    fn the_implicit_name_counts_beside_an_explicit_one() {
        let people = vec![person("John.Doe", Some("jd@acme.com"))];
        assert_eq!(
            choose("ACME", &principal("john.doe@acme.com"), people.clone()).unwrap().person.sam,
            "John.Doe"
        );
        let error = choose("ACME", &principal("john.doe@sales.example"), people).unwrap_err();
        assert!(matches!(error, DirectoryError::Unknown(_)));
    }

    #[test]
    fn two_explicit_names_are_ambiguous() {
        let people = vec![person("a", Some("x@acme.com")), person("b", Some("X@acme.com"))];
        let error = choose("ACME", &principal("x@acme.com"), people).unwrap_err();
        assert!(error.to_string().contains("CN=a and CN=b"), "{error}");
    }

    #[test]
    fn a_loose_match_of_the_server_is_no_match() {
        let people = vec![person("jorg.muller", None), person("Mary  Ann", None)];
        for name in ["jörg.müller@acme.com", "mary ann@acme.com"] {
            let error = choose("ACME", &principal(name), people.clone()).unwrap_err();
            assert!(matches!(error, DirectoryError::Unknown(_)), "{name}");
        }
    }

    #[test]
    fn trust_accounts_are_no_people() {
        let entry = |flags: &str| {
            Entry::new("CN=x")
                .with("objectGUID", [vec![7; 16]])
                .with("sAMAccountName", ["x$"])
                .with("userAccountControl", [flags])
        };
        assert_eq!(people_of(&[entry("4096"), entry("512")], |_| String::new()).unwrap().len(), 1);
        assert!(
            people_of(&[Entry::new("CN=y").with("userAccountControl", ["512"])], |_| String::new()).is_err()
        );
    }

    /// One account, as the search for names and the catalogue return it.
    fn entry(dn: &str, guid: u8, sam: &str, upn: Option<&str>) -> Entry {
        let entry = Entry::new(dn).with("objectGUID", [vec![guid; 16]]).with("sAMAccountName", [sam]);
        entry.with("userAccountControl", ["512"]).with("userPrincipalName", upn)
    }

    const MARY: &str = "CN=Mary,DC=emea,DC=acme,DC=com";

    fn mary() -> Entry {
        entry(MARY, 7, "mary", Some("m.rossi@brand.example"))
    }

    /// Mary, read in her own domain.
    fn at_home(found: Entry) -> Answer {
        ("emea.acme.com <GUID=07070707-0707-0707-0707-070707070707>", Ok(vec![found]))
    }

    fn nobody(search: &'static str) -> Answer {
        (search, Ok(Vec::new()))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// The directory of a host in acme.com.
    fn directory(answers: impl IntoIterator<Item = Answer>) -> Directory<Scripted> {
        Directory::new(Scripted::new(answers), &config(""))
    }

    async fn find(directory: &Directory<Scripted>, name: &str) -> Result<Found, DirectoryError> {
        let found = directory.find(&principal(name), soon()).await;
        directory.machine().is_finished();
        found
    }

    #[tokio::test]
    async fn an_explicit_name_is_found_anywhere_in_the_forest_and_read_at_home() {
        let searches = [
            nobody(
                "own dc=acme,dc=com \
                 (&(|(userPrincipalName=m.rossi@brand.example))(objectCategory=person)(objectClass=user))",
            ),
            (
                "catalogue  \
                 (&(|(userPrincipalName=m.rossi@brand.example))(objectCategory=person)(objectClass=user))",
                Ok(vec![mary()]),
            ),
            // Moved since the catalogue was updated.
            at_home(entry("CN=Mary,OU=New,DC=emea,DC=acme,DC=com", 7, "mary", Some("m.rossi@brand.example"))),
        ];
        let directory = directory(searches.into_iter().chain(forest()));
        let found = find(&directory, "m.rossi@brand.example").await.unwrap();
        assert_eq!(found.person.dn, "CN=Mary,OU=New,DC=emea,DC=acme,DC=com");
        assert_eq!(found.person.domain, "emea.acme.com");
        assert!(!found.remembered);
        // From memory: AD is not queried.
        assert!(find(&directory, "m.rossi@brand.example").await.unwrap().remembered);
    }

    #[tokio::test]
    async fn an_implicit_name_counts_in_the_domain_that_it_names() {
        let namesakes = vec![mary(), entry("CN=Mary,DC=other,DC=example", 8, "mary", None)];
        let searches = [
            nobody("own dc=acme,dc=com"),
            nobody(
                "catalogue  \
                 (&(|(userPrincipalName=mary@emea.acme.com))(objectCategory=person)(objectClass=user))",
            ),
            (
                "catalogue DC=emea,DC=acme,DC=com \
                 (&(|(sAMAccountName=mary))(objectCategory=person)(objectClass=user))",
                Ok(namesakes),
            ),
            at_home(mary()),
        ];
        let directory = directory(searches.into_iter().chain(forest()));
        assert_eq!(find(&directory, "mary@emea.acme.com").await.unwrap().person.dn, MARY);
    }

    #[tokio::test]
    async fn one_account_with_both_names_is_one_and_two_accounts_are_ambiguous() {
        let name = Some("mary@emea.acme.com");
        let both = entry(MARY, 7, "mary", name);
        let other = entry("CN=M,DC=other,DC=example", 8, "m", name);
        let searches = |explicit: Vec<Entry>| {
            [
                nobody("own dc=acme,dc=com"),
                ("catalogue  ", Ok(explicit)),
                ("catalogue DC=emea", Ok(vec![both.clone()])),
            ]
        };
        let one = searches(vec![both.clone()]).into_iter().chain([at_home(both.clone())]).chain(forest());
        assert_eq!(find(&directory(one), "mary@emea.acme.com").await.unwrap().person.dn, MARY);
        let two = searches(vec![both.clone(), other]).into_iter().chain(forest());
        let error = find(&directory(two), "mary@emea.acme.com").await.unwrap_err();
        assert!(matches!(error, DirectoryError::Ambiguous { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_explicit_name_elsewhere_hides_an_implicit_one() {
        let searches = [
            nobody("own dc=acme,dc=com"),
            ("catalogue  ", Ok(vec![entry(MARY, 7, "rossi", Some("mary@other.example"))])),
            ("catalogue DC=other", Ok(vec![entry("CN=Mary,DC=other,DC=example", 8, "mary", None)])),
            at_home(entry(MARY, 7, "rossi", Some("mary@other.example"))),
        ];
        let directory = directory(searches.into_iter().chain(forest()));
        let found = find(&directory, "mary@other.example").await.unwrap();
        assert_eq!(
            (found.person.dn.as_str(), found.hides.as_deref()),
            (MARY, Some("CN=Mary,DC=other,DC=example"))
        );
    }

    #[tokio::test]
    async fn what_the_catalogue_says_too_late_is_no_answer() {
        let catalogue = || [nobody("own dc=acme,dc=com"), ("catalogue  ", Ok(vec![mary()]))];
        let gone = MachineError::NoSuchObject(MARY.into());
        let home = [
            at_home(entry(MARY, 7, "mary", Some("mary.bianchi@brand.example"))),
            at_home(Entry::new(MARY).with("userAccountControl", ["4096"])),
            ("emea.acme.com <GUID", Err(gone)),
        ];
        for (index, home) in home.into_iter().enumerate() {
            let directory = directory(catalogue().into_iter().chain([home]).chain(forest()));
            let error = find(&directory, "m.rossi@brand.example").await.unwrap_err();
            assert!(matches!(error, DirectoryError::Unknown(_)), "{index}: {error}");
        }
    }

    #[tokio::test]
    async fn ad_is_asked_for_what_was_typed_and_for_the_names_that_it_stands_for() {
        let cases = [
            (
                "İLKER",
                "(userPrincipalName=İLKER@acme.com)(sAMAccountName=İLKER)",
                entry("CN=1", 1, "İlker", None),
            ),
            (
                "ΠΑΠΠΆΣ@acme.com",
                "(userPrincipalName=ΠΑΠΠΆΣ@acme.com)(sAMAccountName=ΠΑΠΠΆΣ)",
                entry("CN=1", 1, "παππάς", None),
            ),
            (
                "ACME\\ceo",
                "(&(|(sAMAccountName=ceo))(objectCategory",
                entry("CN=1", 1, "ceo", Some("x@acme.com")),
            ),
        ];
        for (name, search, account) in cases {
            let directory = directory([(search, Ok(vec![account]))]);
            directory.find(&typed(name, ""), soon()).await.unwrap();
            directory.machine().is_finished();
        }
        // Such a name can only belong to this domain.
        let known = self::directory(forest());
        known.forest(soon()).await.unwrap();
        known.machine().expect([nobody("(&(|(sAMAccountName=mary))(objectCategory")]);
        let error = known.find(&typed("ACME\\mary", ""), soon()).await.unwrap_err();
        assert!(matches!(error, DirectoryError::Unknown(_)), "{error}");
    }

    #[tokio::test]
    async fn a_short_name_of_another_domain_is_looked_for_there_alone() {
        let search = "catalogue DC=emea,DC=acme,DC=com (&(|(sAMAccountName=mary))(objectCategory";
        let directory = directory(forest());
        let rules = Rules { domains: vec!["emea.acme.com".into()], ..config("").names };
        let mary_there = directory.principal(&rules, "EMEA\\mary", soon()).await.unwrap().unwrap();
        directory.machine().expect([(search, Ok(vec![mary()])), at_home(mary())]);
        assert_eq!(directory.find(&mary_there, soon()).await.unwrap().person.dn, MARY);
        directory.machine().is_finished();
    }

    #[tokio::test]
    async fn people_of_this_domain_never_wait_for_the_forest() {
        let here = || ("own dc=acme,dc=com", Ok(vec![entry("CN=John", 1, "john", Some("j@brand.example"))]));
        let found = find(&directory([here()]), "john@acme.com").await.unwrap();
        assert_eq!(found.person.domain, "acme.com");
        // Nor does a name with a suffix.
        find(&directory([here()]), "j@brand.example").await.unwrap();
        // Nor does an unknown name.
        let error = find(&directory([nobody("own dc=acme,dc=com")]), "mary@acme.com").await.unwrap_err();
        assert!(matches!(error, DirectoryError::Unknown(_)), "{error}");
    }

    #[tokio::test]
    async fn an_explicit_name_of_this_domain_may_belong_to_another_one() {
        let known = directory(forest());
        known.forest(soon()).await.unwrap();
        let mary = || entry(MARY, 7, "mary.r", Some("mary@acme.com"));
        known.machine().expect([
            nobody("own dc=acme,dc=com"),
            ("catalogue  ", Ok(vec![mary()])),
            at_home(mary()),
        ]);
        assert_eq!(find(&known, "mary@acme.com").await.unwrap().person.dn, MARY);
    }

    #[tokio::test]
    async fn a_forest_of_one_domain_has_no_catalogue_to_ask() {
        let [root, (part, _)] = forest();
        let alone = Entry::new("CN=ACME").with("dnsRoot", ["acme.com"]).with("nCName", ["DC=acme,DC=com"]);
        let directory = directory([nobody("own dc=acme,dc=com"), root, (part, Ok(vec![alone]))]);
        let error = find(&directory, "x@brand.example").await.unwrap_err();
        assert!(matches!(error, DirectoryError::Unknown(_)), "{error}");
    }

    #[tokio::test]
    async fn whoever_searches_a_part_of_the_domain_searches_no_other() {
        let base = "base_dn = \"OU=Agents, DC=Acme,dc=com\"";
        let machine = Scripted::new([nobody("own OU=Agents, DC=Acme,dc=com")]);
        let error = find(&Directory::new(machine, &config(base)), "mary@emea.acme.com").await.unwrap_err();
        assert!(matches!(error, DirectoryError::Unknown(_)), "{error}");
        let machine = Scripted::new(
            [nobody("own DC=Acme, DC=Com")].into_iter().chain(forest()).chain([nobody("catalogue  ")]),
        );
        let whole = Directory::new(machine, &config("base_dn = \"DC=Acme, DC=Com\""));
        find(&whole, "x@brand.example").await.unwrap_err();
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_not_unknown() {
        let unreachable_forest = [nobody("own dc=acme,dc=com"), ("own  ", Err(unreachable()))];
        let unreachable_catalogue = [nobody("own dc=acme,dc=com"), ("catalogue  ", Err(unreachable()))];
        for answers in
            [unreachable_forest.to_vec(), unreachable_catalogue.into_iter().chain(forest()).collect()]
        {
            let error = find(&directory(answers), "m.rossi@brand.example").await.unwrap_err();
            assert_eq!(error, DirectoryError::Machine(unreachable()));
        }
    }

    #[tokio::test]
    async fn a_name_is_mapped_by_what_the_forest_knows_only_where_the_rules_do_not() {
        let rules = Rules { domains: vec!["emea.acme.com".into()], ..config("").names };
        let directory = directory([]);
        let map = async |name: &str| {
            let mapped = directory.principal(&rules, name, soon()).await;
            mapped.map(|mapped| mapped.map(|principal| principal.to_string()))
        };
        assert_eq!(map("john").await, Ok(Ok("john@acme.com".into())));
        assert_eq!(map("x@emea.acme.com").await, Ok(Ok("x@emea.acme.com".into())));
        assert_eq!(map("").await, Ok(Err(NameError::Empty)));
        directory.machine().expect([("own  ", Err(unreachable()))]);
        assert_eq!(map("m@brand.example").await, Err(unreachable().into()));
        directory.machine().expect(forest());
        assert_eq!(map("m@brand.example").await, Ok(Ok("m@brand.example".into())));
        assert_eq!(map("EMEA\\mary").await, Ok(Ok("mary@emea.acme.com".into())));
        assert_eq!(map("OTHER\\x").await, Ok(Err(NameError::Domain("OTHER".into()))));
    }
}
