"""The tasks extension (`io.modelcontextprotocol/tasks`, SEP-2663), as far as the `tasks-*` scenarios use it.

A tool that supports tasks answers `tools/call` with a task instead of a result; the client then polls `tasks/get`, answers
questions with `tasks/update` and may stop it with `tasks/cancel`. The extension is optional for a server, and the scenarios
are not scored, but through a gateway they show that methods and result types it has never heard of pass untouched.

Tools (all of them in `TOOLS`):
  greet                sync only; must never become a task
  slow_compute         a task that sleeps; without the extension, or for zero seconds, it answers at once
  failing_job          always a task; completes with `isError` (so it is refused without the extension)
  protocol_error_job   a task that fails with a JSON-RPC error
  confirm_delete       a task that waits for one answer
  multi_input          a task that waits for two answers, given one at a time
  test_tool_with_task  asks first (multi round trip), then becomes a task
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mcp.server import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import HEADER_MISMATCH, INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, RequestParams
from pydantic import ConfigDict, Field

from catalog import Json, form, text, tool
from mrtr import ask, capabilities, input_required, responses

EXTENSION = "io.modelcontextprotocol/tasks"
TTL_MS = 60_000
TERMINAL = frozenset({"completed", "failed", "cancelled"})

Context = ServerRequestContext[Any, Any]

TOOLS: list[Json] = [
    tool("greet", "Says hello; never a task", {"type": "object", "properties": {"name": {"type": "string"}}}),
    tool(
        "slow_compute",
        "Sleeps for some seconds, as a task if the client knows tasks",
        {"type": "object", "properties": {"seconds": {"type": "number"}, "label": {"type": "string"}}},
    ),
    tool("failing_job", "A task whose tool reports an error"),
    tool("protocol_error_job", "A task that breaks with a protocol error"),
    tool("confirm_delete", "A task that asks for a confirmation", {"type": "object", "properties": {"filename": {"type": "string"}}}),
    tool("multi_input", "A task that asks two questions at once"),
    tool("test_tool_with_task", "Asks for a name, then runs as a task"),
]
NAMES = frozenset(entry["name"] for entry in TOOLS)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(eq=False)
class Task:
    """One running or finished task."""

    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    status: str = "working"
    created: str = field(default_factory=_now)
    updated: str = field(default_factory=_now)
    outcome: Json = field(default_factory=dict)  # {"result": …} or {"error": …} once it has ended
    questions: dict[str, Json] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None

    def move(self, status: str, **outcome: Any) -> None:
        self.status, self.outcome, self.updated = status, outcome, _now()

    def head(self) -> Json:
        """The members that a created task and a polled one have in common."""
        return {
            "taskId": self.id,
            "status": self.status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttlMs": TTL_MS,
            "pollIntervalMs": 100,
        }

    def detail(self) -> Json:
        waiting = {"inputRequests": self.questions} if self.status == "input_required" else {}
        return {"resultType": "complete", **self.head(), **waiting, **self.outcome}

    async def question(self, **questions: Json) -> dict[str, Any]:
        """Parks the task until the client has answered all of `questions`."""
        self.questions = dict(questions)
        self.move("input_required")
        await self.answered.wait()
        self.move("working")
        return self.answers

    def answer(self, given: dict[str, Any]) -> None:
        """Takes answers to open questions; others are ignored."""
        for key in self.questions.keys() & given.keys():
            self.answers[key] = given[key]
            del self.questions[key]
        if self.status == "input_required" and not self.questions:
            self.answered.set()

    def cancel(self) -> None:
        if self.status not in TERMINAL:
            self.move("cancelled")
            if self.runner is not None:
                self.runner.cancel()


_tasks: dict[str, Task] = {}
Work = Callable[[Task], Awaitable[Json]]


def _start(work: Work) -> Json:
    """Creates a task, known to `tasks/get` before its creation is answered."""
    task = Task()
    _tasks[task.id] = task

    async def run() -> None:
        try:
            task.move("completed", result=await work(task))
        except MCPError as error:
            task.move("failed", error={"code": error.error.code, "message": error.error.message})

    task.runner = asyncio.create_task(run())
    asyncio.get_running_loop().call_later(TTL_MS / 1000 + 5, _tasks.pop, task.id, None)
    return {"resultType": "task", **task.head()}


def _missing_extension() -> MCPError:
    required = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    return MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This needs the client's tasks extension", required)


def _declared(ctx: Context) -> bool:
    return EXTENSION in (capabilities(ctx).get("extensions") or {})


async def call(ctx: Context, name: str, arguments: Json) -> Json:
    """`tools/call` for one of this module's tools."""
    if name == "greet":
        return {"content": [text(f"Hello, {arguments.get('name', 'stranger')}!")]}

    if name == "slow_compute":
        seconds, label = float(arguments.get("seconds", 0)), arguments.get("label", "")

        async def compute(_: Task) -> Json:
            await asyncio.sleep(seconds)
            return {"content": [text(f"computed {label} in {seconds:g} s")]}

        if not _declared(ctx) or seconds == 0:
            return await compute(Task())
        return _start(compute)

    if not _declared(ctx):
        raise _missing_extension()

    if name == "failing_job":

        async def fail(_: Task) -> Json:
            await asyncio.sleep(0.3)
            return {"content": [text("The job did not work out.")], "isError": True}

        return _start(fail)

    if name == "protocol_error_job":

        async def crash(_: Task) -> Json:
            await asyncio.sleep(0.3)
            raise MCPError(-32603, "The job broke")

        return _start(crash)

    if name == "confirm_delete":

        async def confirm(task: Task) -> Json:
            question = ask(f"Delete {arguments.get('filename', 'it')}?", form(confirm={"type": "boolean"}))
            answers = await task.question(confirm=question)
            done = answers["confirm"].get("action") == "accept"
            return {"content": [text("deleted" if done else "kept")]}

        return _start(confirm)

    if name == "multi_input":

        async def gather(task: Task) -> Json:
            field_form = form(name={"type": "string"})
            answers = await task.question(first=ask("First?", field_form), second=ask("Second?", field_form))
            return {"content": [text(f"{len(answers)} answers")]}

        return _start(gather)

    if name == "test_tool_with_task":
        answer = responses(ctx).get("user_name")
        if answer is None:
            return input_required({"user_name": ask("What is your name?", form(name={"type": "string"}))})
        user_name = (answer.get("content") or {}).get("name", "nobody")

        async def work(_: Task) -> Json:
            return {"content": [text(f"Done for {user_name}.")]}

        return _start(work)

    raise MCPError(INVALID_PARAMS, f"Unknown tool: {name}")


