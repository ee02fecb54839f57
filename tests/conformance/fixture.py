"""A Model Context Protocol server that has every tool, resource and prompt the conformance suite asks for.

It is the upstream of the conformance run: the suite (`@modelcontextprotocol/conformance` 0.2.0-alpha.12) is run against this
server directly and through Ringwall, and nothing that passes directly may fail through the gateway (`run.py`).

    python fixture.py --port 3001            # http://127.0.0.1:3001/mcp, both eras on one endpoint
    python fixture.py --port 0               # any free port; the printed line says which
    python fixture.py --stdio                # the same server as a child process
    python fixture.py --lenient-headers      # does not check Mcp-Method, Mcp-Name and Mcp-Param-*

The official Python SDK does the transport: sessions, SSE, resumption for 2025-11-25 and earlier, single exchanges and
`subscriptions/listen` for 2026-07-28. Handlers return plain wire data, so what the suite sees is what is written here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import warnings
from typing import Any

import uvicorn
from mcp.server import NotificationOptions, Server, ServerRequestContext
from mcp.server.caching import CacheHint
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ResourceUpdated, ToolsListChanged
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import (
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CompleteRequestParams,
    GetPromptRequestParams,
    JSONRPCMessage,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import catalog
import mrtr
import tasks
from catalog import Json, form, text, tool

# Logging, sampling and roots are deprecated since 2026-07-28; the suite tests them for 2025-11-25 all the same.
warnings.simplefilter("ignore", MCPDeprecationWarning)

MODERN = "2026-07-28"
RESOURCE_NOT_FOUND_BEFORE_2026 = -32002

Context = ServerRequestContext[Any, Any]
bus = InMemorySubscriptionBus()


# --- tools -------------------------------------------------------------------------------------------------------------------

CORE_TOOLS: list[Json] = [
    # Content types: tools-call-simple-text, -image, -audio, -embedded-resource, -mixed-content. The first one of the list is
    # also what http-header-validation calls without arguments, so it has to work that way.
    tool("test_simple_text", "Returns one text"),
    tool("test_image_content", "Returns one picture"),
    tool("test_audio_content", "Returns one sound"),
    tool("test_embedded_resource", "Returns one embedded resource"),
    tool("test_multiple_content_types", "Returns a text, a picture and a resource"),
    tool("test_error_handling", "Always reports an error"),  # tools-call-error
    tool("test_tool_with_progress", "Reports 0, 50 and 100 of 100"),  # tools-call-with-progress
    tool("test_tool_with_logging", "Logs three lines while it runs"),  # tools-call-with-logging
    tool("test_logging_tool", "Logs one line, if the request asked for logs"),  # server-stateless: no log without logLevel
    tool("test_sampling", "Asks the client's model", form(prompt={"type": "string"})),  # tools-call-sampling
    tool("test_elicitation", "Asks the user", form(message={"type": "string"})),  # tools-call-elicitation
    tool("test_elicitation_sep1034_defaults", "Asks with default values"),  # elicitation-sep1034-defaults
    tool("test_elicitation_sep1330_enums", "Asks with five kinds of choices"),  # elicitation-sep1330-enums
    tool("test_streaming_elicitation", "Needs the user; must not ask on the stream"),  # server-stateless
    tool("test_missing_capability", "Works only for a client that can sample"),  # server-stateless: -32021
    tool("test_trigger_tool_change", "Says that the tools have changed"),  # server-stateless: subscriptions
    tool("test_trigger_prompt_change", "Says that the prompts have changed"),  # server-stateless: subscriptions
    tool("test_trigger_resource_update", "Says that the watched resource has changed"),  # ours, for tests of routing
    tool("test_reconnection", "Closes its stream half way"),  # server-sse-polling
    tool("test_x_mcp_header", "Has parameters that are mirrored in headers", catalog.HEADER_SCHEMA),  # http-custom-header-…
    tool("json_schema_2020_12_tool", "Has a schema with unusual keywords", catalog.FULL_VOCABULARY),  # json-schema-2020-12
]
ALL_TOOLS = CORE_TOOLS + mrtr.TOOLS + tasks.TOOLS
SCHEMAS = {entry["name"]: entry["inputSchema"] for entry in ALL_TOOLS}


def _say(*content: Json) -> Json:
    return {"content": list(content)}


async def _log(ctx: Context, line: str) -> None:
    """Logs on the stream of the call. For 2026-07-28 the SDK drops it unless the request set a log level."""
    await ctx.session.send_log_message("info", line, logger="fixture", related_request_id=ctx.request_id)


async def _elicit(ctx: Context, message: str, schema: Json, prefix: str) -> Json:
    """Asks the user over the call's own stream, the way of 2025-11-25."""
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return _say(text(f"{prefix}: action={answer.action}, content={json.dumps(answer.content or {})}"))


