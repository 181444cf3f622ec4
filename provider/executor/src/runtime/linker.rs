//! What functions may import, and what they must export.

use dlambda_proto::FunctionProblem;
use wasmtime::component::{self, Component};
use wasmtime::{Engine, Linker, Module};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::{self, bindings::CommandPre};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::engine::setup;
use crate::error::foreign_text;
use crate::runtime::Code;
use crate::runtime::host::Host;
use crate::runtime::wasi::poll;
use crate::{Abi, ExecutorError};

/// The host functions of both previews, for one engine.
pub(crate) struct Linkers {
    preview1: Linker<Host>,
    preview2: component::Linker<Host>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> Result<Self, ExecutorError> {
        Ok(Self {
            preview1: preview1(engine).map_err(setup)?,
            preview2: preview2(engine).map_err(setup)?,
        })
    }

    /// Resolves a module's imports and looks for its entry point.
    pub(crate) fn module(&self, module: &Module) -> Result<Code, ExecutorError> {
        let pre = self
            .preview1
            .instantiate_pre(module)
            .map_err(|_| self.bad_import(module))?;
        let start = module.get_export("_start");
        let start = start.as_ref().and_then(|start| start.func());
        if !start.is_some_and(|ty| ty.params().len() == 0 && ty.results().len() == 0) {
            return Err(ExecutorError::BadFunction(FunctionProblem::NoEntryPoint));
        }
        Ok(Code::Preview1(pre))
    }

    /// The same for a component: a command, or else an HTTP handler.
    pub(crate) fn component(&self, component: &Component) -> Result<Code, ExecutorError> {
        let pre = self.preview2.instantiate_pre(component).map_err(|error| {
            let error = error.to_string();
            // The engine names the import in this one message only.
            let import = error.split('`').nth(1).unwrap_or("something");
            ExecutorError::BadFunction(FunctionProblem::UnsupportedImport {
                import: foreign_text(import),
            })
        })?;
        if let Ok(command) = CommandPre::new(pre.clone()) {
            return Ok(Code::Preview2(command));
        }
        let proxy = ProxyPre::new(pre)
            .map_err(|_| ExecutorError::BadFunction(FunctionProblem::NoEntryPoint))?;
        Ok(Code::Http(proxy))
    }

    /// The first import that preview 1 lacks or types otherwise.
    fn bad_import(&self, module: &Module) -> ExecutorError {
        let mut store = Host::scratch(module.engine());
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
            None => return ExecutorError::BadFunction(FunctionProblem::Unsupported),
        };
        ExecutorError::BadFunction(FunctionProblem::UnsupportedImport { import })
    }
}

impl Code {
    pub(crate) fn abi(&self) -> Abi {
        match self {
            Self::Preview1(_) => Abi::Preview1,
            Self::Preview2(_) => Abi::Preview2,
            Self::Http(_) => Abi::Http,
        }
    }
}

fn preview1(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |host: &mut Host| -> &mut WasiP1Ctx {
        &mut host.wasi
    })?;
    // The library's own takes statuses above 125 for a fault.
    linker
        .allow_shadowing(true)
        .func_wrap("wasi_snapshot_preview1", "proc_exit", exit)?;
    poll::add_to_preview1(&mut linker)?;
    Ok(linker)
}

fn preview2(engine: &Engine) -> wasmtime::Result<component::Linker<Host>> {
    let mut linker = component::Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    poll::add_to_preview2(&mut linker)?;
    Ok(linker)
}

/// Statuses above 255 become 255: cutting them to a byte could turn a failure into 0, a success.
fn exit(status: u32) -> wasmtime::Result<()> {
    Err(I32Exit(status.min(255).cast_signed()).into())
}
