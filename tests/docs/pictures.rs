//! The pictures of the documents. `make pictures` draws them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use roxmltree::{Document, ParsingOptions};

use crate::{documents, read, root};

const FOLDER: &str = "docs/pictures";
/// Greatest size of a picture of pixels, in bytes.
const LARGEST: usize = 60_000;
/// Beginnings of the paths that a picture may show. None of them is a folder of the machine that drew it.
const PATHS: [&str; 6] =
    ["/etc/", "/run/motion-ad", "/usr/", "/var/lib/motion-ad", "/var/opt/motion2", "/dev/"];

/// Returns the pictures of a document, each with the text for readers who cannot see it.
fn shown(text: &str) -> Vec<(String, String)> {
    let tags = text.split("<img ").skip(1).map(|rest| rest.split_once("/>").unwrap().0);
    let picture = |tag: &str| {
        let tag = format!("<img {tag}/>");
        let tag = Document::parse(&tag).unwrap();
        let value = |name| tag.root_element().attribute(name).unwrap_or_default().to_owned();
        (value("src"), value("alt"))
    };
    tags.map(picture).collect()
}

/// Returns the files of this kind, relative to the repository.
fn files(extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(root().join(FOLDER)).unwrap().map(|entry| entry.unwrap().path());
    let all = all.filter(|path| path.extension().is_some_and(|found| found == extension));
    all.map(|path| path.strip_prefix(root()).unwrap().to_owned()).collect()
}

fn drawing(text: &str) -> Document<'_> {
    // Graphviz names the document type of SVG, which no reader fetches.
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).unwrap()
}

/// Returns the texts of a drawing, with plain spaces.
fn texts(drawing: &Document) -> Vec<String> {
    let texts =
        drawing.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")));
    texts.filter_map(|node| node.text()).map(|text| text.replace('\u{a0}', " ").trim().to_owned()).collect()
}

#[test]
fn every_picture_is_shown_with_a_description() {
    let mut seen = BTreeSet::new();
    for (name, text) in documents() {
        for (source, description) in shown(&text) {
            let path = Path::new(&name).parent().unwrap().join(source);
            assert!(root().join(&path).exists(), "{name}: {}", path.display());
            assert!(description.len() > 60, "{name}: {}: {description}", path.display());
            seen.insert(path);
        }
    }
    assert_eq!(seen, [files("svg"), files("png")].concat().into_iter().collect());
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_drawing_needs_no_other_file_and_shows_no_path_of_the_machine_that_drew_it() {
    for file in files("svg") {
        let text = read(&file);
        let drawing = drawing(&text);
        assert_eq!(drawing.root_element().tag_name().name(), "svg");
        for node in drawing.descendants() {
            let values: Vec<_> =
                node.attributes().map(|attribute| (attribute.name(), attribute.value())).collect();
            let is_outside = |text: &str| ["url(", "@import", "//"].iter().any(|part| text.contains(part));
            assert!(!values.iter().any(|(name, value)| *name == "href" || is_outside(value)), "{values:?}");
            assert!(!is_outside(node.text().unwrap_or_default()), "{}: {:?}", file.display(), node.text());
        }
        for text in texts(&drawing) {
            for word in text.split([' ', '"', '`', '=', '(']).filter(|word| word.starts_with('/')) {
                assert!(PATHS.iter().any(|path| word.starts_with(path)), "{}: {text}", file.display());
            }
        }
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "{}", file.display());
    }
}

#[test]
fn a_picture_of_pixels_is_small_and_has_no_comment() {
    for file in files("png") {
        let bytes = fs::read(root().join(&file)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{}", file.display());
        assert!(bytes.len() < LARGEST, "{}: {} bytes", file.display(), bytes.len());
        for kind in [b"tEXt", b"zTXt", b"iTXt", b"tIME"] {
            assert!(!bytes.windows(kind.len()).any(|window| window == kind), "{}", file.display());
        }
    }
}

#[test]
fn the_parts_are_drawn_from_their_description_and_have_the_names_of_the_architecture() {
    let description = read(Path::new(FOLDER).join("parts.dot"));
    let labels = description.split("label=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0);
    let lines = labels.flat_map(|label| label.split("\\n").flat_map(|part| part.split("\\l")));
    let lines =
        lines.map(|line| line.replace("&nbsp;", " ").trim().to_owned()).filter(|line| !line.is_empty());
    let drawn = read(Path::new(FOLDER).join("parts.svg"));
    let drawn = texts(&drawing(&drawn));
    assert_eq!(drawn.iter().cloned().collect::<BTreeSet<_>>(), lines.collect());
    let architecture = read("ARCHITECTURE.md");
    let words = drawn.iter().flat_map(|line| line.split(' ')).map(|word| word.trim_end_matches([',', ':']));
    let names: BTreeSet<_> = words.filter(|word| word.contains(['-', '_', '/', '.'])).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        assert!(architecture.contains(name), "ARCHITECTURE.md does not have {name}");
    }
}
