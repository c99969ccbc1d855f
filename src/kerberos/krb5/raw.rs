//! libkrb5 as declared in C: MIT's `krb5.h` of 1.20. Every function has been in the library since 1.11 at the
//! latest. A test compares every declaration with the header.
//!
//! Only the functions that the wrappers next to this file call; each wrapper says why its call is sound.

// Only declarations of C; no call is made here.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `krb5_error_code`: 0, an errno, or a code of MIT's `krb5_err.et`.
pub(super) type Code = i32;

/// The library's opaque types: contexts, caches, keytabs, exchanges.
pub(super) type Opaque = *mut c_void;

/// The type of a function that asks the user (`krb5_prompter_fct`). It has no value, so the library gets
/// none: no module of Kerberos can ask for, or store, an answer of the user.
pub(super) enum NoPrompter {}

/// `krb5_data`.
#[repr(C)]
pub(super) struct Data {
    pub(super) magic: i32,
    pub(super) length: c_uint,
    pub(super) data: *mut c_char,
}

/// `krb5_principal_data`.
#[repr(C)]
pub(super) struct PrincipalData {
    pub(super) magic: i32,
    pub(super) realm: Data,
    pub(super) data: *mut Data,
    pub(super) length: i32,
    pub(super) kind: i32,
}

/// `krb5_keyblock`.
#[repr(C)]
pub(super) struct Keyblock {
    pub(super) magic: i32,
    pub(super) enctype: i32,
    pub(super) length: c_uint,
    pub(super) contents: *mut u8,
}

/// `krb5_keytab_entry`.
#[repr(C)]
pub(super) struct Entry {
    pub(super) magic: i32,
    pub(super) principal: Opaque,
    pub(super) timestamp: i32,
    pub(super) vno: c_uint,
    pub(super) key: Keyblock,
}

/// `krb5_ticket_times`; seconds since 1970, to be read as unsigned (krb5_timestamp ends in 2106, not 2038).
#[repr(C)]
pub(super) struct Times {
    pub(super) authtime: i32,
    pub(super) starttime: i32,
    pub(super) endtime: i32,
    pub(super) renew_till: i32,
}

/// `krb5_creds`.
#[repr(C)]
pub(super) struct Creds {
    pub(super) magic: i32,
    pub(super) client: Opaque,
    pub(super) server: Opaque,
    pub(super) keyblock: Keyblock,
    pub(super) times: Times,
    pub(super) is_skey: c_uint,
    pub(super) ticket_flags: i32,
    pub(super) addresses: Opaque,
    pub(super) ticket: Data,
    pub(super) second_ticket: Data,
    pub(super) authdata: Opaque,
}

/// `krb5_error`: a KRB-ERROR (RFC 4120, 5.9.1).
#[repr(C)]
pub(super) struct KrbError {
    pub(super) magic: i32,
    pub(super) ctime: i32,
    pub(super) cusec: i32,
    pub(super) susec: i32,
    pub(super) stime: i32,
    pub(super) error: u32,
    pub(super) client: Opaque,
    pub(super) server: Opaque,
    pub(super) text: Data,
    pub(super) e_data: Data,
}

/// `krb5_address`.
#[repr(C)]
pub(super) struct Address {
    pub(super) magic: i32,
    pub(super) kind: i32,
    pub(super) length: c_uint,
    pub(super) contents: *mut u8,
}

/// `krb5_pre_send_fn`.
pub(super) type SendHook = unsafe extern "C" fn(
    context: Opaque,
    data: *mut c_void,
    realm: *const Data,
    message: *const Data,
    new_message: *mut *mut Data,
    reply: *mut *mut Data,
) -> Code;

/// `krb5_init_creds_step` and `krb5_tkt_creds_step`.
pub(super) type StepFn = unsafe extern "C" fn(
    context: Opaque,
    exchange: Opaque,
    reply: *mut Data,
    request: *mut Data,
    realm: *mut Data,
    flags: *mut c_uint,
) -> Code;

