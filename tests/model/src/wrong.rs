//! Wrong variants of the code: each leaves out one thing that a promise depends on.

/// A wrong variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// `open` counts the sessions in one step and registers in another one.
    CountsFirst,
    /// A session that is replaced ends without an event.
    EndsSilently,
    /// A session whose id has ended is opened again by a second call.
    OpensAgain,
    /// `undo` stores nothing about a session that is unknown.
    UndoesOpenOnly,
    /// The bookmark moves past an eviction as soon as its command starts.
    MarksTooEarly,
    /// Events and cursors have numbers, but no marks.
    NumbersOnly,
    /// A gap in the events is not reported.
    HidesGaps,
    /// A reader that meets a gap goes on after it and not at the oldest event that is kept.
    SkipsAfterGap,
    /// A session is opened before the bookmark of `on_evict` is in the store.
    OpensBeforeBookmark,
    /// A broker whose bookmark was lost goes on at the newest event.
    StartsAtNewest,
    /// A broker whose first bookmark was lost with a master goes on at the newest event.
    ForgetsItsBookmark,
    /// Processes are not checked.
    NeverSweeps,
    /// A rejected login whose call is lost is not undone.
    ForgetsTheLost,
    /// A call that failed after an earlier attempt was lost counts as one that changed nothing.
    TrustsTheLastError,
    /// A denial counts although an earlier attempt was lost, which may still open the session.
    TrustsTheDenial,
    /// A login that is cut off while it waits for the register is not undone.
    ForgetsTheCut,
    /// A session whose application does not read the answer is not ended.
    ForgetsTheUnread,
    /// A logout that the register did not take is not made later.
    ForgetsLogouts,
    /// A login that the register did not answer is granted, whatever the configuration says.
    GrantsOnFailure,
    /// A reconnected broker does not compare the register with what it last saw.
    NeverCompares,
    /// Sentinels promote a replica while the old master still accepts changes.
    PromotesEarly,
    /// The rule lets one session more than the limit stay.
    AllowsOneMore,
}
