"""What nodes tell each other of themselves: the greeting form and the cluster document.

Parsers of untrusted bytes: each has a limit on size and count and raises ``Malformed`` on anything
it does not know how to read. Fields it does not know are skipped, so that newer nodes can say more.
Nothing said here identifies the sender: that is the TLS session's business.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

from attrs import frozen

from swarm.errors import Malformed
from swarm.model.peers import Address, PeerID, parse_node_name

#: Most bytes of a greeting form.
GREETING_LIMIT = 4096
#: Most bytes of a cluster document.
DOCUMENT_LIMIT = 1 << 20
#: Most addresses of its peer port that a node tells; others keep no more of one peer.
MOST_ADDRESSES = 3
_MOST_FIELDS = 16
_MOST_PEERS = 2048
_LATEST = 2**53  # what a JSON number holds exactly everywhere


def parse_advertised(text: str) -> str:
    """
    Check an address as its own node gives it: ``host:port``, or ``:port`` for "where you see me".

    :raises Malformed: anything else.
    """
    if text.startswith(":"):
        return f":{Address.parse('x' + text).port}"
    return str(Address.parse(text))


def advertised_address(text: str, remote_host: str) -> Address:
    """
    Where to dial what :func:`parse_advertised` let through.

    :param remote_host: the IP address the node was seen at: stands in for no host, ``0.0.0.0`` and ``::``.
    :raises Malformed: see :func:`parse_advertised`, or a ``remote_host`` that is needed and is none.
    """
    if not text.startswith(":"):
        address = Address.parse(text)
        if address.host not in ("0.0.0.0", "::"):
            return address
        text = f":{address.port}"
    host = f"[{remote_host}]" if ":" in remote_host else remote_host
    return Address.parse(host + text)


@frozen
class Greeting:
    """``POST /cluster/``: who I say I am.

    :param public_addr: of the public HTTP API; empty if it has none that others could use.
    :param mgmt_addr: of the peer port; both as :func:`parse_advertised` lets through.
    :param full: asks for a full update in return.
    :param others: further addresses of the peer port, at most ``MOST_ADDRESSES - 1``.
    """

    name: str
    public_addr: str
    mgmt_addr: str
    full: bool = False
    others: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The form, urlencoded."""
        form = [("name", self.name), ("public-addr", self.public_addr)]
        form += [("mgmt-addr", each) for each in (self.mgmt_addr, *self.others)]
        if self.full:
            form.append(("request-full-update", "true"))
        return urlencode(form).encode()

    @classmethod
    def decode(cls, data: bytes) -> Greeting:
        """
        Read a form.

        :raises Malformed: too long, not a form, a field missing, twice or unreadable.
        """
        if len(data) > GREETING_LIMIT:
            raise Malformed(f"a greeting has at most {GREETING_LIMIT} bytes")
        try:
            # Decoded here: parse_qsl on bytes decodes the names with errors let through.
            pairs = parse_qsl(
                data.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=True,
                encoding="utf-8",
                errors="strict",
                max_num_fields=_MOST_FIELDS,
            )
        except ValueError as e:
            raise Malformed("a greeting is an urlencoded form") from e
        told = [value for key, value in pairs if key == "mgmt-addr"]
        form = dict(pairs)
        if len(form) + max(0, len(told) - 1) != len(pairs):
            raise Malformed("a greeting says each thing but mgmt-addr once")
        if not {"name", "public-addr", "mgmt-addr"} <= form.keys():
            raise Malformed("name, public-addr and mgmt-addr are required")
        full = form.get("request-full-update", "false")
        if full not in ("true", "false"):
            raise Malformed("request-full-update is true or false")
        mgmt_addr, *others = _addresses(told, "mgmt-addr")
        return cls(
            parse_node_name(form["name"]),
            _optional_address(form["public-addr"]),
            mgmt_addr,
            full == "true",
            tuple(others),
        )


