"""The client behind the gateway: asks the fuzzing server for one case after the other and sends back what it says.

Frames as in RFC 6455 §5.2, read in order, so that a Close is answered after what was said before it. Only the standard library.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from collections.abc import Iterator

CLOSE, PING, PONG = 8, 9, 10


class Ended(Exception):
    """The other side has ended the connection."""


class Client:
    """One WebSocket."""

    def __init__(self, address: tuple[str, int], target: str, timeout_s: float) -> None:
        self.socket = socket.create_connection(address, timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        status = self.received.readline()
        if b" 101 " not in status:
            raise Ended(f"the upgrade was answered with {status!r}")
        while self.received.readline().strip():
            pass

    def close(self) -> None:
        self.received.close()
        self.socket.close()

    def _read(self, count: int) -> bytes:
        read = self.received.read(count)
        if len(read) < count:
            raise Ended("without a Close")
        return read

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of each frame. The gateway sends every message in one frame and masks none."""
        while True:
            first, second = self._read(2)
            if first & 0xF0 != 0x80 or second & 0x80:
                raise Ended(f"a frame that begins with {first:02x} {second:02x}")
            length = second
            if second == 126:
                (length,) = struct.unpack("!H", self._read(2))
            elif second == 127:
                (length,) = struct.unpack("!Q", self._read(8))
            yield first & 0xF, self._read(length)

    def send(self, opcode: int, payload: bytes) -> None:
        size, head = len(payload), bytes([0x80 | opcode])
        if size <= 125:
            head += bytes([0x80 | size])
        elif size <= 0xFFFF:
            head += bytes([0x80 | 126]) + struct.pack("!H", size)
        else:
            head += bytes([0x80 | 127]) + struct.pack("!Q", size)
        key = os.urandom(4)
        # The whole payload as one number: XOR of a long one at once.
        stream = int.from_bytes((key * (size // 4 + 1))[:size], "big")
        masked = (int.from_bytes(payload, "big") ^ stream).to_bytes(size, "big")
        self.socket.sendall(head + key + masked)


def echo(address: tuple[str, int], target: str, timeout_s: float) -> list[bytes]:
    """Sends back every message until the other side closes. What was said."""
    client = Client(address, target, timeout_s)
    said: list[bytes] = []
    try:
        for opcode, payload in client.frames():
            if opcode == CLOSE:
                client.send(CLOSE, payload[:2])
                break
            if opcode == PING:
                client.send(PONG, payload)
            elif opcode != PONG:
                said.append(payload)
                client.send(opcode, payload)
    finally:
        client.close()
    return said


def ask(address: tuple[str, int], target: str, timeout_s: float) -> list[bytes]:
    """What is said until the other side closes; nothing is sent back but the Close."""
    client = Client(address, target, timeout_s)
    said: list[bytes] = []
    try:
        for opcode, payload in client.frames():
            if opcode == CLOSE:
                client.send(CLOSE, payload[:2])
                break
            said.append(payload)
    finally:
        client.close()
    return said
