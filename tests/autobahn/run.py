#!/usr/bin/env python3
"""The original Autobahn suite against the gateway's WebSocket, as a server and as a client.

    python3 tests/autobahn/run.py [--cache target/autobahn] [--ringwall BINARY] [--peers] [--out docs/websocket.md]

The suite is for Python 2.7 and is installed below the cache folder, pinned. Without a Python 2.7 nothing is run: the last line
then begins with `SKIPPED`, and the exit status is 0. The gateway is built with the feature `pass-through`, unless --ringwall
names one that was. What runs, all on free loopback ports:

- server: the suite's fuzzing client, and a gateway that sends back what it gets;
- server and client: the same through a second gateway, which passes on to the first;
- client: the suite's fuzzing server, a gateway that passes on to it, and a client that sends back what it gets (echo_client.py);
- with --peers: nginx and HAProxy in place of the second gateway, where they are installed, for comparison.

A case that is not good is run once more, alone, and that is told: they have windows of a second.

Exit status 0 when every case was OK or informational, 1 otherwise, 2 when something could not be installed or started.
"""

from __future__ import annotations

import argparse
import collections
import functools
import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "support"))

import echo_client
import stack
from stack import ROOT, NotAvailable, Stack, environment, free_port

HERE = Path(__file__).resolve().parent
SPEC = json.loads((HERE / "cases.json").read_text())
EXPECTED = SPEC.pop("expected")
GOOD = ("OK", "INFORMATIONAL")
# One pass of all cases takes about a minute and a half; a machine may be busy.
PASS_SECONDS = 900
CASE_SECONDS = 120
# More than so many that are not good are no accident.
MAX_AGAIN = 5
# The longest message of the suite has 16 MiB, and another may wait behind it.
SIZES = {"MAX_MESSAGE_SIZE": str(16 << 20), "MAX_BUFFER_SIZE": str(64 << 20)}

INTRODUCTION = """# WebSocket conformance

The original Autobahn suite (`autobahntestsuite` 0.8.2), cases 1 to 7, 9 and 10: framing, pings, reserved bits, opcodes, fragments,
UTF-8, closes, limits. Cases 12 and 13 are about compression, which is declined. Printed by

```sh
python3 tests/autobahn/run.py --peers --out docs/websocket.md
```

which is told about in [tests/autobahn](../tests/autobahn/README.md). MCP does not echo, so the gateway is built with the feature
`pass-through` for this: a route that takes all messages, in front of the same frames, faults, pongs and limits as `/ws`, and, as a
client, the same handshake and frames as a `ws://` upstream. The binary that is shipped does not have it.

*server* is the gateway sending back what it gets, *client* a gateway that passes on to the suite's own server, *server and client* a
gateway that passes on to another gateway. *echo server* is the suite's own (`wstest -m testeeserver`), alone and behind a gateway, nginx
and HAProxy. These two relay bytes and do not look at frames, so their rows say how good the server behind them is. Three cases (7.1.6,
7.13.1, 7.13.2) are informational to the suite: it has no expectation there.

"""


@dataclass
class Result:
    """All cases of one agent."""

    agent: str
    seconds: float
    verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)
    # Verdicts that a second run of the case alone has replaced.
    first: dict[str, tuple[str, str]] = field(default_factory=dict)

    def not_good(self) -> list[str]:
        return [case for case, verdict in self.verdicts.items() if not set(verdict) <= set(GOOD)]

    def take_again(self, other: Result) -> None:
        """Replaces what was run once more."""
        self.seconds += other.seconds
        self.first |= {case: self.verdicts[case] for case in other.verdicts if case in self.verdicts}
        self.verdicts |= other.verdicts

    def count(self, part: int) -> str:
        counts = collections.Counter(verdict[part] for verdict in self.verdicts.values())
        return ", ".join(f"{count} {name}" for name, count in counts.most_common())

    def row(self) -> str:
        return f"| {self.agent} | {len(self.verdicts)} | {self.count(0)} | {self.count(1)} |"

    def wrong(self) -> list[str]:
        cases = sorted(self.verdicts.items(), key=lambda case: [int(part) for part in case[0].split(".")])
        lines = [
            f"{self.agent}: case {case}: {behavior}, close {close}"
            for case, (behavior, close) in cases
            if behavior not in GOOD or close not in GOOD
        ]
        if len(self.verdicts) != EXPECTED:
            lines.append(f"{self.agent}: {len(self.verdicts)} cases were run, not {EXPECTED}")
        return lines


