//! What can be said of a module before anything costly is done with it.

use dlambda_proto::{FunctionProblem, Measure};
use wasmparser::{Encoding, Parser, Payload, Validator};

use crate::engine::FEATURES;
use crate::error::foreign_text;
use crate::{ExecutorConfig, ExecutorError};

/// Checks sizes, then validity, and says whether it is a component. Linear in the module's size,
/// and takes little memory.
pub(crate) fn check(wasm: &[u8], config: &ExecutorConfig) -> Result<bool, ExecutorError> {
    size(wasm, config)?;
    let is_component = measure(wasm, config)?;
    Validator::new_with_features(FEATURES)
        .validate_all(wasm)
        .map_err(malformed)?;
    Ok(is_component)
}

pub(crate) fn size(wasm: &[u8], config: &ExecutorConfig) -> Result<(), ExecutorError> {
    at_most(Measure::ModuleBytes, wasm.len(), config.max_module_bytes)
}

/// Reads the structure, nested modules included.
fn measure(wasm: &[u8], config: &ExecutorConfig) -> Result<bool, ExecutorError> {
    let mut is_component = None;
    let mut functions = 0usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } if is_component.is_none() => {
                is_component = Some(encoding == Encoding::Component);
            }
            Payload::CodeSectionStart { count, .. } => {
                functions = functions.saturating_add(count as usize);
                at_most(Measure::Functions, functions, config.max_functions)?;
            }
            Payload::CodeSectionEntry(body) => {
                at_most(
                    Measure::FunctionBytes,
                    body.range().len(),
                    config.max_function_bytes,
                )?;
            }
            _ => {}
        }
    }
    is_component.ok_or_else(|| ExecutorError::Malformed {
        offset: 0,
        reason: "no header".into(),
    })
}

fn at_most(measure: Measure, found: usize, limit: usize) -> Result<(), ExecutorError> {
    if found <= limit {
        return Ok(());
    }
    Err(ExecutorError::BadFunction(FunctionProblem::TooLarge {
        measure,
        found: found as u64,
        limit: limit as u64,
    }))
}

pub(crate) fn malformed(error: wasmparser::BinaryReaderError) -> ExecutorError {
    ExecutorError::Malformed {
        offset: error.offset() as u64,
        reason: foreign_text(error.message()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inspect_wat(wat: &str, config: &ExecutorConfig) -> Result<bool, ExecutorError> {
        check(&wat::parse_str(wat).unwrap(), config)
    }

    #[test]
    fn tells_modules_from_components() {
        let config = ExecutorConfig::dangerously_in_process();
        assert_eq!(inspect_wat("(module)", &config), Ok(false));
        assert_eq!(inspect_wat("(component)", &config), Ok(true));
    }

    #[test]
    fn measures_modules_inside_components() {
        let config = ExecutorConfig {
            max_functions: 3,
            ..ExecutorConfig::dangerously_in_process()
        };
        let wat = "(component (core module (func) (func)) (core module (func) (func)))";
        let error = ExecutorError::BadFunction(FunctionProblem::TooLarge {
            measure: Measure::Functions,
            found: 4,
            limit: 3,
        });
        assert_eq!(inspect_wat(wat, &config), Err(error));
    }

    #[test]
    fn refuses_long_functions_and_long_modules() {
        let wat = "(module (func nop nop nop nop nop nop nop nop nop nop))";
        let config = ExecutorConfig {
            max_function_bytes: 5,
            ..ExecutorConfig::dangerously_in_process()
        };
        assert!(matches!(
            inspect_wat(wat, &config),
            Err(ExecutorError::BadFunction(FunctionProblem::TooLarge {
                measure: Measure::FunctionBytes,
                found: 12,
                limit: 5
            }))
        ));
        let config = ExecutorConfig {
            max_module_bytes: 8,
            ..ExecutorConfig::dangerously_in_process()
        };
        assert!(matches!(
            inspect_wat(wat, &config),
            Err(ExecutorError::BadFunction(FunctionProblem::TooLarge {
                measure: Measure::ModuleBytes,
                limit: 8,
                ..
            }))
        ));
    }

    #[test]
    fn refuses_proposals_that_are_off() {
        let config = ExecutorConfig::dangerously_in_process();
        for wat in [
            "(module (memory i64 1))",
            "(module (memory 1 1 shared))",
            "(module (memory 1) (memory 1))",
            "(module (type (struct)))",
            "(module (tag))",
            "(module (func (param externref)))",
        ] {
            let found = inspect_wat(wat, &config);
            assert!(
                matches!(found, Err(ExecutorError::Malformed { .. })),
                "{wat}: {found:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
            if header {
                bytes.splice(0..0, *b"\0asm\x01\0\0\0");
            }
            let _ = check(&bytes, &ExecutorConfig::dangerously_in_process());
        }
    }
}
