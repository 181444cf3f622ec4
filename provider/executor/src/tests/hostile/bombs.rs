//! Modules that loop, recurse, grow and trap.

use bytes::Bytes;
use dlambda_proto::{Measure, Status, StopKind};

use super::{Case, End, TRAP, case, each_ends_as_it_should, wat};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs() {
    each_ends_as_it_should(cases()).await;
}

/// A module with these fields and a `_start` of this body.
fn start(fields: &str, body: &str) -> Bytes {
    wat(&format!(
        "(module {fields} (func (export \"_start\") {body}))"
    ))
}

const OUT_OF_FUEL: End = End::Is(Status::Stopped(StopKind::Fuel));
const OUT_OF_TIME: End = End::Is(Status::Stopped(StopKind::Deadline));
const OUT_OF_MEMORY: End = End::Is(Status::Stopped(StopKind::Memory));
const FINE: End = End::Is(Status::Exited(0));

pub(super) fn cases() -> Vec<Case> {
    [loops(), recursion(), memory(), start_up(), large()]
        .into_iter()
        .flatten()
        .collect()
}

fn loops() -> Vec<Case> {
    let nested = format!(
        "{}{}",
        "(loop ".repeat(200),
        "(br 199)".to_owned() + &")".repeat(200)
    );
    vec![
        case("endless loop", start("", "(loop (br 0))"), OUT_OF_FUEL),
        case(
            "endless loop until the deadline",
            start("", "(loop (nop) (br 0))"),
            OUT_OF_TIME,
        )
        .wall(100),
        // It looks at its fuel 200 times for each unit that it uses.
        case("loop of 200 levels", start("", &nested), OUT_OF_FUEL).fuel(10_000_000),
        case(
            "endless loop through a table",
            start(
                "(table funcref (elem $f)) (func $f (return_call_indirect (i32.const 0)))",
                "(call $f)",
            ),
            OUT_OF_FUEL,
        ),
        case(
            "endless tail calls",
            start(
                "(func $f (param i64) (return_call $f (i64.add (local.get 0) (i64.const 1))))",
                "(call $f (i64.const 0))",
            ),
            OUT_OF_FUEL,
        ),
        case(
            "fill of all memory for ever",
            start(
                "(memory 1000)",
                "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536000)) (br 0))",
            ),
            OUT_OF_FUEL,
        ),
        case(
            "copy of all memory for ever",
            start(
                "(memory 1000)",
                "(loop (memory.copy (i32.const 0) (i32.const 8) (i32.const 65535992)) (br 0))",
            ),
            OUT_OF_TIME,
        )
        .wall(200),
        case(
            "fill of a table for ever",
            start(
                "(table $t 65536 funcref)",
                "(loop (table.fill $t (i32.const 0) (ref.null func) (i32.const 65536)) (br 0))",
            ),
            OUT_OF_FUEL,
        ),
    ]
}

