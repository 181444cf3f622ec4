//! `dlambda-executor`: compiles and runs functions on behalf of the program that started it, which
//! can reach what this one cannot. Not for people.

use std::process::ExitCode;

fn main() -> ExitCode {
    dlambda_executor::main()
}
