//! The arrows of the imports: which part of a folder uses which other part of it.

use std::collections::{BTreeMap, BTreeSet};

/// A path of names, such as `directory::people::Directory`.
type Names = Vec<String>;

/// The sources of a crate: the text of each module, by its path.
pub type Modules = BTreeMap<Names, String>;

/// The parts of each folder that each part uses, by the folder.
pub type Arrows = BTreeMap<Names, BTreeMap<String, BTreeSet<String>>>;

/// Returns the arrows between the parts of each folder. A file and the `mod.rs` of its folder are no two
/// parts.
pub fn arrows(modules: &Modules) -> Arrows {
    let paths: Vec<(&Names, Names)> = modules
        .iter()
        .flat_map(|(own, text)| paths(&production(text)).into_iter().map(move |path| (own, path)))
        .collect();
    // A name that a module passes on belongs to the module that defines it.
    let mut passed_on = BTreeMap::new();
    for (own, text) in modules {
        for path in imports(&production(text), true) {
            if let (Some(name), Some(target)) = (path.last().cloned(), resolved(modules, own, &path)) {
                passed_on.insert((own.clone(), name), target);
            }
        }
    }
    let mut arrows = Arrows::new();
    for (own, path) in paths {
        let Some(mut target) = resolved(modules, own, &path) else { continue };
        while let Some(name) = target.1.first()
            && let Some((module, rest)) = passed_on.get(&(target.0.clone(), name.clone()))
        {
            let further = rest.iter().chain(&target.1[1..]).cloned().collect();
            target = (module.clone(), further);
        }
        let shared = own.iter().zip(&target.0).take_while(|(one, other)| one == other).count();
        if let (Some(from), Some(to)) = (own.get(shared), target.0.get(shared)) {
            let folder = arrows.entry(own[..shared].to_vec()).or_default();
            folder.entry(from.clone()).or_default().insert(to.clone());
        }
    }
    arrows
}

/// Returns a circle among the parts of a folder, if there is one.
pub fn circle(parts: &BTreeMap<String, BTreeSet<String>>) -> Option<BTreeSet<String>> {
    let mut left = parts.clone();
    // Without a circle, some part uses none of those that are left.
    loop {
        let names: BTreeSet<_> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, used| used.iter().any(|one| names.contains(one)));
        if left.len() == before {
            return (before > 0).then_some(names);
        }
    }
}

/// Splits a path as written in `own` into the module that it leads to, and the names inside that.
fn resolved(modules: &Modules, own: &Names, path: &Names) -> Option<(Names, Names)> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let from_root = match path.first()?.as_str() {
        "crate" => path[1..].to_vec(),
        "self" => [own, &path[1..]].concat(),
        "super" => [own.get(..own.len().checked_sub(ups)?)?, &path[ups..]].concat(),
        child if modules.contains_key(&[own.as_slice(), &[child.to_owned()]].concat()) => {
            [own.as_slice(), path].concat()
        }
        _ => return None,
    };
    let length = (0..=from_root.len()).rev().find(|length| modules.contains_key(&from_root[..*length]))?;
    Some((from_root[..length].to_vec(), from_root[length..].to_vec()))
}

/// Returns the code without comments and tests.
pub fn production(text: &str) -> String {
    let tests = text.match_indices("#[cfg(test)]\n").find(|(at, found)| {
        text[at + found.len()..].lines().next().is_some_and(|line| line.contains("mod tests"))
    });
    let code = tests.map_or(text, |(at, _)| &text[..at]);
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Returns every path of this crate in the code.
fn paths(code: &str) -> Vec<Names> {
    let mut paths = imports(code, false);
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let is_begin = !code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
            let path: String =
                code[at..].chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
            if is_begin {
                paths.push(path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect());
            }
        }
    }
    paths
}

/// Returns the paths of the `use` statements, or only of those that pass names on.
fn imports(code: &str, passed_on: bool) -> Vec<Names> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some((before, tree)) = statement.rsplit_once("use ") else { continue };
        let before = before.rsplit('\n').next().unwrap_or_default().trim();
        if before.is_empty() && !passed_on || before.starts_with("pub") {
            leaves(tree, &Vec::new(), &mut found);
        }
    }
    found
}

/// Adds the paths of a `use` tree.
fn leaves(tree: &str, head: &Names, found: &mut Vec<Names>) {
    let names = |text: &str| -> Names {
        let names = text.split("::").map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| name.split(" as ").next().unwrap_or_default().trim().to_owned()).collect()
    };
    let Some((start, rest)) = tree.split_once('{') else {
        let mut path = [head.clone(), names(tree)].concat();
        if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        return found.push(path);
    };
    let head = [head.clone(), names(start)].concat();
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[begin..at].trim().is_empty() {
                    leaves(&inner[begin..at], &head, found);
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

#[test]
fn a_circle_is_found_through_a_name_that_is_passed_on() {
    let module = |path: &str, text: &str| (path.split("::").map(str::to_owned).collect(), text.to_owned());
    let mut modules: Modules = [
        module("room", "mod a;\nmod b;\nmod c;\npub use self::a::{self, Thing};\n"),
        module(
            "room::a",
            "use super::b::One;\n// use super::c;\n#[cfg(test)]\nmod tests { use super::super::c::X; }",
        ),
        module("room::b", "use std::fmt;\nfn f(c: crate::room::c::Other) {}"),
        module("room::c", "use std::io;"),
    ]
    .into();
    let room = || vec!["room".to_owned()];
    let of = |modules: &Modules| {
        circle(&arrows(modules)[&room()]).map(|parts| parts.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(of(&modules), None);
    modules.insert(vec!["room".into(), "c".into()], "use crate::room::{x, Thing};".into());
    assert_eq!(of(&modules), Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
}
