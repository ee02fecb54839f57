#!/usr/bin/env python3
"""Official MCP clients list and call tools through the gateway, in front of real servers.

    python3 tests/clients/run.py --cache target/clients [--ringwall target/debug/ringwall] [--only npm-v1:everything-http]

Clients: npm `@modelcontextprotocol/sdk` (v1) and `@modelcontextprotocol/client` (v2), PyPI `mcp`, crate `rmcp`. Servers: npm
`@modelcontextprotocol/server-everything` over stdio and Streamable HTTP, PyPI `mcp-server-time` over stdio, and the conformance
fixture over both. The gateway asks for a token, so each client sends one. Then a crowd of clients shares one stdio server, a
client is killed in the middle of a call, and clients without the token are refused. The clients of the WebSocket and TCP doors
(doors.py) follow: `websockets`, `ws`, a page in headless Chromium, `nc`.

Everything is installed below the cache folder, pinned. Prints one table; exit status 1 when any step of any run failed, 2 when
something could not be installed or started.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "support"))

import doors
import stack
from stack import FIXTURE, ROOT, TOKEN, Gateway, NotAvailable, Stack

HERE = Path(__file__).resolve().parent
LEGACY_AND_MODERN = ("legacy", "modern")
# client: the eras it can speak
CLIENTS = {"npm-v1": ("legacy",), "npm-v2": LEGACY_AND_MODERN, "pip": LEGACY_AND_MODERN, "rmcp": LEGACY_AND_MODERN}
# server: the eras it can speak. server-everything is built on the v1 SDK, which has 2025-11-25 and before.
SERVERS = {
    "everything-stdio": ("legacy",),
    "everything-http": ("legacy",),
    "time-stdio": LEGACY_AND_MODERN,
    "fixture-stdio": LEGACY_AND_MODERN,
    "fixture-http": LEGACY_AND_MODERN,
    "sample": (),
}
RUN_SECONDS = 120

INTRODUCTION = """# Official clients through the gateway

Each official MCP client against each server, the gateway in between and asking for a token. Printed by

```sh
python3 tests/clients/run.py --cache target/clients --out docs/clients.md
```

which installs clients and servers below the cache folder, pinned in `tests/clients` (`package-lock.json`, `requirements.txt`,
`rmcp/Cargo.lock`), and starts servers and gateways on free loopback ports. The same command is a step of `.ci/run`.

Clients: `npm-v1` is `@modelcontextprotocol/sdk`, `npm-v2` `@modelcontextprotocol/client`, `pip` the PyPI package `mcp`, `rmcp` the
crate. Servers: `everything` is `@modelcontextprotocol/server-everything`, `time` the PyPI package `mcp-server-time`, `fixture`
`tests/conformance/fixture.py`. Eras: `legacy` begins with `initialize`, `modern` is 2026-07-28, where client and server have it.
The steps of a run are in the clients' files: connect, list and call tools, 50 calls at once, progress, cancellation, resources,
prompts, completion, sampling, roots, elicitation, logs, subscriptions, resumption, as far as client and server have them.

The last rows are the WebSocket and TCP doors, in front of the built-in sample server: `websockets` is the PyPI package, `ws` the npm
package, `chromium` a page in headless Chromium, `nc` netcat. They show their token in the `Authorization` of the upgrade (`header`), in
a subprotocol, as pages must, or in the first message. A page from an origin that is not allowed does not get in, whatever its token;
of such refusals the audit trail is looked at as well. Chromium and nc are the system's (Debian: `chromium`, `netcat-openbsd`).

