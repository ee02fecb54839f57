"""Speaks MCP over a WebSocket with the Python package `websockets`: ws_python.py URL TOKEN MODE

MODE says how the token is shown: `header` (Authorization of the upgrade) or `message` (the first message). `refused` shows a token
that must not be let in. Prints one JSON line a step: {"step", "ok", "detail"}; see run.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import websockets

TEXT = "through the wall"


def report(step: str, ok: bool, detail: str) -> None:
    print(json.dumps({"step": step, "ok": ok, "detail": detail[:400]}), flush=True)


async def step(name: str, work: Callable[[], Awaitable[str]]) -> None:
    try:
        report(name, True, await asyncio.wait_for(work(), 30))
    except Exception as error:
        report(name, False, f"{type(error).__name__}: {error}")


class Session:
    """Requests and their answers over one connection."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.last_id = 0

    async def send(self, method: str, params: dict[str, Any], request: bool = True) -> int:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if request:
            self.last_id += 1
            message["id"] = self.last_id
        await self.socket.send(json.dumps(message))
        return self.last_id

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        sent = await self.send(method, params)
        answer = json.loads(await self.socket.recv())
        assert answer["id"] == sent, f"{answer} is no answer to {sent}"
        return answer


def initialize() -> dict[str, Any]:
    return {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "python", "version": "1"}}


async def main(url: str, token: str, mode: str) -> None:
    headers = {"Authorization": f"Bearer {token}"} if mode == "header" else {}
    socket = await websockets.connect(url, additional_headers=headers)
    session = Session(socket)

    async def authenticate() -> str:
        before = await session.ask("tools/list")
        assert before["error"]["message"] == "Authentication required", before
        answer = await session.ask("authenticate", token=token)
        assert answer["result"] == {"authenticated": True}, answer
        return "authenticated"

    async def initialized() -> str:
        answer = await session.ask("initialize", **initialize())
        await session.send("notifications/initialized", {}, request=False)
        return answer["result"]["serverInfo"]["name"]

    async def tools() -> str:
        names = [tool["name"] for tool in (await session.ask("tools/list"))["result"]["tools"]]
        assert "echo" in names, names
        return ",".join(names)

    async def call() -> str:
        answer = await session.ask("tools/call", name="echo", arguments={"text": TEXT})
        assert TEXT in json.dumps(answer["result"]), answer
        return TEXT

    async def fragments() -> str:
        sent = session.last_id = session.last_id + 1
        params = {"name": "echo", "arguments": {"text": TEXT}}
        text = json.dumps({"jsonrpc": "2.0", "id": sent, "method": "tools/call", "params": params})
        await socket.send([text[:20], text[20:21], text[21:]])
        answer = json.loads(await socket.recv())
        assert answer["id"] == sent and TEXT in json.dumps(answer["result"]), answer
        return "in three frames"

    async def at_once() -> str:
        wanted = {}
        for number in range(50):
            wanted[await session.send("tools/call", {"name": "echo", "arguments": {"text": f"text {number}."}})] = f"text {number}."
        while wanted:
            answer = json.loads(await socket.recv())
            assert wanted.pop(answer["id"]) in json.dumps(answer["result"]), answer
        return "50 answers"

    async def unknown() -> str:
        answer = await session.ask("tools/call", name="no-such-tool", arguments={})
        assert "error" in answer or answer["result"]["isError"], answer
        return "refused"

    async def ping() -> str:
        await (await socket.ping(b"there"))
        return "pong"

    async def close() -> str:
        await socket.close()
        assert (socket.close_code, socket.protocol.close_rcvd.code) == (1000, 1000), socket.close_code
        return "1000"

    if mode == "message":
        await step("authenticate", authenticate)
    for name, work in [
        ("initialize", initialized),
        ("tools/list", tools),
        ("tools/call", call),
        ("fragments", fragments),
        ("50 at once", at_once),
        ("unknown tool", unknown),
        ("ping", ping),
        ("close", close),
    ]:
        await step(name, work)


async def refused(url: str, token: str) -> None:
    """A wrong token is told so: by the upgrade's answer, or by an error and a close."""

    async def by_header() -> str:
        try:
            await websockets.connect(url, additional_headers={"Authorization": f"Bearer {token}"})
        except websockets.InvalidStatus as error:
            assert error.response.status_code in (401, 403), error
            return str(error.response.status_code)
        raise AssertionError("it was let in")

    async def by_message() -> str:
        socket = await websockets.connect(url)
        answer = await Session(socket).ask("authenticate", token=token)
        assert answer["error"]["message"] == "Authentication failed", answer
        try:
            await socket.recv()
        except websockets.ConnectionClosedError as error:
            assert error.rcvd is not None and error.rcvd.code == 1008, error
            return "1008"
        raise AssertionError("it was not closed")

    await step("header", by_header)
    await step("close", by_message)


if __name__ == "__main__":
    url, token, mode = sys.argv[1:]
    asyncio.run(refused(url, token) if mode == "refused" else main(url, token, mode))
