//! The steps: each is one atomic step of the code, of its surroundings, or a fault.

use stateright::{Model, Property};

use crate::promises;
use crate::register::{Bookmark, Cursor, End, Event, Id, Known, Opened, Position, Register};
use crate::rule::{Admission, Decision};
use crate::world::{Broker, Copy, Cut, Due, Failover, Login, Prepared, Scenario, Server, World};
use crate::wrong::Wrong;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A user logs in, and the broker sends the call.
    Ask(Id),
    /// The application goes away before it has the answer.
    Depart(Id),
    /// The application closes the session.
    LogOut(Id),
    /// The process of the session ends.
    Die(Id),
    /// An administrator evicts a session by the broker of a server.
    Kick(Server, Id),

    /// The register carries out the call of a login.
    Execute(Id),
    /// Only [`Wrong::CountsFirst`]: the register carries out its decision.
    Finish(Id),
    /// The register carries out a call that no broker waits for.
    ExecuteLate(Id, Copy),
    /// The broker gets the answer of the register.
    Answer(Id),
    /// The broker sends the call again.
    Retry(Id),
    /// The broker gives the call up.
    GiveUp(Id),
    /// The application reads the answer of the login.
    Reply(Id),

    /// The next call of `evict::prepare`.
    Prepare(Server),
    /// `on_evict` reads the events and starts commands.
    Read(Server),
    /// A command has ended.
    Told(Server, Id),
    /// `on_evict` writes its bookmark.
    Mark(Server),

    /// The register takes an end that is owed.
    Settle(Server, Id),
    /// The same, and the answer is lost.
    LoseSettled(Server, Id),
    /// The sweep ends a session whose process is gone.
    Sweep(Id),

    /// The broker learns of the newest event.
    Listen(Server),
    /// The broker connects to the master and compares.
    Connect(Server),
    /// The connection of a broker is lost with every call on it, or given up.
    Lose(Server),
    /// The broker is killed.
    Kill(Server),
    /// The broker is started again.
    Start(Server),

    /// The replica gets no further change of the master.
    Stall,
    /// The master dies, and the replica takes its place.
    Crash,
    /// The master and the second server are cut off from the rest.
    Isolate,
    /// The master notices that it has no replica any more.
    Notice,
    /// The replica takes the place of a master that is cut off.
    Promote,
    /// The old master and the second server are back.
    Heal,
    /// The register loses all that it holds, and the bookmarks if `true`: without a part of its keys it is
    /// replaced by an empty one (`begin.lua`), which leaves the bookmarks.
    Wipe(bool),
}

impl Step {
    /// Returns true if the step happens by itself as soon as no fault prevents it. If none of these is left,
    /// the world is settled.
    fn is_due(self) -> bool {
        match self {
            Step::Execute(_)
            | Step::Finish(_)
            | Step::ExecuteLate(..)
            | Step::Answer(_)
            | Step::Retry(_)
            | Step::Reply(_)
            | Step::Prepare(_)
            | Step::Read(_)
            | Step::Told(..)
            | Step::Mark(_)
            | Step::Settle(..)
            | Step::Sweep(_)
            | Step::Connect(_)
            | Step::Start(_)
            | Step::Heal => true,
            // A cut-off master is replaced or is back in the end.
            Step::Notice | Step::Promote => true,
            Step::Ask(_)
            | Step::Depart(_)
            | Step::LogOut(_)
            | Step::Die(_)
            | Step::Kick(..)
            | Step::GiveUp(_)
            | Step::LoseSettled(..)
            | Step::Listen(_)
            | Step::Lose(_)
            | Step::Kill(_)
            | Step::Stall
            | Step::Crash
            | Step::Isolate
            | Step::Wipe(_) => false,
        }
    }
}

impl Scenario {
    /// Returns true if no step is left that happens by itself.
    pub fn is_settled(&self, world: &World) -> bool {
        let mut steps = Vec::new();
        self.actions(world, &mut steps);
        !steps.into_iter().any(Step::is_due)
    }

