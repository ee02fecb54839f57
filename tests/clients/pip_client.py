"""Lists and calls tools with the official Python SDK: pip_client.py URL TOKEN SERVER MODE

SERVER is one of everything-stdio, everything-http, time-stdio, fixture-stdio, fixture-http, MODE legacy (initialize) or modern
(2026-07-28). Prints one JSON line a step: {"step", "ok", "detail"}; see run.py.

MODE `crowd` opens several clients at once, all with the same ids, and each must get its own answers. MODE `hang` starts a
call that takes 30 s, says so, and waits to be killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning

# Logging, sampling and roots are deprecated since 2026-07-28; servers use them all the same.
warnings.simplefilter("ignore", MCPDeprecationWarning)

CROWD = 12
CALLS_EACH = 20
CASES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    # kind: a tool that is listed, one that is called, its arguments, what its answer holds
    "everything": ("get-sum", "echo", {"message": "through the wall"}, "through the wall"),
    "time": ("convert_time", "get_current_time", {"timezone": "UTC"}, "UTC"),
    "fixture": ("test_error_handling", "test_simple_text", {}, "simple text response"),
}


def report(step: str, ok: bool, detail: str) -> None:
    print(json.dumps({"step": step, "ok": ok, "detail": detail[:400]}), flush=True)


def innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def step(name: str, work: Callable[[], Awaitable[str]]) -> None:
    try:
        report(name, True, await asyncio.wait_for(work(), 30))
    except Exception as error:
        report(name, False, f"{type(error).__name__}: {error}")


def holds(value: Any, expected: str) -> str:
    text = value.model_dump_json(by_alias=True)
    assert expected in text, f"no {expected!r} in {text[:300]}"
    return expected


async def sample(context: Any, params: Any) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", model="none", content=types.TextContent(type="text", text="sampled by pip"))


async def elicit(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada", "username": "Ada", "email": "ada@example.org"})


async def roots(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///probe", name="probe")])


def make(url: str, token: str, modern: bool, **callbacks: Any) -> Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # A stream may be silent for longer than httpx's five seconds.
    http = httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=300))
    return Client(streamable_http_client(url, http_client=http), mode="2026-07-28" if modern else "legacy", **callbacks)


async def steps(client: Client, kind: str, transport: str, modern: bool, logs: list[Any]) -> None:
    listed, tool, arguments, says = CASES[kind]

    async def list_tools() -> str:
        return holds(await client.list_tools(), listed)

    async def call() -> str:
        return holds(await client.call_tool(tool, arguments), says)

    async def unknown() -> str:
        try:
            result = await client.call_tool("no-such-tool", {})
        except Exception:
            return "refused"
        assert result.is_error, "it answered"
        return "refused"

    async def at_once() -> str:
        for result in await asyncio.gather(*(client.call_tool(tool, arguments) for _ in range(50))):
            holds(result, says)
        return "50 answers"

    await step("tools/list", list_tools)
    await step("tools/call", call)
    await step("unknown tool", unknown)
    await step("50 at once", at_once)
    if kind == "time":
        return

    slow: tuple[str, dict[str, Any]] = ("test_tool_with_progress", {})
    if kind == "everything":
        slow = ("trigger-long-running-operation", {"duration": 0.6, "steps": 3})

    async def progress() -> str:
        seen: list[float] = []

        async def note(done: float, total: float | None, message: str | None) -> None:
            seen.append(done)

        await client.call_tool(*slow, progress_callback=note)
        for _ in range(50):  # a notification may be handled after the answer
            if len(seen) >= 3:
                break
            await asyncio.sleep(0.02)
        assert len(seen) == 3 and seen == sorted(seen), f"{seen}"
        return "3 of 3, in order"

    async def resources() -> str:
        first = (await client.list_resources()).resources[0].uri
        return holds(await client.read_resource(str(first)), str(first))

    async def prompts() -> str:
        name = "simple-prompt" if kind == "everything" else "test_simple_prompt"
        holds(await client.list_prompts(), name)
        return holds(await client.get_prompt(name), "messages")

    async def sampling() -> str:
        name = "trigger-sampling-request"
        if kind == "fixture":
            name = "test_input_required_result_sampling" if modern else "test_sampling"
        return holds(await client.call_tool(name, {"prompt": "Say something", "maxTokens": 10}), "sampled by pip")

    async def elicitation() -> str:
        if modern:
            return holds(await client.call_tool("test_input_required_result_elicitation", {}), "Hello, Ada")
        return holds(await client.call_tool("test_elicitation", {"message": "Who?"}), "Ada")

    async def logging() -> str:
        await client.call_tool("test_tool_with_logging", {})
        await asyncio.sleep(0.2)
        assert len(logs) == 3, f"{len(logs)} of 3"
        return "3 of 3"

    async def listen() -> str:
        async with client.listen(tools_list_changed=True) as subscription:
            await client.call_tool("test_trigger_tool_change", {})
            async for event in subscription:
                return type(event).__name__
        raise AssertionError("no event")

    async def updated() -> str:
        await client.subscribe_resource("test://watched-resource")
        await client.unsubscribe_resource("test://watched-resource")
        return "subscribed and back"

    async def resume() -> str:
        return holds(await client.call_tool("test_reconnection", {}), "Still here")

    await step("progress", progress)
    await step("resources", resources)
    await step("prompts", prompts)
    await step("sampling", sampling)
    if kind == "fixture":
        await step("elicitation", elicitation)
        await step("logs", logging)
        await step("listen" if modern else "subscribe", listen if modern else updated)
        if transport == "http" and not modern:
            await step("resume", resume)


async def probe(url: str, token: str, kind: str, transport: str, modern: bool) -> None:
    logs: list[Any] = []

    async def log(params: Any) -> None:
        logs.append(params)

    level: dict[str, Any] = {"log_level": "debug"} if modern else {}
    client = make(
        url, token, modern, sampling_callback=sample, elicitation_callback=elicit, list_roots_callback=roots, logging_callback=log, **level
    )
    entered = False
    try:
        async with client:
            entered = True
            report("connect", True, client.server_info.name if client.server_info else "")
            await steps(client, kind, transport, modern, logs)
        report("close", True, "")
    except Exception as error:
        found = innermost(error)
        report("close" if entered else "connect", False, f"{type(found).__name__}: {found}")


async def crowd(url: str, token: str) -> None:
    """Every client counts its ids from the same number."""

    async def one(number: int) -> None:
        async with make(url, token, False) as client:
            for turn in range(CALLS_EACH):
                message = f"client {number}, turn {turn}"
                answer = await client.call_tool("echo", {"message": message})
                assert message in answer.content[0].text, f"{message} got {answer.content[0].text}"

    async def all_of_them() -> str:
        await asyncio.gather(*(one(number) for number in range(CROWD)))
        return f"{CROWD} clients, {CROWD * CALLS_EACH} calls"

    await step("a crowd", all_of_them)


async def hang(url: str, token: str) -> None:
    async with make(url, token, False) as client:
        pending = asyncio.create_task(client.call_tool("trigger-long-running-operation", {"duration": 30, "steps": 30}))
        await asyncio.sleep(1)
        report("hang", not pending.done(), "calling")
        await pending


def main() -> None:
    url, token, server, mode = sys.argv[1:5]
    kind, _, transport = server.partition("-")
    if mode == "crowd":
        asyncio.run(crowd(url, token))
    elif mode == "hang":
        asyncio.run(hang(url, token))
    else:
        asyncio.run(probe(url, token, kind, transport, mode == "modern"))


if __name__ == "__main__":
    main()
