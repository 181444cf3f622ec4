//! wordcount: prints how many lines, words and bytes standard input has, as `wc` does.
//! A word is a run of bytes that are not ASCII whitespace.

use std::io::{self, Read, Write};
use std::process::ExitCode;

fn run() -> io::Result<()> {
    let (mut lines, mut words, mut bytes) = (0u64, 0u64, 0u64);
    let mut in_word = false;
    let mut buffer = vec![0; 64 * 1024];
    let mut input = io::stdin().lock();
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes += read as u64;
        for &byte in &buffer[..read] {
            lines += u64::from(byte == b'\n');
            // `is_ascii_whitespace` leaves out the vertical tab.
            let space = byte.is_ascii_whitespace() || byte == 0x0b;
            words += u64::from(!space && !in_word);
            in_word = !space;
        }
    }
    writeln!(io::stdout(), "{lines} {words} {bytes}")
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordcount: {error}");
            ExitCode::FAILURE
        }
    }
}