def python2() -> str | None:
    """A Python 2.7 that runs; version managers have launchers that do not."""
    known = [os.environ.get("PYTHON2", ""), "python2.7", "python2"]
    root = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    for name in known + sorted(glob.glob(f"{root}/versions/2.7*/bin/python2.7")):
        path = shutil.which(name) if name else None
        if path is None:
            continue
        said = subprocess.run([path, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if said.stdout.strip() == "(2, 7)":
            return path
    return None


def install(cache: Path, python: str) -> Path:
    """The folder with the suite."""
    folder = cache / "suite"
    requirements = HERE / "requirements.txt"
    stamp = stack.fresh(folder, [requirements])
    if stamp is not None:
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        stack.run([*command, "--target", str(folder), "-r", str(requirements)], ROOT)
        (folder / "stamp").write_text(stamp)
    return folder


def build(cache: Path) -> Path:
    """A gateway with the route. It is moved aside: the binary without it keeps its place."""
    env = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target")}
    cargo = ["cargo", "build", "--quiet", "--locked", "--bin", "ringwall"]
    stack.run([*cargo, "--features", "pass-through"], ROOT, env)
    binary = cache / "ringwall-pass-through"
    shutil.copy(ROOT / "target" / "debug" / "ringwall", binary)
    stack.run(cargo, ROOT, env)
    return binary


class Suite:
    """The suite and a gateway, ready to run."""

    def __init__(self, python: str, folder: Path, binary: Path, cases: list[str]) -> None:
        self.command = [python, str(HERE / "wstest.py"), str(folder)]
        self.binary = binary
        self.cases = cases

    def gateway(self, running: Stack, beyond: str) -> tuple[str, int]:
        """The address of a gateway that passes on to `beyond`."""
        gateway = running.gateway(self.binary, [], token="", RINGWALL_PASS_THROUGH=beyond, **SIZES)
        url = urllib.parse.urlsplit(gateway.url)
        return str(url.hostname), int(url.port or 0)

    def again(self, result: Result, once: Callable[[list[str]], Result]) -> Result:
        """Cases have windows of a second, in which a busy machine may stand still: what was not good, if it is not much, is run once more."""
        if 0 < len(cases := result.not_good()) <= MAX_AGAIN:
            result.take_again(once(cases))
        return result

    def start(self, running: Stack, mode: str, spec: dict[str, object]) -> tuple[stack.Process, Path]:
        reports = running.folder / f"reports-{mode}"
        path = running.folder / f"{mode}.json"
        path.write_text(json.dumps({**SPEC, "outdir": str(reports), "options": {"failByDrop": False}, **spec}))
        process = running.start(mode, [*self.command, "-m", mode, "-s", str(path)], environment())
        return process, reports

    def server(self, agent: str, url: str, cases: list[str]) -> Result:
        """The fuzzing client against a server."""
        with stack.heading(agent), Stack() as running:
            began = time.monotonic()
            servers = [{"agent": agent, "url": url}]
            process, reports = self.start(running, "fuzzingclient", {"servers": servers, "cases": cases})
            try:
                process.child.wait(PASS_SECONDS)
            except subprocess.TimeoutExpired as expired:
                raise NotAvailable(f"{agent}: not done after {PASS_SECONDS} s\n{process.said()[-1500:]}") from expired
            return read(reports, agent, time.monotonic() - began, process)

    def before_another(self, running: Stack) -> dict[str, str]:
        """An echo server that is not ours: alone, behind a gateway, behind nginx and HAProxy."""
        port = free_port()
        echo = [*self.command, "-m", "testeeserver", "-w", f"ws://127.0.0.1:{port}"]
        await_port(running.start("testee", echo, environment()), port)
        host, gateway = self.gateway(running, f"ws://127.0.0.1:{port}")
        urls = {"echo server": f"ws://127.0.0.1:{port}/", "echo server behind ringwall": f"ws://{host}:{gateway}/pass-through/"}
        for name in ("nginx", "haproxy"):
            url = peer(running, name, port)
            if url is not None:
                urls[f"echo server behind {name}"] = url
        return urls

    def count(self, process: stack.Process, address: tuple[str, int]) -> int:
        """How many cases the fuzzing server has, once it answers: that its port is open does not say that it is its own."""
        deadline = time.monotonic() + stack.START_SECONDS
        while process.child.poll() is None and time.monotonic() < deadline:
            match echo_client.ask(address, "/pass-through/getCaseCount", CASE_SECONDS):
                case [count]:
                    return int(count)
                case said:
                    print(f"the fuzzing server does not count its cases yet: {said}", file=sys.stderr)
                    time.sleep(0.2)
        raise NotAvailable(f"the fuzzing server does not answer:\n{process.said()[-1500:]}")

    def client(self, agent: str, cases: list[str]) -> Result:
        """A gateway in front of the fuzzing server."""
        with stack.heading(agent), Stack() as running:
            began = time.monotonic()
            port = free_port()
            process, reports = self.start(running, "fuzzingserver", {"url": f"ws://127.0.0.1:{port}", "webport": 0, "cases": cases})
            await_port(process, port)
            address = self.gateway(running, f"ws://127.0.0.1:{port}")
            count = self.count(process, address)
            name = urllib.parse.quote(agent)
            for case in range(1, count + 1):
                try:
                    echo_client.echo(address, f"/pass-through/runCase?case={case}&agent={name}", CASE_SECONDS)
                except (echo_client.Ended, OSError):
                    # The suite says what it thinks of that.
                    pass
                if time.monotonic() - began > PASS_SECONDS:
                    raise NotAvailable(f"{agent}: not done after {PASS_SECONDS} s, at case {case} of {count}")
            deadline = time.monotonic() + CASE_SECONDS
            while True:
                # The suite may still be waiting for the end of the last case.
                echo_client.ask(address, f"/pass-through/updateReports?agent={name}", CASE_SECONDS)
                result = read(reports, agent, time.monotonic() - began, process)
                if len(result.verdicts) >= count or time.monotonic() > deadline:
                    return result
                time.sleep(0.2)


def read(reports: Path, agent: str, seconds: float, process: stack.Process) -> Result:
    index = reports / "index.json"
    if not index.is_file():
        raise NotAvailable(f"{agent}: no report\n{process.said()[-1500:]}")
    cases = json.loads(index.read_text())[agent]
    return Result(agent, seconds, {case: (one["behavior"], one["behaviorClose"]) for case, one in cases.items()})


def await_port(process: stack.Process, port: int) -> None:
    deadline = time.monotonic() + stack.START_SECONDS
    while time.monotonic() < deadline and process.child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise NotAvailable(f"{process.name} did not start:\n{process.said()[-1500:]}")


def peer(running: Stack, name: str, upstream: int) -> str | None:
    """The URL of nginx or HAProxy in front of a port; None where it is not installed."""
    binary = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        return None
    port = free_port()
    text = (HERE / f"{name}.conf").read_text()
    for mark, value in {"@DIR@": running.folder, "@PORT@": port, "@UPSTREAM@": upstream}.items():
        text = text.replace(mark, str(value))
    path = running.folder / f"{name}.conf"
    path.write_text(text)
    command = [binary, "-c", str(path)] if name == "nginx" else [binary, "-db", "-f", str(path)]
    await_port(running.start(name, command, environment()), port)
    return f"ws://127.0.0.1:{port}/"


def run(suite: Suite, peers: bool) -> list[Result]:
    with Stack() as running:
        host, port = suite.gateway(running, "echo")
        _, second = suite.gateway(running, f"ws://{host}:{port}")
        urls = {
            "ringwall, server": f"ws://{host}:{port}/pass-through/",
            # The first prefix is the second gateway's.
            "ringwall, server and client": f"ws://{host}:{second}/pass-through/pass-through/",
        }
        if peers:
            urls |= suite.before_another(running)
        results = []
        for agent, url in urls.items():
            once = functools.partial(suite.server, agent, url)
            results.append(suite.again(once(suite.cases), once))
        once = functools.partial(suite.client, "ringwall, client")
        results.insert(2, suite.again(once(suite.cases), once))
        return results


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cache = Path(os.environ.get("RINGWALL_AUTOBAHN_CACHE", ROOT / "target" / "autobahn"))
    parser.add_argument("--cache", type=Path, default=cache, help="where the suite is kept (default: $RINGWALL_AUTOBAHN_CACHE, else target/autobahn)")
    parser.add_argument("--ringwall", type=Path, help="a gateway with the feature pass-through (default: one is built)")
    parser.add_argument("--peers", action="store_true", help="run nginx and HAProxy as well")
    parser.add_argument("--cases", help="these alone, such as 7.*,9.1.6")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table to FILE as well, with an introduction")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    python = python2()
    if python is None:
        print("SKIPPED: the Autobahn suite needs a Python 2.7, and there is none (PYTHON2 may name one)")
        return 0
    global EXPECTED
    cases = options.cases.split(",") if options.cases else SPEC["cases"]
    try:
        options.cache.mkdir(parents=True, exist_ok=True)
        with stack.heading("the Autobahn suite"):
            folder = install(options.cache.resolve(), python)
        with stack.heading("the gateway with its pass-through route"):
            binary = options.ringwall or build(options.cache.resolve())
        results = run(Suite(python, folder, binary.resolve(), cases), options.peers)
    except NotAvailable as error:
        print(f"not available: {error}", file=sys.stderr)
        return 2
    if options.cases:
        EXPECTED = len(results[0].verdicts)
    lines = ["| Agent | Cases | Behavior | Close |", "| --- | --- | --- | --- |"]
    lines += [result.row() for result in results]
    wrong = [line for result in results for line in result.wrong()]
    if wrong:
        lines += ["", "Neither OK nor informational:", ""] + [f"- {line}" for line in wrong]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    for result in results:
        print(f"{result.agent}: {result.seconds:.0f} s", file=sys.stderr)
        for case, (behavior, close) in result.first.items():
            print(f"{result.agent}: case {case} was run twice; first: {behavior}, close {close}")
    if options.out is not None:
        options.out.write_text(INTRODUCTION + text, encoding="utf-8")
    return 1 if any(line.startswith("ringwall") for line in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