    /// Returns true if a change of `copy` is accepted.
    fn accepts(&self, world: &World, copy: Copy) -> bool {
        let has_noticed = match world.cut {
            Cut::No | Cut::Fresh => false,
            Cut::Noticed => true,
            Cut::Promoted => !self.is(Wrong::PromotesEarly),
        };
        let min_replicas = self.failover == Failover::Isolation { min_replicas: true };
        world.copies[copy].is_some() && !(copy == 0 && has_noticed && min_replicas)
    }

    /// Returns the copy that the broker of `server` is connected to, if it accepts changes.
    fn writable(&self, world: &World, server: Server) -> Option<Copy> {
        world.brokers[server].link.filter(|copy| self.accepts(world, *copy))
    }

    /// Returns the register that the broker of `server` is connected to.
    fn linked<'a>(&self, world: &'a World, server: Server) -> Option<&'a Register> {
        world.copies[world.brokers[server].link?].as_ref()
    }

    /// Returns the mark of a change that `copy` makes now.
    fn mark(&self, world: &World, copy: Copy) -> u8 {
        match copy == world.master && !self.is(Wrong::NumbersOnly) {
            true => world.history,
            false => 0,
        }
    }

    /// Returns the copy that `server` can connect to.
    fn reachable(&self, world: &World, server: Server) -> Option<Copy> {
        let copy = match (world.cut, server) {
            // Sentinels answer by majority: those on the side of the cut-off master name none.
            (Cut::Fresh | Cut::Noticed, _) | (Cut::Promoted, 1) => return None,
            (Cut::No | Cut::Promoted, _) => world.master,
        };
        world.copies[copy].as_ref().map(|_| copy)
    }

    fn may_fail_over(&self, world: &World) -> bool {
        self.failover != Failover::None && world.master == 0 && world.cut == Cut::No
    }

    /// Returns true if events that a broker has seen may still be lost.
    fn may_lose(&self, world: &World) -> bool {
        self.failover != Failover::None && world.copies[0].is_some() || world.faults.wipes > 0
    }

    /// Returns the cursor of the next bookmark, if the broker must write one.
    fn bookmark(&self, broker: &Broker) -> Option<Cursor> {
        let cursor = match (broker.begun.first(), broker.position) {
            (Some((_, before)), _) if !self.is(Wrong::MarksTooEarly) => *before,
            (_, Some(Position::After(cursor))) => Some(cursor),
            (_, Some(Position::Oldest) | None) => None,
        };
        let is_due = broker.at_once || broker.met;
        cursor.filter(|cursor| is_due && broker.marked != Some(*cursor))
    }

    /// Returns true if reading the events after `position` has an effect.
    fn is_news(&self, world: &World, server: Server, position: Position) -> bool {
        let Some(register) = self.linked(world, server) else { return false };
        let events = register.events(position, self.keep);
        let is_eviction = |event: &Event| event.end.is_some_and(End::is_eviction);
        let is_ours = |event: &Event| self.logins[event.id] == server && is_eviction(event);
        // Where no event can be lost, the position alone changes nothing.
        let may_gap = self.may_lose(world) || usize::from(self.keep) < 3 * self.logins.len();
        let is_read = |(_, event): &(Cursor, Event)| may_gap || is_ours(event);
        events.gap || position == Position::Oldest || events.list.iter().any(is_read)
    }

    fn of_login(&self, world: &World, id: Id, steps: &mut Vec<Step>) {
        let server = self.home(id);
        let broker = &world.brokers[server];
        let is_prepared = broker.prepared.is_done() || self.is(Wrong::OpensBeforeBookmark);
        let may_depart = world.faults.departures > 0;
        let past = world.past[id];
        match world.logins[id] {
            Login::Ahead if broker.up => match broker.link {
                Some(_) if is_prepared => steps.push(Step::Ask(id)),
                // A login without a connection changes nothing, unless it is granted all the same.
                None if self.allow || self.is(Wrong::GrantsOnFailure) => steps.push(Step::Ask(id)),
                Some(_) | None => {}
            },
            Login::Ahead | Login::Unregistered => {}
            Login::Calling(..) => {
                steps.push(Step::Execute(id));
                steps.extend(may_depart.then_some(Step::Depart(id)));
            }
            Login::Decided(..) => steps.push(Step::Finish(id)),
            Login::Answering(..) => {
                steps.push(Step::Answer(id));
                steps.extend(may_depart.then_some(Step::Depart(id)));
            }
            Login::Again => {
                steps.push(Step::GiveUp(id));
                steps.extend(broker.link.map(|_| Step::Retry(id)));
                steps.extend(may_depart.then_some(Step::Depart(id)));
            }
            Login::Replying => {
                steps.push(Step::Reply(id));
                steps.extend(may_depart.then_some(Step::Depart(id)));
            }
            Login::Held if self.logouts && !past.told && !past.dead => steps.push(Step::LogOut(id)),
            Login::Held | Login::Rejected | Login::Left => {}
        }
        let is_open_at = |register: &Register| matches!(register.known(id), Known::Open(_));
        if self.deaths && !past.dead && world.copies.iter().flatten().any(is_open_at) {
            steps.push(Step::Die(id));
        }
        let may_sweep = broker.up && past.dead && !self.is(Wrong::NeverSweeps);
        if may_sweep && self.writable(world, server).is_some() {
            let is_open = self.linked(world, server).is_some_and(is_open_at);
            steps.extend(is_open.then_some(Step::Sweep(id)));
        }
    }

    fn of_broker(&self, world: &World, server: Server, steps: &mut Vec<Step>) {
        let broker = &world.brokers[server];
        if !broker.up {
            steps.push(Step::Start(server));
            return;
        }
        steps.extend((world.faults.kills > 0).then_some(Step::Kill(server)));
        steps.extend(broker.begun.iter().map(|(id, _)| Step::Told(server, *id)));
        let Some(register) = self.linked(world, server) else {
            steps.extend(self.reachable(world, server).map(|_| Step::Connect(server)));
            return;
        };
        let accepts = self.writable(world, server).is_some();
        let is_calling = |id: Id| matches!(world.logins[id], Login::Calling(..) | Login::Answering(..));
        if world.faults.lost_calls > 0 {
            steps.extend(self.logins_at(server).any(is_calling).then_some(Step::Lose(server)));
        }
        match broker.prepared {
            Prepared::No | Prepared::Missing => steps.push(Step::Prepare(server)),
            Prepared::Located(_) => steps.extend(accepts.then_some(Step::Prepare(server))),
            Prepared::Yes(_) => {
                let is_news = broker.position.is_none_or(|position| self.is_news(world, server, position));
                steps.extend((is_news && server < self.followers).then_some(Step::Read(server)));
            }
        }
        if accepts {
            // Nothing reads the bookmark if no broker is killed any more.
            let is_marked = world.faults.kills > 0 && self.bookmark(broker).is_some();
            steps.extend(is_marked.then_some(Step::Mark(server)));
            for (id, _) in &broker.owed {
                steps.push(Step::Settle(server, *id));
                steps.extend((world.faults.lost_calls > 0).then_some(Step::LoseSettled(server, *id)));
            }
            if world.kicks > 0 && broker.prepared.is_done() {
                steps.extend(register.open_now().into_iter().map(|id| Step::Kick(server, id)));
            }
        }
        let is_heard = broker.seen == Some(register.newest());
        steps.extend((!is_heard && self.listens && self.may_lose(world)).then_some(Step::Listen(server)));
    }

    fn of_register(&self, world: &World, steps: &mut Vec<Step>) {
        for (id, copy) in &world.late {
            steps.push(Step::ExecuteLate(*id, *copy));
        }
        if self.may_fail_over(world) {
            steps.push(match (&world.copies[1], self.failover) {
                (None, _) => Step::Stall,
                (Some(_), Failover::Isolation { .. }) => Step::Isolate,
                (Some(_), _) => Step::Crash,
            });
        }
        match world.cut {
            Cut::No => {}
            Cut::Fresh => {
                steps.push(Step::Notice);
                steps.extend(self.is(Wrong::PromotesEarly).then_some(Step::Promote));
            }
            Cut::Noticed => steps.push(Step::Promote),
            Cut::Promoted => steps.push(Step::Heal),
        }
        if world.faults.wipes > 0 {
            steps.extend([Step::Wipe(false), Step::Wipe(true)]);
        }
    }

    /// The answer to a call that has failed; `maybe` says that an attempt may have opened the session.
    fn fail(&self, world: &mut World, id: Id, maybe: bool) {
        if maybe && !self.is(Wrong::ForgetsTheLost) {
            world.owe(self.home(id), id, Due::Undo);
        }
        world.logins[id] = match self.allow || self.is(Wrong::GrantsOnFailure) {
            true => Login::Unregistered,
            false => Login::Rejected,
        };
    }

    /// The connection of a broker ends, with the calls on it. The copy may still carry them out.
    fn cut_link(&self, world: &mut World, server: Server) {
        world.brokers[server].link = None;
        for id in self.logins_at(server).collect::<Vec<_>>() {
            let (copy, attempt, is_on_its_way) = match world.logins[id] {
                Login::Calling(copy, attempt) => (copy, attempt, true),
                Login::Decided(copy, attempt, _) | Login::Answering(copy, attempt, _) => {
                    (copy, attempt, false)
                }
                _ => continue,
            };
            if is_on_its_way {
                world.delay(id, copy);
            }
            match attempt {
                1 => world.logins[id] = Login::Again,
                _ => self.fail(world, id, true),
            }
        }
    }

    /// A copy is gone: its connections, and the calls on their way to it.
    fn drop_copy(&self, world: &mut World, copy: Copy) {
        for server in 0..2 {
            if world.brokers[server].link == Some(copy) {
                self.cut_link(world, server);
            }
        }
        world.late.retain(|(_, to)| *to != copy);
    }

    /// Notes the changes of `old` that the register in its place does not have.
    fn note_loss(world: &mut World, old: &Register) {
        let Some(new) = &world.copies[world.master] else { return };
        for (id, past) in world.past.iter_mut().enumerate() {
            match (old.known(id), new.known(id)) {
                (Known::Open(_) | Known::Ended(_), Known::Never) => past.lost = true,
                (Known::Ended(_), Known::Open(_)) => past.reopened = true,
                _ => {}
            }
        }
        for (server, broker) in world.brokers.iter().enumerate() {
            let is_lost = broker.seen.is_some_and(|seen| !new.is_known(seen));
            world.unreported[server] |= is_lost && broker.link != Some(world.master);
        }
    }

    fn execute(&self, world: &mut World, id: Id, copy: Copy, attempt: u8) {
        if !self.accepts(world, copy) {
            // `NOREPLICAS`: the call has changed nothing, but an earlier attempt may have.
            let maybe = attempt > 1 && !self.is(Wrong::TrustsTheLastError);
            return self.fail(world, id, maybe);
        }
        if let (true, Some(register)) = (self.is(Wrong::CountsFirst), &world.copies[copy]) {
            world.logins[id] = match self.admission.decide(register.open_now().len()) {
                Decision::Enter { evict } => Login::Decided(copy, attempt, evict),
                Decision::Denied => Login::Answering(copy, attempt, false),
            };
            return;
        }
        let is_registered = self.open(world, id, copy);
        world.logins[id] = Login::Answering(copy, attempt, is_registered);
    }

    fn answer(&self, world: &mut World, id: Id) {
        let Login::Answering(_, attempt, is_registered) = world.logins[id] else { return };
        world.logins[id] = match is_registered {
            // A client that stays reads the answer.
            true if world.faults.departures == 0 => Login::Held,
            true => Login::Replying,
            false => Login::Rejected,
        };
        // The lost attempt may still be on its way.
        if !is_registered && attempt > 1 && !self.is(Wrong::TrustsTheDenial) {
            world.owe(self.home(id), id, Due::Undo);
        }
    }

    /// Runs `open.lua`; returns true if the session is registered.
    fn open(&self, world: &mut World, id: Id, copy: Copy) -> bool {
        let (mark, admission) = (self.mark(world, copy), self.allowed());
        let is_split = world.cut == Cut::Promoted && copy != world.master;
        let Some(register) = &mut world.copies[copy] else { return false };
        if self.is(Wrong::OpensAgain) && matches!(register.known(id), Known::Ended(_)) {
            register.known[id] = Known::Never;
        }
        let before = register.newest();
        let opened = register.open(id, admission, mark, self.keep);
        let is_changed = register.newest() != before;
        if let (true, Opened::Registered(gone)) = (self.is(Wrong::EndsSilently), &opened)
            && is_changed
        {
            hide(register, gone.len());
        }
        let is_registered = matches!(opened, Opened::Registered(_));
        world.past[id].registered |= is_registered;
        world.split |= is_split && is_changed;
        is_registered
    }

    /// Returns the rule, or the wrong one.
    fn allowed(&self) -> Admission {
        let more = |limit: std::num::NonZeroUsize| limit.saturating_add(1);
        match self.admission {
            rule if !self.is(Wrong::AllowsOneMore) => rule,
            Admission::Replace(limit) => Admission::Replace(more(limit)),
            Admission::Deny(limit) => Admission::Deny(more(limit)),
            Admission::Unlimited => Admission::Unlimited,
        }
    }

    /// Ends a session in a copy.
    fn close(&self, world: &mut World, id: Id, copy: Copy, end: End) {
        let mark = self.mark(world, copy);
        let is_split = world.cut == Cut::Promoted && copy != world.master;
        let Some(register) = &mut world.copies[copy] else { return };
        let before = register.newest();
        register.close(id, end, mark, self.keep);
        world.split |= is_split && register.newest() != before;
    }

    fn settle(&self, world: &mut World, server: Server, id: Id) {
        let Some(copy) = world.brokers[server].link else { return };
        let due = world.brokers[server].owed.iter().find(|(of, _)| *of == id).map(|(_, due)| *due);
        match due {
            Some(Due::End(end)) => self.close(world, id, copy, end),
            Some(Due::Undo) => {
                let mark = self.mark(world, copy);
                let Some(register) = &mut world.copies[copy] else { return };
                if !(self.is(Wrong::UndoesOpenOnly) && register.known(id) == Known::Never) {
                    register.undo(id, mark, self.keep);
                }
            }
            None => {}
        }
    }

    fn prepare(&self, world: &mut World, server: Server) {
        let Some(copy) = world.brokers[server].link else { return };
        let Some(register) = &mut world.copies[copy] else { return };
        let prepared = &mut world.brokers[server].prepared;
        *prepared = match *prepared {
            Prepared::No => match register.bookmarks[server] {
                Bookmark::NoCommand => Prepared::Missing,
                Bookmark::Absent if self.is(Wrong::StartsAtNewest) => Prepared::Missing,
                Bookmark::Absent => Prepared::Yes(Position::Oldest),
                Bookmark::At(cursor) => Prepared::Yes(Position::After(cursor)),
            },
            Prepared::Missing => Prepared::Located(register.newest()),
            Prepared::Located(cursor) => {
                register.bookmarks[server] = Bookmark::At(cursor);
                Prepared::Yes(Position::After(cursor))
            }
            ready @ Prepared::Yes(_) => ready,
        };
    }

    /// `Reader::follow`: one call, and the commands that follow from its reply.
    fn read(&self, world: &mut World, server: Server) {
        let Some(copy) = world.brokers[server].link else { return };
        let Some(register) = &mut world.copies[copy] else { return };
        let broker = &mut world.brokers[server];
        let Some(position) = broker.position else {
            let prepared = match broker.prepared {
                Prepared::Yes(position) if !self.is(Wrong::ForgetsItsBookmark) => position,
                _ => Position::After(register.newest()),
            };
            let start = match register.bookmarks[server] {
                Bookmark::At(cursor) => Position::After(cursor),
                Bookmark::Absent if !self.is(Wrong::StartsAtNewest) => Position::Oldest,
                Bookmark::Absent | Bookmark::NoCommand => prepared,
            };
            broker.position = Some(start);
            broker.marked = None;
            if let Position::After(cursor) = start {
                register.bookmarks[server] = Bookmark::At(cursor);
                broker.marked = Some(cursor);
            }
            return;
        };
        let mut events = register.events(position, self.keep);
        if events.gap && !self.is(Wrong::HidesGaps) {
            for (id, past) in world.past.iter_mut().enumerate() {
                // The command still runs for an eviction whose event is kept.
                let is_kept = events.list.iter().any(|(_, event)| event.id == id && event.end.is_some());
                let is_ours = self.logins[id] == server;
                past.gap |= is_ours && !is_kept && matches!(register.known(id), Known::Ended(_));
            }
        }
        if events.gap {
            broker.at_once = true;
            if self.is(Wrong::SkipsAfterGap) {
                events.list.clear();
                events.cursor = register.newest();
            }
        }
        let mut before = match position {
            Position::Oldest => None,
            Position::After(cursor) => Some(cursor),
        };
        for (cursor, Event { id, end, .. }) in events.list {
            let is_ours = self.logins[id] == server;
            if is_ours && end.is_some_and(End::is_eviction) && !broker.told.contains(&id) {
                broker.told.push(id);
                broker.told.sort_unstable();
                broker.met = true;
                match world.faults.kills {
                    // Without a kill, a command that was started ends.
                    0 => world.past[id].told = true,
                    _ => broker.begun.push((id, before)),
                }
            }
            before = Some(cursor);
        }
        broker.position = Some(Position::After(events.cursor));
    }

    fn mark_bookmark(&self, world: &mut World, server: Server) {
        let Some(copy) = world.brokers[server].link else { return };
        let broker = &mut world.brokers[server];
        let (Some(cursor), Some(register)) = (self.bookmark(broker), &mut world.copies[copy]) else { return };
        register.bookmarks[server] = Bookmark::At(cursor);
        broker.marked = Some(cursor);
        broker.at_once = false;
        broker.met = !broker.begun.is_empty();
    }

    fn connect(&self, world: &mut World, server: Server) {
        let Some(copy) = self.reachable(world, server) else { return };
        let Some(register) = &world.copies[copy] else { return };
        let newest = (self.listens && self.may_lose(world)).then(|| register.newest());
        let broker = &mut world.brokers[server];
        let is_lost = broker.seen.is_some_and(|seen| register.has_lost(seen, self.keep));
        if is_lost && !self.is(Wrong::NeverCompares) {
            world.unreported[server] = false;
        }
        broker.link = Some(copy);
        broker.seen = newest;
    }

    fn kill(&self, world: &mut World, server: Server) {
        for (id, _) in std::mem::take(&mut world.brokers[server].owed) {
            world.past[id].orphaned = true;
        }
        for id in self.logins_at(server).collect::<Vec<_>>() {
            match world.logins[id] {
                Login::Calling(copy, _) => world.delay(id, copy),
                Login::Decided(..) | Login::Answering(..) | Login::Again | Login::Replying => {}
                _ => continue,
            }
            world.logins[id] = Login::Rejected;
            world.past[id].orphaned = true;
        }
        let has_bookmark = world.brokers[server].prepared.is_done();
        let is_lost = |register: &Register| register.bookmarks[server] == Bookmark::NoCommand;
        if has_bookmark && world.copies[world.master].as_ref().is_some_and(is_lost) {
            self.logins_at(server).for_each(|id| world.past[id].unmarked = true);
        }
        world.brokers[server] = Broker::default();
        world.unreported[server] = false;
        world.faults.kills -= 1;
    }

    fn wipe(&self, world: &mut World, with_bookmarks: bool) {
        world.faults.wipes -= 1;
        world.history += 1;
        let mut new = Register::new(self.mark(world, world.master), self.logins.len());
        let Some(old) = world.copies[world.master].take() else { return };
        if !with_bookmarks {
            new.bookmarks = old.bookmarks;
        }
        world.copies[world.master] = Some(new);
        self.drop_copy(world, world.master);
        Scenario::note_loss(world, &old);
    }

    fn replace_master(&self, world: &mut World) {
        world.master = 1;
        world.history += 1;
    }

    fn depart(&self, world: &mut World, id: Id) {
        let due = match world.logins[id] {
            Login::Replying => Due::End(End::Unconfirmed),
            Login::Calling(copy, _) => {
                world.delay(id, copy);
                Due::Undo
            }
            _ => Due::Undo,
        };
        let is_forgotten = match due {
            Due::Undo => self.is(Wrong::ForgetsTheCut),
            Due::End(_) => self.is(Wrong::ForgetsTheUnread),
        };
        if !is_forgotten {
            world.owe(self.home(id), id, due);
        }
        world.logins[id] = Login::Rejected;
        world.faults.departures -= 1;
    }

    fn take(&self, world: &mut World, step: Step) {
        match step {
            Step::Ask(id) => match world.brokers[self.home(id)].link {
                Some(copy) => world.logins[id] = Login::Calling(copy, 1),
                None => self.fail(world, id, false),
            },
            Step::Depart(id) => self.depart(world, id),
            Step::LogOut(id) => {
                world.logins[id] = Login::Left;
                let server = self.home(id);
                if world.brokers[server].link.is_some() || !self.is(Wrong::ForgetsLogouts) {
                    world.owe(server, id, Due::End(End::Closed));
                }
            }
            Step::Die(id) => world.past[id].dead = true,
            Step::Kick(server, id) => {
                world.kicks -= 1;
                if let Some(copy) = world.brokers[server].link {
                    self.close(world, id, copy, End::Kicked);
                }
            }
            Step::Execute(id) => {
                if let Login::Calling(copy, attempt) = world.logins[id] {
                    self.execute(world, id, copy, attempt);
                }
            }
            Step::Finish(id) => {
                if let Login::Decided(copy, attempt, evict) = world.logins[id] {
                    finish_decided(world, id, copy, evict, self.keep);
                    world.logins[id] = Login::Answering(copy, attempt, true);
                }
            }
            Step::ExecuteLate(id, copy) => {
                world.late.retain(|late| *late != (id, copy));
                if self.accepts(world, copy) {
                    self.open(world, id, copy);
                }
            }
            Step::Answer(id) => self.answer(world, id),
            Step::Retry(id) => {
                if let Some(copy) = world.brokers[self.home(id)].link {
                    world.logins[id] = Login::Calling(copy, 2);
                }
            }
            Step::GiveUp(id) => self.fail(world, id, !self.is(Wrong::TrustsTheLastError)),
            Step::Reply(id) => world.logins[id] = Login::Held,
            Step::Prepare(server) => self.prepare(world, server),
            Step::Read(server) => self.read(world, server),
            Step::Told(server, id) => {
                world.brokers[server].begun.retain(|(of, _)| *of != id);
                world.past[id].told = true;
            }
            Step::Mark(server) => self.mark_bookmark(world, server),
            Step::Settle(server, id) => {
                self.settle(world, server, id);
                world.brokers[server].owed.retain(|(of, _)| *of != id);
            }
            Step::LoseSettled(server, id) => {
                world.faults.lost_calls -= 1;
                self.settle(world, server, id);
                self.cut_link(world, server);
            }
            Step::Sweep(id) => {
                if let Some(copy) = world.brokers[self.home(id)].link {
                    self.close(world, id, copy, End::ProcessGone);
                }
            }
            Step::Listen(server) => {
                let newest = self.linked(world, server).map(Register::newest);
                world.brokers[server].seen = newest;
            }
            Step::Connect(server) => self.connect(world, server),
            Step::Lose(server) => {
                world.faults.lost_calls -= 1;
                self.cut_link(world, server);
            }
            Step::Kill(server) => self.kill(world, server),
            Step::Start(server) => world.brokers[server].up = true,
            Step::Stall => world.copies[1] = world.copies[0].clone(),
            Step::Crash => {
                let old = world.copies[0].take();
                self.replace_master(world);
                self.drop_copy(world, 0);
                old.iter().for_each(|old| Scenario::note_loss(world, old));
            }
            Step::Isolate => {
                world.cut = Cut::Fresh;
                self.cut_link(world, 0);
                // Calls of the first server on their way are lost.
                world.late.retain(|(id, _)| self.home(*id) == 1);
            }
            Step::Notice => world.cut = Cut::Noticed,
            Step::Promote => {
                self.replace_master(world);
                let old = world.copies[0].clone();
                world.cut = Cut::Promoted;
                old.iter().for_each(|old| Scenario::note_loss(world, old));
                // The second server does not know of the new master yet.
                world.unreported[1] = false;
            }
            Step::Heal => {
                let old = world.copies[0].take();
                world.cut = Cut::No;
                self.drop_copy(world, 0);
                old.iter().for_each(|old| Scenario::note_loss(world, old));
            }
            Step::Wipe(with_bookmarks) => self.wipe(world, with_bookmarks),
        }
    }
}

