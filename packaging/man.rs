//! The example `man`: the same program as the binary `generate`, with the dependencies that the tests have.

#[path = "generate.rs"]
mod generate;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    generate::main()
}
