//! The stricter of two values of a key that decides about access. Each function puts it into the first one,
//! and returns false if neither is the stricter.

use crate::dn::{Dn, Place};
use crate::name::fold;

/// Meaning of an empty list of permissions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    Everything,
    Nothing,
}

/// Leaves in `kept` the entries that both lists permit; returns false if that is the empty list that permits
/// everything.
pub(super) fn narrow(kept: &mut Vec<String>, new: &[String], empty: Empty) -> bool {
    match empty {
        Empty::Everything if new.is_empty() => return true,
        Empty::Everything if kept.is_empty() => {
            *kept = new.to_vec();
            return true;
        }
        Empty::Everything | Empty::Nothing => {}
    }
    kept.retain(|known| new.iter().any(|other| fold(other) == fold(known)));
    empty == Empty::Nothing || !kept.is_empty()
}

/// Adds to `kept` the entries that `new` denies as well.
pub(super) fn widen(kept: &mut Vec<String>, new: &[String]) -> bool {
    for name in new {
        if !kept.iter().any(|known| fold(known) == fold(name)) {
            kept.push(name.clone());
        }
    }
    true
}

/// Takes the base of searches that is below the other one.
pub(super) fn deepen(kept: &mut String, new: &str) -> bool {
    let place = |base: &str, root: &str| match (Dn::parse(base), Dn::parse(root)) {
        (Ok(base), Ok(root)) => base.place(&root),
        (Err(_), _) | (_, Err(_)) => Place::Outside,
    };
    match place(new, kept) {
        Place::Below | Place::Same => {
            new.clone_into(kept);
            true
        }
        Place::Outside => place(kept, new) == Place::Below,
    }
}

/// Takes a value that is given; one that is no longer given stays.
pub(super) fn replace<T: Clone>(kept: &mut Option<T>, new: &Option<T>) -> bool {
    *kept = new.clone().or(kept.take());
    true
}

/// Takes the greater value.
pub(super) fn raise<T: Ord + Copy>(kept: &mut T, new: T) -> bool {
    *kept = new.max(*kept);
    true
}

/// Takes the smaller value.
pub(super) fn lower<T: Ord + Copy>(kept: &mut T, new: T) -> bool {
    *kept = new.min(*kept);
    true
}

/// Takes the shorter time; `None` is never.
pub(super) fn sooner<T: Ord + Copy>(kept: &mut Option<T>, new: Option<T>) -> bool {
    *kept = [*kept, new].into_iter().flatten().min();
    true
}