#[link(name = "krb5")]
unsafe extern "C" {
    pub(super) fn krb5_init_context(context: *mut Opaque) -> Code;
    pub(super) fn krb5_free_context(context: Opaque);
    pub(super) fn krb5_get_error_message(context: Opaque, code: Code) -> *const c_char;
    pub(super) fn krb5_free_error_message(context: Opaque, message: *const c_char);
    pub(super) fn krb5_get_default_realm(context: Opaque, realm: *mut *mut c_char) -> Code;
    pub(super) fn krb5_free_default_realm(context: Opaque, realm: *mut c_char);
    pub(super) fn krb5_set_kdc_send_hook(context: Opaque, hook: SendHook, data: *mut c_void);
    pub(super) fn krb5_free_data_contents(context: Opaque, data: *mut Data);

    pub(super) fn krb5_build_principal_ext(
        context: Opaque,
        principal: *mut Opaque,
        realm_length: c_uint,
        realm: *const c_char,
        ...
    ) -> Code;
    pub(super) fn krb5_parse_name(context: Opaque, name: *const c_char, principal: *mut Opaque) -> Code;
    pub(super) fn krb5_unparse_name(context: Opaque, principal: Opaque, name: *mut *mut c_char) -> Code;
    pub(super) fn krb5_free_unparsed_name(context: Opaque, name: *mut c_char);
    pub(super) fn krb5_principal_compare(context: Opaque, one: Opaque, other: Opaque) -> c_uint;
    pub(super) fn krb5_free_principal(context: Opaque, principal: Opaque);

    pub(super) fn krb5_kt_resolve(context: Opaque, name: *const c_char, keytab: *mut Opaque) -> Code;
    pub(super) fn krb5_kt_default(context: Opaque, keytab: *mut Opaque) -> Code;
    pub(super) fn krb5_kt_get_name(
        context: Opaque,
        keytab: Opaque,
        name: *mut c_char,
        length: c_uint,
    ) -> Code;
    pub(super) fn krb5_kt_close(context: Opaque, keytab: Opaque) -> Code;
    pub(super) fn krb5_kt_start_seq_get(context: Opaque, keytab: Opaque, cursor: *mut Opaque) -> Code;
    pub(super) fn krb5_kt_next_entry(
        context: Opaque,
        keytab: Opaque,
        entry: *mut Entry,
        cursor: *mut Opaque,
    ) -> Code;
    pub(super) fn krb5_kt_end_seq_get(context: Opaque, keytab: Opaque, cursor: *mut Opaque) -> Code;
    pub(super) fn krb5_kt_add_entry(context: Opaque, keytab: Opaque, entry: *mut Entry) -> Code;
    pub(super) fn krb5_free_keytab_entry_contents(context: Opaque, entry: *mut Entry) -> Code;

    pub(super) fn krb5_cc_new_unique(
        context: Opaque,
        kind: *const c_char,
        hint: *const c_char,
        cache: *mut Opaque,
    ) -> Code;
    pub(super) fn krb5_cc_resolve(context: Opaque, name: *const c_char, cache: *mut Opaque) -> Code;
    pub(super) fn krb5_cc_get_full_name(context: Opaque, cache: Opaque, name: *mut *mut c_char) -> Code;
    pub(super) fn krb5_free_string(context: Opaque, text: *mut c_char);
    pub(super) fn krb5_cc_get_principal(context: Opaque, cache: Opaque, principal: *mut Opaque) -> Code;
    pub(super) fn krb5_cc_retrieve_cred(
        context: Opaque,
        cache: Opaque,
        flags: i32,
        wanted: *mut Creds,
        creds: *mut Creds,
    ) -> Code;
    pub(super) fn krb5_cc_close(context: Opaque, cache: Opaque) -> Code;
    pub(super) fn krb5_cc_destroy(context: Opaque, cache: Opaque) -> Code;
    pub(super) fn krb5_free_cred_contents(context: Opaque, creds: *mut Creds);

    pub(super) fn krb5_get_init_creds_opt_alloc(context: Opaque, options: *mut Opaque) -> Code;
    pub(super) fn krb5_get_init_creds_opt_free(context: Opaque, options: Opaque);
    pub(super) fn krb5_get_init_creds_opt_set_tkt_life(options: Opaque, seconds: i32);
    pub(super) fn krb5_get_init_creds_opt_set_renew_life(options: Opaque, seconds: i32);
    pub(super) fn krb5_get_init_creds_opt_set_forwardable(options: Opaque, yes: c_int);
    pub(super) fn krb5_get_init_creds_opt_set_proxiable(options: Opaque, yes: c_int);
    pub(super) fn krb5_get_init_creds_opt_set_canonicalize(options: Opaque, yes: c_int);
    pub(super) fn krb5_get_init_creds_opt_set_etype_list(options: Opaque, list: *mut i32, length: c_int);
    pub(super) fn krb5_get_init_creds_opt_set_out_ccache(
        context: Opaque,
        options: Opaque,
        cache: Opaque,
    ) -> Code;
    pub(super) fn krb5_get_init_creds_opt_set_fast_ccache(
        context: Opaque,
        options: Opaque,
        cache: Opaque,
    ) -> Code;

    pub(super) fn krb5_init_creds_init(
        context: Opaque,
        client: Opaque,
        prompter: Option<&'static NoPrompter>,
        data: *mut c_void,
        start: i32,
        options: Opaque,
        exchange: *mut Opaque,
    ) -> Code;
    pub(super) fn krb5_init_creds_free(context: Opaque, exchange: Opaque);
    pub(super) fn krb5_init_creds_set_service(
        context: Opaque,
        exchange: Opaque,
        service: *const c_char,
    ) -> Code;
    pub(super) fn krb5_init_creds_set_password(
        context: Opaque,
        exchange: Opaque,
        password: *const c_char,
    ) -> Code;
    pub(super) fn krb5_init_creds_set_keytab(context: Opaque, exchange: Opaque, keytab: Opaque) -> Code;
    pub(super) fn krb5_init_creds_step(
        context: Opaque,
        exchange: Opaque,
        reply: *mut Data,
        request: *mut Data,
        realm: *mut Data,
        flags: *mut c_uint,
    ) -> Code;
    pub(super) fn krb5_init_creds_get_error(
        context: Opaque,
        exchange: Opaque,
        error: *mut *mut KrbError,
    ) -> Code;
    pub(super) fn krb5_init_creds_get_creds(context: Opaque, exchange: Opaque, creds: *mut Creds) -> Code;

    pub(super) fn krb5_tkt_creds_init(
        context: Opaque,
        cache: Opaque,
        wanted: *const Creds,
        options: i32,
        exchange: *mut Opaque,
    ) -> Code;
    pub(super) fn krb5_tkt_creds_free(context: Opaque, exchange: Opaque);
    pub(super) fn krb5_tkt_creds_step(
        context: Opaque,
        exchange: Opaque,
        reply: *mut Data,
        request: *mut Data,
        realm: *mut Data,
        flags: *mut c_uint,
    ) -> Code;
    pub(super) fn krb5_tkt_creds_get_creds(context: Opaque, exchange: Opaque, creds: *mut Creds) -> Code;

    pub(super) fn krb5_rd_error(context: Opaque, message: *const Data, error: *mut *mut KrbError) -> Code;
    pub(super) fn krb5_free_error(context: Opaque, error: *mut KrbError);

    pub(super) fn krb5_mk_req_extended(
        context: Opaque,
        auth: *mut Opaque,
        options: i32,
        data: *mut Data,
        creds: *mut Creds,
        request: *mut Data,
    ) -> Code;
    pub(super) fn krb5_auth_con_init(context: Opaque, auth: *mut Opaque) -> Code;
    pub(super) fn krb5_auth_con_setflags(context: Opaque, auth: Opaque, flags: i32) -> Code;
    pub(super) fn krb5_auth_con_setuseruserkey(context: Opaque, auth: Opaque, key: *mut Keyblock) -> Code;
    pub(super) fn krb5_auth_con_setaddrs(
        context: Opaque,
        auth: Opaque,
        local: *mut Address,
        remote: *mut Address,
    ) -> Code;
    pub(super) fn krb5_auth_con_getsendsubkey(context: Opaque, auth: Opaque, key: *mut *mut Keyblock)
    -> Code;
    pub(super) fn krb5_auth_con_setrecvsubkey(context: Opaque, auth: Opaque, key: *mut Keyblock) -> Code;
    pub(super) fn krb5_auth_con_free(context: Opaque, auth: Opaque) -> Code;
    pub(super) fn krb5_free_keyblock(context: Opaque, key: *mut Keyblock);
    pub(super) fn krb5_rd_req(
        context: Opaque,
        auth: *mut Opaque,
        request: *const Data,
        server: Opaque,
        keytab: Opaque,
        options: *mut i32,
        ticket: *mut Opaque,
    ) -> Code;
    pub(super) fn krb5_rd_rep(context: Opaque, auth: Opaque, reply: *const Data, part: *mut Opaque) -> Code;
    pub(super) fn krb5_free_ap_rep_enc_part(context: Opaque, part: Opaque);
    pub(super) fn krb5_mk_priv(
        context: Opaque,
        auth: Opaque,
        data: *const Data,
        message: *mut Data,
        replay: *mut c_void,
    ) -> Code;
    pub(super) fn krb5_rd_priv(
        context: Opaque,
        auth: Opaque,
        message: *const Data,
        data: *mut Data,
        replay: *mut c_void,
    ) -> Code;
}

