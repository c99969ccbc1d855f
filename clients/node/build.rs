//! Link arguments of the addon: its symbols of Node-API are in Node itself, and it stays mapped.

fn main() {
    napi_build::setup();
}
