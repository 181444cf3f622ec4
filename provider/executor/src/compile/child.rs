//! The process that compiles one function and ends.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use crate::compile::{InProcess, Verdict};
use crate::confinement::{ConfinementConfig, confine};
use crate::error::fault;
use crate::helper::ipc::HelperError;
use crate::{Abi, ExecutorConfig, ExecutorError};

/// The command that starts it.
pub(crate) const COMMAND: &str = "compile";
/// Exit status when the process cannot be confined.
pub(crate) const SETUP_FAILED: i32 = 3;

/// Compiled code is a few times as large as the function; no more than this.
pub(super) const GROWTH: u64 = 16;
/// Others go first.
const NICENESS: i32 = 15;

/// The command line for this configuration.
pub(crate) fn arguments(config: &ExecutorConfig) -> Vec<OsString> {
    let numbers = [
        config.max_module_bytes as u64,
        config.max_functions as u64,
        config.max_function_bytes as u64,
        config.max_memory_bytes as u64,
        config.compile.memory_bytes,
        config.compile.cpu_time.as_secs().max(1),
    ];
    let numbers = numbers.iter().map(|number| number.to_string().into());
    std::iter::once(COMMAND.into()).chain(numbers).collect()
}

/// Reads a function from standard input, writes its code to standard output and a verdict to
/// standard error.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let Some((config, confinement)) = parse(arguments) else {
        return ExitCode::from(2);
    };
    if confine(&confinement).is_err() {
        return ExitCode::from(u8::try_from(SETUP_FAILED).unwrap_or(1));
    }
    let verdict: Verdict = compile(&config).map_err(HelperError::from);
    let written = minicbor::to_vec(&verdict)
        .map_err(drop)
        .and_then(|bytes| std::io::stderr().write_all(&bytes).map_err(drop));
    if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn compile(config: &ExecutorConfig) -> Result<Abi, ExecutorError> {
    let mut wasm = Vec::new();
    let most = config.max_module_bytes as u64 + 1;
    let read = std::io::stdin().take(most).read_to_end(&mut wasm);
    read.map_err(fault("the function cannot be read"))?;
    let (abi, code) = InProcess::new(config)?.compile(&wasm)?;
    std::io::stdout()
        .write_all(&code)
        .map_err(fault("the code cannot be written"))?;
    Ok(abi)
}

fn parse(arguments: &[OsString]) -> Option<(ExecutorConfig, ConfinementConfig)> {
    let numbers = arguments
        .iter()
        .map(|argument| argument.to_str()?.parse().ok());
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    let [module, functions, function, largest, memory, cpu] = numbers[..] else {
        return None;
    };
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let config = ExecutorConfig {
        max_module_bytes: size(module),
        max_functions: size(functions),
        max_function_bytes: size(function),
        max_memory_bytes: size(largest),
        ..ExecutorConfig::dangerously_in_process()
    };
    let confinement = ConfinementConfig {
        data_bytes: memory,
        cpu_seconds: Some(cpu),
        file_bytes: module.saturating_mul(GROWTH),
        niceness: NICENESS,
    };
    Some((config, confinement))
}
