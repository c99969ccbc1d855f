//! Writes the list of the package's parts in CycloneDX 1.5: the crates that are linked into its binaries,
//! each with its checksum from Cargo.lock.
//!
//! The binaries link Debian's libraries, too; those are the package's `Depends`, and Debian updates them.
//! Build scripts and macros are left out, because they run only during the build and are not shipped. The
//! list holds no time and no random number, so that two builds are identical.
//!
//! `cargo-cyclonedx` 0.5.9 finds the same crates, but also the macros. It writes a file for each package of
//! the workspace, with the path of its folder: a build in another folder gives another list.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The crates of this project whose binaries are in the package.
pub const PACKAGES: [&str; 2] = ["motion-ad", "motion-ad-client"];

/// Returns the list for Debian's architecture and Rust's target of a build.
///
/// # Errors
/// Returns an error if `cargo` fails, or if its output is not as expected.
pub fn document(architecture: &str, target: &str) -> Result<String, Box<dyn Error>> {
    let metadata = cargo(&["metadata", "--locked", "--format-version", "1", "--filter-platform", target])?;
    let metadata: Value = serde_json::from_slice(&metadata)?;
    let mut tree =
        vec!["tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro", "--prefix", "none"];
    tree.extend(PACKAGES.iter().flat_map(|package| ["--package", package]));
    let tree = String::from_utf8(cargo(&tree)?)?;
    let lock: toml::Table = toml::from_str(include_str!("../Cargo.lock"))?;
    let bom = bom(&metadata, &linked(&tree), &checksums(&lock), architecture)
        .ok_or("cargo metadata is not as expected")?;
    Ok(serde_json::to_string_pretty(&bom)?)
}

fn cargo(arguments: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let ran = cargo.args(arguments).stderr(Stdio::inherit()).output()?;
    if ran.status.success() { Ok(ran.stdout) } else { Err(format!("{cargo:?}: {}", ran.status).into()) }
}

/// Returns name and version of each linked crate. `cargo metadata` does not distinguish them from crates that
/// only tests enable.
fn linked(tree: &str) -> BTreeSet<(String, String)> {
    let crates = tree.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    });
    crates.collect()
}

/// Returns the SHA-256 of each crate's archive, by name and version.
fn checksums(lock: &toml::Table) -> BTreeMap<(String, String), String> {
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |package: &toml::Value, key| package.get(key)?.as_str().map(str::to_owned);
    let sum = |package: &toml::Value| {
        Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?))
    };
    packages.filter_map(sum).collect()
}

fn bom(
    metadata: &Value,
    linked: &BTreeSet<(String, String)>,
    sums: &BTreeMap<(String, String), String>,
    architecture: &str,
) -> Option<Value> {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let id = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let packages: BTreeMap<String, Value> = list(metadata, "packages")
        .into_iter()
        .filter_map(|package| Some((id(&package, "id")?, package)))
        .collect();
    let is_shipped = |package: &Value| {
        let names = Option::zip(id(package, "name"), id(package, "version"));
        names.is_some_and(|names| linked.contains(&names))
    };
    let is_linked =
        |dependency: &Value| list(dependency, "dep_kinds").iter().any(|kind| kind["kind"].is_null());
    let mut links: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in list(metadata.get("resolve")?, "nodes") {
        let all = list(&node, "deps");
        let linked =
            all.iter().filter(|dependency| is_linked(dependency)).filter_map(|found| id(found, "pkg"));
        let linked = linked.filter(|id| packages.get(id).is_some_and(is_shipped));
        links.insert(id(&node, "id")?, linked.collect());
    }
    let root = id(metadata.get("resolve")?, "root")?;
    let is_ours = |package: &Value| PACKAGES.iter().any(|name| package["name"] == **name);
    // The package stands for all of its crates.
    for (id, _) in packages.iter().filter(|(id, package)| **id != root && is_ours(package)) {
        let more = links.remove(id).unwrap_or_default();
        links.entry(root.clone()).or_default().extend(more);
    }
    let (mut shipped, mut next) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(id) = next.pop() {
        if shipped.insert(id.clone()) {
            next.extend(links.get(&id).into_iter().flatten().cloned());
        }
    }
    let version = id(packages.get(&root)?, "version")?;
    let own = format!("pkg:deb/libpam-motion-ad@{version}?arch={architecture}");
    let name = |id: &String| {
        let package = packages.get(id)?;
        let (name, version) = (package.get("name")?.as_str()?, package.get("version")?.as_str()?);
        Some(if *id == root { own.clone() } else { format!("pkg:cargo/{name}@{version}") })
    };
    let component = |id: &String| {
        let package = packages.get(id)?;
        let (crate_name, version) = (package.get("name")?.as_str()?, package.get("version")?.as_str()?);
        let sum = sums.get(&(crate_name.to_owned(), version.to_owned()))?;
        let mut component = json!({
            "type": "library",
            "bom-ref": name(id)?,
            "name": crate_name,
            "version": version,
            "scope": "required",
            "purl": name(id)?,
            "hashes": [{"alg": "SHA-256", "content": sum}],
        });
        if let Some(licence) = package.get("license").and_then(Value::as_str) {
            // SPDX does not know the old form with a slash.
            component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
        }
        Some(component)
    };
    let crates: Option<Vec<_>> = shipped.iter().filter(|id| **id != root).map(component).collect();
    let depends: Option<Vec<_>> = shipped
        .iter()
        .map(|id| {
            let on: Option<Vec<_>> = links.get(id)?.iter().map(name).collect();
            Some(json!({"ref": name(id)?, "dependsOn": on?}))
        })
        .collect();
    Some(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "libpam-motion-ad",
                "version": version,
                "purl": own,
                "licenses": [{"expression": packages.get(&root)?.get("license")?}],
            },
        },
        "components": crates?,
        "dependencies": depends?,
    }))
}
