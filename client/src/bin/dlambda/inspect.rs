//! `dlambda function inspect`.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use dlambda_executor::{
    Abi, ErrorKind as ExecutorErrorKind, ExecutorConfig, ExecutorError, Inspection, fingerprint,
    inspect_function,
};
use dlambda_proto::{ErrorKind, FunctionId, Report};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::cli::{Common, Format, InspectArgs};
use crate::exit::exit_code;
use crate::output::{Spinner, print};
use crate::{input, local};

const PROGRAM_HINT: &str = "install it in the same directory as dlambda";

/// What is known of a file.
struct Findings {
    function: FunctionId,
    bytes: usize,
    /// `None` if it is no WebAssembly at all.
    inspection: Option<Inspection>,
    /// Interface and bytes of compiled code, or why providers refuse it.
    verdict: Result<(Abi, usize), String>,
}

pub(crate) async fn run(
    args: InspectArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let wasm = input::read_file(&args.file)?;
    // Compilers are not made for what strangers write: as for a provider, it happens in a process
    // that is bounded.
    let config = ExecutorConfig::new(local::confined(PROGRAM_HINT)?);
    let spinner = Spinner::new(common.quiet || format == Format::Json);
    spinner.say("compiling the function".to_owned());
    let findings = timeout(common.max_time, inspect(wasm.into(), &config))
        .await
        .map_err(|_| out_of_time(common.max_time))??;
    drop(spinner);
    match format {
        Format::Json => print(&findings.json().to_string()),
        Format::Text => findings.lines().iter().for_each(|line| print(line)),
    }
    Ok(match findings.verdict {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => exit_code(ErrorKind::Refused),
    })
}

fn out_of_time(max_time: Duration) -> Report {
    let seconds = max_time.as_secs();
    let message = format!("the function was not compiled within {seconds} seconds");
    Report::new(ErrorKind::Deadline, message)
}

async fn inspect(wasm: Bytes, config: &ExecutorConfig) -> Result<Findings, Report> {
    let (function, bytes) = (FunctionId::of(&wasm), wasm.len());
    let inspected = inspect_function(wasm, config).await;
    let (inspection, verdict) = match inspected {
        Ok(inspection) => {
            let verdict = refusal(inspection.verdict.clone())?;
            (Some(inspection), verdict)
        }
        Err(error) => (None, refusal(Err(error))?),
    };
    Ok(Findings {
        function,
        bytes,
        inspection,
        verdict,
    })
}

/// Keeps what is the function's fault apart from what is ours.
fn refusal<T>(verdict: Result<T, ExecutorError>) -> Result<Result<T, String>, Report> {
    match verdict {
        Ok(fit) => Ok(Ok(fit)),
        Err(error) if error.kind() == ExecutorErrorKind::BadFunction => Ok(Err(error.to_string())),
        Err(error) => Err(local::report(error)),
    }
}

impl Findings {
    fn kind(&self) -> Option<Abi> {
        self.verdict.as_ref().ok().map(|(abi, _)| *abi)
    }

    fn json(&self) -> Value {
        let known = self.inspection.as_ref();
        json!({
            "schema": "dlambda.function/1",
            "function": self.function.unredacted(),
            "bytes": self.bytes,
            "kind": self.kind().map(local::kind),
            "component": known.map(|known| known.is_component),
            "functions": known.map(|known| known.functions),
            "imports": known.map(|known| &known.imports),
            "exports": known.map(|known| &known.exports),
            "unlisted": known.map(|known| known.unlisted),
            "compiled_bytes": self.verdict.as_ref().ok().map(|(_, bytes)| bytes),
            "accepted": self.verdict.is_ok(),
            "refused_because": self.verdict.as_ref().err(),
            "varying_imports": known.map(|known| &known.varying),
            "engine": hex::encode(fingerprint()),
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            line("function", &self.function.unredacted()),
            line("size", &format!("{} bytes", self.bytes)),
        ];
        if let Some(known) = &self.inspection {
            lines.push(line("kind", self.kind_in_words(known)));
            lines.push(line("functions", &known.functions.to_string()));
            lines.extend(list("imports", &known.imports));
            lines.extend(list("exports", &known.exports));
            if known.unlisted > 0 {
                lines.push(line("", &format!("and {} more of both", known.unlisted)));
            }
        }
        match &self.verdict {
            Ok((_, compiled)) => {
                lines.push(line("compiled", &format!("{compiled} bytes")));
                lines.push(line("verdict", "accepted: a provider would take it"));
                lines.push(line("repeatable", &self.determinism()));
            }
            Err(reason) => lines.push(line("verdict", &format!("refused: {reason}"))),
        }
        lines.push(line("engine", &hex::encode(fingerprint())));
        lines
    }

    fn kind_in_words(&self, known: &Inspection) -> &'static str {
        match (self.kind(), known.is_component) {
            (Some(Abi::Preview1), _) => "WASI command (preview 1 module)",
            (Some(Abi::Preview2), _) => "WASI command (preview 2 component)",
            (Some(Abi::Http), _) => "wasi:http handler (preview 2 component)",
            (_, true) => "component",
            (_, false) => "module",
        }
    }

    fn determinism(&self) -> String {
        let varying = self
            .inspection
            .as_ref()
            .map(|known| known.varying.join(", "));
        match varying {
            Some(varying) if !varying.is_empty() => {
                format!("deterministic on deterministic plans; on others these vary: {varying}")
            }
            _ => "deterministic on every plan: it imports neither time nor randomness".to_owned(),
        }
    }
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<12}{value}").trim_end().to_owned()
}

fn list(name: &str, values: &[String]) -> Vec<String> {
    if values.is_empty() {
        return vec![line(name, "none")];
    }
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names
        .zip(values)
        .map(|(name, value)| line(name, value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_webassembly_is_refused_with_a_reason() {
        let config = ExecutorConfig::dangerously_in_process();
        let findings = inspect("#!/bin/sh".into(), &config).await;
        let findings = findings.expect("findings");
        assert!(findings.inspection.is_none());
        let json = findings.json();
        assert_eq!(
            (&json["accepted"], &json["kind"]),
            (&Value::Bool(false), &Value::Null)
        );
        let said = findings.lines().join("\n");
        assert!(
            said.contains("verdict     refused: not a valid WebAssembly function"),
            "{said}"
        );
    }

    #[test]
    fn lists_are_aligned() {
        let values = ["a".to_owned(), "b".to_owned()];
        assert_eq!(list("imports", &values), ["imports     a", "            b"]);
        assert_eq!(list("imports", &[]), ["imports     none"]);
    }
}
