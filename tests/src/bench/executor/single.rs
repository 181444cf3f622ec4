//! Single calls: how long one takes, how long a start takes, and what a
//! function that waits costs in memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use dlambda_executor::{CodeCacheConfig, Executor, ExecutorConfig, Function, Invocation, Limits};
use dlambda_proto::Start;

use super::{Report, Setting, example, in_process, isolated};

/// Calls of each kind in a round.
const CALLS: usize = 500;
/// Functions loaded to see what one costs.
const IDLE: u8 = 40;

/// A call from start to end, and the part of it that makes an instance.
pub(crate) async fn single(report: &mut Report) -> Result<()> {
    for (kind, name) in [
        ("module (Rust, p1)", "json-query"),
        ("component (Rust, p2)", "wordcount"),
    ] {
        for (place, config) in [("in process", in_process()), ("in workers", isolated()?)] {
            let executor = Executor::new(config)?;
            let function = executor.prepare(example(name)?).await?.0;
            let (mut whole, mut instantiate) = (Vec::new(), Vec::new());
            for _ in 0..CALLS {
                let begun = Instant::now();
                let outcome = executor
                    .run(&function, invocation(name), &Limits::default())
                    .await?;
                whole.push(micros(begun.elapsed()));
                instantiate.push(micros(outcome.usage.instantiate));
                ensure!(
                    outcome.status.is_success(),
                    "{name} failed: {:?}",
                    outcome.status
                );
            }
            report.add(&format!("call, {kind}, {place}"), "us", median(&mut whole));
            report.add(
                &format!("  instantiate, {kind}, {place}"),
                "us",
                median(&mut instantiate),
            );
        }
    }
    Ok(())
}

fn invocation(name: &str) -> Invocation {
    let args = if name == "json-query" {
        vec![".a".to_owned()]
    } else {
        vec![]
    };
    Invocation {
        args,
        input: Bytes::from_static(b"{\"a\": 1}"),
        ..Invocation::default()
    }
}

/// First calls: compiled, from disk, and warm.
pub(crate) async fn starts(setting: &Setting, report: &mut Report) -> Result<()> {
    let work = tempfile::tempdir()?;
    let mut programs = vec![
        (
            "json-query",
            example("json-query")?,
            invocation("json-query"),
        ),
        ("hello-http", example("hello-http")?, Invocation::default()),
    ];
    if let Some(directory) = &setting.programs {
        let quickjs = std::fs::read(directory.join("quickjs.wasm")).context("quickjs.wasm")?;
        let script = ["-e", "print(6*7)"].map(str::to_owned).to_vec();
        let invocation = Invocation {
            args: script,
            ..Invocation::default()
        };
        programs.push(("quickjs", quickjs.into(), invocation));
        let resvg = std::fs::read(directory.join("resvg.wasm")).context("resvg.wasm")?;
        let invocation = Invocation {
            args: ["--resources-dir", "/", "-", "-c"].map(str::to_owned).to_vec(),
            input: Bytes::from_static(
                b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><circle r='5'/></svg>",
            ),
            ..Invocation::default()
        };
        programs.push(("resvg", resvg.into(), invocation));
    }
    for (name, wasm, invocation) in programs {
        for (round, expected) in [
            (0, Start::Compiled),
            (1, Start::Cached),
            (2, Start::Cached),
            (3, Start::Cached),
        ] {
            let config = ExecutorConfig {
                code_cache: Some(CodeCacheConfig {
                    directory: work.path().to_owned(),
                    key: [7; 32],
                    bytes: 1 << 30,
                }),
                ..isolated()?
            };
            let executor = Executor::new(config)?;
            executor.ready().await?;
            let begun = Instant::now();
            let (function, start) = executor.prepare(wasm.clone()).await?;
            first_call(&executor, &function, &invocation, name).await?;
            let first = begun.elapsed();
            ensure!(start == expected, "{name}: {start:?}");
            let begun = Instant::now();
            first_call(&executor, &function, &invocation, name).await?;
            let warm = begun.elapsed();
            let what = if round == 0 { "compiled" } else { "from disk" };
            let size = wasm.len() >> 10;
            report.add(
                &format!("first call, {name} ({size} KiB), {what}"),
                "ms",
                millis(first),
            );
            report.add(&format!("  next call, {name}, warm"), "ms", millis(warm));
        }
    }
    Ok(())
}

async fn first_call(
    executor: &Executor,
    function: &Function,
    invocation: &Invocation,
    name: &str,
) -> Result<()> {
    let outcome = executor
        .run(function, invocation.clone(), &Limits::default())
        .await?;
    ensure!(
        outcome.status.is_success(),
        "{name} failed: {:?}",
        outcome.status
    );
    Ok(())
}

/// Memory of a function that is warm and idle, over all processes.
pub(crate) async fn memory(report: &mut Report) -> Result<()> {
    let executor = Executor::new(isolated()?)?;
    executor.ready().await?;
    let wasm = example("json-query")?;
    let mut functions = Vec::new();
    let (mut before, mut code) = (0, 0);
    for number in 0..=IDLE {
        // The same function under another name: a custom section changes its hash.
        let mut wasm = wasm.to_vec();
        wasm.extend([0, 3, 1, b'n', number]);
        let function = executor.prepare(wasm.into()).await?.0;
        first_call(
            &executor,
            &function,
            &invocation("json-query"),
            "json-query",
        )
        .await?;
        code = function.compiled_bytes();
        functions.push(function);
        if number == 0 {
            before = proportional_memory()?;
        }
    }
    let each = (proportional_memory()? - before) / u64::from(IDLE);
    report.add(
        "an idle warm function (json-query), all processes",
        "KiB",
        kib(each),
    );
    report.add("  its compiled code", "KiB", kib(code));
    Ok(())
}

/// Bytes of this process and its children, shared pages counted once.
fn proportional_memory() -> Result<u64> {
    let this = std::process::id();
    let mut total = pss(this)?;
    for entry in std::fs::read_dir("/proc")? {
        let Some(process) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        if status.is_ok_and(|status| status.contains(&format!("\nPPid:\t{this}\n"))) {
            total += pss(process).context("the memory of a worker (only root may read it)")?;
        }
    }
    Ok(total)
}

fn pss(process: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no figure")?.parse::<u64>()? << 10)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