@frozen
class Node:
    """One node in a cluster document.

    :param last_alive: when the document's author last heard of it, in seconds since 1970; 0 for never.
    :param others: see :class:`Greeting`.
    """

    name: str
    id: PeerID
    public_addr: str
    mgmt_addr: str
    last_alive: int = 0
    others: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object of the document; ``MgmtAddrs``, if there, begins with ``MgmtAddr``."""
        more = {"MgmtAddrs": [self.mgmt_addr, *self.others]} if self.others else {}
        return {
            "Name": self.name,
            "ID": self.id.hex,
            "PublicAddr": self.public_addr,
            "MgmtAddr": self.mgmt_addr,
            **more,
            "LastAlive": self.last_alive,
        }

    @classmethod
    def from_json(cls, value: object) -> Node:
        """:raises Malformed: not what :meth:`to_json` makes."""
        table = _table(value, "a node")
        last_alive = table.get("LastAlive", 0)
        if type(last_alive) is not int or not 0 <= last_alive <= _LATEST:
            raise Malformed("LastAlive is a number of seconds")
        mgmt_addr = parse_advertised(_text(table, "MgmtAddr"))
        first, *others = _addresses(table.get("MgmtAddrs", [mgmt_addr]), "MgmtAddrs")
        if first != mgmt_addr:
            raise Malformed("MgmtAddrs begins with MgmtAddr")
        return cls(
            parse_node_name(_text(table, "Name")),
            PeerID.parse(_text(table, "ID")),
            _optional_address(_text(table, "PublicAddr")),
            mgmt_addr,
            last_alive,
            tuple(others),
        )


@frozen
class ClusterDocument:
    """``GET /cluster/``: the cluster's name, the node itself, and the peers it knows, names unique."""

    cluster: str
    me: Node
    peers: tuple[Node, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document as a dictionary."""
        return {
            "Name": self.cluster,
            "Me": self.me.to_json(),
            "Peers": {peer.name: peer.to_json() for peer in self.peers},
        }

    def encode(self) -> bytes:
        """The document as it travels."""
        return json.dumps(self.to_json(), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, value: object) -> ClusterDocument:
        """:raises Malformed: not what :meth:`to_json` makes, or too many peers."""
        table = _table(value, "a cluster document")
        peers = _table(table.get("Peers"), "Peers")
        if len(peers) > _MOST_PEERS:
            raise Malformed(f"a cluster document names at most {_MOST_PEERS} peers")
        nodes = tuple(Node.from_json(peer) for peer in peers.values())
        if [node.name for node in nodes] != list(peers):
            raise Malformed("a peer is listed under its name")
        return cls(parse_node_name(_text(table, "Name")), Node.from_json(table.get("Me")), nodes)

    @classmethod
    def decode(cls, data: bytes) -> ClusterDocument:
        """
        Read what :meth:`encode` wrote.

        :raises Malformed: too long, not JSON, a key twice, or see :meth:`from_json`.
        """
        if len(data) > DOCUMENT_LIMIT:
            raise Malformed(f"a cluster document has at most {DOCUMENT_LIMIT} bytes")
        try:
            value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        except Malformed:
            raise
        except (ValueError, RecursionError) as e:  # RecursionError: thousands of nested brackets
            raise Malformed("a cluster document is JSON in UTF-8") from e
        return cls.from_json(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise Malformed("a JSON object says each thing once")
    return table


def _table(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is a JSON object")
    return value


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise Malformed(f"{key} is a string")
    return value


def _addresses(value: object, what: str) -> list[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_ADDRESSES:
        raise Malformed(f"{what}: 1 to {MOST_ADDRESSES} addresses")
    if not all(isinstance(each, str) for each in value):
        raise Malformed(f"{what}: addresses are strings")
    told = [parse_advertised(each) for each in value]
    if len(set(told)) != len(told):
        raise Malformed(f"{what}: each address once")
    return told


def _optional_address(text: str) -> str:
    return parse_advertised(text) if text else ""