class TaskParams(RequestParams):
    model_config = ConfigDict(extra="allow", populate_by_name=True)
    task_id: str = Field(alias="taskId")
    input_responses: dict[str, Any] = Field(default_factory=dict, alias="inputResponses")


def _find(ctx: Context, params: TaskParams) -> Task:
    if not _declared(ctx):
        raise _missing_extension()
    # SEP-2663 mirrors the task id in `Mcp-Name`; the SDK knows that header only for the core methods.
    named = ctx.request.headers.get("mcp-name") if ctx.request is not None else None
    if named is not None and named != params.task_id:
        raise MCPError(HEADER_MISMATCH, "mcp-name header does not match the request body's 'taskId' parameter")
    task = _tasks.get(params.task_id)
    if task is None:
        raise MCPError(INVALID_PARAMS, f"Unknown task: {params.task_id}")
    return task


async def get(ctx: Context, params: TaskParams) -> Json:
    return _find(ctx, params).detail()


async def update(ctx: Context, params: TaskParams) -> Json:
    _find(ctx, params).answer(params.input_responses)
    return {}


async def cancel(ctx: Context, params: TaskParams) -> Json:
    _find(ctx, params).cancel()
    return {}


METHODS = {"tasks/get": get, "tasks/update": update, "tasks/cancel": cancel}