async def _call_core(ctx: Context, name: str, arguments: Json) -> Json:
    match name:
        case "test_simple_text":
            return _say(text("This is a simple text response for testing."))
        case "test_image_content":
            return _say(catalog.image())
        case "test_audio_content":
            return _say(catalog.audio())
        case "test_embedded_resource":
            content = "This is an embedded resource content."
            return _say(catalog.embedded("test://embedded-resource", "text/plain", content))
        case "test_multiple_content_types":
            document = json.dumps({"test": "data", "value": 123})
            resource = catalog.embedded("test://mixed-content-resource", "application/json", document)
            return _say(text("Multiple content types test:"), catalog.image(), resource)
        case "test_error_handling":
            return {**_say(text("This tool intentionally returns an error for testing")), "isError": True}
        case "test_x_mcp_header":
            return _say(text(json.dumps(arguments, sort_keys=True)))
        case "json_schema_2020_12_tool":
            return _say(text("The interesting part is the schema."))

        case "test_tool_with_progress":
            for done in (0, 50, 100):
                await ctx.session.report_progress(done, 100, f"{done} of 100")
                await asyncio.sleep(0.05)
            return _say(text("progress reported"))
        case "test_tool_with_logging":
            for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
                await _log(ctx, line)
                await asyncio.sleep(0.05)
            return _say(text("three lines logged"))
        case "test_logging_tool":
            await _log(ctx, "Logged only where logs were asked for")
            return _say(text("done"))

        case "test_sampling":
            prompt = SamplingMessage(role="user", content=TextContent(type="text", text=str(arguments["prompt"])))
            reply = await ctx.session.create_message([prompt], max_tokens=100, related_request_id=ctx.request_id)
            return _say(text(f"LLM response: {getattr(reply.content, 'text', '(no text)')}"))
        case "test_elicitation":
            fields = form(
                username={"type": "string", "description": "User's response"},
                email={"type": "string", "description": "User's email address"},
            )
            return await _elicit(ctx, str(arguments["message"]), fields, "User response")
        case "test_elicitation_sep1034_defaults":
            return await _elicit(ctx, "Please look at the defaults", catalog.DEFAULTS_FORM, "Elicitation completed")
        case "test_elicitation_sep1330_enums":
            return await _elicit(ctx, "Please choose", catalog.ENUMS_FORM, "Elicitation completed")
        case "test_streaming_elicitation":
            # In 2026-07-28 a question is part of the result. Anything else on the stream would have to be a notification.
            if ctx.protocol_version != MODERN:
                return await _elicit(ctx, "What is your name?", mrtr.NAME_FORM, "Elicitation completed")
            if "user_name" in mrtr.responses(ctx):
                return _say(text("Thank you."))
            await ctx.session.report_progress(1, 2, "waiting for the user")
            return mrtr.input_required({"user_name": mrtr.ask("What is your name?", mrtr.NAME_FORM)})

        case "test_missing_capability":
            if "sampling" not in mrtr.capabilities(ctx):
                required = {"requiredCapabilities": {"sampling": {}}}
                raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs the client's sampling", required)
            return _say(text("The client can sample."))

        # Changes are announced on the listen streams of 2026-07-28 and, for a session, on its own GET stream.
        case "test_trigger_tool_change":
            await bus.publish(ToolsListChanged())
            await ctx.session.send_tool_list_changed()
            return _say(text("tools changed"))
        case "test_trigger_prompt_change":
            await bus.publish(PromptsListChanged())
            await ctx.session.send_prompt_list_changed()
            return _say(text("prompts changed"))
        case "test_trigger_resource_update":
            await bus.publish(ResourceUpdated(uri=catalog.WATCHED_URI))
            await ctx.session.send_resource_updated(catalog.WATCHED_URI)
            return _say(text("resource changed"))

        case "test_reconnection":
            # The client gets the rest by GET with Last-Event-ID. Over JSON, stdio or 2026-07-28 there is nothing to close.
            if ctx.close_sse_stream is not None:
                await ctx.close_sse_stream()
                await asyncio.sleep(0.3)
            return _say(text("Still here after the reconnection."))

    raise MCPError(INVALID_PARAMS, f"Unknown tool: {name}")


async def list_tools(ctx: Context, params: PaginatedRequestParams) -> Json:
    return {"tools": ALL_TOOLS}