"""


@dataclass
class Run:
    """One client against one server."""

    client: str
    server: str
    mode: str
    seconds: float = 0.0
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: str = ""

    def row(self) -> str:
        steps = f"{self.passed}/{self.passed + len(self.failed)}"
        failed = "; ".join(self.failed).replace("|", "\\|").replace("\n", " ") or self.skipped
        return f"| {self.client} | {self.server} | {self.mode} | {steps} | {failed} |"


@dataclass
class Tools:
    """Where everything is."""

    modules: Path
    python: Path
    rmcp: Path

    def command(self, client: str, url: str, token: str, server: str, mode: str) -> list[str]:
        if client.startswith("npm-"):
            # Packages are looked for beside the script: a copy stands in the cache.
            script = str(self.modules.parent / "npm_client.mjs")
            return ["node", script, client.removeprefix("npm-"), url, token, server, mode]
        if client == "pip":
            return [str(self.python), str(HERE / "pip_client.py"), url, token, server, mode]
        return [str(self.rmcp), url, token, server.partition("-")[0], mode]

    def upstream(self, stack: Stack, server: str) -> list[str]:
        """Starts `server` where it is not the gateway that does."""
        match server:
            case "everything-http":
                return ["--upstream", stack.everything(self.modules)]
            case "fixture-http":
                return ["--upstream", stack.fixture(self.python)]
            case "everything-stdio":
                script = self.modules / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
                return ["--", "node", str(script), "stdio"]
            case "sample":
                return []
            case "time-stdio":
                return ["--", str(self.python), "-m", "mcp_server_time"]
            case _:
                return ["--", str(self.python), str(FIXTURE), "--stdio"]



def install(cache: Path, clients: list[str]) -> Tools:
    with stack.heading("npm packages"):
        modules = stack.npm(cache, HERE)
        for script in ("npm_client.mjs", *doors.SCRIPTS):
            (modules.parent / script).write_bytes((HERE / script).read_bytes())
    with stack.heading("Python packages"):
        python = stack.venv(cache, HERE)
    target = cache / "rmcp"
    if "rmcp" in clients:
        with stack.heading("the rmcp client"):
            command = ["cargo", "build", "--locked", "--quiet", "--manifest-path", str(HERE / "rmcp" / "Cargo.toml")]
            # Flags of the caller (loom, fuzzing) are not for this build.
            env = {name: value for name, value in os.environ.items() if name != "RUSTFLAGS"} | {"CARGO_TARGET_DIR": str(target)}
            built = subprocess.run(command, env=env, stdin=subprocess.DEVNULL)
            if built.returncode != 0:
                raise NotAvailable("the rmcp client does not build")
    return Tools(modules, python, target / "debug" / "ringwall-client-rmcp")


def take_steps(run: Run, output: str) -> None:
    """Reads one JSON line a step. A run that never came to its last step has failed there."""
    last = ""
    for line in output.splitlines():
        try:
            step = json.loads(line)
            last, ok, detail = step["step"], step["ok"], step["detail"]
        except (ValueError, KeyError, TypeError):
            continue
        if ok:
            run.passed += 1
        else:
            run.failed.append(f"{last}: {detail}")
    if last != "close" and not run.failed:
        run.failed.append(f"ended after {last or 'nothing'}")


def start(run: Run, command: list[str]) -> None:
    """Starts a client and takes its steps."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=RUN_SECONDS)
        take_steps(run, done.stdout)
        if run.failed and done.stderr.strip():
            print(f"{run.client} {run.server} {run.mode}: {done.stderr.strip()[-1500:]}", file=sys.stderr)
    except subprocess.TimeoutExpired as expired:
        take_steps(run, (expired.stdout or b"").decode(errors="replace"))
        run.failed.append(f"not done after {RUN_SECONDS} s")
    run.seconds = time.monotonic() - began


def probe(tools: Tools, gateway: Gateway, client: str, server: str, mode: str) -> Run:
    run = Run(client, server, mode)
    start(run, tools.command(client, gateway.url, TOKEN, server, mode))
    return run


def refused(tools: Tools, gateway: Gateway, client: str, token: str, kind: str) -> Run:
    """A client with the wrong token, or none, must get nowhere."""
    run = Run(client, "everything-stdio", kind)
    command = tools.command(client, gateway.url, token, "everything-stdio", "legacy")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=RUN_SECONDS)
    first = done.stdout.splitlines()[0] if done.stdout else "{}"
    answer = json.loads(first)
    if answer.get("step") == "connect" and answer.get("ok") is False:
        run.passed = 1
    else:
        run.failed.append(f"not refused: {first}")
    return run


def crowd(tools: Tools, gateway: Gateway) -> Run:
    """Many clients share one stdio server. All count their ids from the same number."""
    run = Run("pip", "everything-stdio", "12 clients at once")
    command = tools.command("pip", gateway.url, TOKEN, "everything-stdio", "crowd")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=RUN_SECONDS)
    take_steps(run, done.stdout + '{"step": "close", "ok": true, "detail": ""}')
    return run


