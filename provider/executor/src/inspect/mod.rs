//! What a function is and what it wants, for its maker and for operators.

pub(crate) mod check;

use std::collections::BTreeSet;

use bytes::Bytes;
use wasmparser::{Parser, Payload};

use crate::compile::Compiler;
use crate::error::foreign_text;
use crate::inspect::check::malformed;
use crate::{Abi, ErrorKind, ExecutorConfig, ExecutorError};

/// Names listed of imports or exports, and as many kept in memory; the rest is counted.
const LISTED: usize = 200;

/// What can be said of a function without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Bytes of WebAssembly.
    pub bytes: usize,
    /// Whether it is a component; otherwise it is a core module.
    pub is_component: bool,
    /// Functions that it defines.
    pub functions: usize,
    /// What it imports: `module::field` or an interface, each once.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Imports and exports beyond those listed.
    pub unlisted: usize,
    /// The interface it runs under, and the bytes of its compiled code, or why it cannot run.
    pub verdict: Result<(Abi, usize), ExecutorError>,
    /// Imports whose answers come from the machine on plans that are not deterministic: time and
    /// random numbers. On deterministic plans every function is deterministic.
    pub varying: Vec<String>,
}

/// Parses a function, and has it validated, compiled and linked as for running: with process
/// isolation in a process of its own within [`CompileLimits`](crate::CompileLimits). Needs a tokio
/// runtime with a timer.
///
/// # Errors
///
/// [`ExecutorError::Malformed`] if nothing at all can be said, [`ExecutorError::Setup`],
/// [`ExecutorError::Fault`].
///
/// # Cancel safety
///
/// Dropping the future ends the compiler, with process isolation.
pub async fn inspect_function(
    wasm: Bytes,
    config: &ExecutorConfig,
) -> Result<Inspection, ExecutorError> {
    let structure = Structure::read(&wasm)?;
    let bytes = wasm.len();
    let verdict = compile(wasm, config).await;
    if let Err(error) = &verdict
        && error.kind() == ErrorKind::Internal
    {
        return Err(error.clone());
    }
    Ok(Inspection {
        bytes,
        is_component: structure.is_component,
        functions: structure.functions,
        unlisted: structure.imports.unlisted + structure.exports.unlisted,
        imports: structure.imports.into_names(),
        exports: structure.exports.into_names(),
        verdict,
        varying: structure.varying.into_names(),
    })
}

async fn compile(wasm: Bytes, config: &ExecutorConfig) -> Result<(Abi, usize), ExecutorError> {
    check::size(&wasm, config)?;
    let image = Compiler::new(config)?.compile(wasm).await?;
    let bytes = usize::try_from(image.len()).unwrap_or(usize::MAX);
    Ok((image.abi(), bytes))
}

/// The first names of many, in order.
#[derive(Default)]
struct Names {
    names: BTreeSet<String>,
    /// How many were not kept. One that comes again after that is counted again.
    unlisted: usize,
}

impl Names {
    fn insert(&mut self, name: String) {
        self.names.insert(name);
        // A module may have millions.
        if self.names.len() > LISTED {
            self.names.pop_last();
            self.unlisted += 1;
        }
    }

    fn into_names(self) -> Vec<String> {
        self.names.into_iter().collect()
    }
}

#[derive(Default)]
struct Structure {
    is_component: bool,
    functions: usize,
    imports: Names,
    exports: Names,
    varying: Names,
}

impl Structure {
    /// Of a component only its own imports and exports, not those of the modules in it.
    fn read(wasm: &[u8]) -> Result<Self, ExecutorError> {
        let mut structure = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(malformed)? {
                Payload::Version { encoding, .. } => {
                    if depth == 0 {
                        structure.is_component = encoding == wasmparser::Encoding::Component;
                    }
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CodeSectionStart { count, .. } => {
                    structure.functions = structure.functions.saturating_add(count as usize);
                }
                Payload::ImportSection(imports) if depth == 1 => {
                    for import in imports.into_imports() {
                        let import = import.map_err(malformed)?;
                        structure.import(&format!("{}::{}", import.module, import.name));
                    }
                }
                Payload::ExportSection(exports) if depth == 1 => {
                    for export in exports {
                        structure.export(export.map_err(malformed)?.name);
                    }
                }
                Payload::ComponentImportSection(imports) if depth == 1 => {
                    for import in imports {
                        structure.import(import.map_err(malformed)?.name.name);
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 1 => {
                    for export in exports {
                        structure.export(export.map_err(malformed)?.name.name);
                    }
                }
                _ => {}
            }
        }
        Ok(structure)
    }

    fn import(&mut self, name: &str) {
        let name = foreign_text(name);
        if varies(&name) {
            self.varying.insert(name.clone());
        }
        self.imports.insert(name);
    }

    fn export(&mut self, name: &str) {
        self.exports.insert(foreign_text(name));
    }
}

fn varies(import: &str) -> bool {
    ["clock", "random", "poll_oneoff"]
        .iter()
        .any(|word| import.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_take_no_more_memory_than_those_listed() {
        let mut names = Names::default();
        for number in (0..1_000).rev() {
            names.insert(format!("{number:04}"));
        }
        names.insert("0000".to_owned());
        assert_eq!((names.names.len(), names.unlisted), (LISTED, 800));
        assert_eq!(names.into_names()[..2], ["0000", "0001"]);
    }
}
