#!/usr/bin/env python3
"""Asks the admin API what its OpenAPI document says may be asked, and what it says may not: schemathesis over every route.

    python3 tests/schemathesis/run.py [--cache target/schemathesis] [--ringwall target/debug/ringwall] [--examples 20] [--seed 7]

The document is the gateway's own, so a new route is covered as soon as it is there. A gateway is started on free loopback ports with a fresh
DATA_DIR, with everything on that can be on, and given some of everything that can be listed: tokens, sessions, connections, a credential,
an alert, audit lines. Then schemathesis sends what the document allows and what it forbids, and follows ids from one answer to the next
request. All of its checks hold but those that schemathesis.toml takes out, with the reason: no 5xx; every status, media type and body as
documented; what is allowed accepted, what is forbidden refused; nothing without the token. At the end the gateway must still answer, have
panicked nowhere, and find its audit trail whole.

Everything is installed below the cache folder, pinned. The seed is fixed, so a run can be repeated. Exit status 0 when nothing was found, 1
otherwise, 2 when something could not be installed or started.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "support"))

import stack
from stack import Gateway, NotAvailable, Stack

HERE = Path(__file__).resolve().parent
OPERATOR = "orchestrator-token-that-is-only-used-on-loopback"
# A document with as few routes as this is not the one that is meant.
LEAST_OPERATIONS = 20
RUN_SECONDS = 600
# Some are closed on the way.
CONNECTIONS = 8

SETTINGS = {
    "ORCHESTRATOR_SECURITY_TOKEN": OPERATOR,
    "CREDENTIALS_ENCRYPTION_KEY": "01" * 32,
    "JWT_SECRET": "a-secret-that-is-only-used-on-loopback-0123456789",
}
POLICY = """
[upstream.sample]
command = ["{ringwall}", "sample-server"]

[upstream.far]
url = "http://127.0.0.1:9/mcp"
credential = "twilio"

[agent.alpha]
"""


class Admin:
    """The admin API of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.url = gateway.process.wait_for(r"^  admin   (http://[^/\s]+)")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {OPERATOR}"}
        return ask(f"{self.url}{path}", method, headers, None if body is None else json.dumps(body).encode())

    def done(self, method: str, path: str, body: object = None) -> Any:
        status, answer = self.ask(method, path, body)
        if status >= 300:
            raise NotAvailable(f"{method} {path}: {status} {answer}")
        return answer


def ask(url: str, method: str, headers: dict[str, str], body: bytes | None) -> tuple[int, Any]:
    if body is not None:
        headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode(errors="replace")


def fill(gateway: Gateway, admin: Admin) -> list[socket.socket]:
    """Some of everything that can be listed. Connections are open for as long as they are held."""
    secret = admin.done("POST", "/admin/tokens", {"agent": "alpha", "label": "the first"})["secret"]
    admin.done("POST", "/admin/tokens", {"agent": "beta", "expiresInSeconds": 3600})
    admin.done("PUT", "/admin/providers/twilio", {"credential": "AC0:secret"})
    base = gateway.url.removesuffix("/mcp")

    def grant(**fields: str) -> tuple[int, Any]:
        return ask(f"{base}/oauth/token", "POST", {}, json.dumps(fields).encode())

    status, opened = grant(grant_type="client_credentials", client_id="alpha", client_secret=secret)
    if status != 200:
        raise NotAvailable(f"no session: {status} {opened}")
    grant(grant_type="client_credentials", client_id="alpha", client_secret=secret)
    # Used twice: an alert.
    for _ in range(2):
        grant(grant_type="refresh_token", refresh_token=opened["refresh_token"])
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hello"}}}
    ask(gateway.url, "POST", {"Authorization": f"Bearer {secret}"}, json.dumps(call).encode())
    host, _, port = gateway.process.wait_for(r"^  tcp     (\S+)").rpartition(":")
    held = []
    for number in range(CONNECTIONS):
        connection = socket.create_connection((host, int(port)))
        message = {"jsonrpc": "2.0", "id": number, "method": "authenticate", "params": {"token": secret}}
        connection.sendall(json.dumps(message).encode() + b"\n")
        connection.recv(4096)
        held.append(connection)
    return held


def schemathesis(python: Path, admin: Admin, folder: Path, examples: int, seed: int) -> int:
    """Runs it over the document. Its exit status: 1 when it has found something."""
    command = [str(python.parent / "schemathesis"), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{admin.url}/admin/openapi.json"]
    command += ["--header", f"Authorization: Bearer {OPERATOR}", "--phases", "examples,coverage,fuzzing,stateful"]
    command += ["--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none"]
    command += ["--continue-on-failure", "--request-timeout", "30", "--no-color"]
    environment = stack.environment(HYPOTHESIS_STORAGE_DIRECTORY=str(folder / "hypothesis"))
    try:
        return subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, timeout=RUN_SECONDS).returncode
    except subprocess.TimeoutExpired:
        print(f"schemathesis was not done after {RUN_SECONDS} s")
        return 1


def aftermath(gateway: Gateway, admin: Admin, binary: Path) -> list[str]:
    """What must hold of the gateway when it is over."""
    faults = []
    status, _ = admin.ask("GET", "/admin/settings")
    if status != 200:
        faults.append(f"the admin API answers {status}")
    if "panicked" in gateway.process.said():
        faults.append("a thread of the gateway panicked")
    verified = subprocess.run(
        [str(binary), "audit", "verify"], cwd=gateway.process.log.parent, env=stack.environment(), capture_output=True, text=True
    )
    if verified.returncode != 0:
        faults.append(f"the audit trail is not whole: {verified.stdout}{verified.stderr}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=stack.ROOT / "target" / "schemathesis")
    parser.add_argument("--ringwall", type=Path, default=stack.default_binary())
    parser.add_argument("--examples", type=int, default=20, help="requests that are made up for each operation and phase, at most")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    binary = arguments.ringwall.resolve()
    try:
        with stack.heading("Python packages"):
            python = stack.venv(arguments.cache.resolve(), HERE)
        with Stack() as processes:
            policy = processes.folder / "policy.toml"
            policy.write_text(POLICY.format(ringwall=binary))
            gateway = processes.gateway(binary, [], **SETTINGS, RINGWALL_POLICY=str(policy))
            admin = Admin(gateway)
            held = fill(gateway, admin)
            document = admin.done("GET", "/admin/openapi.json")
            operations = sum(len(methods) for methods in document["paths"].values())
            if operations < LEAST_OPERATIONS:
                print(f"the document has {operations} operations only")
                return 1
            with stack.heading(f"{operations} operations"):
                status = schemathesis(python, admin, processes.folder, arguments.examples, arguments.seed)
            faults = aftermath(gateway, admin, binary)
            for connection in held:
                connection.close()
    except NotAvailable as error:
        print(error, file=sys.stderr)
        return 2
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if status or faults else 0


if __name__ == "__main__":
    sys.exit(main())
