#!/usr/bin/env python3
"""Runs the MCP conformance suite against the fixture, directly and through the gateway, and compares check by check.

    python run.py --url-direct http://127.0.0.1:3001/mcp --url-gateway http://127.0.0.1:8080/mcp \
        --node node_modules/node/bin/node --suite node_modules/@modelcontextprotocol/conformance --out conformance.md

Prints one Markdown table: for each requirement set the checks passed, then every check whose verdict differs, and every check
of `http-header-validation`, differing or not. Either URL may be left out. Exit status: 0 when the gateway lost nothing, 1 when
a check that passes directly does not pass through the gateway, 2 when the suite could not be run.

Some scenarios wait for an event for a fixed time, which a busy machine may miss: a scenario with a failure is run once more, and
the second verdict stands. The lines under the table name each that was.

Needs only the standard library; the suite needs Node 22 or later.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

SETS = ("2025-11-25", "2026-07-28")
ALWAYS_SHOWN = "http-header-validation"
ABSENT = "absent"
# Verdicts in the suite's sense. INFO and SKIPPED are remarks: they count neither as passed nor towards the total.
VERDICTS = ("SUCCESS", "FAILURE", "WARNING")
# A run's folder is called `server-<scenario>-<time>`, e.g. server-ping-2026-11-22T07-03-12-921Z.
FOLDER = re.compile(r"^server-(?P<scenario>.+)-\d{4}-\d{2}-\d{2}T[\d-]+Z$")
# The suite ends its output with the scenarios that ran without counting: `  ✓ server-sse-polling (pending)`.
NOT_SCORED = re.compile(r"^  [✓✗] (?P<scenario>[\w-]+) \([\w-]+\)$", re.MULTILINE)

# scenario, check id, check name, and the how-manieth of that name it is: ids and names repeat within a scenario.
Key = tuple[str, str, str, int]


class SuiteError(Exception):
    """The suite did not run."""


@dataclass
class Run:
    """All verdicts of one requirement set against one server."""

    verdicts: dict[Key, str] = field(default_factory=dict)
    messages: dict[Key, str] = field(default_factory=dict)
    not_scored: set[str] = field(default_factory=set)
    # Scenarios that were run twice, and whether the second time was better.
    again: dict[str, bool] = field(default_factory=dict)

    def failing(self) -> set[str]:
        return {key[0] for key, verdict in self.verdicts.items() if verdict == "FAILURE"}

    def replace(self, scenario: str, other: Run) -> None:
        """Takes one scenario's verdicts from another run."""
        for ours, theirs in ((self.verdicts, other.verdicts), (self.messages, other.messages)):
            for key in [key for key in ours if key[0] == scenario]:
                del ours[key]
            ours.update({key: value for key, value in theirs.items() if key[0] == scenario})

    def score(self, required_only: bool) -> str:
        counted = [
            verdict
            for key, verdict in self.verdicts.items()
            if verdict in VERDICTS and not (required_only and key[0] in self.not_scored)
        ]
        return f"{counted.count('SUCCESS')}/{len(counted)}"


def reachable(url: str) -> None:
    """Raises unless something listens there: without a server the suite still passes a third of its checks."""
    parts = urlsplit(url)
    try:
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        socket.create_connection(address, timeout=5).close()
    except (OSError, ValueError) as error:
        raise SuiteError(f"{url}: {error}") from error


def run_suite(node: str, suite: Path, url: str, requirements: str, timeout: float) -> Run:
    """Runs one requirement set, and what failed of it once more."""
    run = run_once(node, suite, url, requirements, timeout, ["--requirements", requirements])
    for scenario in sorted(run.failing()):
        # --force: scenarios of extensions are part of a requirement set and of no version.
        alone = ["--scenario", scenario, "--spec-version", requirements, "--force"]
        second = run_once(node, suite, url, requirements, timeout, alone)
        better = scenario in {key[0] for key in second.verdicts} and scenario not in second.failing()
        run.again[scenario] = better
        if better:
            run.replace(scenario, second)
    return run


def run_once(node: str, suite: Path, url: str, requirements: str, timeout: float, what: list[str]) -> Run:
    """Runs the suite once and reads what it wrote."""
    reachable(url)
    run = Run()
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        command = [node, str(suite), "server", "--url", url, *what, "--output-dir", folder]
        try:
            # The exit status says that something failed, which is what the files say in detail.
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SuiteError(f"{requirements} against {url}: {error}") from error
        for path in sorted(Path(folder).glob("*/checks.json")):
            name = FOLDER.match(path.parent.name)
            if name is None:
                raise SuiteError(f"unexpected folder {path.parent.name}: is this another version of the suite?")
            seen: Counter[tuple[str, str]] = Counter()
            for check in json.loads(path.read_text(encoding="utf-8")):
                ident = (check["id"], check.get("name", ""))
                key = (name["scenario"], *ident, seen[ident])
                seen[ident] += 1
                run.verdicts[key] = check["status"]
                run.messages[key] = check.get("errorMessage") or ""
        if not run.verdicts:
            said = (done.stderr or done.stdout).strip()[-800:]
            raise SuiteError(f"{requirements} against {url}: no checks (exit status {done.returncode})\n{said}")
        _, _, tail = done.stdout.partition("\nNot scored for ")
        run.not_scored = {found["scenario"] for found in NOT_SCORED.finditer(tail)}
    return run


