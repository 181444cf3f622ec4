//! The menu that a local run takes its plan from.

use std::path::Path;

use dlambda_proto::{ErrorKind, Plan, PlanName, Report};
use serde::Deserialize;

const MIB: u64 = 1 << 20;

/// What a provider's configuration file says of its plans; the rest of it is
/// the provider's business.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    plan: Vec<PlanTable>,
}

#[derive(Deserialize)]
struct PlanTable {
    name: String,
    memory_mib: u64,
    fuel: u64,
    wall_ms: u32,
    input_kib: u32,
    output_kib: u32,
    #[serde(default = "yes")]
    deterministic: bool,
    #[serde(default)]
    price: u64,
    #[serde(default = "yes")]
    token: bool,
}

fn yes() -> bool {
    true
}

/// The menu: that of a provider's configuration file, or the standard one.
pub(crate) fn menu(file: Option<&Path>) -> Result<Vec<Plan>, Report> {
    let Some(path) = file else {
        return Ok(Plan::standard_menu());
    };
    let named = |kind, error: &str| Report::new(kind, format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path)
        .map_err(|error| named(ErrorKind::Local, &error.to_string()))?;
    parse(&text).map_err(|error| {
        named(ErrorKind::Usage, &error)
            .with_hint("give the file that the provider is started with (--config)")
    })
}

/// The plan of this name, or the first.
pub(crate) fn choose(menu: &[Plan], name: Option<&PlanName>) -> Result<Plan, Report> {
    let chosen = match name {
        None => menu.first(),
        Some(name) => menu.iter().find(|plan| plan.name == *name),
    };
    chosen.cloned().ok_or_else(|| {
        let known: Vec<&str> = menu.iter().map(|plan| plan.name.as_str()).collect();
        let message = format!("no such plan on the menu (it has: {})", known.join(", "));
        Report::new(ErrorKind::Usage, message)
            .with_hint("give one of these, or another menu with --plans")
    })
}

fn parse(text: &str) -> Result<Vec<Plan>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if file.plan.is_empty() {
        return Ok(Plan::standard_menu());
    }
    file.plan.into_iter().map(plan).collect()
}

fn plan(table: PlanTable) -> Result<Plan, String> {
    let too_large = |setting: &str| format!("{setting} of plan {} is too large", table.name);
    let kib = |setting: &str, kib: u32| kib.checked_mul(1 << 10).ok_or_else(|| too_large(setting));
    Ok(Plan {
        name: table
            .name
            .parse()
            .map_err(|error: dlambda_proto::IdError| error.to_string())?,
        memory_bytes: table
            .memory_mib
            .checked_mul(MIB)
            .ok_or_else(|| too_large("memory_mib"))?,
        fuel: table.fuel,
        wall_ms: table.wall_ms,
        input_bytes: kib("input_kib", table.input_kib)?,
        output_bytes: kib("output_kib", table.output_kib)?,
        deterministic: table.deterministic,
        price: table.price,
        needs_token: table.token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = "[execution]\nworkers = 1\n[[plan]]\nname = 'tiny'\nmemory_mib = 1\nfuel = 2\n\
        wall_ms = 3\ninput_kib = 4\noutput_kib = 5\ndeterministic = false\nconcurrent = 9\n";

    #[test]
    fn plans_come_from_a_providers_file() {
        let menu = parse(TINY).expect("good");
        let tiny = choose(&menu, None).expect("the first");
        let plan = Plan {
            name: "tiny".parse().expect("a name"),
            memory_bytes: 1 << 20,
            fuel: 2,
            wall_ms: 3,
            input_bytes: 4096,
            output_bytes: 5120,
            deterministic: false,
            price: 0,
            needs_token: true,
        };
        assert_eq!(tiny, plan);
        assert_eq!(parse("[execution]\nworkers = 1"), Ok(Plan::standard_menu()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, blamed) in [
            (TINY.replace("fuel = 2\n", ""), "fuel"),
            (
                TINY.replace("input_kib = 4", "input_kib = 4194304"),
                "input_kib of plan tiny",
            ),
            (TINY.replace("'tiny'", "'Tiny'"), "plan"),
        ] {
            let error = parse(&text).expect_err(&text);
            assert!(error.contains(blamed), "{error} does not name {blamed}");
        }
    }

    #[test]
    fn a_plan_that_is_not_there_names_those_that_are() {
        let name = "huge".parse().expect("a name");
        let error = choose(&Plan::standard_menu(), Some(&name)).expect_err("unknown");
        assert_eq!(error.kind, ErrorKind::Usage);
        assert!(error.message.contains("small, medium, large"));
    }
}
