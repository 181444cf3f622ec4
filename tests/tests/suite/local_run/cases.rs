//! Every case of the example functions, through `dlambda run`.

use sha2::{Digest as _, Sha256};

use super::{Desk, code, example, stderr};
use crate::support::functions;

#[tokio::test(flavor = "multi_thread")]
async fn every_example_answers_as_its_cases_say() {
    let desk = Desk::new();
    let text = std::fs::read_to_string(functions().join("cases.toml")).expect("the cases");
    let cases: toml::Table = text.parse().expect("TOML");
    let cases = cases["case"].as_array().expect("cases");
    let mut wrong = Vec::new();
    for case in cases {
        let case = case.as_table().expect("a case");
        let faults = if case.contains_key("http") {
            faults_of_request(&desk, case).await
        } else {
            faults_of_command(&desk, case).await
        };
        wrong.extend(faults.iter().map(|fault| format!("{case}: {fault}")));
    }
    assert!(cases.len() > 40, "only {} cases", cases.len());
    assert!(
        wrong.is_empty(),
        "{} faults:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn text<'a>(case: &'a toml::Table, key: &str) -> Option<&'a str> {
    case.get(key).map(|value| value.as_str().expect("a text"))
}

async fn faults_of_command(desk: &Desk, case: &toml::Table) -> Vec<String> {
    let function = example(text(case, "function").expect("a name"));
    let mut args = vec!["run", &function, "--"];
    if let Some(given) = case.get("args") {
        let given = given.as_array().expect("a list").iter();
        args.extend(given.map(|arg| arg.as_str().expect("a text")));
    }
    let input = match text(case, "stdin_file") {
        Some(file) => std::fs::read(functions().join(file)).expect("a sample"),
        None => text(case, "stdin").unwrap_or_default().into(),
    };
    let output = desk.dlambda(&args, &input).await;
    let said = stderr(&output);
    let mut faults = Vec::new();
    let mut check = |good: bool, fault: String| faults.extend((!good).then_some(fault));
    let status = case
        .get("exit")
        .map_or(0, |exit| exit.as_integer().expect("a number"));
    if status == 0 {
        check(
            code(&output) == 0,
            format!("exit code {}: {said}", code(&output)),
        );
    } else {
        let named = said.contains(&format!("exit status {status}\n"));
        check(
            code(&output) == 1 && named,
            format!("exit code {}: {said}", code(&output)),
        );
    }
    let stdout = &output.stdout[..];
    let shown = String::from_utf8_lossy(&stdout[..stdout.len().min(200)]).into_owned();
    if let Some(expected) = text(case, "stdout") {
        check(stdout == expected.as_bytes(), format!("stdout {shown}"));
    }
    if let Some(expected) = text(case, "stdout_after_first_line") {
        let rest = stdout
            .iter()
            .position(|b| *b == b'\n')
            .map(|end| &stdout[end + 1..]);
        check(rest == Some(expected.as_bytes()), format!("stdout {shown}"));
    }
    if let Some(expected) = text(case, "stdout_sha256") {
        check(
            hex::encode(Sha256::digest(stdout)) == expected,
            format!("stdout {shown}"),
        );
    }
    check(
        said.contains(text(case, "stderr").unwrap_or_default()),
        format!("stderr {said}"),
    );
    faults
}

async fn faults_of_request(desk: &Desk, case: &toml::Table) -> Vec<String> {
    let function = example(text(case, "function").expect("a name"));
    let request = text(case, "http").expect("a request");
    let fields = |key: &str| -> Vec<String> {
        let table = case
            .get(key)
            .map(|table| table.as_table().expect("a table"));
        let fields = table.into_iter().flatten();
        fields
            .map(|(name, value)| format!("{name}: {}", value.as_str().expect("a text")))
            .collect()
    };
    let headers = fields("headers");
    let mut args = vec!["run", &function, "--include", "--http", request];
    for header in &headers {
        args.extend(["--header", header]);
    }
    let output = desk
        .dlambda(&args, text(case, "body").unwrap_or_default().as_bytes())
        .await;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return vec![format!("no head in {answer:?}: {}", stderr(&output))];
    };
    let mut faults = Vec::new();
    let mut check = |good: bool, fault: String| faults.extend((!good).then_some(fault));
    let status = case
        .get("status")
        .map_or(200, |status| status.as_integer().expect("a number"));
    check(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        format!("head {head}"),
    );
    for field in fields("expect_headers") {
        check(
            head.lines().any(|line| line == field),
            format!("no {field} in {head}"),
        );
    }
    if let Some(expected) = text(case, "expect_body") {
        check(body == expected, format!("body {body}"));
    }
    for line in case
        .get("expect_lines")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
    {
        let line = line.as_str().expect("a text");
        check(
            body.lines().any(|other| other == line),
            format!("no {line} in {body}"),
        );
    }
    check(code(&output) == 0, format!("exit code {}", code(&output)));
    faults
}
