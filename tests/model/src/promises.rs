//! The promises of the protocol. Each holds in every state, and most of them once the world is settled:
//! no step is left that happens by itself.

use stateright::Property;

use crate::register::{Id, Known, Register};
use crate::rule::Admission;
use crate::world::{Failover, Login, Scenario, World};

/// No copy of the register ever has more open sessions of the user than the limit.
pub const LIMIT: &str = "never more open sessions than the limit";
/// The session of an application is open, or its eviction was reported to the application, or the log reports
/// a gap in the events. The exceptions are a session whose registration was lost with a master, and sessions
/// of a broker that was killed after a master had died with its server's first bookmark.
pub const TOLD: &str = "every eviction is reported, or the gap is";
/// A session does not outlive its process.
pub const GONE: &str = "no session stays after its process";
/// A rejected login has no session, unless its broker was killed before it could undo it, or the end of the
/// session was lost with a master.
pub const REJECTED: &str = "a rejected login leaves no session";
/// Under `deny`, only sessions of applications count against a user. The exceptions are sessions of a broker
/// that was killed, and those whose end was lost with a master. Both end with their process.
pub const FREE: &str = "no rule locks a user out for ever";
/// Access is granted after a session was registered, unless the configuration allows access without one.
pub const REGISTERED: &str = "no access without a session";
/// A broker that has seen an event which the register has lost reports it.
pub const REPORTED: &str = "a loss that a broker can see is reported";
/// With `min-replicas-to-write`, a master that another one has replaced accepts no change.
pub const ONE_MASTER: &str = "one master accepts changes";

/// Returns all promises.
pub fn all() -> Vec<Property<Scenario>> {
    vec![
        Property::always(LIMIT, limit),
        Property::always(TOLD, |scenario, world| settled(scenario, world, is_untold)),
        Property::always(GONE, |scenario, world| settled(scenario, world, is_left_behind)),
        Property::always(REJECTED, |scenario, world| settled(scenario, world, is_unwanted)),
        Property::always(FREE, |scenario, world| settled(scenario, world, is_in_the_way)),
        Property::always(REGISTERED, registered),
        Property::always(REPORTED, reported),
        Property::always(ONE_MASTER, one_master),
    ]
}

/// Returns true unless the world is settled and `is_broken` holds for one of its sessions.
fn settled(
    scenario: &Scenario,
    world: &World,
    is_broken: fn(&Scenario, &World, &Register, Id) -> bool,
) -> bool {
    let Some(register) = &world.copies[world.master] else { return true };
    let is_broken = (0..world.logins.len()).any(|id| is_broken(scenario, world, register, id));
    !is_broken || !scenario.is_settled(world)
}

fn is_open(register: &Register, id: Id) -> bool {
    matches!(register.known(id), Known::Open(_))
}

fn limit(scenario: &Scenario, world: &World) -> bool {
    let limit = scenario.limit().unwrap_or(usize::MAX);
    world.copies.iter().flatten().all(|register| register.open_now().len() <= limit)
}

fn is_untold(scenario: &Scenario, world: &World, register: &Register, id: Id) -> bool {
    let past = world.past[id];
    let is_held = world.logins[id] == Login::Held && !past.dead && scenario.home(id) < scenario.followers;
    is_held && !is_open(register, id) && !past.told && !past.gap && !past.lost && !past.unmarked
}

fn is_left_behind(_: &Scenario, world: &World, register: &Register, id: Id) -> bool {
    world.past[id].dead && is_open(register, id)
}

fn is_unwanted(_: &Scenario, world: &World, register: &Register, id: Id) -> bool {
    let is_over = matches!(world.logins[id], Login::Rejected | Login::Unregistered);
    let past = world.past[id];
    is_over && is_open(register, id) && !past.orphaned && !past.reopened
}

fn is_in_the_way(scenario: &Scenario, world: &World, register: &Register, id: Id) -> bool {
    let past = world.past[id];
    let is_excused = past.orphaned || past.reopened;
    let is_held = world.logins[id] == Login::Held && (!past.told || past.reopened);
    matches!(scenario.admission, Admission::Deny(_)) && is_open(register, id) && !is_held && !is_excused
}

fn reported(scenario: &Scenario, world: &World) -> bool {
    !world.unreported.contains(&true) || !scenario.is_settled(world)
}

fn one_master(scenario: &Scenario, world: &World) -> bool {
    scenario.failover != Failover::Isolation { min_replicas: true } || !world.split
}

fn registered(scenario: &Scenario, world: &World) -> bool {
    let is_granted = |(login, past): (&Login, &crate::world::History)| match login {
        Login::Held | Login::Left => past.registered,
        Login::Unregistered => scenario.allow,
        _ => true,
    };
    world.logins.iter().zip(&world.past).all(is_granted)
}
