//! Prints `src/kerberos/krb5/raw.rs`.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(motion_ad_declarations::krb5()?.as_bytes())
}
