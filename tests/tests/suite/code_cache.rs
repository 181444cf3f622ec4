//! Compiled code outlives the executor that made it, and nobody else can bring any.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use dlambda_executor::{
    CodeCacheConfig, Counts, Executor, ExecutorConfig, Function, Invocation, Limits,
};
use dlambda_proto::{FunctionId, Start};
use tempfile::TempDir;

use crate::cases::{executor, in_processes};
use crate::support::functions;

const KEY: [u8; 32] = [7; 32];
const PLENTY: u64 = 1 << 30;

fn with_cache(directory: &Path, key: [u8; 32], bytes: u64) -> Executor {
    executor(ExecutorConfig {
        code_cache: Some(CodeCacheConfig {
            directory: directory.to_owned(),
            key,
            bytes,
        }),
        ..in_processes()
    })
}

fn example(name: &str) -> Bytes {
    let path = functions().join(format!("{name}.wasm"));
    std::fs::read(path).expect("an example").into()
}

/// The files of a cache, in the order of their names.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

async fn prepare(executor: &Executor, wasm: Bytes) -> (Function, Start) {
    executor.prepare(wasm).await.expect("a good function")
}

async fn upper(executor: &Executor, function: &Function) -> Bytes {
    let invocation = Invocation {
        input: "hello".into(),
        ..Invocation::default()
    };
    let ended = executor.run(function, invocation, &Limits::default()).await;
    ended.expect("an outcome").stdout
}

/// Prepares `upper` on a fresh executor, and sees that it is right.
async fn start_and_counts(directory: &Path, key: [u8; 32]) -> (Start, Counts) {
    let executor = with_cache(directory, key, PLENTY);
    let (function, start) = prepare(&executor, example("upper")).await;
    assert_eq!(upper(&executor, &function).await, "HELLO");
    (start, executor.counts())
}

#[tokio::test(flavor = "multi_thread")]
async fn code_survives_its_executor() {
    let dir = TempDir::new().expect("a directory");
    let (start, counts) = start_and_counts(dir.path(), KEY).await;
    assert_eq!((start, counts.compiled), (Start::Compiled, 1));
    assert_eq!(files(dir.path()).len(), 1);

    let (start, counts) = start_and_counts(dir.path(), KEY).await;
    assert_eq!(start, Start::Cached);
    assert_eq!((counts.compiled, counts.cached_starts), (0, 1));

    // Without its bytes, too; one that is nowhere is not found.
    let executor = with_cache(dir.path(), KEY, PLENTY);
    let found = executor.find(&FunctionId::of(&example("upper"))).await;
    let (function, start) = found.expect("on disk");
    assert_eq!(start, Start::Cached);
    assert_eq!(upper(&executor, &function).await, "HELLO");
    let (_, start) = prepare(&executor, example("upper")).await;
    assert_eq!(start, Start::Warm);
    assert!(
        executor
            .find(&FunctionId::of(b"nothing like it"))
            .await
            .is_none()
    );
    assert_eq!(executor.counts().cache_rejected, 0);
}

