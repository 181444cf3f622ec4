//! Programs that nobody here wrote answer as they do elsewhere. Fetched with their packages' own
//! clients and checked by their hashes; needs `DLAMBDA_TEST_DOWNLOADS=1` (CI sets it).

use std::collections::HashMap;
use std::time::Instant;

use dlambda_client::{Call, CallError, FunctionName};
use dlambda_executor::{Executor, ExecutorConfig};
use dlambda_proto::FunctionId;

use crate::cases::{
    Subject, ample, executor, in_processes, kept_code, may_download, real_programs,
};
use crate::support::{LONG, World};

#[tokio::test(flavor = "multi_thread")]
async fn real_programs_answer_as_written_down() {
    if !may_download() {
        return;
    }
    let executor = executor(ExecutorConfig {
        warm_bytes: 512 << 20,
        code_cache: Some(kept_code()),
        ..in_processes()
    });
    let programs = real_programs();
    let (mut ran, mut faults) = (0, Vec::new());
    for program in &programs {
        let wrong = run_cases(&executor, program).await;
        faults.extend(
            wrong
                .into_iter()
                .map(|fault| format!("{}: {fault}", program.name)),
        );
        ran += program.cases.len();
    }
    println!("{ran} cases of {} programs", programs.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(programs.len() >= 4, "too few programs were fetched");
    assert_eq!(executor.counts().workers_lost, 0);
}

async fn run_cases(executor: &Executor, program: &Subject) -> Vec<String> {
    let begun = Instant::now();
    let prepared = executor.prepare(program.wasm.clone()).await;
    let (function, start) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return vec![error.to_string()],
    };
    let took = begun.elapsed();
    assert_eq!(
        Some(hex::encode(function.id().digest())),
        program.sha256,
        "it is the one that was written down"
    );
    println!("{}: {start:?} in {took:.1?}", program.name);
    let mut faults = Vec::new();
    for case in &program.cases {
        let ended = executor
            .run(&function, case.invocation.clone(), &ample())
            .await;
        let wrong = match ended {
            Ok(outcome) => case.faults(&outcome),
            Err(error) => vec![error.to_string()],
        };
        faults.extend(
            wrong
                .into_iter()
                .map(|fault| format!("{}: {fault}", case.name)),
        );
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn real_programs_travel_to_a_provider_and_answer() {
    if !may_download() {
        return;
    }
    let world = World::new().await;
    let programs: HashMap<String, Subject> = real_programs()
        .into_iter()
        .map(|program| (program.name.clone(), program))
        .collect();
    for name in ["jq", "quickjs"] {
        let Some(program) = programs.get(name) else {
            println!("not run: {name} was not fetched");
            continue;
        };
        for (number, case) in program.cases.iter().enumerate() {
            let call = Call::new(
                world.endpoint(),
                FunctionName::Wasm(program.wasm.to_vec().into()),
            )
            .args(case.invocation.args.clone())
            .input(case.invocation.input.to_vec());
            let (status, stdout) = match world.querier().call(&call, LONG, |_| {}).await {
                Ok(answer) => {
                    assert_eq!(answer.attached, number == 0, "it travels once");
                    assert_eq!(answer.function, FunctionId::of(&program.wasm));
                    (0, answer.stdout)
                }
                Err(CallError::FunctionFailed { status, stdout, .. }) => {
                    (i32::from(status), stdout)
                }
                Err(error) => panic!("{name}: {}: {error}", case.name),
            };
            assert_eq!(status, case.status, "{name}: {}", case.name);
            let faults = case.faults_of_output(&stdout);
            assert!(faults.is_empty(), "{name}: {}: {faults:?}", case.name);
        }
    }
}