// GSSAPI's access to a ticket cache (MIT's `gssapi_krb5.h`).
#[link(name = "gssapi_krb5")]
unsafe extern "C" {
    pub(super) fn gss_krb5_import_cred(
        minor: *mut u32,
        cache: Opaque,
        principal: Opaque,
        keytab: Opaque,
        cred: *mut Opaque,
    ) -> u32;
}

// For tests, which play the service.
#[cfg(any(test, fuzzing))]
#[link(name = "k5crypto")]
unsafe extern "C" {
    pub(super) fn krb5_c_encrypt_length(context: Opaque, kind: i32, input: usize, length: *mut usize)
    -> Code;
    pub(super) fn krb5_c_encrypt(
        context: Opaque,
        key: *const Keyblock,
        usage: i32,
        state: *const Data,
        input: *const Data,
        output: *mut EncData,
    ) -> Code;
}

// For the same tests.
#[cfg(any(test, fuzzing))]
#[link(name = "krb5")]
unsafe extern "C" {
    pub(super) fn krb5_cc_initialize(context: Opaque, cache: Opaque, principal: Opaque) -> Code;
    pub(super) fn krb5_cc_store_cred(context: Opaque, cache: Opaque, creds: *mut Creds) -> Code;
    pub(super) fn krb5_mk_rep(context: Opaque, auth: Opaque, reply: *mut Data) -> Code;
    pub(super) fn krb5_auth_con_getrecvsubkey(context: Opaque, auth: Opaque, key: *mut *mut Keyblock)
    -> Code;
    pub(super) fn krb5_auth_con_setsendsubkey(context: Opaque, auth: Opaque, key: *mut Keyblock) -> Code;
}

