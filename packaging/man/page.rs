//! One man page: sections of paragraphs, lists and examples, in the format of man(7).

use std::fs;
use std::io;
use std::path::Path;

use clap_mangen::roff::{Inline, Roff, bold, roman};

pub struct Page {
    name: String,
    section: u8,
    done: Vec<u8>,
    /// The part that is not in `done` yet.
    roff: Roff,
    /// True if a section has just begun, and with it a paragraph.
    begun: bool,
}

/// Debian's changelog. The date of its newest entry is that of the pages, so that two builds are identical.
const CHANGELOG: &str = include_str!("../debian/changelog");

/// Returns the date as `Nov 23, 2026`, from a line that ends with `Mon, 23 Nov 2026 12:00:00 +0000`.
fn date() -> String {
    let entry = CHANGELOG.lines().find(|line| line.starts_with(" -- ")).unwrap_or_default();
    let words: Vec<_> = entry.rsplit(", ").next().unwrap_or_default().split(' ').collect();
    match words[..] {
        [day, month, year, ..] => format!("{month} {day}, {year}"),
        _ => String::new(),
    }
}

impl Page {
    /// Returns a page with its title and its line for whatis(1).
    pub fn new(name: &str, section: u8, about: &str) -> Self {
        let manual = match section {
            1 => "User Commands",
            5 => "File Formats",
            _ => "System Administration",
        };
        let source = concat!("motion-ad ", env!("CARGO_PKG_VERSION"));
        let mut roff = Roff::new();
        roff.control("TH", [name, &section.to_string(), &date(), source, manual]);
        let mut page = Page { name: name.to_owned(), section, done: Vec::new(), roff, begun: false };
        page.section("NAME");
        page.roff.text([roman(format!("{name} - {about}"))]);
        page
    }

    pub fn section(&mut self, heading: &str) -> &mut Self {
        self.roff.control("SH", [heading]);
        self.begun = true;
        self
    }

    fn paragraph(&mut self) {
        if !std::mem::take(&mut self.begun) {
            self.roff.control("PP", []);
        }
    }

    /// Adds paragraphs, which empty lines separate. Text between backticks is bold.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for paragraph in text.split("\n\n") {
            self.paragraph();
            self.line(paragraph);
        }
        self
    }

    /// Adds an entry of a list: its name, the rest of that line, and paragraphs about it.
    pub fn item(&mut self, name: &str, rest: &str, texts: &[&str]) -> &mut Self {
        self.begun = false;
        self.roff.control("TP", []);
        self.roff.text([bold(name), roman(if rest.is_empty() { String::new() } else { format!(" {rest}") })]);
        for (number, text) in texts.iter().filter(|text| !text.is_empty()).enumerate() {
            if number > 0 {
                self.roff.control("br", []);
            }
            self.line(text);
        }
        self
    }

    /// Adds an entry below an entry.
    pub fn nested(&mut self, name: &str, text: &str) -> &mut Self {
        self.roff.control("RS", []).control("TP", []);
        self.roff.text([bold(name)]);
        self.line(text);
        self.roff.control("RE", []);
        self
    }

    /// Adds lines without filling them.
    pub fn example(&mut self, lines: &str) -> &mut Self {
        self.paragraph();
        self.roff.control("RS", ["4"]).control("nf", []);
        for line in lines.lines() {
            self.roff.text([roman(line)]);
        }
        self.roff.control("fi", []).control("RE", []);
        self
    }

    /// Adds the output of `clap_mangen`.
    pub fn rendered(
        &mut self,
        render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<&mut Self> {
        self.begun = false;
        std::mem::take(&mut self.roff).to_writer(&mut self.done)?;
        render(&mut self.done)?;
        Ok(self)
    }

    pub fn see_also(&mut self, pages: &[(String, u8)]) -> &mut Self {
        self.section("SEE ALSO");
        let others = pages.iter().filter(|(name, section)| (name, *section) != (&self.name, self.section));
        let mut line = Vec::new();
        for (name, section) in others {
            if !line.is_empty() {
                line.push(roman(", "));
            }
            line.extend([bold(name.as_str()), roman(format!("({section})"))]);
        }
        self.roff.text(line);
        self
    }

    pub fn write(mut self, folder: &Path) -> io::Result<()> {
        self.rendered(|_| Ok(()))?;
        fs::write(folder.join(format!("{}.{}", self.name, self.section)), self.done)
    }

    fn line(&mut self, text: &str) {
        let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
        let inlines: Vec<Inline> =
            parts.map(|(number, part)| if number % 2 == 1 { bold(part) } else { roman(part) }).collect();
        self.roff.text(inlines);
    }
}
