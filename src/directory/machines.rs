//! Machine connections, one for each domain that is read.
//!
//! The host's own domain always has one. The global catalogue and the other domains of the forest get a
//! connection with the first search there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::directory::controllers::domains::Domains;
use crate::directory::entry::Entry;
use crate::directory::forest;
use crate::directory::machine::{
    Machine, MachineConnection, MachineError, MachineState, Part, Place, Search, Server, Servers, Settings,
};
use crate::kerberos::Kerberos;
use crate::net::BoxFuture;

/// Maximum number of connections: the domains of a forest, and its global catalogue.
const CONNECTIONS: usize = forest::DOMAINS + 1;

/// Creates the connection of a place that is not [`Place::Own`].
type Factory = Box<dyn Fn(&Place) -> MachineConnection + Send + Sync>;

/// Time without a byte after which a search of the LDAP bridge has its connection probed, and time for a sign
/// of life then. It is long because such a search may keep a domain controller busy.
const SILENCE: Duration = Duration::from_secs(3);

/// The domain controllers of this host's domain, for searches of the LDAP bridge. A failure there says
/// nothing about logins, because a client's search may take a domain controller too long.
struct Aside<S>(Arc<S>);

impl<S: Servers> Servers for Aside<S> {
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
        self.0.candidates()
    }

    fn failed(&self, _: &str, _: &str) {}
}

/// All machine connections.
pub struct Machines {
    own: MachineConnection,
    /// For searches of the LDAP bridge: a domain controller may process the requests of one connection one by
    /// one, and those of the bridge's clients may take long.
    aside: MachineConnection,
    factory: Factory,
    further: Mutex<BTreeMap<Place, MachineConnection>>,
}

impl Machines {
    /// Uses `own`, and calls `factory` for each other place at its first search.
    pub fn new(
        own: MachineConnection,
        factory: impl Fn(&Place) -> MachineConnection + Send + Sync + 'static,
    ) -> Self {
        Machines { aside: own.clone(), own, factory: Box::new(factory), further: Mutex::default() }
    }

    /// Creates the connections of every domain in `domains`, with the tickets of `kerberos`.
    pub fn of(domains: &Arc<Domains>, kerberos: &Arc<Kerberos>, settings: &Settings) -> Self {
        let connect = {
            let (kerberos, settings) = (kerberos.clone(), settings.clone());
            move |servers| MachineConnection::new(servers, kerberos.clone(), settings.clone())
        };
        let own = connect(domains.own().clone());
        domains.roster().read_through(&own);
        let patient = Settings { silence: SILENCE, probe: SILENCE, ..settings.clone() };
        let aside = MachineConnection::new(Arc::new(Aside(domains.own().clone())), kerberos.clone(), patient);
        let (domains, known) = (domains.clone(), own.clone());
        Machines { aside, ..Machines::new(own, move |place| connect(domains.at(place, &known))) }
    }

    /// The connection to this host's domain.
    pub fn own(&self) -> &MachineConnection {
        &self.own
    }

    /// Returns the state of each connection other than [`Machines::own`].
    pub fn further(&self) -> Vec<(Place, MachineState)> {
        self.further.lock().iter().map(|(place, machine)| (place.clone(), machine.state())).collect()
    }

    /// See [`MachineConnection::renew`].
    pub fn renew(&self) {
        self.own.renew();
        self.aside.renew();
        self.further.lock().values().for_each(MachineConnection::renew);
    }

    /// See [`MachineConnection::close`].
    pub fn close(&self) {
        self.own.close();
        self.aside.close();
        self.further.lock().values().for_each(MachineConnection::close);
    }

    fn at(&self, place: &Place) -> Result<MachineConnection, MachineError> {
        if *place == Place::Own {
            return Ok(self.own.clone());
        }
        let mut made = self.further.lock();
        if let Some(machine) = made.get(place) {
            return Ok(machine.clone());
        }
        // Only reached if the forest's domains keep changing; a restart makes room again.
        if made.len() == CONNECTIONS {
            return Err(MachineError::NoServer(format!(
                "the forest has more than {} domains",
                forest::DOMAINS
            )));
        }
        let machine = (self.factory)(place);
        made.insert(place.clone(), machine.clone());
        Ok(machine)
    }
}

impl Machine for Machines {
    async fn search(&self, search: &Search, deadline: Instant) -> Result<Vec<Entry>, MachineError> {
        self.at(&search.place)?.search(search, deadline).await
    }

    async fn search_part(
        &self,
        search: &Search,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Part, MachineError> {
        self.aside.search_part(search, bytes, deadline).await
    }

    fn host(&self, place: &Place) -> Option<String> {
        self.at(place).ok()?.state().dc
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::directory::machine::{Server, Servers, base_search};
    use crate::kerberos::{Kdc, Kdcs};
    use crate::net::BoxFuture;

    /// A domain without domain controllers, recognised by its error.
    struct Nowhere(String);

    impl Servers for Nowhere {
        fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
            Box::pin(async { Err(self.0.clone()) })
        }
    }

    impl Kdcs for Nowhere {
        fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
            Box::pin(async { Err(self.0.clone()) })
        }
        fn answered(&self, _: &str) {}
        fn failed(&self, _: &str, _: &str) {}
    }

    fn connection(name: &str) -> MachineConnection {
        let nowhere = Arc::new(Nowhere(name.to_owned()));
        let kerberos = Arc::new(Kerberos::new(nowhere.clone()));
        MachineConnection::new(nowhere, kerberos, Settings::default())
    }

    async fn answers(machines: &Machines, place: Place) -> String {
        let search = Search { place, ..base_search("DC=x".to_owned(), Vec::new()) };
        let answer = machines.search(&search, Instant::now() + Duration::from_millis(100)).await;
        answer.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn each_place_has_one_connection_from_the_first_search_on() {
        let made = Arc::new(AtomicUsize::new(0));
        let machines = Machines::new(connection("own"), {
            let made = made.clone();
            move |place| {
                made.fetch_add(1, Ordering::SeqCst);
                connection(&format!("{place:?}"))
            }
        });
        assert!(answers(&machines, Place::Own).await.ends_with(": own"));
        assert_eq!(made.load(Ordering::SeqCst), 0);
        for _ in 0..3 {
            let emea = answers(&machines, Place::Domain("emea.acme.com".into())).await;
            assert!(emea.ends_with("Domain(\"emea.acme.com\")"), "{emea}");
            assert!(answers(&machines, Place::GlobalCatalogue).await.ends_with("GlobalCatalogue"));
        }
        assert_eq!(made.load(Ordering::SeqCst), 2);
        assert_eq!(machines.further().len(), 2);
        machines.close();
        for place in [Place::Own, Place::GlobalCatalogue] {
            assert_eq!(answers(&machines, place).await, MachineError::Closed.to_string());
        }
    }

    #[tokio::test]
    async fn their_number_is_bounded() {
        let machines = Machines::new(connection("own"), |_| connection("one more"));
        for number in 0..CONNECTIONS {
            machines.at(&Place::Domain(number.to_string())).unwrap();
        }
        assert!(machines.at(&Place::GlobalCatalogue).is_err());
        assert!(machines.at(&Place::Domain("0".into())).is_ok());
    }
}
