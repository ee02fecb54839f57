"""The clients of the WebSocket and TCP doors, in front of the built-in sample server: Python `websockets`, Node `ws`, a page in headless
Chromium, and `nc`. Used by run.py.

Chromium and nc come from the system. Where one is missing, its rows say so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from stack import TOKEN, Gateway

HERE = Path(__file__).resolve().parent
WRONG = "w" * 40
# Copied beside node_modules, where packages are looked for.
SCRIPTS = ("ws_node.mjs", "browser.mjs")


@dataclass
class Case:
    """A client in one of its modes, and what it is started with; without a command it is missing."""

    client: str
    mode: str
    command: list[str] | None
    # What the audit trail says of a client that must not be let in; a page sees no more than that it was not.
    refused_as: str = ""


def chromium() -> str | None:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return None


def cases(modules: Path, python: Path, gateway: Gateway) -> list[Case]:
    url = gateway.url.replace("http://", "ws://").removesuffix("/mcp") + "/ws"
    node, browser = str(modules.parent / "ws_node.mjs"), str(modules.parent / "browser.mjs")
    found, all_cases = chromium(), []
    for mode, token in {"header": TOKEN, "message": TOKEN, "refused": WRONG}.items():
        all_cases.append(Case("websockets", mode, [str(python), str(HERE / "ws_python.py"), url, token, mode]))
    for mode, token in {"header": TOKEN, "subprotocol": TOKEN, "refused": WRONG}.items():
        all_cases.append(Case("ws", mode, ["node", node, url, token, mode]))
    for mode, token, host, refused_as in (
        ("subprotocol", TOKEN, "localhost", ""),
        ("wrong token", WRONG, "localhost", "invalid_auth"),
        ("page from elsewhere", TOKEN, "elsewhere.example", "Origin is not allowed"),
    ):
        command = [found, url, token, str(HERE / "browser_page.html"), host] if found else None
        all_cases.append(Case("chromium", mode, command and ["node", browser, *command], refused_as))
    return all_cases


def recorded(gateway: Gateway, text: str) -> int:
    """How often the audit trail says so."""
    folder = gateway.process.log.parent / "ringwall-data" / "security"
    return sum(path.read_text(errors="replace").count(text) for path in folder.iterdir() if path.is_file())


def is_recorded_again(gateway: Gateway, text: str, before: int) -> bool:
    """Whether the audit trail says so once more than before, now or in a moment."""
    deadline = time.monotonic() + 5
    while recorded(gateway, text) <= before and time.monotonic() < deadline:
        time.sleep(0.05)
    return recorded(gateway, text) == before + 1


def say(method: str | None, number: int | None, params: dict[str, object]) -> str:
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps({name: value for name, value in message.items() if value is not None}) + "\n"


def nc(gateway: Gateway, token: str, refused: bool) -> list[dict[str, object]] | None:
    """The steps of a conversation in lines: all is said at once, then `nc -N` ends its side and takes what comes."""
    if shutil.which("nc") is None:
        return None
    host, _, port = gateway.process.wait_for(r"^  tcp     (\S+)$").rpartition(":")
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "nc", "version": "1"}}
    lines = [
        say("authenticate", 1, {"token": token}),
        say("initialize", 2, hello),
        say("notifications/initialized", None, {}),
        say("tools/list", 3, {}),
        say("tools/call", 4, {"name": "echo", "arguments": {"text": "through the wall"}}),
    ]
    lines += [say("tools/call", 10 + n, {"name": "echo", "arguments": {"text": f"text {n}."}}) for n in range(50)]
    done = subprocess.run(["nc", "-N", host, port], input="".join(lines), capture_output=True, text=True, timeout=30)
    answers = {answer.get("id"): answer for answer in map(json.loads, done.stdout.splitlines())}

    def step(name: str, ok: bool, detail: object) -> dict[str, object]:
        return {"step": name, "ok": ok, "detail": str(detail)[:400]}

    if refused:
        told = answers.get(1, {}).get("error", {}).get("message") == "Authentication failed"
        return [step("authenticate", told, answers), step("close", len(answers) == 1 and done.returncode == 0, answers)]
    listed = [tool["name"] for tool in answers.get(3, {}).get("result", {}).get("tools", [])]
    each = all(f"text {n}." in json.dumps(answers.get(10 + n, {}).get("result")) for n in range(50))
    return [
        step("authenticate", answers.get(1, {}).get("result") == {"authenticated": True}, answers.get(1)),
        step("initialize", "serverInfo" in answers.get(2, {}).get("result", {}), answers.get(2)),
        step("tools/list", "echo" in listed, listed),
        step("tools/call", "through the wall" in json.dumps(answers.get(4, {}).get("result")), answers.get(4)),
        step("50 at once", each, sorted(str(number) for number in answers)),
        step("close", len(answers) == 54 and done.returncode == 0, f"{len(answers)} answers, status {done.returncode}"),
    ]
