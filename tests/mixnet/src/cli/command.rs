//! Commands on standard input.

use std::{
    error::Error,
    io::{BufRead, Read},
    str::FromStr,
};

use dlambda_mixnet::{Mixnet, MixnetError};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Longest command in bytes.
const MAX_LINE: u64 = 1024;

/// What the process can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Command {
    Counters,
    Kick(usize),
    Stop(usize),
    Restart(usize),
    Loss(f64),
    Quit,
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["counters"] => Ok(Self::Counters),
            ["kick", gateway] => number(gateway).map(Self::Kick),
            ["stop", gateway] => number(gateway).map(Self::Stop),
            ["restart", gateway] => number(gateway).map(Self::Restart),
            ["loss", probability] => number(probability).map(Self::Loss),
            ["quit"] => Ok(Self::Quit),
            _ => Err("commands: counters, kick N, stop N, restart N, loss P, quit".to_owned()),
        }
    }
}

impl Command {
    /// Does what it says; the answer is one line.
    pub(crate) async fn obey(self, mixnet: &Mixnet) -> Value {
        let done = match self {
            Self::Counters => return counters(mixnet),
            Self::Kick(gateway) => mixnet.kick(gateway),
            Self::Stop(gateway) => mixnet.stop_gateway(gateway).await,
            Self::Restart(gateway) => mixnet.restart_gateway(gateway).await,
            Self::Loss(probability) => mixnet.set_loss(probability),
            Self::Quit => Ok(()),
        };
        match done {
            Ok(()) => json!({ "ok": true }),
            Err(err) => failure(&explain(&err)),
        }
    }
}

/// The answer to what cannot be done.
pub(crate) fn failure(why: &str) -> Value {
    json!({ "ok": false, "error": why })
}

/// Commands as they come; the channel closes with standard input.
pub(crate) fn commands() -> mpsc::Receiver<Result<Command, String>> {
    let (queue, commands) = mpsc::channel(16);
    // A thread, and not tokio's: a read that waits for a parent must not keep
    // the runtime from ending.
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = String::new();
            match input.by_ref().take(MAX_LINE).read_line(&mut line) {
                Ok(1..) if line.trim().is_empty() => {}
                Ok(1..) => {
                    if queue.blocking_send(line.parse()).is_err() {
                        return;
                    }
                }
                Ok(0) | Err(_) => return,
            }
        }
    });
    commands
}

fn counters(mixnet: &Mixnet) -> Value {
    serde_json::to_value(mixnet.counters()).unwrap_or_else(|err| failure(&err.to_string()))
}

fn number<T: FromStr<Err: ToString>>(word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|err: T::Err| format!("{word}: {}", err.to_string()))
}

fn explain(err: &MixnetError) -> String {
    match err.source() {
        Some(source) => format!("{err}: {source}"),
        None => err.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!("counters\n".parse(), Ok(Command::Counters));
        assert_eq!(" kick  1 ".parse(), Ok(Command::Kick(1)));
        assert_eq!("loss 0.1".parse(), Ok(Command::Loss(0.1)));
        assert_eq!("quit".parse(), Ok(Command::Quit));
    }

    #[test]
    fn others_are_refused() {
        for line in ["", "kick", "kick x", "stop -1", "loss much", "dance"] {
            assert!(line.parse::<Command>().is_err(), "{line}");
        }
    }
}