async def call_tool(ctx: Context, params: CallToolRequestParams) -> Json:
    arguments = dict(params.arguments or {})
    missing = [key for key in SCHEMAS.get(params.name, {}).get("required", []) if key not in arguments]
    if missing:
        return {**_say(text(f"Missing arguments: {', '.join(missing)}")), "isError": True}
    try:
        if params.name in mrtr.NAMES:
            return await mrtr.call(ctx, params.name)
        if params.name in tasks.NAMES:
            return await tasks.call(ctx, params.name, arguments)
        return await _call_core(ctx, params.name, arguments)
    except MCPError:
        raise
    except Exception as error:  # what a tool stumbles over is the tool's result, not a fault of the protocol
        return {**_say(text(f"{type(error).__name__}: {error}")), "isError": True}


# --- everything else ---------------------------------------------------------------------------------------------------------


async def list_resources(ctx: Context, params: PaginatedRequestParams) -> Json:
    return {"resources": catalog.RESOURCES}


async def list_resource_templates(ctx: Context, params: PaginatedRequestParams) -> Json:
    return {"resourceTemplates": catalog.RESOURCE_TEMPLATES}


async def read_resource(ctx: Context, params: ReadResourceRequestParams) -> Json:
    content = catalog.read_resource(params.uri)
    if content is None:  # sep-2164-resource-not-found: the code changed with 2026-07-28
        code = INVALID_PARAMS if ctx.protocol_version == MODERN else RESOURCE_NOT_FOUND_BEFORE_2026
        raise MCPError(code, "Resource not found", {"uri": params.uri})
    return {"contents": [content]}


async def subscribe(ctx: Context, params: SubscribeRequestParams) -> Json:
    return {}


async def unsubscribe(ctx: Context, params: UnsubscribeRequestParams) -> Json:
    return {}


async def list_prompts(ctx: Context, params: PaginatedRequestParams) -> Json:
    return {"prompts": catalog.PROMPTS}


async def get_prompt(ctx: Context, params: GetPromptRequestParams) -> Json:
    if params.name == "test_input_required_result_prompt":
        if ctx.protocol_version != MODERN:
            raise MCPError(INVALID_PARAMS, "This prompt needs 2026-07-28")
        return await mrtr.prompt(ctx)
    try:
        messages = catalog.prompt_messages(params.name, params.arguments or {})
    except KeyError as error:
        raise MCPError(INVALID_PARAMS, f"Missing argument: {error.args[0]}") from error
    if messages is None:
        raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return {"messages": messages}


async def complete(ctx: Context, params: CompleteRequestParams) -> Json:
    candidates = ["paris", "park", "party", "test", "testing"]
    values = [value for value in candidates if value.startswith(params.argument.value)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


async def set_level(ctx: Context, params: SetLevelRequestParams) -> Json:
    return {}


def completed(handler: Any) -> Any:
    """Wraps a handler so that its plain result says what 2026-07-28 demands of each: that it is complete."""

    async def wrapped(ctx: Context, params: Any) -> Any:
        result = await handler(ctx, params)
        if isinstance(result, dict) and ctx.protocol_version == MODERN:
            return {"resultType": "complete", **result}
        return result

    return wrapped


class Fixture(Server[Any]):
    """The low-level server, announcing list changes in the handshake too (the SDK leaves them out by default)."""

    def create_initialization_options(self, *args: Any, **kwargs: Any) -> Any:
        changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(changes)


def build(lenient_headers: bool = False) -> Fixture:
    """The server with all of its handlers."""
    public = CacheHint(ttl_ms=60_000, scope="public")
    hints = {method: public for method in ("server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list")}
    hints["resources/read"] = CacheHint(ttl_ms=1_000, scope="private")
    server = Fixture(
        "ringwall-conformance-fixture",
        version="1.0.0",
        instructions="A server for conformance tests; it does nothing useful.",
        cache_hints=hints,
        # Mcp-Param-* is compared with this schema; without one, the SDK compares nothing.
        get_tool_input_schema=(lambda name: None) if lenient_headers else SCHEMAS.get,
    )
    server.extensions = {tasks.EXTENSION: {}}
    handlers: dict[str, tuple[Any, Any]] = {
        "tools/list": (PaginatedRequestParams, list_tools),
        "tools/call": (CallToolRequestParams, call_tool),
        "resources/list": (PaginatedRequestParams, list_resources),
        "resources/templates/list": (PaginatedRequestParams, list_resource_templates),
        "resources/read": (ReadResourceRequestParams, read_resource),
        "resources/subscribe": (SubscribeRequestParams, subscribe),
        "resources/unsubscribe": (UnsubscribeRequestParams, unsubscribe),
        "prompts/list": (PaginatedRequestParams, list_prompts),
        "prompts/get": (GetPromptRequestParams, get_prompt),
        "completion/complete": (CompleteRequestParams, complete),
        "logging/setLevel": (SetLevelRequestParams, set_level),
        "subscriptions/listen": (SubscriptionsListenRequestParams, ListenHandler(bus)),
    }
    handlers |= {method: (tasks.TaskParams, handler) for method, handler in tasks.METHODS.items()}
    for method, (params, handler) in handlers.items():
        server.add_request_handler(method, params, completed(handler))
    return server


# --- transports --------------------------------------------------------------------------------------------------------------


class Replay(EventStore):
    """Keeps the events of 2025-11-25 streams, so that a client can come back with Last-Event-ID (server-sse-polling)."""

    KEEP = 10_000

    def __init__(self) -> None:
        self._next = 1
        self._events: dict[int, tuple[str, JSONRPCMessage | None]] = {}

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        number, self._next = self._next, self._next + 1
        self._events[number] = (stream_id, message)
        self._events.pop(number - self.KEEP, None)
        return str(number)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id) if last_event_id.isdecimal() else 0
        if last not in self._events:
            return None
        stream_id = self._events[last][0]
        for number, (stream, message) in sorted(self._events.items()):
            # Only what belongs to the stream that broke, and no priming events (they carry no message).
            if number > last and stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


