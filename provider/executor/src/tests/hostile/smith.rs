//! Functions that nobody would write, made at random from fixed seeds: each ends in order, and in a
//! worker process just as in this one.

use arbitrary::Unstructured;
use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use wasm_smith::{Config, Module};
use wasmparser::{ExternalKind, Parser, Payload, ValType};

use super::super::{executor, executor_here};
use super::malformed::leb;
use super::{excess, wat};
use crate::{ErrorKind, Executor, ExecutorError, Invocation, Limits, Outcome};

const MODULES: u64 = 170;
const COMPONENTS: u64 = 30;
/// Cut short, and with some bits flipped.
const DAMAGED: u64 = 110;

/// Imports nothing: what can be done with the host is for the other hostile functions.
fn module(rng: &mut ChaCha20Rng) -> Bytes {
    generate(rng, "_start", &[]).into()
}

/// The same inside of a component.
fn component(rng: &mut ChaCha20Rng) -> Bytes {
    let around = wat(
        "(component (core module $m (func (export \"run\") (result i32) unreachable)) (core instance $m (instantiate $m))
            (func $run (result (result)) (canon lift (core func $m \"run\")))
            (instance $command (export \"run\" (func $run)))
            (export \"wasi:cli/run@0.2.0\" (instance $command)))",
    );
    let inside = generate(rng, "run", &[ValType::I32]);
    // A header of eight bytes, and a section that is the module: its number, and its length, of one
    // byte here.
    let rest = 10 + usize::from(around[9]);
    let mut component = around[..8].to_vec();
    section(&mut component, 1, &inside);
    component.extend(&around[rest..]);
    component.into()
}

fn generate(rng: &mut ChaCha20Rng, entry: &str, results: &[ValType]) -> Vec<u8> {
    let config = Config {
        custom_page_sizes_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        reference_types_enabled: false,
        shared_everything_threads_enabled: false,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        max_imports: 0,
        max_memories: 1,
        max_memory32_bytes: 1 << 22,
        max_table_elements: 10_000,
        max_instructions: 400,
        max_funcs: 30,
        min_funcs: 5,
        export_everything: true,
        ..Config::default()
    };
    loop {
        let bytes = random(rng, 8_000);
        let module = Module::new(config.clone(), &mut Unstructured::new(&bytes));
        let entered = module
            .ok()
            .and_then(|module| with_entry(&module.to_bytes(), entry, results));
        if let Some(module) = entered {
            return module;
        }
    }
}

/// The same module, with one of its functions exported under this name; nothing if none has the
/// right type.
fn with_entry(wasm: &[u8], entry: &str, results: &[ValType]) -> Option<Vec<u8>> {
    let (mut types, mut functions, mut exports) = (Vec::new(), Vec::new(), Vec::new());
    let mut sections = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.ok()?;
        match &payload {
            Payload::TypeSection(section) => {
                let section = section.clone().into_iter_err_on_gc_types();
                types = section.collect::<Result<_, _>>().ok()?;
            }
            Payload::FunctionSection(section) => {
                functions = section.clone().into_iter().collect::<Result<_, _>>().ok()?;
            }
            Payload::ExportSection(section) => {
                exports = section.clone().into_iter().collect::<Result<_, _>>().ok()?;
            }
            _ => {}
        }
        sections.extend(payload.as_section());
    }
    let chosen = exports.iter().position(|export: &wasmparser::Export<'_>| {
        let ty = functions
            .get(export.index as usize)
            .and_then(|ty: &u32| types.get(*ty as usize));
        export.kind == ExternalKind::Func
            && ty.is_some_and(|ty: &wasmparser::FuncType| {
                ty.params().is_empty() && ty.results() == results
            })
    })?;
    let mut renamed = Vec::new();
    leb(&mut renamed, exports.len());
    for (number, export) in exports.iter().enumerate() {
        let name = if number == chosen { entry } else { export.name };
        leb(&mut renamed, name.len());
        renamed.extend(name.as_bytes());
        renamed.push(match export.kind {
            ExternalKind::Func | ExternalKind::FuncExact => 0,
            ExternalKind::Table => 1,
            ExternalKind::Memory => 2,
            ExternalKind::Global => 3,
            ExternalKind::Tag => 4,
        });
        leb(&mut renamed, export.index as usize);
    }
    let mut module = wasm[..8].to_vec();
    for (number, range) in sections {
        let content = if number == 7 { &renamed } else { &wasm[range] };
        section(&mut module, number, content);
    }
    Some(module)
}

fn section(wasm: &mut Vec<u8>, number: u8, content: &[u8]) {
    wasm.push(number);
    leb(wasm, content.len());
    wasm.extend(content);
}

fn random(rng: &mut ChaCha20Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn damage(rng: &mut ChaCha20Rng, wasm: &[u8]) -> Bytes {
    let mut wasm = wasm.to_vec();
    let mut below = |bound: usize| (rng.next_u32() as usize) % bound.max(1);
    if below(2) == 0 {
        wasm.truncate(below(wasm.len()));
    } else {
        for _ in 0..=below(8) {
            let at = 8 + below(wasm.len().saturating_sub(8));
            if let Some(byte) = wasm.get_mut(at) {
                *byte ^= 1 << below(8);
            }
        }
    }
    wasm.into()
}

fn functions() -> Vec<Bytes> {
    let seeded = |kind: u8, number: u64| {
        let mut seed = [kind; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        ChaCha20Rng::from_seed(seed)
    };
    let modules = (0..MODULES).map(|number| module(&mut seeded(1, number)));
    let components = (0..COMPONENTS).map(|number| component(&mut seeded(2, number)));
    let damaged = (0..DAMAGED).map(|number| {
        let mut rng = seeded(3, number);
        let whole = if number % 5 == 0 {
            component(&mut rng)
        } else {
            module(&mut rng)
        };
        damage(&mut rng, &whole)
    });
    modules.chain(components).chain(damaged).collect()
}

fn limits() -> Limits {
    Limits {
        memory_bytes: 8 << 20,
        fuel: 3_000_000,
        output_bytes: 10_000,
        stderr_bytes: 1_000,
        // Nothing may depend on how busy the machine is.
        wall_time: std::time::Duration::from_secs(60),
        ..Limits::default()
    }
}

async fn ends(executor: &Executor, wasm: &Bytes) -> Result<Outcome, ExecutorError> {
    let (function, _) = executor.prepare(wasm.clone()).await?;
    let invocation = Invocation {
        input: "input".into(),
        seed: [5; 32],
        ..Invocation::default()
    };
    executor.run(&function, invocation, &limits()).await
}

/// Without what differs from run to run.
fn comparable(outcome: &Outcome) -> impl PartialEq + std::fmt::Debug + '_ {
    (
        outcome.status,
        &outcome.stdout,
        &outcome.stderr,
        outcome.usage.fuel,
        outcome.usage.peak_memory,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_functions_end_the_same_here_and_there() {
    let (there, here) = (executor(), executor_here());
    let (mut wrong, mut ran, mut refused) = (Vec::new(), 0, 0);
    let mut statuses = std::collections::BTreeMap::<String, u32>::new();
    for (number, wasm) in functions().into_iter().enumerate() {
        let (one, other) = tokio::join!(ends(&there, &wasm), ends(&here, &wasm));
        match (one, other) {
            (Ok(one), Ok(other)) => {
                ran += 1;
                *statuses.entry(format!("{:?}", one.status)).or_default() += 1;
                if let Some(excess) = excess(&one, &limits()) {
                    wrong.push(format!("{number}: too much {excess}"));
                }
                if comparable(&one) != comparable(&other) {
                    wrong.push(format!(
                        "{number}: {:?} there, {:?} here",
                        comparable(&one),
                        comparable(&other)
                    ));
                }
            }
            (Err(one), Err(other)) if one == other && one.kind() == ErrorKind::BadFunction => {
                refused += 1;
            }
            (one, other) => wrong.push(format!("{number}: {one:?} there, {other:?} here")),
        }
    }
    println!("{ran} ran, {refused} refused: {statuses:?}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(there.counts().workers_lost, 0);
    assert!(
        ran + refused >= 300 && ran >= 100 && refused >= 50,
        "{ran} ran, {refused} were refused"
    );
}
