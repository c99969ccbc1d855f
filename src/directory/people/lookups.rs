//! Concurrent look-ups of names share a search.
//!
//! Each login looks its name up. With one search per login, the domain controller would process many searches
//! on one connection. So one look-up runs at a time, and those that arrive meanwhile run together as the next
//! one: the more wait, the less each costs.

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::directory::machine::{Machine, MachineError, Place};
use crate::directory::people::find::choose;
use crate::directory::people::many::TOGETHER;
use crate::directory::people::person::{CANDIDATES, Found, people_of, people_search};
use crate::directory::people::{Directory, DirectoryError};
use crate::name::Principal;

/// Maximum number of concurrent searches for the names of logins; look-ups that wait share the next one.
const SEARCHES: usize = 1;

/// The look-ups that wait for the next search.
pub(in crate::directory) struct Lookups {
    waiting: Mutex<Vec<Waiting>>,
    turn: Semaphore,
}

/// One look-up; its login may have ended.
struct Waiting {
    principal: Principal,
    names: String,
    answer: oneshot::Sender<Answer>,
}

enum Answer {
    Is(Result<Found, DirectoryError>),
    /// The shared search gives no certain result for this name.
    AskAlone,
}

impl Default for Lookups {
    fn default() -> Self {
        Lookups { waiting: Mutex::default(), turn: Semaphore::new(SEARCHES) }
    }
}

impl Lookups {
    /// Takes the next look-ups with logins that still wait.
    fn next(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|one| !one.answer.is_closed());
        let count = waiting.len().min(TOGETHER);
        waiting.drain(..count).collect()
    }
}

impl<M: Machine> Directory<M> {
    /// Finds the account of this host's domain that `principal` means; `names` is the filter for its names.
    ///
    /// # Errors
    /// Returns an error if there is none or more than one, or if AD does not answer before `deadline`.
    pub(super) async fn look_up(
        &self,
        principal: &Principal,
        names: String,
        deadline: Instant,
    ) -> Result<Found, DirectoryError> {
        // AD compares non-ASCII letters by its own rules, so a result for one such name must not be matched
        // with another.
        let is_plain = names.is_ascii();
        let answer = match is_plain {
            true => timeout_at(deadline, self.look_up_together(principal, &names, deadline)).await,
            false => Ok(Answer::AskAlone),
        };
        match answer {
            Ok(Answer::Is(found)) => found,
            Ok(Answer::AskAlone) => self.look_up_alone(principal, &names, deadline).await,
            Err(_) => {
                let host = self.machine.host(&Place::Own).unwrap_or_else(|| "AD".to_owned());
                Err(MachineError::Timeout(format!("{host} did not answer a search")).into())
            }
        }
    }

