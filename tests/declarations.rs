//! libkrb5's declarations, compared with this system's headers.

use std::io::ErrorKind;
use std::path::Path;

use motion_ad_support::skipped;

#[test]
fn libkrb5_is_declared_as_its_headers_say() {
    let made = match motion_ad_declarations::krb5() {
        Err(error) if error.kind() == ErrorKind::NotFound => return skipped("rustfmt is missing"),
        made => made.unwrap(),
    };
    let kept =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kerberos/krb5/raw.rs"));
    let kept = kept.unwrap();
    let differs = kept.lines().zip(made.lines()).enumerate().find(|(_, (kept, made))| kept != made);
    assert!(
        kept == made,
        "src/kerberos/krb5/raw.rs is not what bindgen makes of this system's krb5.h; first difference: \
         {differs:#?}\nCONTRIBUTING.md, \"Call another function of libkrb5\", says how to renew it. If \
         another release of MIT Kerberos has another header, the declarations must suit both."
    );
}