impl World {
    /// `Register::owe`: a session that must not be open at all does not become one that only ends.
    fn owe(&mut self, server: Server, id: Id, due: Due) {
        let owed = &mut self.brokers[server].owed;
        match owed.iter_mut().find(|(of, _)| *of == id) {
            Some((_, Due::Undo)) => {}
            Some((_, before)) => *before = due,
            None => owed.push((id, due)),
        }
        owed.sort_unstable_by_key(|(of, _)| *of);
    }

    /// Adds a call that is on its way to a copy, and that no broker waits for.
    fn delay(&mut self, id: Id, copy: Copy) {
        if self.copies[copy].is_some() && !self.late.contains(&(id, copy)) {
            self.late.push((id, copy));
            self.late.sort_unstable();
        }
    }
}

/// Removes the events of the ends that came with the newest session.
fn hide(register: &mut Register, ends: usize) {
    let newest = register.events.len().saturating_sub(1);
    register.events.drain(newest - ends..newest);
    if let (Some(event), Some(number)) = (register.events.last(), u8::try_from(register.events.len()).ok()) {
        register.known[event.id] = Known::Open(register.first + number - 1);
    }
}

/// Ends the oldest sessions and registers another one, whatever has happened since it was decided.
fn finish_decided(world: &mut World, id: Id, copy: Copy, evict: usize, keep: u8) {
    let Some(register) = &mut world.copies[copy] else { return };
    for old in register.open_now().into_iter().take(evict) {
        register.close(old, End::Replaced(id), world.history, keep);
    }
    register.enter(id, world.history, keep);
    world.past[id].registered = true;
}

impl Model for Scenario {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        (0..self.logins.len()).for_each(|id| self.of_login(world, id, steps));
        (0..2).for_each(|server| self.of_broker(world, server, steps));
        self.of_register(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.take(&mut next, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all()
    }
}
