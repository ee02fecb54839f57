#!/usr/bin/env python3
"""The conformance suite from nothing: installs it, starts fixture and gateway, runs both requirement sets, writes the tables.

    python3 tests/conformance/ci.py --cache target/clients [--ringwall target/debug/ringwall] [--out docs/conformance.md]

Three comparisons, each the same fixture directly and through the gateway: over HTTP; over HTTP with a fixture that does not
validate its headers, which shows what the gateway adds (`http-header-validation`); and as a stdio child of the gateway, against
the same fixture over HTTP.

Exit status: 0 when nothing was lost over HTTP, no more than what is known over stdio, and the gateway has more of
`http-header-validation` than the lenient fixture; 1 otherwise; 2 when something could not be installed or started.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import run
from run import Run

sys.path.append(str(Path(__file__).resolve().parent.parent / "support"))

import stack
from stack import FIXTURE, ROOT, NotAvailable, Stack

HERE = Path(__file__).resolve().parent
SET_SECONDS = 400
Results = dict[str, tuple[Run | None, Run | None]]

# Scenarios that look at event streams which there are none of over stdio, with the reason. Everything else must pass as it does
# over HTTP.
STDIO_CANNOT = {
    "server-sse-multiple-streams": "the gateway answers a call to a stdio server with plain JSON unless the server says "
    "something before its answer. That is allowed, and the suite notes that it has no streams to look at.",
    "server-sse-polling": "stdio has no streams to close half way and take up again, so the tool answers at once.",
}

INTRODUCTION = """# MCP conformance

The official suite, `@modelcontextprotocol/conformance` 0.2.0-alpha.12, against the same fixture server
(`tests/conformance/fixture.py`) directly and through the gateway. All three tables were printed by

```sh
python3 tests/conformance/ci.py --cache target/clients --out docs/conformance.md
```

which installs the suite, a Node 24 for it and the fixture's packages below the cache folder, starts fixture and gateway on free
loopback ports, and runs both requirement sets. The suite sends no token, so the gateway runs with `WS_AUTH_ENABLED=false`, which
it accepts in development on a loopback address alone. The same command is a step of `.ci/run`.

A row stands for each check of `http-header-validation`, and for each other check on which the two sides differ.
"""


class Suite:
    """The suite, ready to run."""

    def __init__(self, cache: Path) -> None:
        with stack.heading("npm packages"):
            modules = stack.npm(cache, HERE)
        with stack.heading("Python packages"):
            self.python = stack.venv(cache, HERE)
        self.node = str(stack.node24(modules))
        self.index = modules / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"

    def one(self, url: str, requirements: str) -> Run:
        with stack.heading(f"{requirements} against {url}"):
            return run.run_suite(self.node, self.index, url, requirements, SET_SECONDS)

    def both_sides(self, direct: str, gateway: str, sets: tuple[str, ...]) -> Results:
        return {name: (self.one(direct, name), self.one(gateway, name)) for name in sets}


def passed(side: Run | None, scenario: str) -> int:
    assert side is not None
    return sum(1 for key, verdict in side.verdicts.items() if key[0] == scenario and verdict == "SUCCESS")


def compare(suite: Suite, binary: Path) -> tuple[str, list[str]]:
    """The document, and what is wrong."""
    parts, wrong = [INTRODUCTION], []

    with Stack() as running:
        direct = running.fixture(suite.python)
        gateway = running.gateway(binary, ["--upstream", direct], token="")
        over_http = suite.both_sides(direct, gateway.url, run.SETS)
    text, lost = run.table(over_http)
    parts.append(f"\n## Over HTTP\n\n{text}")
    wrong += [f"lost over HTTP: {line}" for line in lost]

    with Stack() as running:
        direct = running.fixture(suite.python, "--lenient-headers")
        gateway = running.gateway(binary, ["--upstream", direct], token="")
        lenient = suite.both_sides(direct, gateway.url, ("2026-07-28",))
    text, lost = run.table(lenient)
    parts.append(f"\n## Over HTTP, in front of a server that does not validate headers\n\n{text}")
    wrong += [f"lost over HTTP, lenient: {line}" for line in lost]
    without, with_gateway = (passed(side, run.ALWAYS_SHOWN) for side in lenient["2026-07-28"])
    parts.append(f"\n`{run.ALWAYS_SHOWN}`: {without} checks pass directly, {with_gateway} through the gateway.\n")
    if with_gateway <= without:
        wrong.append(f"{run.ALWAYS_SHOWN}: {with_gateway} through the gateway, {without} without it")

    with Stack() as running:
        gateway = running.gateway(binary, ["--", str(suite.python), str(FIXTURE), "--stdio"], token="")
        over_stdio: Results = {name: (over_http[name][0], suite.one(gateway.url, name)) for name in run.SETS}
    text, lost = run.table(over_stdio)
    parts.append(f"\n## The fixture as a stdio child of the gateway, against the fixture over HTTP\n\n{text}")
    parts.append("\nWhat differs, and why:\n" + "".join(f"- `{name}`: {why}\n" for name, why in STDIO_CANNOT.items()))
    # Not looked at is one thing, failed is another.
    failed = set().union(*(side.failing() for _, side in over_stdio.values() if side is not None))
    excused = STDIO_CANNOT.keys() - failed
    wrong += [f"lost over stdio: {line}" for line in lost if line.split(" ")[1] not in excused]
    return "".join(parts), wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "target" / "clients", help="where packages are kept (default: target/clients)")
    parser.add_argument("--ringwall", type=Path, default=stack.default_binary(), help="the gateway (default: the one in target/)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables to FILE as well")
    options = parser.parse_args()
    binary = options.ringwall.resolve()
    if not binary.is_file():
        parser.error(f"there is no gateway at {binary}: cargo build")
    try:
        text, wrong = compare(Suite(options.cache.resolve()), binary)
    except (NotAvailable, run.SuiteError) as error:
        print(f"not available: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
