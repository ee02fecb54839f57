"""What the fixture serves, as plain wire data: resources, prompts, the tool list and their schemas.

Everything in here is a constant or a pure function, so the handlers in `fixture.py` stay short. Names, URIs and texts are
dictated by the scenarios of `@modelcontextprotocol/conformance`; each entry says which scenario wants it.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

Json = dict[str, Any]


# --- media -------------------------------------------------------------------------------------------------------------------


def _png() -> str:
    """A valid 1x1 red PNG, built here so that no opaque blob sits in the source."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00\xff\x00\x00")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + image).decode()


def _wav() -> str:
    """A valid mono 8 kHz WAV of eight silent samples."""
    samples = bytes(16)
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    body = b"WAVE" + fmt + struct.pack("<4sI", b"data", len(samples)) + samples
    return base64.b64encode(struct.pack("<4sI", b"RIFF", len(body)) + body).decode()


PNG = _png()
WAV = _wav()


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def image() -> Json:
    return {"type": "image", "data": PNG, "mimeType": "image/png"}


def audio() -> Json:
    return {"type": "audio", "data": WAV, "mimeType": "audio/wav"}


def embedded(uri: str, mime: str, value: str) -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": value}}


# --- resources ---------------------------------------------------------------------------------------------------------------

WATCHED_URI = "test://watched-resource"
TEMPLATE_PREFIX, TEMPLATE_SUFFIX = "test://template/", "/data"

RESOURCES: list[Json] = [
    # resources-read-text; also the one `caching` reads, because it is the first of the list.
    {"uri": "test://static-text", "name": "static-text", "description": "A fixed text", "mimeType": "text/plain"},
    # resources-read-binary
    {"uri": "test://static-binary", "name": "static-binary", "description": "A fixed picture", "mimeType": "image/png"},
    # resources-subscribe and resources-unsubscribe (2025-11-25)
    {"uri": WATCHED_URI, "name": "watched-resource", "description": "Can be subscribed to", "mimeType": "text/plain"},
]

RESOURCE_TEMPLATES: list[Json] = [
    # resources-templates-read
    {
        "uriTemplate": TEMPLATE_PREFIX + "{id}" + TEMPLATE_SUFFIX,
        "name": "template",
        "description": "Puts the id into a small JSON document",
        "mimeType": "application/json",
    }
]


def read_resource(uri: str) -> Json | None:
    """The one content block of a resource, or None when there is no such resource."""
    if uri == "test://static-text":
        return {"uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource."}
    if uri == "test://static-binary":
        return {"uri": uri, "mimeType": "image/png", "blob": PNG}
    if uri == WATCHED_URI:
        return {"uri": uri, "mimeType": "text/plain", "text": "Nothing has changed yet."}
    if uri.startswith(TEMPLATE_PREFIX) and uri.endswith(TEMPLATE_SUFFIX):
        ident = uri[len(TEMPLATE_PREFIX) : -len(TEMPLATE_SUFFIX)]
        if ident and "/" not in ident:
            document = {"id": ident, "templateTest": True, "data": f"Data for ID: {ident}"}
            return {"uri": uri, "mimeType": "application/json", "text": json.dumps(document)}
    return None


# --- prompts -----------------------------------------------------------------------------------------------------------------


def _argument(name: str, description: str) -> Json:
    return {"name": name, "description": description, "required": True}


PROMPTS: list[Json] = [
    {"name": "test_simple_prompt", "description": "No arguments, one message"},
    {
        "name": "test_prompt_with_arguments",
        "description": "Two arguments, repeated in the message; also the target of completion-complete",
        "arguments": [_argument("arg1", "First argument"), _argument("arg2", "Second argument")],
    },
    {
        "name": "test_prompt_with_embedded_resource",
        "description": "A message that embeds a resource",
        "arguments": [_argument("resourceUri", "URI that the embedded resource gets")],
    },
    {"name": "test_prompt_with_image", "description": "A message that holds a picture"},
    {"name": "test_input_required_result_prompt", "description": "Asks for a context first (input-required-result-non-tool-request)"},
]


def user(content: Json) -> Json:
    return {"role": "user", "content": content}


def prompt_messages(name: str, arguments: dict[str, str]) -> list[Json] | None:
    """The messages of a prompt that needs no further input, or None when there is no such prompt."""
    if name == "test_simple_prompt":
        return [user(text("This is a simple prompt for testing."))]
    if name == "test_prompt_with_arguments":
        return [user(text(f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'"))]
    if name == "test_prompt_with_embedded_resource":
        block = embedded(arguments["resourceUri"], "text/plain", "Embedded resource content for testing.")
        return [user(block), user(text("Please process the embedded resource above."))]
    if name == "test_prompt_with_image":
        return [user(image()), user(text("Please analyze the image above."))]
    return None


# --- schemas -----------------------------------------------------------------------------------------------------------------

EMPTY: Json = {"type": "object", "properties": {}}


def form(**properties: Json) -> Json:
    """An object schema that requires all of its properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


# elicitation-sep1034-defaults: one field of every primitive type, each with the default that the scenario looks for.
DEFAULTS_FORM: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Name", "default": "John Doe"},
        "age": {"type": "integer", "title": "Age", "default": 30},
        "score": {"type": "number", "title": "Score", "default": 95.5},
        "status": {"type": "string", "title": "Status", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "title": "Verified", "default": True},
    },
}


def _titled(noun: str) -> list[Json]:
    return [{"const": f"value{n}", "title": f"{word} {noun}"} for n, word in enumerate(("First", "Second", "Third"), 1)]


# elicitation-sep1330-enums: the five ways to spell a choice.
ENUMS_FORM: Json = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": _titled("Option")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": _titled("Choice")}},
    },
}

# json-schema-2020-12: keywords that a lazy server or gateway would drop from tools/list. The scenario looks for `$schema`,
# `$defs.address` with an `$anchor`, an `anyOf` inside `allOf`, `if`/`then`/`else` and `additionalProperties: false`.
FULL_VOCABULARY: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "postal",
            "type": "object",
            "properties": {"line": {"type": "string"}, "town": {"type": "string"}},
        }
    },
    "properties": {
        "recipient": {"type": "string"},
        "home": {"$ref": "#/$defs/address"},
        "pickup": {"type": "boolean"},
        "shop": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["home"]}, {"required": ["shop"]}]}],
    "if": {"properties": {"pickup": {"const": True}}, "required": ["pickup"]},
    "then": {"required": ["shop"]},
    "else": {"required": ["home"]},
    "additionalProperties": False,
}

# http-custom-header-server-validation: `region` is the string the scenario works on. The others are there for tests of the
# gateway: an integer (compared as a number), a boolean, and a property below another one.
HEADER_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "priority": {"type": "integer", "x-mcp-header": "Priority"},
        "dryRun": {"type": "boolean", "x-mcp-header": "Dry-Run"},
        "tenant": {"type": "object", "properties": {"id": {"type": "string", "x-mcp-header": "Tenant-Id"}}},
        "note": {"type": "string"},
    },
}


def tool(name: str, description: str, schema: Json = EMPTY) -> Json:
    return {"name": name, "description": description, "inputSchema": schema}
