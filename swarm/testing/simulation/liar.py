"""A lying peer in the simulation: the lies of :mod:`swarm.testing.liars`, told on a simulated host.

It answers who greets it, claims to hold the blobs of the run and serves them as told. It is no node: what
it keeps and confirms counts for nothing, and only about it may anybody find proof of a lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from attrs import define, field, frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from swarm.model.messages import ClusterDocument, Node
from swarm.model.peers import PeerID
from swarm.pki import CA, CERTIFICATE, KEY
from swarm.testing import liars
from swarm.testing.liars import Blob, Lies
from swarm.testing.simulation.reactor import SimReactor

#: Answers without a byte of what was asked for.
_HOLLOW = ("busy", "broken", "garbage", "nothing", "heads", "chatter")
#: A flood ends when so much of it is written: the peer should have hung up long before.
_FLOOD = 1 << 20


def draw_lies(draw: Random, size: int, grains: int) -> Lies:
    """What it does wrong: mostly one thing, sometimes several."""
    if not size:
        return Lies(claim=1)
    kind = draw.choice(
        [
            *("flip", "flip", "flip", "answer", "list", "list", "claim", "stop", "subtle", "subtle", "relay"),
            *("hollow", "hollow"),
        ]
    )
    if kind == "hollow":  # it says that it has the blob
        return Lies(answer=draw.choice(_HOLLOW))
    if kind == "subtle":  # nothing it sends refutes it
        held = draw.randrange(grains)
        return Lies(flip=frozenset(draw.sample(range(held), held // 2)), midstates="joined", withhold=held)
    if kind == "relay":
        flip = frozenset(draw.sample(range(grains), draw.randint(1, grains)))
        return Lies(flip=flip, have=f"bytes=0-{size - 1}")
    both = draw.random() < 0.3
    stop: dict[str, Any] = {}
    if kind == "stop":
        stop = {draw.choice(["cut", "reset", "stall", "drip"]): draw.randrange(size)}
    return Lies(
        flip=frozenset(draw.sample(range(grains), draw.randint(1, grains)) if kind == "flip" or both else ()),
        answer=draw.choice(liars.ANSWERS) if kind == "answer" else "range",
        midstates=draw.choice(liars.LISTS) if kind == "list" or both else "true",
        claim=max(1, int(size * draw.uniform(0.2, 3.0))) if kind == "claim" else None,
        **stop,
    )


class _Silence(Exception):
    """Nothing is said any more, and nothing heard."""


@define(eq=False)
class Impostor(liars.Liar):
    """I am the peer. ``told`` counts the lies by what was asked."""

    peer: PeerID
    address: str
    name: str = "liar"
    cluster: str = "swarm"
    blobs: dict[str, Blob] = field(factory=dict)
    told: int = 0

    def is_hollow(self, digest: str) -> bool:
        """Does it say that it has the blob, and shows not one byte of it to anybody?"""
        blob = self.blobs.get(digest)
        return blob is not None and len(blob.true) > 0 and blob.lies.answer in _HOLLOW

    def learn(self, blobs: Iterable[Blob]) -> None:
        """Claim to hold these from now on."""
        self.blobs.update((each.digest, each) for each in blobs)

    def note(self, **what: str) -> None:
        """Somebody asked for something."""
        self.told += what["path"] != "/cluster/"

    def tick(self) -> bool:
        """Endless heads begin at once."""
        return False

    def document(self) -> ClusterDocument:
        """What it says of the swarm: only itself."""
        return ClusterDocument(self.cluster, Node(self.name, self.peer, "", self.address))

    def listen(self, process: SimReactor, port: int, identity: Path | None = None) -> None:
        """
        Be reachable.

        :param identity: where its key and certificate are; None: plainly, without TLS.
        """
        factory: Any = Factory.forProtocol(lambda: _Talk(self, process))
        if identity is not None:
            factory = TLSMemoryBIOFactory(_Secure(_context(identity)), False, factory, clock=process)
        process.listenTCP(port, factory, interface=process.host.ip)


def _context(identity: Path) -> SSL.Context:
    """With a proper certificate, and asking for one: a liar is a member of the swarm."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.use_certificate_file(str(identity / CERTIFICATE))
    context.use_privatekey_file(str(identity / KEY))
    context.load_verify_locations(str(identity / CA))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_alpn_select_callback(lambda connection, offered: b"http/1.1")
    return context


@implementer(IOpenSSLServerConnectionCreator)
@frozen
class _Secure:
    context: SSL.Context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self.context, None)


class _Talk(Protocol):
    """One connection: requests are answered one after the other."""

    transport: ITCPTransport

    def __init__(self, liar: Impostor, process: SimReactor) -> None:
        self._answers = _Answers(liar, self)
        self.process = process
        self._received = b""
        self._silent = False

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        while not self._silent:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in lines)}
            length = int(fields.get("content-length", "0"))
            if len(rest) < length and not first.startswith("PUT "):
                return
            self._received = rest[length:]
            method, path, _ = first.split(" ")
            try:
                self._answers.answer(method, path, fields)
            except _Silence:
                self._silent = True
            except liars.Gone:
                self._silent = True
                self.transport.loseConnection()

    def drip(self, data: bytes) -> None:
        """A byte a second."""
        if data and self.connected:
            self.transport.write(data[:1])
            self.process.callLater(1.0, self.drip, data[1:])


class _Answers(liars.Connection):
    """What :class:`~swarm.testing.liars.Connection` says, without its sockets and threads."""

    def __init__(self, liar: Impostor, talk: _Talk) -> None:
        unused: Any = None
        super().__init__(liar, unused)
        self._talk = talk
        self._written = 0

    def answer(self, method: str, path: str, fields: dict[str, str]) -> None:
        """:raises Gone, _Silence: that was the last one."""
        self.liar.note(method=method, path=path)
        self._answer(method, path, fields)

    def send(self, data: bytes) -> None:
        self._written += len(data)
        self._talk.transport.write(data)
        if self._written > _FLOOD:
            raise _Silence

    def _keep_silent(self) -> NoReturn:
        raise _Silence

    def _body(self, lies: Lies, body: bytes) -> None:
        self._written = 0
        stops = [each for each in (lies.cut, lies.reset, lies.stall, lies.drip) if each is not None]
        stop = min([len(body), *stops])
        self._talk.transport.write(body[:stop])
        if stop == len(body):
            return
        if stop == lies.reset:
            self._talk.transport.abortConnection()
        elif stop == lies.drip:
            self._talk.drip(body[stop:])
        elif stop != lies.stall:
            raise liars.Gone
        raise _Silence
