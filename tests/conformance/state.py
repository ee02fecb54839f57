"""`requestState` of the multi-round-trip tools: signed, so that a changed one is refused.

The client carries the state back to the server and may have changed it on the way, hence the HMAC. The key lives as long as
the process; a restart makes old states invalid, which is what a test fixture wants.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from typing import Any

_KEY = secrets.token_bytes(32)


class BadState(ValueError):
    """The state was not issued by this process, or not for this tool."""


def _mac(payload: bytes) -> bytes:
    return hmac.new(_KEY, payload, hashlib.sha256).digest()


def issue(tool: str, **values: Any) -> str:
    """A state string for `tool` that holds `values`."""
    payload = json.dumps({"tool": tool, **values}, sort_keys=True).encode()
    return base64.urlsafe_b64encode(payload).decode() + "." + _mac(payload).hex()


def verify(tool: str, state: str) -> dict[str, Any]:
    """The values inside `state`; raises BadState unless this process issued it for `tool`."""
    encoded, _, mac = state.partition(".")
    try:
        payload = base64.urlsafe_b64decode(encoded.encode("ascii"))
        given = bytes.fromhex(mac)
    except (ValueError, UnicodeEncodeError) as error:
        raise BadState("requestState is malformed") from error
    if not hmac.compare_digest(_mac(payload), given):
        raise BadState("requestState was not issued by this server")
    values: dict[str, Any] = json.loads(payload)
    if values.pop("tool") != tool:
        raise BadState("requestState belongs to another tool")
    return values