fn recursion() -> Vec<Case> {
    let fan: String = (0..8)
        .map(|_| "(call $f (i32.sub (local.get 0) (i32.const 1)))")
        .collect();
    let wide: String = (0..500).map(|_| "(local i64 v128)").collect();
    let sums: String = (0..500)
        .map(|local| format!("(local.set {local} (i64.const {local}))"))
        .collect();
    let locals = "(local i64)".repeat(500);
    vec![
        case("endless recursion", start("(func $f (call $f))", "(call $f)"), TRAP(StopKind::StackOverflow)),
        case(
            "mutual recursion through a table",
            start(
                "(table funcref (elem $a $b)) (func $a (call_indirect (i32.const 1)) nop) (func $b (call_indirect (i32.const 0)) nop)",
                "(call $a)",
            ),
            TRAP(StopKind::StackOverflow),
        ),
        case("recursion with large frames", start(&format!("(func $f {locals} {sums} (call $f) (drop (local.get 7)))"), "(call $f)"), TRAP(StopKind::StackOverflow)),
        case("recursion with unused vectors", start(&format!("(func $f {wide} (call $f))"), "(call $f)"), TRAP(StopKind::StackOverflow)),
        case(
            "eight calls each, 60 levels deep",
            start(&format!("(func $f (param i32) (if (local.get 0) (then {fan})))"), "(call $f (i32.const 60))"),
            OUT_OF_FUEL,
        ),
        case(
            "recursion that asks the host at each level",
            start(
                "(import \"wasi_snapshot_preview1\" \"random_get\" (func $random (param i32 i32) (result i32)))
                (memory (export \"memory\") 1)
                (func $f (drop (call $random (i32.const 0) (i32.const 1))) (call $f))",
                "(call $f)",
            ),
            TRAP(StopKind::StackOverflow),
        ),
    ]
}

fn memory() -> Vec<Case> {
    let eat = "(loop (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable)) (br 0))";
    vec![
        case("memory bomb", start("(memory 1)", eat), OUT_OF_MEMORY),
        case(
            "memory of 4 GiB at once",
            start(
                "(memory 0)",
                "(if (i32.eq (memory.grow (i32.const 65536)) (i32.const -1)) (then unreachable))",
            ),
            OUT_OF_MEMORY,
        ),
        case(
            "more pages than there are",
            start(
                "(memory 0)",
                "(if (i32.eq (memory.grow (i32.const -1)) (i32.const -1)) (then unreachable))",
            ),
            OUT_OF_FUEL,
        ),
        case(
            "memory bomb that touches every page",
            start(
                "(memory 1) (global $at (mut i32) (i32.const 0))",
                "(loop
                (drop (memory.grow (i32.const 1)))
                (i32.store (global.get $at) (i32.const 1))
                (global.set $at (i32.add (global.get $at) (i32.const 4096)))
                (br 0))",
            ),
            OUT_OF_MEMORY,
        )
        .memory(16),
        case(
            "memory bomb that takes no for an answer",
            start(
                "(memory 1)",
                "(loop (drop (memory.grow (i32.const 1))) (br 0))",
            ),
            OUT_OF_FUEL,
        )
        .fuel(1_000_000),
        case(
            "table bomb",
            start(
                "(table $t 1 funcref)",
                "(loop (if (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable)) (br 0))",
            ),
            OUT_OF_MEMORY,
        ),
        case(
            "table of 2^32 elements",
            start(
                "(table $t 1 funcref)",
                "(if (i32.eq (table.grow $t (ref.null func) (i32.const -2)) (i32.const -1)) (then unreachable))",
            ),
            OUT_OF_FUEL,
        ),
        case(
            "sixteen tables",
            start(&"(table 65536 funcref)".repeat(16), ""),
            OUT_OF_MEMORY,
        )
        .memory(7),
        case(
            "a page beyond the limit at the start",
            start("(memory 1025)", ""),
            OUT_OF_MEMORY,
        ),
    ]
}

fn start_up() -> Vec<Case> {
    vec![
        case(
            "start section that traps",
            start("(func $s unreachable) (start $s)", ""),
            TRAP(StopKind::Unreachable),
        ),
        case(
            "start section that loops",
            start("(func $s (loop (br 0))) (start $s)", ""),
            OUT_OF_FUEL,
        ),
        case(
            "start section that recurses",
            start("(func $s (call $s)) (start $s)", ""),
            TRAP(StopKind::StackOverflow),
        ),
        case(
            "start section that eats",
            start(
                "(memory 0) (func $s (loop (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable)) (br 0))) (start $s)",
                "",
            ),
            OUT_OF_MEMORY,
        ),
        case(
            "start section that exits",
            start(
                "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32))) (func $s (call $exit (i32.const 9))) (start $s)",
                "unreachable",
            ),
            End::Is(Status::Exited(9)),
        ),
        case(
            "data beyond the memory",
            start("(memory 1) (data (i32.const 65536) \"x\")", ""),
            TRAP(StopKind::MemoryOutOfBounds),
        ),
        case(
            "data at 2^32 - 1",
            start("(memory 1) (data (i32.const -1) \"xx\")", ""),
            TRAP(StopKind::MemoryOutOfBounds),
        ),
        case(
            "elements beyond the table",
            start("(table 1 funcref) (elem (i32.const 1) $f) (func $f)", ""),
            TRAP(StopKind::TableOutOfBounds),
        ),
        case(
            "data that was dropped",
            start(
                "(memory 1) (data $d \"xyz\")",
                "(data.drop $d) (memory.init $d (i32.const 0) (i32.const 0) (i32.const 3))",
            ),
            TRAP(StopKind::MemoryOutOfBounds),
        ),
        case(
            "a wrong signature",
            start(
                "(table funcref (elem $f)) (func $f (param i64)) (type $t (func (param f32)))",
                "(call_indirect (type $t) (f32.const 1) (i32.const 0))",
            ),
            TRAP(StopKind::BadSignature),
        ),
    ]
}

fn large() -> Vec<Case> {
    let blocks = |levels: usize| format!("{}{}", "(block ".repeat(levels), ")".repeat(levels));
    let targets = " 0".repeat(10_000);
    let labels = format!("(block (br_table{targets} (i32.const 77777)))");
    let functions = |count: usize| start(&"(func)".repeat(count), "");
    let types: String = (0..2_000)
        .map(|params| format!("(type (func (param{})))", " i64".repeat(params % 100)))
        .collect();
    let globals: String = "(global (mut i64) (i64.const 1))".repeat(50_000);
    let straight = "(drop (i32.const 1))".repeat(400_000);
    vec![
        case("1,000 nested blocks", start("", &blocks(1_000)), FINE),
        case("a jump table of 10,000 entries", start("", &labels), FINE),
        case(
            "100,001 functions",
            functions(100_000),
            End::TooLarge(Measure::Functions),
        ),
        case("5,000 empty functions", functions(5_000), FINE),
        case("2,000 types", start(&types, ""), FINE),
        case(
            "50,000 locals",
            start("", &"(local i64)".repeat(50_000)),
            FINE,
        ),
        case("50,000 globals", start(&globals, ""), FINE),
        case(
            "a straight line too long",
            start("", &straight),
            End::TooLarge(Measure::FunctionBytes),
        ),
        case(
            "4 GiB of memory declared",
            start("(memory 65536)", ""),
            End::Unsupported,
        ),
        case(
            "a table of a million",
            start("(table 1000000 funcref)", ""),
            End::Unsupported,
        ),
        case(
            "seventeen tables",
            start(&"(table 1 funcref)".repeat(17), ""),
            End::Unsupported,
        ),
        case(
            "300,000 globals",
            start(&"(global (mut i64) (i64.const 1))".repeat(300_000), ""),
            End::Unsupported,
        ),
    ]
}
