//! Advice for errors of the kernel about a lack of descriptors or memory, which no part of a login can cause
//! or mend by itself.

use std::io;

/// Texts of the C library for these errors (strerror(3)), each with its advice. The longer text stands before
/// the one that it begins with.
const ERRORS: &[(&str, &str)] = &[
    (
        "Too many open files in system",
        "the host has no descriptors left: raise the sysctl fs.file-max, or find the process with so many",
    ),
    (
        "Too many open files",
        "the process has no descriptors left: raise LimitNOFILE= of its unit, or see what it has open: \
         `lsof -p PID`",
    ),
    ("Cannot allocate memory", MEMORY),
    ("No buffer space available", MEMORY),
];
const MEMORY: &str = "there is no memory left: free some, or raise MemoryMax= of the unit";

/// Returns the advice for an error that the text `cause` contains, if it is one of these.
pub fn advice_for(cause: &str) -> Option<&'static str> {
    ERRORS.iter().find(|(text, _)| cause.contains(text)).map(|(_, advice)| *advice)
}

/// Returns the advice for `error`, if it is one of these.
pub fn advice(error: &io::Error) -> Option<&'static str> {
    advice_for(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_advice_about_its_cause() {
        let cases = [
            (libc::EMFILE, "LimitNOFILE="),
            (libc::ENFILE, "fs.file-max"),
            (libc::ENOMEM, "memory"),
            (libc::ENOBUFS, "memory"),
        ];
        for (code, word) in cases {
            let advice = advice(&io::Error::from_raw_os_error(code)).unwrap();
            assert!(advice.contains(word), "{code}: {advice}");
        }
        for code in [libc::EACCES, libc::ENOENT, libc::ECONNREFUSED, libc::ETIMEDOUT] {
            assert_eq!(advice(&io::Error::from_raw_os_error(code)), None, "{code}");
        }
        assert!(advice_for("ad1: Too many open files; ad2: timed out").unwrap().contains("LimitNOFILE="));
    }
}
