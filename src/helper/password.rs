//! Passwords from the terminal, without echo, or from standard input. Never from an argument, which every
//! user of the host could read.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::{Exit, Failure, show};
use crate::protocol::{MAX_PASSWORD, PasswordError, Secret};

/// Warning before the prompt for a present password.
const WARNING: &str = "A wrong password counts towards AD's lockout.";

/// Prompts for the password of `name` on the terminal.
pub(super) fn prompt(name: &str) -> Result<Secret, Failure> {
    let [password] = ask([format!("{WARNING}\nPassword for {}: ", show::escape(name))])?;
    Ok(password)
}

/// Prompts for the present password of `name` and twice for the new one, which must match.
pub(super) fn prompt_change(name: &str) -> Result<[Secret; 2], Failure> {
    let present = format!("{WARNING}\nCurrent password for {}: ", show::escape(name));
    let [present, new, again] = ask([present, "New password: ".into(), "Retype new password: ".into()])?;
    if new.bytes() != again.bytes() {
        return Err(Failure::Mismatch);
    }
    Ok([present, new])
}

/// Prompts with each question in order. Accepts only what can be a password.
fn ask<const N: usize>(questions: [String; N]) -> Result<[Secret; N], Failure> {
    // rpassword raises SIGINT at Ctrl-C before it restores the terminal's echo. A handler lets it do both.
    let runtime = Builder::new_current_thread().enable_io().build().map_err(Failure::Prompt)?;
    let mut interrupts = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt()).map_err(Failure::Prompt)?
    };
    let mut answers = std::array::from_fn(|_| Secret::default());
    for (question, answer) in questions.iter().zip(&mut answers) {
        let typed = rpassword::prompt_password(question).map_err(|e| match e.kind() {
            ErrorKind::Interrupted => Failure::Interrupted,
            // Ctrl-D.
            ErrorKind::UnexpectedEof => PasswordError::Empty.into(),
            _ => Failure::Prompt(e),
        })?;
        *answer = checked(Secret::new(typed.into_bytes()))?;
    }
    // From here on, Ctrl-C ends the program again.
    let wait = move || {
        runtime.block_on(interrupts.recv());
        std::process::exit(Exit::Interrupted as i32)
    };
    thread::Builder::new().spawn(wait).map_err(Failure::Prompt)?;
    Ok(answers)
}

/// Reads lines of standard input, one password each.
pub(super) fn from_stdin<const N: usize>() -> Result<[Secret; N], Failure> {
    // std's own handle would keep a copy of the password in its buffer.
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(Failure::Input)?;
    lines(&mut File::from(stdin))
}

fn lines<const N: usize>(from: &mut impl Read) -> Result<[Secret; N], Failure> {
    let mut lines = std::array::from_fn(|_| Secret::default());
    for slot in &mut lines {
        *slot = checked(line(from).map_err(Failure::Input)?)?;
    }
    Ok(lines)
}

/// Reads one line without its line feed, byte by byte, because the rest of the input belongs to another
/// reader. Stops one byte after the maximum length of a password.
fn line(from: &mut impl Read) -> io::Result<Secret> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 1));
    let mut byte = Zeroizing::new([0]);
    while bytes.len() <= MAX_PASSWORD {
        match from.read(&mut byte[..]) {
            Ok(0) => break,
            Ok(_) if *byte == *b"\n" => break,
            Ok(_) => bytes.extend_from_slice(&*byte),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}

/// Rejects text that can never be a password, before anything is sent.
fn checked(secret: Secret) -> Result<Secret, Failure> {
    secret.password()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_and_nothing_but_its_line_feed_is_taken_off() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"secret\n", b"secret"),
            (b"secret", b"secret"),
            (b" s e\\c \r\nnext\n", b" s e\\c \r"),
            (b"\n", b""),
            (b"", b""),
        ];
        for (input, password) in cases {
            assert_eq!(line(&mut &input[..]).unwrap().bytes(), password);
        }
    }

    #[test]
    fn each_password_has_a_line_of_its_own() {
        let [present, new] = lines(&mut &b"old\nnew one\nrest"[..]).unwrap();
        assert_eq!((present.bytes(), new.bytes()), (&b"old"[..], &b"new one"[..]));
        for missing in [&b""[..], b"old", b"old\n", b"\nnew\n"] {
            assert!(lines::<2>(&mut &missing[..]).is_err(), "{missing:?}");
        }
    }

    #[test]
    fn an_endless_line_is_too_long() {
        let mut endless = io::repeat(b'x');
        let error = checked(line(&mut endless).unwrap()).unwrap_err();
        assert!(error.to_string().contains("longer than 1024 bytes; nothing was sent"), "{error}");
    }
}