class PreferStream:
    """Answers a 2026-07-28 request as an event stream if its `Accept` names that type first.

    The SDK streams only when something happens before the result. server-sse-multiple-streams asks for streams by the order
    in `Accept`, and this is what lets it look at three concurrent ones, instead of noting that it got plain JSON.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        modern = headers.get(b"mcp-protocol-version") == MODERN.encode()
        if not modern or not headers.get(b"accept", b"").startswith(b"text/event-stream"):
            await self.app(scope, receive, send)
            return
        plain_json = False

        async def stream(message: Message) -> None:
            nonlocal plain_json
            if message["type"] == "http.response.start":
                kind = dict(message["headers"]).get(b"content-type", b"")
                plain_json = message["status"] == 200 and kind.startswith(b"application/json")
                if plain_json:
                    event_stream = [
                        (b"content-type", b"text/event-stream"),
                        (b"cache-control", b"no-cache"),
                        (b"x-accel-buffering", b"no"),
                    ]
                    message = {**message, "headers": event_stream}
            elif plain_json and message.get("body"):  # the whole result, in one piece and on one line
                message = {**message, "body": b"event: message\ndata: " + message["body"] + b"\n\n"}
            await send(message)

        await self.app(scope, receive, stream)


class LenientHeaders:
    """Puts the right Mcp-Method and Mcp-Name on every 2026-07-28 request, whatever the client sent.

    The SDK then has nothing to refuse: this server behaves like one that does not validate its headers, which shows that the
    gateway does it (`http-header-validation` fails directly and passes through). The version header is left alone.
    """

    NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)

        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self.app({**scope, "headers": self._corrected(scope["headers"], body)}, replay, send)

    def _corrected(self, headers: list[tuple[bytes, bytes]], body: bytes) -> list[tuple[bytes, bytes]]:
        try:
            request = json.loads(body)
            method, params = request["method"], request.get("params") or {}
            mirrored = [(b"mcp-method", method.encode("latin-1"))]
            name = params.get(self.NAMES.get(method, ""))
            if isinstance(name, str):
                mirrored.append((b"mcp-name", name.encode("latin-1")))
        except (ValueError, KeyError, TypeError, AttributeError):
            return headers
        return [pair for pair in headers if pair[0] not in (b"mcp-method", b"mcp-name")] + mirrored


async def serve_http(host: str, port: int, lenient_headers: bool) -> None:
    app: ASGIApp = PreferStream(
        build(lenient_headers).streamable_http_app(
            event_store=Replay(),
            retry_interval=200,  # milliseconds, for the `retry` field that server-sse-polling looks for
            host=host,  # loopback: the SDK then checks Host and Origin (dns-rebinding-protection)
        )
    )
    if lenient_headers:
        app = LenientHeaders(app)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=256) as listener:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        print(f"listening on http://{shown}:{listener.getsockname()[1]}/mcp", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve(sockets=[listener])


async def serve_stdio() -> None:
    server = build()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=3001, help="port to bind; 0 takes a free one (default: 3001)")
    parser.add_argument("--stdio", action="store_true", help="serve one client on stdin and stdout instead")
    parser.add_argument("--lenient-headers", action="store_true", help="accept any Mcp-Method, Mcp-Name and Mcp-Param-*")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("mcp").setLevel(logging.ERROR)
    try:
        asyncio.run(serve_stdio() if options.stdio else serve_http(options.host, options.port, options.lenient_headers))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
