//! json-query [-r] PATH: prints the value at PATH in the JSON of standard input, on one line.
//!
//! PATH is `.` for all of it, keys and indices as `.users[0].name` or `.["a key"]`, or a JSON
//! Pointer (RFC 6901) such as `/users/0/name`. `-r` prints a string without its quotes.
//! Status 1: no such value, or not JSON. Status 2: wrong arguments.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::Value;

enum Step {
    Key(String),
    Index(usize),
    /// A token of a JSON Pointer: what it is depends on the value it meets.
    Either(String),
}

fn parse(path: &str) -> Result<Vec<Step>, String> {
    if let Some(pointer) = path.strip_prefix('/') {
        let unescape = |token: &str| Step::Either(token.replace("~1", "/").replace("~0", "~"));
        return Ok(pointer.split('/').map(unescape).collect());
    }
    let bad = || format!("bad path: {path}");
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('.').ok_or_else(bad)?;
    // After a dot that is not the last character comes a key, or a bracket.
    let mut key = !rest.is_empty() && !rest.starts_with('[');
    while key || !rest.is_empty() {
        if key {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end == 0 {
                return Err(bad());
            }
            steps.push(Step::Key(rest[..end].into()));
            rest = &rest[end..];
            key = false;
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            key = true;
        } else if let Some(after) = rest.strip_prefix('[') {
            // A quoted key may itself contain brackets, so the JSON parser finds its end.
            let mut values = serde_json::Deserializer::from_str(after).into_iter::<Value>();
            let step = match values.next() {
                Some(Ok(Value::String(key))) => Step::Key(key),
                Some(Ok(Value::Number(number))) => {
                    Step::Index(number.to_string().parse().map_err(|_| bad())?)
                }
                _ => return Err(bad()),
            };
            steps.push(step);
            rest = after[values.byte_offset()..]
                .strip_prefix(']')
                .ok_or_else(bad)?;
        } else {
            return Err(bad());
        }
    }
    Ok(steps)
}

fn find<'a>(value: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    steps
        .iter()
        .try_fold(value, |value, step| match (step, value) {
            (Step::Key(key) | Step::Either(key), Value::Object(object)) => object.get(key),
            (Step::Index(index), Value::Array(array)) => array.get(*index),
            // RFC 6901 has no leading zeros and no sign.
            (Step::Either(token), Value::Array(array)) => {
                let index: usize = token.parse().ok()?;
                array.get(index).filter(|_| index.to_string() == *token)
            }
            _ => None,
        })
}

fn run(path: &str, raw: bool) -> Result<(), (u8, String)> {
    let steps = parse(path).map_err(|error| (2, error))?;
    let input = io::read_to_string(io::stdin()).map_err(|error| (1, format!("input: {error}")))?;
    let value: Value =
        serde_json::from_str(&input).map_err(|error| (1, format!("bad JSON: {error}")))?;
    let found = find(&value, &steps).ok_or_else(|| (1, format!("nothing at {path}")))?;
    let line = match found {
        Value::String(text) if raw => format!("{text}\n"),
        other => format!("{other}\n"),
    };
    io::stdout()
        .write_all(line.as_bytes())
        .map_err(|error| (1, format!("output: {error}")))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, raw) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path] => (path, false),
        ["-r", path] => (path, true),
        _ => {
            eprintln!("usage: json-query [-r] PATH < JSON");
            return ExitCode::from(2);
        }
    };
    match run(path, raw) {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, message)) => {
            eprintln!("json-query: {message}");
            ExitCode::from(status)
        }
    }
}
