//! The cases of the example functions and of the real programs, and what came of running them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use dlambda_executor::{
    CodeCacheConfig, CompileLimits, Executor, ExecutorConfig, Invocation, Isolation, Limits,
    Outcome,
};
use dlambda_proto::{HttpField, HttpRequest, Status};
use dlambda_tests::program::binary;
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use crate::support::functions;

/// A program: an example function, or one that nobody here wrote.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) wasm: Bytes,
    /// Of the file, as it is written down; examples have none.
    pub(crate) sha256: Option<String>,
    /// Whether compiling it takes half a minute.
    pub(crate) heavy: bool,
    pub(crate) cases: Vec<Case>,
}

/// One call, and what must come of it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) invocation: Invocation,
    /// The exit status of a command, the status of an HTTP response.
    pub(crate) status: i32,
    stdout: Expected,
    stderr: String,
    fields: Vec<(String, String)>,
}

#[derive(Clone)]
enum Expected {
    Text(String),
    AfterFirstLine(String),
    Lines(Vec<String>),
    Sha256(String),
}

impl Case {
    /// What is wrong with a command's outcome.
    pub(crate) fn faults(&self, outcome: &Outcome) -> Vec<String> {
        let http = outcome.http.as_ref();
        let status = match outcome.status {
            Status::Exited(0) if self.invocation.http.is_some() => {
                http.map(|response| i32::from(response.status()))
            }
            Status::Exited(status) => Some(i32::from(status)),
            _ => None,
        };
        let mut faults = self.faults_of_output(&outcome.stdout);
        if status != Some(self.status) {
            faults.push(format!("{:?} with status {status:?}", outcome.status));
        }
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        if !stderr.contains(&self.stderr) {
            faults.push(format!("standard error: {stderr}"));
        }
        for (name, value) in &self.fields {
            let sent = http.is_some_and(|response| {
                let wanted = HttpField::new(name, value.as_bytes()).expect("a field");
                response.fields().contains(&wanted)
            });
            if !sent {
                faults.push(format!("no field {name}: {value}"));
            }
        }
        faults
    }

    /// What is wrong with an output.
    pub(crate) fn faults_of_output(&self, stdout: &[u8]) -> Vec<String> {
        let digest = hex::encode(Sha256::digest(stdout));
        let text = String::from_utf8_lossy(stdout);
        let right = match &self.stdout {
            Expected::Text(wanted) => wanted.as_bytes() == stdout,
            Expected::AfterFirstLine(wanted) => text
                .split_once('\n')
                .is_some_and(|(_, rest)| rest == wanted),
            Expected::Lines(wanted) => wanted
                .iter()
                .all(|wanted| text.lines().any(|line| line == wanted)),
            Expected::Sha256(wanted) => *wanted == digest,
        };
        if right {
            return Vec::new();
        }
        let begin: String = text.chars().take(200).collect();
        vec![format!(
            "output of {} bytes, sha256 {digest}: {begin:?}",
            stdout.len()
        )]
    }
}

/// The example functions and their cases.
pub(crate) fn examples() -> Vec<Subject> {
    let file = table(&functions().join("cases.toml"));
    let mut subjects: Vec<Subject> = Vec::new();
    for case in tables(&file, "case") {
        let name = text(case, "function").expect("a case names its function");
        let at = subjects.iter().position(|subject| subject.name == name);
        let at = at.unwrap_or_else(|| {
            subjects.push(Subject {
                wasm: read(&functions().join(format!("{name}.wasm"))),
                name,
                sha256: None,
                heavy: false,
                cases: Vec::new(),
            });
            subjects.len() - 1
        });
        subjects[at].cases.push(example_case(case));
    }
    subjects
}

fn example_case(case: &Table) -> Case {
    let args = strings(case, "args");
    let http = text(case, "http").map(|line| {
        let (method, path) = line.split_once(' ').expect("a method and a target");
        let fields = pairs(case, "headers").into_iter();
        let fields =
            fields.map(|(name, value)| HttpField::new(&name, value.as_bytes()).expect("a field"));
        let request = HttpRequest::new(method, path).expect("a request");
        request.with_fields(fields).expect("few fields")
    });
    let stdout = if let Some(digest) = text(case, "stdout_sha256") {
        Expected::Sha256(digest)
    } else if let Some(rest) = text(case, "stdout_after_first_line") {
        Expected::AfterFirstLine(rest)
    } else if case.contains_key("expect_lines") {
        Expected::Lines(strings(case, "expect_lines"))
    } else {
        let exact = text(case, "stdout").or_else(|| text(case, "expect_body"));
        Expected::Text(exact.expect("a case says what the output is"))
    };
    let (name, key, usual, input) = match &http {
        Some(_) => (text(case, "http"), "status", 200, "body"),
        None => (Some(format!("{args:?}")), "exit", 0, "stdin"),
    };
    Case {
        name: name.unwrap_or_default(),
        invocation: Invocation {
            args,
            input: input_of(case, input, &functions()),
            http,
            ..Invocation::default()
        },
        status: number(case, key).unwrap_or(usual),
        stdout,
        stderr: text(case, "stderr").unwrap_or_default(),
        fields: pairs(case, "expect_headers"),
    }
}