/// `krb5_enc_data`.
#[cfg(any(test, fuzzing))]
#[repr(C)]
pub(super) struct EncData {
    pub(super) magic: i32,
    pub(super) kind: i32,
    pub(super) version: c_uint,
    pub(super) text: Data,
}

#[cfg(test)]
mod tests {
    //! The declarations above, compared with the system's headers by the C compiler.

    use std::fmt::Write as _;
    use std::io::Write as _;
    use std::mem::{offset_of, size_of};
    use std::process::{Command, Stdio};

    use super::*;

    fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
        size_of::<F>()
    }

    /// Returns C's assertions that each structure has these fields, and no space for others.
    macro_rules! layouts {
        ($($ours:ident is $theirs:ident { $($field:ident is $member:ident),* $(,)? })*) => {{
            let mut c = String::new();
            $({
                #[expect(dead_code, reason = "the pattern names every field")]
                fn complete($ours { $($field: _),* }: $ours) {}
                let (ours, theirs) = (size_of::<$ours>(), stringify!($theirs));
                writeln!(c, "_Static_assert(sizeof({theirs}) == {ours}, \"{theirs}\");").unwrap();
                $({
                    let (at, member) = (offset_of!($ours, $field), stringify!($member));
                    let size = size_of_field(|all: &$ours| &all.$field);
                    writeln!(
                        c,
                        "_Static_assert(offsetof({theirs}, {member}) == {at} \
                         && sizeof((({theirs} *)0)->{member}) == {size}, \"{theirs}.{member}\");"
                    )
                    .unwrap();
                })*
            })*
            c
        }};
    }

    fn structures() -> String {
        layouts! {
            Data is krb5_data { magic is magic, length is length, data is data }
            PrincipalData is krb5_principal_data {
                magic is magic, realm is realm, data is data, length is length, kind is type,
            }
            Keyblock is krb5_keyblock {
                magic is magic, enctype is enctype, length is length, contents is contents,
            }
            Entry is krb5_keytab_entry {
                magic is magic, principal is principal, timestamp is timestamp, vno is vno, key is key,
            }
            Times is krb5_ticket_times {
                authtime is authtime, starttime is starttime, endtime is endtime, renew_till is renew_till,
            }
            Creds is krb5_creds {
                magic is magic, client is client, server is server, keyblock is keyblock, times is times,
                is_skey is is_skey, ticket_flags is ticket_flags, addresses is addresses, ticket is ticket,
                second_ticket is second_ticket, authdata is authdata,
            }
            KrbError is krb5_error {
                magic is magic, ctime is ctime, cusec is cusec, susec is susec, stime is stime,
                error is error, client is client, server is server, text is text, e_data is e_data,
            }
            Address is krb5_address {
                magic is magic, kind is addrtype, length is length, contents is contents,
            }
            EncData is krb5_enc_data { magic is magic, kind is enctype, version is kvno, text is ciphertext }
        }
    }

    /// Returns the C type of a type in a declaration. An opaque pointer fits every pointer.
    fn in_c(ours: &str) -> String {
        let pointer = ours.strip_prefix("*mut ").or(ours.strip_prefix("*const "));
        match (ours, pointer) {
            ("Opaque" | "SendHook" | "Option<&'static NoPrompter>", _) | (_, Some("Opaque" | "c_void")) => {
                "void *".to_owned()
            }
            (_, Some("c_char")) if ours.starts_with("*const") => "const char *".to_owned(),
            (_, Some(target)) => format!("{} *", in_c(target)),
            ("Code" | "c_int" | "i32", None) => "int".to_owned(),
            ("c_uint" | "u32", None) => "unsigned int".to_owned(),
            ("usize", None) => "size_t".to_owned(),
            ("c_char", None) => "char".to_owned(),
            ("KrbError", None) => "krb5_error".to_owned(),
            ("EncData", None) => "krb5_enc_data".to_owned(),
            ("Data" | "Keyblock" | "Creds" | "Address", None) => format!("krb5_{}", ours.to_lowercase()),
            ("Entry", None) => "krb5_keytab_entry".to_owned(),
            _ => panic!("{ours} is no type that this test knows"),
        }
    }

    /// Returns C that calls each function of this file with values of the declared types.
    fn calls() -> String {
        let mut c = String::new();
        let declarations = include_str!("raw.rs").split("#[cfg(test)]\nmod tests").next().unwrap();
        for declaration in declarations.split("pub(super) fn ").skip(1) {
            let declaration = declaration.split(';').next().unwrap();
            let (name, rest) = declaration.split_once('(').unwrap();
            let (parameters, result) = rest.rsplit_once(')').unwrap();
            let parameters =
                parameters.split(',').map(str::trim).filter(|one| !one.is_empty() && *one != "...");
            let values = parameters.map(|one| format!("V({})", in_c(one.split_once(": ").unwrap().1)));
            let call = format!("{name}({})", values.collect::<Vec<_>>().join(", "));
            let result = result.trim().strip_prefix("-> ").map_or("void".to_owned(), in_c);
            writeln!(c, "void call_{name}(void) {{ {call}; RETURNS({result}, {call}); }}").unwrap();
        }
        c
    }

    /// libkrb5 asks no user anything: the parameter has no value but C's null pointer.
    #[test]
    fn the_library_can_get_no_prompter() {
        type Begin = unsafe extern "C" fn(
            Opaque,
            Opaque,
            Option<&'static NoPrompter>,
            *mut c_void,
            i32,
            Opaque,
            *mut Opaque,
        ) -> Code;
        let _: Begin = krb5_init_creds_init;
        let only: Option<&'static NoPrompter> = None;
        match only {
            None => assert_eq!(size_of_val(&only), size_of::<*const c_void>()),
            Some(never) => match *never {},
        }
        let declarations = include_str!("raw.rs").split("#[cfg(test)]\nmod tests").next().unwrap();
        assert_eq!(declarations.matches("prompter:").count(), 1);
    }

    #[test]
    fn declarations_are_those_of_the_headers() {
        let includes = "#include <stddef.h>\n#include <krb5.h>\n#include <gssapi/gssapi_krb5.h>\n";
        let tools = "extern void *any;\n#define V(type) (*(type *)any)\n#define RETURNS(type, call) \
                     _Static_assert(__builtin_types_compatible_p(__typeof__(call), type), #call)\n";
        let program = [includes, tools, &structures(), &calls()].concat();
        assert!(
            program.matches("void call_").count() > 60 && program.contains("call_krb5_rd_priv"),
            "{program}"
        );
        let compiled = |program: &str| {
            let mut compiler = Command::new("cc")
                .args(["-std=c11", "-fsyntax-only", "-Wconversion", "-Werror", "-x", "c", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            compiler.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
            let output = compiler.wait_with_output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (is_right, said) = compiled(&program);
        assert!(is_right, "{said}");
        // It would notice.
        for (right, wrong) in [
            ("offsetof(krb5_creds, server) == 16", "offsetof(krb5_creds, server) == 8"),
            ("krb5_rd_error(V(void *), V(krb5_data *)", "krb5_rd_error(V(void *), V(krb5_creds *)"),
            ("krb5_free_context(V(void *))", "krb5_free_context(V(void *), V(void *))"),
            ("RETURNS(int, krb5_init_context(", "RETURNS(unsigned int, krb5_init_context("),
        ] {
            assert!(program.contains(right), "{right}");
            assert!(!compiled(&program.replace(right, wrong)).0, "{wrong}");
        }
    }
}
