//! From bytes to pre-linked code.

use wasmtime::component::{self, Component};
use wasmtime::{Engine, Linker, Module};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::{self, bindings::CommandPre};

use crate::engine::setup;
use crate::error::foreign_text;
use crate::function::{self, Code, FunctionDigest};
use crate::host::Host;
use crate::{Abi, ExecutorConfig, ExecutorError, Function, inspect};

/// Compiles and links. Blocks for as long as it takes; runs no guest code.
pub(crate) struct Compiler {
    config: ExecutorConfig,
    engine: Engine,
    preview1: Linker<Host>,
    preview2: component::Linker<Host>,
}

impl Compiler {
    pub(crate) fn new(engine: &Engine, config: ExecutorConfig) -> Result<Self, ExecutorError> {
        let mut preview2 = component::Linker::new(engine);
        p2::add_to_linker_async(&mut preview2).map_err(setup)?;
        let preview1 = preview1_linker(engine).map_err(setup)?;
        Ok(Self {
            config,
            engine: engine.clone(),
            preview1,
            preview2,
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn config(&self) -> &ExecutorConfig {
        &self.config
    }

    /// `digest` is that of `wasm`.
    pub(crate) fn compile(
        &self,
        digest: FunctionDigest,
        wasm: &[u8],
    ) -> Result<Function, ExecutorError> {
        debug_assert_eq!(digest, function::digest(wasm));
        let (code, size) = match inspect::inspect(wasm, &self.config)? {
            Abi::Preview1 => self.module(wasm)?,
            Abi::Preview2 => self.component(wasm)?,
        };
        // The initial contents of memories live beside the code and are at most as long as the module.
        Ok(Function::new(digest, code, size.saturating_add(wasm.len())))
    }

    fn module(&self, wasm: &[u8]) -> Result<(Code, usize), ExecutorError> {
        // It is valid by now, so what is left is what the engine or its pool cannot hold.
        let module =
            Module::from_binary(&self.engine, wasm).map_err(|_| ExecutorError::Unsupported)?;
        let pre = self
            .preview1
            .instantiate_pre(&module)
            .map_err(|_| self.bad_import(&module))?;
        let start = module.get_export("_start");
        let start = start.as_ref().and_then(|start| start.func());
        if !start.is_some_and(|ty| ty.params().len() == 0 && ty.results().len() == 0) {
            return Err(ExecutorError::NoEntryPoint);
        }
        let image = module.image_range();
        Ok((Code::Preview1(pre), image.end.addr() - image.start.addr()))
    }

    fn component(&self, wasm: &[u8]) -> Result<(Code, usize), ExecutorError> {
        let component =
            Component::from_binary(&self.engine, wasm).map_err(|_| ExecutorError::Unsupported)?;
        let pre = self.preview2.instantiate_pre(&component).map_err(|error| {
            let error = error.to_string();
            // The engine names the import in this one message only.
            let import = error.split('`').nth(1).unwrap_or("something");
            ExecutorError::UnsupportedImport {
                import: foreign_text(import),
            }
        })?;
        let image = component.image_range();
        let size = image.end.addr() - image.start.addr();
        let command = CommandPre::new(pre).map_err(|_| ExecutorError::NoEntryPoint)?;
        Ok((Code::Preview2(command), size))
    }

    /// The first import that preview 1 lacks or types otherwise.
    fn bad_import(&self, module: &Module) -> ExecutorError {
        let mut store = Host::scratch(&self.engine);
        let bad = module.imports().find(|import| {
            let given = self.preview1.get_by_import(&mut store, import);
            !matches!(
                (given.map(|given| given.ty(&store)), import.ty()),
                (Some(wasmtime::ExternType::Func(given)), wasmtime::ExternType::Func(wanted))
                    if wasmtime::FuncType::eq(&given, &wanted)
            )
        });
        let import = match bad {
            Some(import) => foreign_text(&format!("{}::{}", import.module(), import.name())),
            None => return ExecutorError::Unsupported,
        };
        ExecutorError::UnsupportedImport { import }
    }
}

fn preview1_linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |host: &mut Host| -> &mut WasiP1Ctx {
        &mut host.wasi
    })?;
    // The library's own takes statuses above 125 for a fault.
    linker
        .allow_shadowing(true)
        .func_wrap("wasi_snapshot_preview1", "proc_exit", exit)?;
    Ok(linker)
}

/// Statuses above 255 become 255: cutting them to a byte could turn a failure into 0, a success.
fn exit(status: u32) -> wasmtime::Result<()> {
    Err(I32Exit(status.min(255).cast_signed()).into())
}
