//! The same call has the same outcome, fuel and peak memory included: in every process, cold or
//! warm, on a busy machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use dlambda_executor::{CodeCacheConfig, Executor, ExecutorConfig, Function, Limits, Outcome};
use dlambda_proto::Start;
use futures::StreamExt as _;
use tempfile::TempDir;

use crate::cases::{
    Case, Subject, ample, examples, executor, in_processes, kept_code, may_download, real_programs,
    timeless,
};

/// A case takes long if it takes more fuel than this. Every program has others, too.
const LONG: u64 = 900_000_000;
/// Cases that run at a time.
const AT_ONCE: usize = 8;

/// Where the code comes from on fresh [`Machines`].
const COLD: [Start; 4] = [
    Start::Compiled,
    Start::Cached,
    Start::Cached,
    Start::Compiled,
];

/// How often each case runs, over all executors; and how often if it takes long.
#[derive(Clone, Copy)]
struct Runs {
    usual: usize,
    long: usize,
}

impl Runs {
    /// A hundred where `make test-long` asks for them, and otherwise enough for every executor to
    /// have some.
    fn wanted() -> Self {
        match std::env::var_os("DLAMBDA_TEST_LONG") {
            Some(_) => Self {
                usual: 100,
                long: 20,
            },
            None => Self { usual: 10, long: 5 },
        }
    }

    fn all(usual: usize) -> Self {
        Self { usual, long: usual }
    }
}