def cell(value: str) -> str:
    """`value` as one cell of a Markdown table."""
    flat = " ".join(value.split()).replace("|", "\\|")
    return flat if len(flat) <= 160 else flat[:157] + "…"


def verdict_cell(run: Run | None, key: Key) -> str:
    if run is None:
        return "not run"
    verdict = run.verdicts.get(key, ABSENT)
    message = run.messages.get(key, "")
    if verdict == "SUCCESS":
        return "pass"
    return cell(f"**{verdict.lower()}**: {message}" if message else f"**{verdict.lower()}**")


def shown(direct: Run | None, gateway: Run | None) -> list[Key]:
    """The checks worth a row: those that the two sides see differently, and those that always get one."""
    runs = [run.verdicts for run in (direct, gateway) if run is not None]

    def differs(key: Key) -> bool:
        verdicts = {run.get(key, ABSENT) for run in runs}
        return len(verdicts) > 1 and not verdicts.isdisjoint(VERDICTS)

    every = {key: None for run in runs for key in run}  # in the order of the first run that has it
    return [key for key in every if key[0] == ALWAYS_SHOWN or differs(key)]


def table(results: dict[str, tuple[Run | None, Run | None]]) -> tuple[str, list[str]]:
    """The Markdown table, and one line for each check that the gateway lost."""
    rows = [
        "| Requirement set | Scenario | Check | Direct | Through the gateway |",
        "| --- | --- | --- | --- | --- |",
    ]
    lost: list[str] = []

    def summary(requirements: str, label: str, runs: tuple[Run | None, Run | None], required_only: bool) -> None:
        scores = ["not run" if run is None else run.score(required_only) for run in runs]
        rows.append(f"| **{requirements}** | *{label}* | passed / total | {scores[0]} | {scores[1]} |")

    for requirements, (direct, gateway) in results.items():
        summary(requirements, "all scenarios", (direct, gateway), required_only=False)
        summary(requirements, "required ones alone", (direct, gateway), required_only=True)

        for key in shown(direct, gateway):
            scenario, ident, name, number = key
            label = f"{name} (`{ident}`)" + (f" no. {number + 1}" if number else "")
            rows.append(
                f"| {requirements} | {scenario} | {cell(label)} "
                f"| {verdict_cell(direct, key)} | {verdict_cell(gateway, key)} |"
            )
            if direct is not None and gateway is not None and direct.verdicts.get(key) == "SUCCESS":
                if gateway.verdicts.get(key) != "SUCCESS":
                    lost.append(f"{requirements} {scenario} {name} ({ident})")
    return "\n".join(rows) + "\n" + reruns(results), lost


def reruns(results: dict[str, tuple[Run | None, Run | None]]) -> str:
    """What was run twice, as a paragraph; nothing if nothing was."""
    lines = [
        f"{requirements} {scenario} {side}: {'passed then' if better else 'failed again'}"
        for requirements, runs in results.items()
        for side, run in zip(("directly", "through the gateway"), runs, strict=True)
        if run is not None
        for scenario, better in run.again.items()
    ]
    return "\nRun a second time, because the first had a failure:\n" + "".join(f"- {line}\n" for line in lines) if lines else ""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url-direct", metavar="URL", help="the fixture itself, e.g. http://127.0.0.1:3001/mcp")
    parser.add_argument("--url-gateway", metavar="URL", help="the gateway in front of it")
    parser.add_argument("--node", default="node", help="Node 22 or later (default: node)")
    parser.add_argument("--suite", required=True, type=Path, help="folder of @modelcontextprotocol/conformance, or its dist/index.js")
    parser.add_argument("--set", action="append", choices=SETS, help="requirement set to run; may be repeated (default: both)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one set against one server (default: 300)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table to FILE as well")
    options = parser.parse_args()
    if options.url_direct is None and options.url_gateway is None:
        parser.error("give --url-direct, --url-gateway or both")
    if options.suite.is_dir():
        options.suite = options.suite / "dist" / "index.js"
    if not options.suite.is_file():
        parser.error(f"there is no suite at {options.suite}")
    return options


def main() -> int:
    options = arguments()

    def run(url: str | None, requirements: str) -> Run | None:
        if url is None:
            return None
        return run_suite(options.node, options.suite, url, requirements, options.timeout)

    try:
        results = {
            requirements: (run(options.url_direct, requirements), run(options.url_gateway, requirements))
            for requirements in options.set or SETS
        }
    except SuiteError as error:
        print(f"the suite could not be run: {error}", file=sys.stderr)
        return 2

    markdown, lost = table(results)
    print(markdown, end="")
    if options.out is not None:
        options.out.write_text(markdown, encoding="utf-8")
    for line in lost:
        print(f"lost: {line}", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
