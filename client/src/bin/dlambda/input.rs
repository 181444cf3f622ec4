//! What a call is made with: the function's bytes and standard input.

use std::io::{IsTerminal as _, Read};
use std::path::Path;
use std::time::Duration;

use dlambda_proto::{ErrorKind, Report};

/// No call is larger than the largest padding bucket.
const MAX_INPUT: u64 = 64 << 20;

/// What every WebAssembly binary begins with.
const WASM_MAGIC: &[u8] = b"\0asm";

/// A WebAssembly binary from a file.
pub(crate) fn read_function(path: &Path) -> Result<Vec<u8>, Report> {
    let wasm = read_file(path)?;
    if wasm.starts_with(WASM_MAGIC) {
        return Ok(wasm);
    }
    let message = format!("{} is not a WebAssembly binary", path.display());
    Err(Report::new(ErrorKind::Usage, message)
        .with_hint("compile your function to WebAssembly (target wasm32-wasip1 or wasm32-wasip2)"))
}

/// A file that may or may not be a function.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Report> {
    let read = std::fs::File::open(path).and_then(read_bounded);
    let bytes = read
        .map_err(|error| Report::new(ErrorKind::Local, format!("{}: {error}", path.display())))?;
    bytes.ok_or_else(|| {
        let message = format!("{} is larger than 64 MiB", path.display());
        Report::new(ErrorKind::Refused, message).with_hint("no provider takes so large a function")
    })
}

/// Standard input to its end, on a thread of its own, so that Ctrl-C and the
/// deadline hold meanwhile.
///
/// Nothing if it is a terminal: most functions need none, and nobody wants to
/// be kept waiting for an end-of-file.
pub(crate) async fn read_input(max_time: Duration) -> Result<Vec<u8>, Report> {
    let reading = tokio::task::spawn_blocking(|| {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Ok(Some(Vec::new()));
        }
        read_bounded(stdin.lock())
    });
    tokio::time::timeout(max_time, reading)
        .await
        .map_err(|_| Report::new(ErrorKind::Deadline, "standard input did not end in time"))?
        .map_err(|error| Report::new(ErrorKind::Bug, error.to_string()))?
        .map_err(|error| Report::new(ErrorKind::Local, format!("standard input: {error}")))?
        .ok_or_else(|| {
            Report::new(ErrorKind::Usage, "the input is larger than 64 MiB")
                .with_hint("send less: no provider takes more in one call")
        })
}

/// All of it, or nothing if it is too much.
fn read_bounded(from: impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_INPUT).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_not_cut() {
        let zeros = |len| read_bounded(std::io::repeat(0).take(len)).expect("reads");
        assert_eq!(zeros(3), Some(vec![0; 3]));
        assert_eq!(
            zeros(MAX_INPUT).map(|bytes| bytes.len() as u64),
            Some(MAX_INPUT)
        );
        assert_eq!(zeros(MAX_INPUT + 1), None);
    }
}