    async fn look_up_together(&self, principal: &Principal, names: &str, deadline: Instant) -> Answer {
        loop {
            let (answer, mut receiver) = oneshot::channel();
            let one = Waiting { principal: principal.clone(), names: names.to_owned(), answer };
            self.lookups.waiting.lock().push(one);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut receiver => match answer {
                        Ok(answer) => return answer,
                        // The login that ran the shared search has ended, or had less time.
                        Err(_) => break,
                    },
                    _turn = self.lookups.turn.acquire() => {
                        let batch = self.lookups.next();
                        let answers = self.answers(&batch, deadline).await;
                        for (one, answer) in batch.into_iter().zip(answers) {
                            if let Some(answer) = answer {
                                let _ = one.answer.send(answer);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Runs one search for `batch`, and returns the answer for each; `None` if the look-up has to be
    /// repeated.
    async fn answers(&self, batch: &[Waiting], deadline: Instant) -> Vec<Option<Answer>> {
        match batch {
            // Another login answered this look-up while it waited for its turn.
            [] => return Vec::new(),
            [one] => {
                return vec![Some(Answer::Is(
                    self.look_up_alone(&one.principal, &one.names, deadline).await,
                ))];
            }
            _ => {}
        }
        let names: String = batch.iter().map(|one| one.names.as_str()).collect();
        let search = people_search(Place::Own, &self.base, &names, batch.len() * CANDIDATES);
        let entries = self.machine.search(&search, deadline).await;
        let people = match entries.map(|entries| people_of(&entries, |_| self.own_domain())) {
            Ok(Ok(people)) => people,
            // Only one login's deadline has passed.
            Err(MachineError::Timeout(_)) => return batch.iter().map(|_| None).collect(),
            Err(
                error @ (MachineError::Kerberos(_)
                | MachineError::NoServer(_)
                | MachineError::Unreachable(_)
                | MachineError::Broken(_)
                | MachineError::Closed),
            ) => {
                return batch.iter().map(|_| Some(Answer::Is(Err(error.clone().into())))).collect();
            }
            Err(_) | Ok(Err(_)) => return batch.iter().map(|_| Some(Answer::AskAlone)).collect(),
        };
        let answer = |one: &Waiting| match choose(&self.netbios, &one.principal, people.clone()) {
            Ok(found) => Answer::Is(Ok(found)),
            Err(_) => Answer::AskAlone,
        };
        batch.iter().map(|one| Some(answer(one))).collect()
    }

    async fn look_up_alone(
        &self,
        principal: &Principal,
        names: &str,
        deadline: Instant,
    ) -> Result<Found, DirectoryError> {
        let search = people_search(Place::Own, &self.base, names, CANDIDATES);
        let entries = self.candidates(principal, &search, deadline).await?;
        // The search does not cover the domains below this one: they are separate partitions.
        choose(&self.netbios, principal, people_of(&entries, |_| self.own_domain())?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;
    use tokio::time::{Duration, sleep};

    use super::*;
    use crate::directory::entry::Entry;
    use crate::directory::machine::Search;
    use crate::directory::people::Directory;
    use crate::directory::scripted::{config, guid};

    /// A domain of `u0` to `u99` that takes 10 ms for each search, and the filters of those searches.
    #[derive(Default)]
    struct Domain {
        filters: Mutex<Vec<String>>,
        /// The answer to a search for more than one name.
        together: Option<MachineError>,
    }

    impl Machine for Arc<Domain> {
        async fn search(&self, search: &Search, deadline: Instant) -> Result<Vec<Entry>, MachineError> {
            self.filters.lock().push(search.filter.clone());
            let _ = timeout_at(deadline, sleep(Duration::from_millis(10))).await;
            if deadline <= Instant::now() {
                return Err(MachineError::Timeout("ad.acme.com did not answer a search".into()));
            }
            let names: Vec<_> = (0..100)
                .filter(|number| search.filter.contains(&format!("(sAMAccountName=u{number})")))
                .collect();
            match &self.together {
                Some(error) if names.len() > 1 => Err(error.clone()),
                _ => Ok(names.into_iter().map(user).collect()),
            }
        }
    }

    fn user(number: u8) -> Entry {
        let entry = Entry::new(format!("CN={number}")).with("objectGUID", [vec![number; 16]]);
        entry.with("sAMAccountName", [format!("u{number}")]).with("userAccountControl", ["512"])
    }

    fn directory(together: Option<MachineError>) -> (Arc<Domain>, Arc<Directory<Arc<Domain>>>) {
        let domain = Arc::new(Domain { together, ..Domain::default() });
        (domain.clone(), Arc::new(Directory::new(domain, &config(""))))
    }

    fn within(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    type Found = (u8, Result<super::Found, DirectoryError>);

    async fn find(directory: &Directory<Arc<Domain>>, number: u8, deadline: Instant) -> Found {
        let principal = Principal::parse(&format!("u{number}@acme.com")).unwrap();
        (number, directory.find_afresh(&principal, deadline).await)
    }

    async fn find_all(directory: &Arc<Directory<Arc<Domain>>>, numbers: std::ops::Range<u8>) -> Vec<Found> {
        let mut found = JoinSet::new();
        for number in numbers {
            let directory = directory.clone();
            found.spawn(async move { find(&directory, number, within(5000)).await });
        }
        found.join_all().await
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_search_runs_shares_the_next_one() {
        let (domain, directory) = directory(None);
        let begun = Instant::now();
        for (number, found) in find_all(&directory, 0..50).await {
            assert_eq!(found.unwrap().person.guid, guid(number), "{number}");
        }
        assert_eq!(domain.filters.lock().len(), 2);
        assert_eq!(begun.elapsed(), Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_nobody_has_is_unknown_to_a_search_of_its_own() {
        let (domain, directory) = directory(None);
        for (number, found) in find_all(&directory, 98..102).await {
            assert_eq!(found.is_ok(), number < 100, "{number}: {found:?}");
        }
        // u98 alone; u99, u100 and u101 together; the two unknown names, each alone.
        assert_eq!(domain.filters.lock().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn letters_that_only_ad_can_compare_are_asked_for_alone() {
        let (domain, directory) = directory(None);
        let mut asked = JoinSet::new();
        for _ in 0..3 {
            let directory = directory.clone();
            let principal = Principal::parse("jörg@acme.com").unwrap();
            asked.spawn(async move { directory.find_afresh(&principal, within(5000)).await });
        }
        assert!(asked.join_all().await.iter().all(|found| matches!(found, Err(DirectoryError::Unknown(_)))));
        assert_eq!(domain.filters.lock().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_search_for_many_is_made_for_each() {
        let (domain, directory) = directory(Some(MachineError::TooMany(1)));
        for (number, found) in find_all(&directory, 0..5).await {
            assert_eq!(found.unwrap().person.guid, guid(number), "{number}");
        }
        assert_eq!(domain.filters.lock().len(), 1 + 1 + 4);
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_share_a_search_hear_that_ad_is_away() {
        let error = MachineError::Unreachable("refused".into());
        let (domain, directory) = directory(Some(error.clone()));
        let found = find_all(&directory, 0..20).await;
        let failed = found.iter().filter(|(_, found)| *found == Err(error.clone().into())).count();
        assert_eq!((failed, domain.filters.lock().len()), (19, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_ends_takes_the_search_from_nobody() {
        let (_, directory) = directory(None);
        let first = tokio::spawn({
            let directory = directory.clone();
            async move { find(&directory, 0, within(5000)).await }
        });
        sleep(Duration::from_millis(1)).await;
        // This one searches next, with too little time, and then ends: the third one then runs its own
        // search.
        let second = tokio::spawn({
            let directory = directory.clone();
            async move { find(&directory, 1, within(12)).await }
        });
        sleep(Duration::from_millis(1)).await;
        let (_, third) = find(&directory, 2, within(5000)).await;
        assert_eq!(third.unwrap().person.guid, guid(2));
        assert!(first.await.unwrap().1.is_ok());
        let (_, second) = second.await.unwrap();
        assert!(matches!(second, Err(DirectoryError::Machine(MachineError::Timeout(_)))), "{second:?}");
        assert!(directory.lookups.waiting.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_fit_into_one_search_are_all_answered() {
        let (domain, directory) = directory(None);
        let mut found = JoinSet::new();
        for number in 0..=250 {
            let directory = directory.clone();
            found.spawn(async move { find(&directory, number % 100, within(5000)).await });
        }
        assert!(found.join_all().await.iter().all(|(_, found)| found.is_ok()));
        assert_eq!(domain.filters.lock().len(), 1 + 3);
    }
}
