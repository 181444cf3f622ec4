#!/usr/bin/env python3
"""Runs cases.toml with the command `wasmtime`: cases.py [--functions DIR] [NAME...]

Needs Python 3.11. Prints the cases that fail; status 1 if any does.
"""

import argparse
import hashlib
import http.client
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent


def run_command(wasm, case):
    stdin = (HERE / case["stdin_file"]).read_bytes() if "stdin_file" in case else case.get("stdin", "").encode()
    done = subprocess.run(["wasmtime", "run", wasm, *case.get("args", [])], input=stdin, capture_output=True, timeout=60)
    status, stdout, stderr = done.returncode, done.stdout, done.stderr.decode()
    if status != case.get("exit", 0):
        yield f"status {status}: {stderr}"
    if "stdout" in case and stdout != case["stdout"].encode():
        yield f"stdout {stdout[:200]!r}"
    if "stdout_after_first_line" in case and stdout.partition(b"\n")[2] != case["stdout_after_first_line"].encode():
        yield f"stdout {stdout[:200]!r}"
    if "stdout_sha256" in case and hashlib.sha256(stdout).hexdigest() != case["stdout_sha256"]:
        yield f"stdout of {len(stdout)} bytes, sha256 {hashlib.sha256(stdout).hexdigest()}"
    if case.get("stderr", "") not in stderr:
        yield f"stderr {stderr!r}"


def run_http(address, case):
    method, target = case["http"].split()
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, target, case.get("body", "").encode(), case.get("headers", {}))
    response = connection.getresponse()
    body = response.read().decode()
    if response.status != case.get("status", 200):
        yield f"status {response.status}"
    for name, value in case.get("expect_headers", {}).items():
        if response.getheader(name) != value:
            yield f"{name}: {response.getheader(name)}"
    if body != case.get("expect_body", body):
        yield f"body {body!r}"
    for line in set(case.get("expect_lines", [])) - set(body.splitlines()):
        yield f"no line {line!r}"


def serve(wasm):
    # Standard Rust imports more of WASI than the world of a proxy has, hence `cli`.
    command = ["wasmtime", "serve", "-S", "cli", "--addr", "127.0.0.1:0", wasm]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    return server, re.search(r"http://([^/]+)/", server.stderr.readline())[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--functions", type=Path, default=HERE)
    parser.add_argument("names", nargs="*")
    wanted = parser.parse_args()
    cases = tomllib.loads((HERE / "cases.toml").read_text())["case"]
    cases = [case for case in cases if not wanted.names or case["function"] in wanted.names]
    servers, failed = {}, 0
    try:
        for case in cases:
            wasm = str(wanted.functions / f"{case['function']}.wasm")
            if "http" in case:
                if wasm not in servers:
                    servers[wasm] = serve(wasm)
                faults = list(run_http(servers[wasm][1], case))
            else:
                faults = list(run_command(wasm, case))
            if faults:
                failed += 1
                print(f"{case['function']} {case.get('http', case.get('args', ''))}: {'; '.join(faults)}")
    finally:
        for server, _ in servers.values():
            server.kill()
    print(f"{len(cases) - failed} of {len(cases)} cases passed")
    return 1 if failed else 0


sys.exit(main())
