//! What is not a function, though it looks like one.

use bytes::Bytes;
use dlambda_proto::Measure;

use super::{Case, End, case, each_ends_as_it_should, wat};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed() {
    each_ends_as_it_should(cases()).await;
}

const HEADER: &[u8] = b"\0asm\x01\0\0\0";

/// A module of these sections, each with its number; lengths are right.
fn sections(sections: &[(u8, &[u8])]) -> Bytes {
    let mut module = HEADER.to_vec();
    for (number, content) in sections {
        module.push(*number);
        leb(&mut module, content.len());
        module.extend(*content);
    }
    module.into()
}

pub(super) fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return;
        }
    }
}

fn raw(tail: &[u8]) -> Bytes {
    [HEADER, tail].concat().into()
}

pub(super) fn cases() -> Vec<Case> {
    [lies(), bad_code(), proposals(), imports()]
        .into_iter()
        .flatten()
        .collect()
}

/// Numbers in the encoding that are not true.
fn lies() -> Vec<Case> {
    let mut params = vec![1, 0x60];
    leb(&mut params, 50_000);
    params.extend(vec![0x7f; 50_000]);
    params.push(0);
    let bad = |name, wasm| case(name, wasm, End::Malformed);
    vec![
        bad(
            "a section of 4 GiB",
            raw(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        bad(
            "a number without end",
            raw(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ),
        bad(
            "2^32 - 1 types in no bytes",
            sections(&[(1, &[0xff, 0xff, 0xff, 0xff, 0x0f])]),
        ),
        bad(
            "2^32 - 1 functions without code",
            sections(&[(3, &[0xff, 0xff, 0xff, 0xff, 0x0f])]),
        ),
        bad(
            "functions without bodies",
            sections(&[(1, &[1, 0x60, 0, 0]), (3, &[3, 0, 0, 0])]),
        ),
        bad("a function of 50,000 parameters", sections(&[(1, &params)])),
        bad("sections out of order", sections(&[(3, &[0]), (1, &[0])])),
        bad(
            "two memory sections",
            sections(&[(5, &[1, 0, 1]), (5, &[1, 0, 1])]),
        ),
        bad("an unknown section", sections(&[(77, &[0])])),
        bad(
            "a name that is no text",
            sections(&[(7, &[1, 4, 0xff, 0xfe, 0xfd, 0xfc, 0, 0])]),
        ),
        bad(
            "a component's header and a module's body",
            [b"\0asm\x0d\0\x01\0", &raw(&[77, 1, 0])[8..]]
                .concat()
                .into(),
        ),
        bad(
            "2^32 - 1 bodies announced",
            sections(&[(10, &[0xff, 0xff, 0xff, 0xff, 0x0f])]),
        ),
        bad(
            "two billion locals",
            sections(&[
                (1, &[1, 0x60, 0, 0]),
                (3, &[1, 0]),
                (10, &[1, 8, 1, 0xff, 0xff, 0xff, 0xff, 0x07, 0x7f, 0x0b]),
            ]),
        ),
        bad(
            "50,001 locals",
            wat_unchecked(&format!("(func {})", "(local i64)".repeat(50_001))),
        ),
        case(
            "33 MiB of nothing",
            vec![0; 33 << 20].into(),
            End::TooLarge(Measure::ModuleBytes),
        ),
        case(
            "custom sections of a mebibyte",
            sections(&[(0, &[&[1, b'x'][..], &vec![0; 1 << 20]].concat())]),
            End::NoEntryPoint,
        ),
    ]
}

fn wat_unchecked(fields: &str) -> Bytes {
    wat(&format!("(module {fields})"))
}

fn bad_code() -> Vec<Case> {
    let bad = |name, fields: &str| case(name, wat_unchecked(fields), End::Malformed);
    vec![
        bad("an addition of nothing", "(func i32.add drop)"),
        bad("a jump out of the function", "(func (br 9))"),
        bad(
            "a local that there is not",
            "(func (drop (local.get 1000000)))",
        ),
        bad("a call of nobody", "(func (call 77))"),
        bad(
            "a global that cannot change",
            "(global i32 (i32.const 0)) (func (global.set 0 (i32.const 1)))",
        ),
        bad(
            "a memory that there is not",
            "(func (drop (i32.load (i32.const 0))))",
        ),
        bad("a memory beyond 4 GiB", "(memory 65537)"),
        bad(
            "a start function with a parameter",
            "(func $f (param i32)) (start $f)",
        ),
        bad(
            "two exports of one name",
            "(func (export \"a\")) (func (export \"a\"))",
        ),
    ]
}

/// What is switched off.
fn proposals() -> Vec<Case> {
    let bad = |name, fields: &str| case(name, wat_unchecked(fields), End::Malformed);
    vec![
        bad("a shared memory", "(memory 1 1 shared)"),
        bad("a 64-bit memory", "(memory i64 1)"),
        bad("two memories", "(memory 1) (memory 1)"),
        bad("exceptions", "(tag $t) (func (throw $t))"),
        bad("structures", "(type (struct (field i32)))"),
        bad(
            "recursive types",
            "(rec (type $a (func (param (ref null $b)))) (type $b (func (param (ref null $a)))))",
        ),
        bad(
            "128-bit arithmetic",
            "(func (result i64 i64) (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)))",
        ),
        bad("pages of one byte", "(memory 1 (pagesize 1))"),
        bad("stack switching", "(type $f (func)) (type $c (cont $f))"),
    ]
}

fn imports() -> Vec<Case> {
    let start = "(func (export \"_start\"))";
    let bad = |name, imports: &str| {
        case(
            name,
            wat_unchecked(&format!("{imports} {start}")),
            End::UnsupportedImport,
        )
    };
    let many: String = (0..10_000)
        .map(|number| format!("(import \"env\" \"f{number}\" (func))"))
        .collect();
    let long = "x".repeat(99_000);
    vec![
        bad(
            "a host function of its own devising",
            "(import \"env\" \"system\" (func (param i32)))",
        ),
        bad("10,000 imports", &many),
        bad(
            "a name of 99,000 letters",
            &format!("(import \"{long}\" \"{long}\" (func))"),
        ),
        bad(
            "a path for a name",
            "(import \"../../etc/passwd\" \"/proc/self/mem\" (func))",
        ),
        bad(
            "a memory of the host",
            "(import \"env\" \"memory\" (memory 1))",
        ),
        bad(
            "a table of the host",
            "(import \"env\" \"table\" (table 1 funcref))",
        ),
        bad(
            "a wrong type",
            "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i64)))",
        ),
        bad(
            "another preview",
            "(import \"wasi_unstable\" \"proc_exit\" (func (param i32)))",
        ),
        bad(
            "preview 2 in a module",
            "(import \"wasi:sockets/tcp\" \"connect\" (func))",
        ),
    ]
}