/// At the beginning, in the header, all over the code, and in the seal at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_thrown_away() {
    let dir = TempDir::new().expect("a directory");
    start_and_counts(dir.path(), KEY).await;
    let [file] = &files(dir.path())[..] else {
        panic!("one file");
    };
    let whole = std::fs::read(file).expect("a file");
    let len = whole.len();
    let steps = (1..20).map(|step| step * len / 20);
    for at in [0, 16, 17, 32, len - 32, len - 1].into_iter().chain(steps) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(file, changed).expect("written");
        let (start, counts) = start_and_counts(dir.path(), KEY).await;
        assert_eq!(start, Start::Compiled, "byte {at} of {len}");
        assert_eq!(counts.cache_rejected, 1, "byte {at} of {len}");
    }
    for changed in [&[][..], &whole[..len - 1], &[&whole[..], &[0]].concat()] {
        std::fs::write(file, changed).expect("written");
        let (start, counts) = start_and_counts(dir.path(), KEY).await;
        assert_eq!((start, counts.cache_rejected), (Start::Compiled, 1));
    }
    let (start, counts) = start_and_counts(dir.path(), KEY).await;
    assert_eq!((start, counts.cache_rejected), (Start::Cached, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_under_another_key_or_another_name_is_thrown_away() {
    let dir = TempDir::new().expect("a directory");
    start_and_counts(dir.path(), KEY).await;
    let (start, counts) = start_and_counts(dir.path(), [8; 32]).await;
    assert_eq!((start, counts.cache_rejected), (Start::Compiled, 1));
    let (start, counts) = start_and_counts(dir.path(), KEY).await;
    assert_eq!((start, counts.cache_rejected), (Start::Compiled, 1));

    // Whole and under the right key, but of another function.
    let executor = with_cache(dir.path(), KEY, PLENTY);
    prepare(&executor, example("primes")).await;
    let named = |wasm: &[u8]| {
        let digest = hex::encode(FunctionId::of(wasm).digest());
        let ours = |file: &PathBuf| file.to_string_lossy().contains(&digest);
        files(dir.path()).into_iter().find(ours).expect("a file")
    };
    let (upper, primes) = (named(&example("upper")), named(&example("primes")));
    std::fs::copy(primes, upper).expect("copied");
    let (start, counts) = start_and_counts(dir.path(), KEY).await;
    assert_eq!((start, counts.cache_rejected), (Start::Compiled, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_unused_go_when_there_is_no_room() {
    const NAMES: [&str; 4] = ["upper", "sha256", "wordfreq", "args-echo"];
    let dir = TempDir::new().expect("a directory");
    let all = with_cache(dir.path(), KEY, PLENTY);
    for name in NAMES {
        prepare(&all, example(name)).await;
    }
    let sizes = |directory: &Path| -> Vec<u64> {
        let files = files(directory);
        let sizes = files
            .iter()
            .map(|file| file.metadata().expect("a file").len());
        sizes.collect()
    };
    let total: u64 = sizes(dir.path()).iter().sum();

    let dir = TempDir::new().expect("a directory");
    let bounded = with_cache(dir.path(), KEY, total - 1);
    for name in NAMES {
        prepare(&bounded, example(name)).await;
        assert!(sizes(dir.path()).iter().sum::<u64>() < total);
        // Files are told apart by the time of their last use.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let again = with_cache(dir.path(), KEY, total - 1);
    let first = again.find(&FunctionId::of(&example(NAMES[0]))).await;
    assert!(first.is_none(), "the first had to go");
    for name in &NAMES[1..] {
        let kept = again.find(&FunctionId::of(&example(name))).await;
        assert_eq!(kept.map(|(_, start)| start), Some(Start::Cached), "{name}");
    }

    let dir = TempDir::new().expect("a directory");
    let none = with_cache(dir.path(), KEY, 1_000);
    let (function, _) = prepare(&none, example("upper")).await;
    assert_eq!(upper(&none, &function).await, "HELLO");
    assert!(files(dir.path()).is_empty(), "no room for any");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_executors_share_one_directory() {
    let dir = TempDir::new().expect("a directory");
    let names = ["upper", "sha256", "wordfreq", "args-echo", "primes"];
    let executors = [(); 2].map(|()| with_cache(dir.path(), KEY, PLENTY));
    // Both make the same files at the same time.
    for name in names {
        let [one, other] = executors
            .each_ref()
            .map(|executor| prepare(executor, example(name)));
        tokio::join!(one, other);
    }
    let files = files(dir.path());
    assert_eq!(files.len(), names.len(), "whole files only: {files:?}");
    let third = with_cache(dir.path(), KEY, PLENTY);
    for name in names {
        let (_, start) = prepare(&third, example(name)).await;
        assert_eq!(start, Start::Cached, "{name}");
    }
    let (function, _) = prepare(&third, example("upper")).await;
    assert_eq!(upper(&third, &function).await, "HELLO");
    for executor in executors {
        let (function, start) = prepare(&executor, example("upper")).await;
        assert_eq!(start, Start::Warm);
        assert_eq!(upper(&executor, &function).await, "HELLO");
        assert_eq!(executor.counts().cache_rejected, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_callers_of_a_new_function_compile_it_once() {
    let dir = TempDir::new().expect("a directory");
    let executor = with_cache(dir.path(), KEY, PLENTY);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let executor = executor.clone();
        callers.spawn(async move {
            let (function, start) = prepare(&executor, example("upper")).await;
            assert_eq!(upper(&executor, &function).await, "HELLO");
            start
        });
    }
    let starts = callers.join_all().await;
    let compiled = starts.iter().filter(|start| **start == Start::Compiled);
    assert_eq!(compiled.count(), 1);
    let counts = executor.counts();
    assert_eq!((counts.compiled, counts.warm_starts), (1, 19));
    assert_eq!(files(dir.path()).len(), 1);
}