/// Writes 16 random bytes, and two readings of each clock.
const SOURCES: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\68\00\00\00\30\00\00\00")
    (func (export "_start")
        (drop (call $random (i32.const 104) (i32.const 16)))
        (drop (call $time (i32.const 0) (i64.const 1) (i32.const 120)))
        (drop (call $time (i32.const 1) (i64.const 1) (i32.const 128)))
        (drop (call $time (i32.const 0) (i64.const 1) (i32.const 136)))
        (drop (call $time (i32.const 1) (i64.const 1) (i32.const 144)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// Executors that share nothing but directories of compiled code; those in one group share one.
struct Machines {
    groups: Vec<Vec<Executor>>,
    _directories: Vec<TempDir>,
}

impl Machines {
    /// One with two worker processes, which compiles; another that finds its code, and a third that
    /// does so without processes; and a fourth without processes that compiles for itself.
    fn new() -> Self {
        let directories = [(); 2].map(|()| TempDir::new().expect("a directory"));
        let [one, other] = directories.each_ref().map(|directory| CodeCacheConfig {
            directory: directory.path().to_owned(),
            key: [7; 32],
            bytes: 1 << 30,
        });
        let mut machines = Self::on(&one);
        machines.groups.push(vec![with_cache(here(), &other)]);
        machines._directories = directories.into();
        machines
    }

    /// Two with two worker processes each, and one without.
    fn on(cache: &CodeCacheConfig) -> Self {
        let configs = [in_processes(), in_processes(), here()];
        Self {
            groups: vec![configs.map(|config| with_cache(config, cache)).into()],
            _directories: Vec::new(),
        }
    }

    /// The function on each, and where its code came from.
    async fn prepare(&self, wasm: &Bytes) -> (Vec<(Executor, Function)>, Vec<Start>) {
        let groups = self.groups.iter().map(|group| async move {
            let mut prepared = Vec::new();
            for executor in group {
                let (function, start) = executor.prepare(wasm.clone()).await.expect("prepared");
                prepared.push(((executor.clone(), function), start));
            }
            prepared
        });
        let prepared = futures::future::join_all(groups).await;
        prepared.into_iter().flatten().unzip()
    }

    fn assert_no_worker_died(&self) {
        for executor in self.groups.iter().flatten() {
            assert_eq!(executor.counts().workers_lost, 0);
        }
    }
}

fn here() -> ExecutorConfig {
    ExecutorConfig {
        max_concurrent: 8,
        ..ExecutorConfig::dangerously_in_process()
    }
}

fn with_cache(config: ExecutorConfig, cache: &CodeCacheConfig) -> Executor {
    executor(ExecutorConfig {
        warm_bytes: 512 << 20,
        code_cache: Some(cache.clone()),
        ..config
    })
}

/// Threads that do nothing, with all their might.
struct Burners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    /// One for each processor.
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let burn = || {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        Self {
            threads: (0..processors).map(|_| burn()).collect(),
            stop,
        }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Runs a case again and again, in turn on each executor. Says how it ends and how often it ran, or
/// that two runs differ.
async fn agree(
    places: &[(Executor, Function)],
    case: &Case,
    limits: &Limits,
    runs: Runs,
) -> Result<(Outcome, usize), String> {
    let mut first: Option<Outcome> = None;
    let mut wanted = runs.usual;
    let mut run = 0;
    while run < wanted {
        let (executor, function) = &places[run % places.len()];
        let ended = executor
            .run(function, case.invocation.clone(), limits)
            .await;
        let outcome = timeless(ended.map_err(|error| error.to_string())?);
        if outcome.usage.fuel > LONG {
            wanted = runs.long;
        }
        match &first {
            Some(first) if *first != outcome => {
                return Err(format!("run {run}: {outcome:?} instead of {first:?}"));
            }
            Some(_) => {}
            None => first = Some(outcome),
        }
        run += 1;
    }
    first
        .map(|outcome| (outcome, run))
        .ok_or_else(|| "no run".to_owned())
}

/// Runs all cases of these programs, on a machine that has other things to do.
async fn all_agree(machines: &Machines, subjects: &[Subject], starts: Option<&[Start]>) {
    let begun = Instant::now();
    let mut places = Vec::new();
    for subject in subjects {
        let (prepared, found) = machines.prepare(&subject.wasm).await;
        assert!(starts.is_none_or(|starts| starts == found), "{found:?}");
        places.push(prepared);
    }
    let prepared = begun.elapsed();
    let burners = Burners::start();
    let (limits, runs) = (&ample(), Runs::wanted());
    let cases = subjects.iter().zip(&places).flat_map(|(subject, places)| {
        let cases = subject.cases.iter();
        cases.map(move |case| (subject, places, case))
    });
    let ended = futures::stream::iter(cases).map(|(subject, places, case)| async move {
        let (faults, runs) = match agree(places, case, limits, runs).await {
            Ok((outcome, runs)) => (case.faults(&outcome), runs),
            Err(fault) => (vec![fault], 0),
        };
        let faults = faults.join("; ");
        let fault = format!("{} {}: {faults}", subject.name, case.name);
        ((!faults.is_empty()).then_some(fault), runs)
    });
    let ended: Vec<(Option<String>, usize)> = ended.buffer_unordered(AT_ONCE).collect().await;
    drop(burners);
    println!(
        "{} cases of {} programs, {} runs: {prepared:.1?} to prepare, {:.1?} in all",
        ended.len(),
        subjects.len(),
        ended.iter().map(|(_, runs)| runs).sum::<usize>(),
        begun.elapsed()
    );
    let faults: Vec<String> = ended.into_iter().filter_map(|(fault, _)| fault).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    machines.assert_no_worker_died();
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_every_example_agree() {
    all_agree(&Machines::new(), &examples(), Some(&COLD)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_real_programs_agree() {
    if !may_download() {
        return;
    }
    let mut programs = real_programs();
    programs.retain(|program| !program.heavy);
    all_agree(&Machines::new(), &programs, Some(&COLD)).await;
}

/// With code that is kept between runs of the suite: compiling these takes a minute.
#[tokio::test(flavor = "multi_thread")]
async fn runs_of_the_heaviest_programs_agree() {
    if !may_download() {
        return;
    }
    let mut programs = real_programs();
    programs.retain(|program| program.heavy);
    all_agree(&Machines::on(&kept_code()), &programs, None).await;
}

/// What the tests above look for is there to be found where nobody promises its absence.
#[tokio::test(flavor = "multi_thread")]
async fn without_determinism_two_runs_differ() {
    let machines = Machines::new();
    let wasm: Bytes = wat::parse_str(SOURCES).expect("good WAT").into();
    let (places, _) = machines.prepare(&wasm).await;
    let case = examples().swap_remove(0).cases.swap_remove(0);
    let agreed = agree(&places, &case, &Limits::default(), Runs::all(100)).await;
    let (outcome, runs) = agreed.expect("they agree");
    assert_eq!((outcome.stdout.len(), runs), (48, 100));

    let limits = Limits {
        deterministic: false,
        ..Limits::default()
    };
    for place in &places {
        let place = std::slice::from_ref(place);
        let differ = agree(place, &case, &limits, Runs::all(2)).await;
        assert!(differ.is_err(), "two runs that agree");
        let outcomes = [(); 2].map(|()| agree(place, &case, &limits, Runs::all(1)));
        let [one, other] =
            outcomes.map(|outcome| async { outcome.await.expect("it ran").0.stdout });
        let (one, other) = (one.await, other.await);
        assert_ne!(one[..16], other[..16], "random numbers");
        assert_ne!(one[16..24], other[16..24], "the wall clock");
        assert_ne!(
            one[24..32],
            one[40..48],
            "the monotonic clock within one run"
        );
    }
}
