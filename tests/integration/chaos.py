"""What the chaos tests share: bytes, raw answers, and what must hold whatever happened."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from pathlib import Path

from attrs import frozen

from swarm.storage.journal import HEADER_LENGTH, Header
from swarm.testing.processes import Node, Swarm

MIB = 1 << 20
#: How many times random faults are thrown; the default keeps the suite short.
ROUNDS = int(os.environ.get("SWARM_CHAOS_ROUNDS") or 0)


def rounds(default: int) -> int:
    """How many rounds this run makes."""
    return ROUNDS or default


def seed() -> int:
    """The seed of this run, from ``SWARM_CHAOS_SEED``; a failing run prints it."""
    return int(os.environ.get("SWARM_CHAOS_SEED", "0")) or int.from_bytes(os.urandom(4), "big")


@frozen
class Answer:
    """What came back. ``ended``: as the framing promised; else the connection broke off."""

    status: int
    head: bytes
    body: bytes
    ended: bool


#: No answer at all.
NOTHING = Answer(0, b"", b"", False)


def raw_get(node: Node, path: str, *fields: str, timeout: float = 90) -> Answer:
    """GET with nothing between us and the wire; the status is 0 if no head came."""
    data = bytearray()
    with socket.create_connection(("127.0.0.1", node.http_port), timeout) as connection:
        head = [f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]
        connection.sendall("\r\n".join(head).encode())
        length: int | None = None
        at = -1
        while length is None or len(data) < at + length:
            try:
                piece = connection.recv(MIB)
            except ConnectionError:
                break
            if not piece:
                break
            data += piece
            if at < 0 and (end := data.find(b"\r\n\r\n")) >= 0:
                at = end + 4
                for line in bytes(data[:end]).split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
    if at < 0:
        return Answer(0, bytes(data), b"", False)
    body = bytes(data[at:])
    status = int(bytes(data[9:12]))
    return Answer(status, bytes(data[:at]), body, length is not None and len(body) == length)


def journaled(node: Node, digest: str) -> int:
    """Bytes that the journal of a pull names; 0 without one."""
    try:
        data = (node.data / "partial" / f"{digest}.j").read_bytes()
    except FileNotFoundError:
        return 0
    header = Header.decode(data)
    return sum(map(header.grains.length, header.replay(data[HEADER_LENGTH:]).marks))


def sha512_of(path: Path) -> str:
    """What ``sha512sum`` says."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()


def nothing_torn(node: Node) -> int:
    """Every published blob of a node hashes to its name; how many there are."""
    count = 0
    for data in (node.data / "blobs").glob("??/??/*/data"):
        assert sha512_of(data) == data.parent.name, f"{node.name}: torn or wrong: {data}"
        count += 1
    return count


def nobody_convicted(*nodes: Node) -> None:
    """No honest peer was blamed, nor anything logged that nobody foresaw."""
    for node in nodes:
        assert "gave wrong" not in node.log, [x for x in node.log.splitlines() if "gave wrong" in x]
    no_surprises(*nodes)


def no_surprises(*nodes: Node) -> None:
    """Nothing in the logs that only a bug writes."""
    for node in nodes:
        for sign in ("Unhandled", "Traceback", "never awaited", "internal error"):
            lines = node.log.splitlines()
            found = [n for n, line in enumerate(lines) if sign in line]
            if found:
                around = "\n".join(lines[max(0, found[0] - 3) : found[0] + 40])
                raise AssertionError(f"{node.name} logged {sign}:\n{around}")


def close_all(swarm: Swarm) -> None:
    """Every node ends by itself when asked to, and says nothing that only a bug says."""
    for node in swarm.nodes.values():
        node.kill(signal.SIGCONT)
        node.kill(signal.SIGTERM)
        no_surprises(node)
