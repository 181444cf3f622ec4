//! What a function is and what it wants, for its maker and for operators.

use std::collections::BTreeMap;

use wasmparser::{Parser, Payload};

use crate::compile::Here;
use crate::error::foreign_text;
use crate::inspect::malformed;
use crate::{Abi, ExecutorConfig, ExecutorError, inspect};

/// Names listed of imports or exports; the rest is counted.
const LISTED: usize = 200;

/// What can be said of a function without running it.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Imports whose answers come from the machine on plans that are not deterministic: time and random numbers. On
    /// deterministic plans every function is deterministic.
    pub varying: Vec<String>,
}

/// Parses, validates, compiles and links a function in this process. Meant for functions that this machine's user
/// brings; it bounds neither memory nor time of the compiler.
///
/// # Errors
///
/// [`ExecutorError::Malformed`] if nothing at all can be said, [`ExecutorError::Setup`].
pub fn inspect_function(wasm: &[u8], config: &ExecutorConfig) -> Result<Inspection, ExecutorError> {
    let structure = Structure::read(wasm)?;
    let verdict = inspect::check(wasm, config)
        .and_then(|_| Here::new(config)?.compile(wasm))
        .map(|(abi, code)| (abi, code.len()));
    let varying = structure
        .imports
        .keys()
        .filter(|name| varies(name))
        .cloned()
        .collect();
    let (imports, more_imports) = listed(structure.imports);
    let (exports, more_exports) = listed(structure.exports);
    Ok(Inspection {
        bytes: wasm.len(),
        is_component: structure.is_component,
        functions: structure.functions,
        imports,
        exports,
        unlisted: more_imports + more_exports,
        verdict,
        varying,
    })
}

#[derive(Default)]
struct Structure {
    is_component: bool,
    functions: usize,
    imports: BTreeMap<String, ()>,
    exports: BTreeMap<String, ()>,
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
                Payload::CodeSectionStart { count, .. } => structure.functions += count as usize,
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
        self.imports.insert(foreign_text(name), ());
    }

    fn export(&mut self, name: &str) {
        self.exports.insert(foreign_text(name), ());
    }
}

fn listed(names: BTreeMap<String, ()>) -> (Vec<String>, usize) {
    let more = names.len().saturating_sub(LISTED);
    (names.into_keys().take(LISTED).collect(), more)
}

fn varies(import: &str) -> bool {
    ["clock", "random", "poll_oneoff"]
        .iter()
        .any(|word| import.contains(word))
}
