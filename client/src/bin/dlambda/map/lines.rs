//! The lines of standard input.

use std::io::{BufRead, Read as _};

use dlambda_proto::{ErrorKind, Report};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

/// Longest line, in bytes.
const LONGEST: usize = 1 << 20;
/// Lines that are read ahead.
const AHEAD: usize = 16;

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// 1 for the first.
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
}

impl Line {
    /// By this a file knows a line that was called before.
    pub(super) fn digest(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }
}

/// Standard input, read on a thread of its own: Ctrl-C holds meanwhile.
pub(super) struct Lines(mpsc::Receiver<Result<Line, Report>>);

impl Lines {
    pub(super) fn read() -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            for number in 1.. {
                let line = match read_line(&mut stdin, number) {
                    Ok(Some(line)) => Ok(line),
                    Ok(None) => return,
                    Err(report) => Err(report),
                };
                let is_last = line.is_err();
                if sender.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        });
        Self(receiver)
    }

    pub(super) async fn next(&mut self) -> Option<Result<Line, Report>> {
        self.0.recv().await
    }
}

fn read_line(from: &mut impl BufRead, number: u64) -> Result<Option<Line>, Report> {
    let mut bytes = Vec::new();
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX).saturating_add(1);
    let read = from.take(most).read_until(b'\n', &mut bytes);
    read.map_err(|error| Report::new(ErrorKind::Local, format!("standard input: {error}")))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() > LONGEST {
        let message = format!("line {number} is longer than 1 MiB");
        return Err(Report::new(ErrorKind::Usage, message)
            .with_hint("call `dlambda invoke` with an input that is no line"));
    }
    Ok(Some(Line { number, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut text: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Ok(Some(line)) = read_line(&mut text, 1) {
            lines.push(line.bytes);
        }
        lines
    }

    #[test]
    fn lines_are_read_without_their_ends() {
        assert_eq!(lines(b"a\n\nb"), [&b"a"[..], b"", b"b"]);
        assert_eq!(lines(b"a\xff\r\n"), [b"a\xff\r"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_and_no_two_lines() {
        let longest = vec![b'a'; LONGEST];
        let ended = [&longest[..], b"\n"].concat();
        assert_eq!(lines(&longest), [&longest[..]]);
        assert_eq!(lines(&ended), [&longest[..]]);
        let longer = [&longest[..], b"b"].concat();
        assert!(read_line(&mut &longer[..], 1).is_err());
    }
}
