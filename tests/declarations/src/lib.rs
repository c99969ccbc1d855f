//! `src/kerberos/krb5/raw.rs`, made again from this system's headers. Nothing of this crate is shipped.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Returns the file as it should be.
///
/// # Errors
/// Returns an error if `rustfmt` is missing or fails.
pub fn krb5() -> io::Result<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path", root])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // It reads everything before it writes.
    if let Some(mut stdin) = rustfmt.stdin.take() {
        stdin.write_all(include_bytes!(concat!(env!("OUT_DIR"), "/krb5.rs")))?;
    }
    let output = rustfmt.wait_with_output()?;
    if !output.status.success() {
        return Err(io::Error::other("rustfmt failed"));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}
