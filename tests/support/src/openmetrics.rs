//! A strict reader of OpenMetrics 1.0. It rejects what the specification forbids, and also what
//! Prometheus' older text format cannot express.

use std::collections::{BTreeMap, BTreeSet};

/// The metric types that the older format also has.
const KINDS: [&str; 3] = ["counter", "gauge", "histogram"];

pub type Labels = BTreeMap<String, String>;

/// A metric with its samples.
#[derive(Debug)]
pub struct Family {
    pub name: String,
    pub kind: String,
    /// Name, labels and value of each sample, in order.
    pub samples: Vec<(String, Labels, f64)>,
}

/// Parses `text` into its metrics, by name.
pub fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let lines = text.strip_suffix("# EOF\n").ok_or("the last line is not # EOF")?;
    let mut all: Vec<Family> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut described = BTreeSet::new();
    for line in lines.split_terminator('\n') {
        let wrong = |what: &str| format!("{what}: {line}");
        if let Some(rest) = line.strip_prefix("# ") {
            let (word, rest) = rest.split_once(' ').ok_or_else(|| wrong("no name"))?;
            let (name, value) = rest.split_once(' ').ok_or_else(|| wrong("no value"))?;
            if !is_name(name, true) {
                return Err(wrong("no name of a metric"));
            }
            if all.last().is_none_or(|family| family.name != name) {
                all.push(Family { name: name.to_owned(), kind: String::new(), samples: Vec::new() });
            }
            let family = all.last_mut().ok_or("there is one")?;
            if !described.insert((name.to_owned(), word.to_owned())) || !family.samples.is_empty() {
                return Err(wrong("said twice, or after the values"));
            }
            match word {
                "HELP" if value.ends_with('.') => {}
                "TYPE" if KINDS.contains(&value) => value.clone_into(&mut family.kind),
                "UNIT" if name.ends_with(&format!("_{value}")) => {}
                _ => return Err(wrong("not understood")),
            }
            continue;
        }
        let (name, labels, value) = sample(line).ok_or_else(|| wrong("no sample"))?;
        let family = all.last_mut().filter(|family| is_of(family, &name));
        let family = family.ok_or_else(|| wrong("a value of no metric, or not together with its others"))?;
        if !seen.insert((name.clone(), labels.clone())) {
            return Err(wrong("said twice"));
        }
        if family.kind != "gauge" && (value < 0.0 || !value.is_finite()) {
            return Err(wrong("counts nothing"));
        }
        family.samples.push((name, labels, value));
    }
    all.iter().filter(|family| family.kind == "histogram").try_for_each(histogram)?;
    let count = all.len();
    let all: BTreeMap<_, _> = all.into_iter().map(|family| (family.name.clone(), family)).collect();
    // A sample of one metric must not have the name of another metric.
    let clash =
        all.keys().find(|name| seen.iter().any(|(sample, _)| sample == *name && all[*name].kind != "gauge"));
    match clash {
        Some(name) => Err(format!("{name} is the name of another's value")),
        None if all.len() < count => Err("a metric stands in two places".to_owned()),
        None => Ok(all),
    }
}

/// Returns true if a sample called `name` belongs to `family`.
fn is_of(family: &Family, name: &str) -> bool {
    let suffixes: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => &[],
    };
    suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(&family.name))
}

/// The samples of one histogram.
#[derive(Default)]
struct Row {
    /// Upper bounds with their counts.
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

fn histogram(family: &Family) -> Result<(), String> {
    let mut rows: BTreeMap<Labels, Row> = BTreeMap::new();
    for (name, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let row = rows.entry(labels).or_default();
        match (name.rsplit('_').next(), bound) {
            (Some("bucket"), Some(bound)) => {
                row.buckets.push((number(&bound).ok_or(format!("no bound: {bound}"))?, *value));
            }
            (Some("sum"), None) => row.sum = Some(*value),
            (Some("count"), None) => row.count = Some(*value),
            _ => return Err(format!("{name}: a bound where none belongs, or none")),
        }
    }
    for (labels, Row { buckets, sum, count }) in rows {
        let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let last = buckets.last().filter(|(bound, _)| *bound == f64::INFINITY).map(|(_, count)| *count);
        if !grows || sum.is_none() || last.is_none() || last != count {
            return Err(format!("{} {labels:?}: {buckets:?} {sum:?} {count:?}", family.name));
        }
    }
    Ok(())
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    // Rejects timestamps and exemplars, which the broker never writes.
    let value = number(rest.strip_prefix(' ')?)?;
    is_name(name, true).then(|| (name.to_owned(), labels, value))
}

/// Returns the labels up to the closing brace, and the text after it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        let (name, value) = rest.split_once("=\"")?;
        let mut text = String::new();
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                }),
                (_, c) => text.push(c),
            }
        };
        if !is_name(name, false) || name.starts_with("__") || labels.insert(name.to_owned(), text).is_some() {
            return None;
        }
        rest = &value[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Some((labels, rest.strip_prefix('}')?)),
        }
    }
}

fn is_name(name: &str, of_metric: bool) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || (of_metric && c == ':');
    name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        _ if text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c)) => text.parse().ok(),
        _ => None,
    }
}