/// Whether this run may download. If not, says so.
pub(crate) fn may_download() -> bool {
    let may = std::env::var_os("DLAMBDA_TEST_DOWNLOADS").is_some();
    if !may {
        println!("not run: DLAMBDA_TEST_DOWNLOADS is not set");
    }
    may
}

/// Where the real programs are kept between runs: `programs` beside the directory of the build's
/// profile.
fn programs_directory() -> PathBuf {
    let this = std::env::current_exe().expect("this program");
    // target/debug/deps/suite-0123
    let target = this.ancestors().nth(3).expect("in a target directory");
    target.join("programs")
}

/// The real programs and their cases, fetched if they are not here yet. Those whose package client
/// is not installed are left out.
pub(crate) fn real_programs() -> Vec<Subject> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let directory = programs_directory();
    std::fs::create_dir_all(&directory).expect("a directory");
    // Several tests want them; one fetches.
    let lock = File::create(directory.join("lock")).expect("a file");
    lock.lock().expect("locked");
    let fetched = Command::new(source.join("fetch")).arg(&directory).status();
    assert!(fetched.expect("it starts").success(), "not fetched");
    drop(lock);
    let file = table(&source.join("programs.toml"));
    let programs = tables(&file, "program").filter_map(|program| {
        let name = text(program, "name").expect("a program has a name");
        let path = directory.join(format!("{name}.wasm"));
        if !path.exists() {
            println!("left out: {name}");
            return None;
        }
        let cases = tables(program, "case").map(|case| Case {
            name: text(case, "name").expect("a case has a name"),
            invocation: Invocation {
                args: strings(case, "args"),
                input: input_of(case, "stdin", &source.join("inputs")),
                ..Invocation::default()
            },
            status: number(case, "status").expect("a status"),
            stdout: match text(case, "stdout_sha256") {
                Some(digest) => Expected::Sha256(digest),
                None => Expected::Text(text(case, "stdout").expect("an output")),
            },
            stderr: String::new(),
            fields: Vec::new(),
        });
        Some(Subject {
            wasm: read(&path),
            sha256: Some(text(program, "sha256").expect("a digest")),
            heavy: program.get("heavy").and_then(Value::as_bool) == Some(true),
            cases: cases.collect(),
            name,
        })
    });
    programs.collect()
}

/// Compiled code that is kept between runs: some programs take half a minute to compile.
pub(crate) fn kept_code() -> CodeCacheConfig {
    CodeCacheConfig {
        directory: programs_directory().join("code"),
        key: *b"test programs' code, not secret.",
        bytes: 1 << 30,
    }
}

/// With two worker processes.
pub(crate) fn in_processes() -> ExecutorConfig {
    ExecutorConfig {
        max_concurrent: 8,
        // A slow machine must not be what refuses a large program.
        compile: CompileLimits {
            cpu_time: Duration::from_secs(400),
            wall_time: Duration::from_secs(800),
            ..CompileLimits::default()
        },
        ..ExecutorConfig::new(Isolation::Processes {
            program: binary("dlambda-executor").expect("built"),
            workers: 2,
        })
    }
}

pub(crate) fn executor(config: ExecutorConfig) -> Executor {
    Executor::new(config).expect("an executor")
}

/// Enough for every case of every program, on a busy machine too.
pub(crate) fn ample() -> Limits {
    Limits {
        memory_bytes: 256 << 20,
        fuel: 5_000_000_000,
        wall_time: Duration::from_secs(120),
        output_bytes: 8 << 20,
        ..Limits::default()
    }
}

/// An outcome without what is measured on this machine's clock.
pub(crate) fn timeless(mut outcome: Outcome) -> Outcome {
    outcome.usage.wall = Duration::ZERO;
    outcome.usage.instantiate = Duration::ZERO;
    outcome
}

fn read(path: &Path) -> Bytes {
    let content = std::fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    content.into()
}

fn table(path: &Path) -> Table {
    let content = std::fs::read_to_string(path).expect("a list of cases");
    content.parse().expect("TOML")
}

fn tables<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = &'a Table> {
    let entries = table.get(key).and_then(Value::as_array).expect("entries");
    entries
        .iter()
        .map(|entry| entry.as_table().expect("a table"))
}

fn text(table: &Table, key: &str) -> Option<String> {
    let value = table.get(key)?;
    Some(value.as_str().expect("text").to_owned())
}

fn number(table: &Table, key: &str) -> Option<i32> {
    let value = table.get(key)?.as_integer().expect("a number");
    Some(value.try_into().expect("a small number"))
}

fn strings(table: &Table, key: &str) -> Vec<String> {
    let values = table.get(key).and_then(Value::as_array);
    let values = values.into_iter().flatten();
    values
        .map(|value| value.as_str().expect("text").to_owned())
        .collect()
}

fn pairs(table: &Table, key: &str) -> Vec<(String, String)> {
    let values = table.get(key).and_then(Value::as_table);
    let values = values.into_iter().flatten();
    values
        .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
        .collect()
}

/// The text under `key`, or the file under `key_file`, or nothing.
fn input_of(table: &Table, key: &str, directory: &Path) -> Bytes {
    match text(table, &format!("{key}_file")) {
        Some(file) => read(&directory.join(file)),
        None => text(table, key).unwrap_or_default().into(),
    }
}
