//! No printed command changes a file that is not the package's own, unless its block has copied it before.

use super::fenced;

/// Beginnings of the paths that a document may write without a copy: the package's own files, those that the
/// documents create themselves, and the reader's folder.
const OURS: [&str; 4] = ["/etc/motion-", "/etc/pam.d/motion", "/root/", "/dev/null"];

/// Returns the words of one line, with their quotes removed. A redirection is a separate word.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote, mut is_new) = (Vec::<String>::new(), None, true);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                if std::mem::take(&mut is_new) {
                    words.push(String::new());
                }
            }
            (None, ' ') => is_new = true,
            (None, '>' | '|' | ';' | '&') => {
                words.push(c.to_string());
                is_new = true;
            }
            _ if std::mem::take(&mut is_new) => words.push(c.to_string()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words
}

/// Returns the files that a line changes by `sed -i`, `tee` or a redirection.
fn changed(words: &[String]) -> Vec<&str> {
    let mut files = Vec::new();
    for command in words.split(|word| ["|", ";", "&"].contains(&word.as_str())) {
        let is_sed = command.iter().any(|word| word == "sed")
            && command.iter().any(|word| word.starts_with("-i") || word.starts_with("--in-place"));
        let is_tee = command.iter().any(|word| word == "tee");
        let paths = command.iter().filter(|word| word.starts_with('/') || word.starts_with('~'));
        if is_sed || is_tee {
            files.extend(paths.map(String::as_str).filter(|path| is_tee || !path.contains(['*', '^'])));
        }
    }
    let mut previous = "";
    for word in words.iter().map(String::as_str).filter(|word| *word != "&") {
        if previous == ">" && word != ">" {
            files.push(word);
        }
        previous = word;
    }
    files.retain(|file| file.starts_with(['/', '~']) && !OURS.iter().any(|ours| file.starts_with(ours)));
    files
}

/// Returns the first line of a block that changes a foreign file without a copy.
fn uncopied(block: &str) -> Option<&str> {
    let mut copied = Vec::new();
    block.lines().find(|line| {
        let words = words(line);
        if words.first().is_some_and(|word| word == "cp") && words.iter().any(|word| word == "-p") {
            copied.extend(words.iter().filter(|word| word.starts_with('/')).cloned());
        }
        changed(&words).iter().any(|file| !copied.iter().any(|copy| copy == file))
    })
}

#[test]
fn a_command_copies_a_foreign_file_before_it_changes_it() {
    for block in fenced("sh") {
        assert_eq!(uncopied(&block.text), None, "{}", block.place);
    }
}

#[test]
fn a_change_without_a_copy_is_found() {
    let copy = "cp -p --backup=numbered /etc/sssd/sssd.conf /root/sssd.conf.before\n";
    for change in [
        "sed -i 's/a > b; c/d/' /etc/sssd/sssd.conf",
        "sed -i.bak '/^ *x/d' /etc/sssd/sssd.conf && true",
        "grep -n x /etc/sssd/sssd.conf || sed --in-place=x y /etc/sssd/sssd.conf",
        "echo x >>/etc/sssd/sssd.conf",
        "echo 'x' > \"/etc/sssd/sssd.conf\"",
        "echo x | sudo tee -a /etc/sssd/sssd.conf",
    ] {
        assert_eq!(uncopied(change), Some(change));
        assert_eq!(uncopied(&format!("{copy}{change}")), None, "{change}");
        assert_eq!(uncopied(&format!("{change}\n{copy}")), Some(change));
        assert_eq!(uncopied(&format!("{}{change}", copy.replace("sssd.conf", "other"))), Some(change));
    }
    for harmless in [
        "echo 'jd = x' >>/etc/motion-ad/names.map",
        "sed 's/a/b/' /etc/sssd/sssd.conf",
        "motion-ad audit names.txt > audit.csv 2>/dev/null",
        "grep '>/etc/passwd' names.txt",
    ] {
        assert_eq!(uncopied(harmless), None, "{harmless}");
    }
}
