"""Multi round trips (2026-07-28): a tool that lacks something answers `input_required`, and the client calls it again.

The questions go out as `inputRequests`, the answers come back as `inputResponses` of a new request, together with the
`requestState` that the server gave it. These are the tools of the `input-required-*` scenarios.
"""

from __future__ import annotations

from typing import Any

from mcp.server import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

import state
from catalog import Json, form, text, tool

Context = ServerRequestContext[Any, Any]

NAME_FORM = form(name={"type": "string"})
CONFIRM_FORM = form(ok={"type": "boolean"})

TOOLS: list[Json] = [
    # -basic-elicitation, -missing-input-response, -result-type, -ignore-extra-params, -validate-input
    tool("test_input_required_result_elicitation", "Asks the user for a name"),
    tool("test_input_required_result_sampling", "Asks the model for a capital"),  # -basic-sampling
    tool("test_input_required_result_list_roots", "Asks for the client's roots"),  # -basic-list-roots
    tool("test_input_required_result_request_state", "Gives a state and wants it back"),  # -request-state
    tool("test_input_required_result_multiple_inputs", "Asks for three things at once"),  # -multiple-input-requests
    tool("test_input_required_result_multi_round", "Asks twice, one thing after the other"),  # -multi-round
    tool("test_input_required_result_tampered_state", "Refuses a state that was changed"),  # -tampered-state
    tool("test_input_required_result_capabilities", "Asks only for what the client can do"),  # -capability-check
]
NAMES = frozenset(entry["name"] for entry in TOOLS)


def capabilities(ctx: Context) -> Json:
    """What the client declared: in this very request (2026-07-28), or in the handshake before it."""
    declared = ctx.session.client_capabilities
    return {} if declared is None else declared.model_dump(by_alias=True, mode="json", exclude_none=True)


def responses(ctx: Context) -> dict[str, Any]:
    """The request's `inputResponses`. The SDK has already refused malformed ones."""
    return dict((ctx.params or {}).get("inputResponses") or {})


def ask(message: str, schema: Json) -> Json:
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def sample(prompt: str, max_tokens: int) -> Json:
    messages = [{"role": "user", "content": text(prompt)}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": max_tokens}}


def roots() -> Json:
    return {"method": "roots/list", "params": {}}


def input_required(questions: dict[str, Json], request_state: str | None = None) -> Json:
    result: Json = {"resultType": "input_required", "inputRequests": questions}
    if request_state is not None:
        result["requestState"] = request_state
    return result


def _said(value: str) -> Json:
    return {"content": [text(value)]}


def _field(answer: Any, name: str) -> str:
    content = answer.get("content") if isinstance(answer, dict) else None
    return str(content.get(name, "?")) if isinstance(content, dict) else "?"


def _verified(ctx: Context, name: str) -> Json | None:
    """The values of the request's state: None without one, an error when it is not ours."""
    given = (ctx.params or {}).get("requestState")
    if given is None:
        return None
    try:
        return state.verify(name, given)
    except state.BadState as error:
        raise MCPError(INVALID_PARAMS, str(error)) from error


async def call(ctx: Context, name: str) -> Json:
    """`tools/call` for one of this module's tools."""
    answers = responses(ctx)
    values = _verified(ctx, name)

    match name.removeprefix("test_input_required_result_"):
        case "elicitation":
            if "user_name" in answers:
                return _said(f"Hello, {_field(answers['user_name'], 'name')}!")
            return input_required({"user_name": ask("What is your name?", NAME_FORM)})

        case "sampling":
            if "capital_question" in answers:
                return _said(f"The model says: {_field(answers['capital_question'], 'text')}")
            return input_required({"capital_question": sample("What is the capital of France?", 100)})

        case "list_roots":
            if "client_roots" in answers:
                uris = [str(root.get("uri")) for root in answers["client_roots"].get("roots", [])]
                return _said(f"Roots: {', '.join(uris) or 'none'}")
            return input_required({"client_roots": roots()})

        case "request_state":
            if "confirm" in answers and values is not None:
                return _said("state-ok: the state came back unchanged")
            return input_required({"confirm": ask("Please confirm", CONFIRM_FORM)}, state.issue(name))

        case "multiple_inputs":
            wanted = {
                "user_name": ask("What is your name?", NAME_FORM),
                "greeting": sample("Generate a greeting", 50),
                "client_roots": roots(),
            }
            if values is not None and wanted.keys() <= answers.keys():
                return _said("All three came back.")
            return input_required(wanted, state.issue(name))

        case "multi_round":
            step = 1 if values is None else int(values["step"])
            if values is not None and step == 1 and "step1" in answers:
                question = ask("Step 2: What is your favorite color?", form(color={"type": "string"}))
                who = _field(answers["step1"], "name")
                return input_required({"step2": question}, state.issue(name, step=2, name=who))
            if values is not None and step == 2 and "step2" in answers:
                return _said(f"{values['name']} likes {_field(answers['step2'], 'color')}.")
            return input_required({"step1": ask("Step 1: What is your name?", NAME_FORM)}, state.issue(name, step=1))

        case "tampered_state":
            if values is not None:
                return _said("state-ok")
            return input_required({"confirm": ask("Please confirm", CONFIRM_FORM)}, state.issue(name))

        case "capabilities":
            declared = capabilities(ctx)
            questions: dict[str, Json] = {}
            if "sampling" in declared:
                questions["sample"] = sample("Say hello", 50)
            if "elicitation" in declared:
                questions["ask"] = ask("What is your name?", NAME_FORM)
            # A client that can do neither still gets a state to come back with.
            return input_required(questions, state.issue(name))

    raise MCPError(INVALID_PARAMS, f"Unknown tool: {name}")


async def prompt(ctx: Context) -> Json:
    """`prompts/get` of test_input_required_result_prompt: the same thing works outside of tools (-non-tool-request)."""
    answers = responses(ctx)
    if "user_context" in answers:
        context = _field(answers["user_context"], "context")
        return {"messages": [{"role": "user", "content": text(f"Work in this context: {context}")}]}
    question = ask("What context should the prompt use?", form(context={"type": "string"}))
    return input_required({"user_context": question})