def killed(tools: Tools, gateway: Gateway) -> Run:
    """A client that is killed in the middle of a call takes nothing with it: others work, and its connections are gone."""
    run = Run("pip", "everything-stdio", "killed mid-call")
    victim = subprocess.Popen(
        tools.command("pip", gateway.url, TOKEN, "everything-stdio", "hang"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert victim.stdout is not None
    said = victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    if '"ok": true' in said:
        run.passed += 1
    else:
        run.failed.append(f"the call was not under way: {said}")
    after = probe(tools, gateway, "pip", "everything-stdio", "legacy")
    run.passed += after.passed
    run.failed += after.failed
    deadline = time.monotonic() + 10
    while (open_now := json.loads(gateway.health())["connections"]["http"]) > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    if open_now == 0:
        run.passed += 1
    else:
        run.failed.append(f"{open_now} connections are still open")
    return run


def through_doors(tools: Tools, gateway: Gateway) -> list[Run]:
    """The clients of the WebSocket and TCP doors."""
    runs = []
    for case in doors.cases(tools.modules, tools.python, gateway):
        run = Run(case.client, "sample", case.mode)
        runs.append(run)
        if case.command is None:
            missing(run)
            continue
        before = doors.recorded(gateway, case.refused_as) if case.refused_as else 0
        start(run, case.command)
        if case.refused_as:
            told = run.passed == 0 and len(run.failed) == 1 and run.failed[0].startswith("connect: not let in")
            refused = told and doors.is_recorded_again(gateway, case.refused_as, before)
            run.passed, run.failed = (2, []) if refused else (run.passed, [f"not refused as {case.refused_as}: {run.failed}"])
    for mode, token in {"message": TOKEN, "refused": doors.WRONG}.items():
        run = Run("nc", "sample", mode)
        runs.append(run)
        steps = doors.nc(gateway, token, refused=mode == "refused")
        if steps is None:
            missing(run)
        else:
            take_steps(run, "\n".join(json.dumps(step) for step in steps))
    return runs


def missing(run: Run) -> None:
    """A client of the system that is not there is passed over, visibly."""
    run.skipped = f"SKIPPED: {run.client} is not installed"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "target" / "clients", help="where packages are kept (default: target/clients)")
    parser.add_argument("--ringwall", type=Path, default=stack.default_binary(), help="the gateway (default: the one in target/)")
    parser.add_argument("--only", metavar="CLIENT:SERVER", help="one pair alone; either side may be left empty")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table to FILE as well, with an introduction")
    options = parser.parse_args()
    options.cache, options.ringwall = options.cache.resolve(), options.ringwall.resolve()
    if not options.ringwall.is_file():
        parser.error(f"there is no gateway at {options.ringwall}: cargo build")
    return options


def main() -> int:
    options = arguments()
    only_client, _, only_server = (options.only or "").partition(":")
    clients = [name for name in CLIENTS if only_client in ("", name)]
    servers = [name for name in SERVERS if only_server in ("", name)]
    runs: list[Run] = []
    try:
        tools = install(options.cache, clients)
        for server in servers:
            with stack.heading(server), Stack() as running:
                gateway = running.gateway(options.ringwall, tools.upstream(running, server), TCP_AUTH_TOKEN=TOKEN)
                if server == "sample":
                    runs += through_doors(tools, gateway)
                for client in clients:
                    for mode in CLIENTS[client]:
                        if mode in SERVERS[server]:
                            runs.append(probe(tools, gateway, client, server, mode))
                if server == "everything-stdio" and options.only is None:
                    runs += [crowd(tools, gateway), killed(tools, gateway)]
                    runs += [refused(tools, gateway, client, "", "no token") for client in clients]
                    runs += [refused(tools, gateway, client, "w" * 40, "wrong token") for client in clients]
                status = gateway.process.stop()
                if status != 0:
                    runs.append(Run("gateway", server, "SIGTERM", failed=[f"exit status {status}: {gateway.process.said()[-300:]}"]))
                if any(run.failed for run in runs if run.server == server):
                    print(f"--- gateway in front of {server}\n{gateway.process.said()[-4000:]}", file=sys.stderr)
    except NotAvailable as error:
        print(f"not available: {error}", file=sys.stderr)
        return 2
    table = ["| Client | Server | Era or case | Steps passed | Failed |", "| --- | --- | --- | --- | --- |"]
    table += [run.row() for run in runs]
    text = "\n".join(table) + "\n"
    print(text, end="")
    if options.out is not None:
        options.out.write_text(INTRODUCTION + text, encoding="utf-8")
    return 1 if any(run.failed for run in runs) or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
