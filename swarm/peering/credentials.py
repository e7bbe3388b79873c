"""The identity in force: when a changed file takes effect, and for which connections.

New connections use what is current; established ones go on, unless their peer is no longer
admitted. What is wrong never replaces what works: the last good identity stays, loudly.
What makes an identity usable is decided in ``swarm.peering.identity``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol

from swarm.errors import IdentityError
from swarm.interfaces import RunBlocking
from swarm.model.peers import PeerID
from swarm.peering.admission import Admission
from swarm.peering.connection import PeerConnection, peer_context
from swarm.peering.identity import Identity, IdentityPaths, load
from swarm.services.tasks import Signal, sleep

_DAY: Final = 86400.0


@frozen
class TLSSettings:
    """Times in seconds, unless they say days."""

    handshake_timeout: float = 10.0
    """A connection that is not authenticated by then is cut."""
    poll_interval: float = 1.0
    """How often files are looked at for changes, and connections swept."""
    warn_days: float = 14.0
    """A certificate or revocation list with fewer days left is warned of daily."""
    lean: bool = True
    """Move bytes by ``swarm.peering.lean``; False: as stock Twisted does. Admission is the same."""


@frozen(eq=False)
class _Material:
    admission: Admission
    context: SSL.Context


class Credentials:
    """
    What every connection to a peer is made with.

    :ivar refusals: connections TLS ended since the start, whichever side refused; for the metrics.
    :ivar changed: fires when another identity is in force.
    """

    log = Logger()

    def __init__(
        self,
        identity: Identity,
        *,
        clock: IReactorTime,
        paths: IdentityPaths | None = None,
        settings: TLSSettings | None = None,
        refused: Callable[[], None] | None = None,
    ) -> None:
        """
        Begin with an identity.

        :param clock: seconds since 1970, as a reactor's.
        :param paths: where :meth:`reload` reads; None: only :meth:`adopt` changes it.
        :param refused: where the identity is lent by another process: told of each refusal, for that one
            to count. What is used and what expires is its to say.
        :raises IdentityError: OpenSSL cannot use it, or its own CA bundle does not vouch for it.
        """
        self.settings = settings or TLSSettings()
        self.paths = paths
        self.refusals = 0
        self.changed = Signal()
        self._refused = refused
        self._clock = clock
        self._open: weakref.WeakValueDictionary[int, PeerConnection] = weakref.WeakValueDictionary()
        self._serials = count()
        self._said = float("-inf")
        self._unsaid = 0
        self._seen: _Stamps = ()
        self._reminded = float("-inf")
        self._material = self._prepare(identity)
        self._remind()

    @classmethod
    def load(
        cls, paths: IdentityPaths, *, clock: IReactorTime, settings: TLSSettings | None = None
    ) -> Credentials:
        """
        Read the files and begin. Blocks on the disk.

        :raises IdentityError: a file is missing or wrong.
        """
        stamps = _stamps(paths)
        credentials = cls(load(paths), clock=clock, paths=paths, settings=settings)
        credentials._seen = stamps
        return credentials

    @property
    def identity(self) -> Identity:
        """The one in force."""
        return self._material.admission.identity

    @property
    def peer_id(self) -> PeerID:
        """Our own, in force."""
        return self.identity.peer_id

    def days_left(self) -> float:
        """Days until our certificate, or one above it, expires; negative after it."""
        return self.identity.days_left(self._clock.seconds())

    def still_admitted(self, certificate: x509.Certificate, chain: Sequence[x509.Certificate] = ()) -> bool:
        """Would a peer with this certificate be admitted now?"""
        return self._material.admission.refusal(certificate, chain) is None

    # -- changes -----------------------------------------------------------------

    async def reload(self, *, run_blocking: RunBlocking) -> str | None:
        """
        Read the files again and use what they hold from now on.

        :return: None on success; otherwise what is wrong, and the last good identity stays in force.
        """
        if self.paths is None:
            return None
        try:
            return self.adopt(await run_blocking(load, self.paths))
        except IdentityError as e:
            return str(e)

    def adopt(self, identity: Identity) -> str | None:
        """
        Use another identity from now on; connections of peers it does not admit are cut.

        :return: None on success; otherwise what is wrong, and the last good identity stays in force.
        """
        try:
            material = self._prepare(identity)
        except IdentityError as e:
            return str(e)
        if problem := self._worse(identity):
            return problem
        self._material = material
        if self._refused is None:
            self.log.info(
                "using certificate {name} with key {peer}, {days:.1f} days left",
                name=identity.name,
                peer=identity.peer_id.short,
                days=self.days_left(),
            )
        self._reminded = float("-inf")
        self._remind()
        self.changed.fire()
        self.sweep()
        return None

    async def watch(self, *, run_blocking: RunBlocking) -> None:
        """Reload when a file changes, sweep, and remind of what expires; for ever, until cancelled."""
        problem: str | None = None
        while True:
            await sleep(self._clock, self.settings.poll_interval)
            if self.paths is not None:
                stamps = await run_blocking(_stamps, self.paths)
                # After a failure every look is a try: a file may have been half written.
                if stamps != self._seen or problem is not None:
                    self._seen = stamps
                    before, problem = problem, await self.reload(run_blocking=run_blocking)
                    if problem is not None and problem != before:
                        self.log.critical("keeping the last good identity: {problem}", problem=problem)
            self.sweep()
            self._remind()

    def sweep(self) -> int:
        """
        Cut connections that are not authenticated in time, or whose peer is admitted no more.

        :return: how many were cut.
        """
        cut = 0
        for connection in list(self._open.values()):
            reason = self._outdated(connection)
            if reason is not None:
                self.log.info("cutting off {address}: {reason}", address=connection.address, reason=reason)
                connection.transport.abortConnection()
                cut += 1
        return cut

    # -- connections -------------------------------------------------------------

    def connection(
        self, transport: TLSMemoryBIOProtocol, host: str | None = None, expected: PeerID | None = None
    ) -> PeerConnection:
        """
        Make one connection under the identity in force.

        :param host: the DNS name or IP address dialled; None for one that dialled us.
        :param expected: whose key it must be, if known.
        """
        material = self._material
        connection = PeerConnection(
            material.context,
            transport,
            opened=self._clock.seconds(),
            admission=material.admission,
            host=host,
            expected=expected,
        )
        if host is not None and not (isIPAddress(host) or isIPv6Address(host)):
            connection.set_tlsext_host_name(host.encode("ascii"))
        self._open[next(self._serials)] = connection
        return connection

    # -- inside ------------------------------------------------------------------

    def _prepare(self, identity: Identity) -> _Material:
        file: object = self.paths.cert if self.paths else "the identity"
        try:
            admission = Admission(identity)
            material = _Material(admission, peer_context(admission, self._noted))
        except (SSL.Error, crypto.Error) as e:
            raise IdentityError(file, f"OpenSSL cannot use it ({e})") from e
        if fault := admission.own_fault():
            raise IdentityError(file, f"no peer would admit it: {fault}")
        return material

    def _worse(self, identity: Identity) -> str | None:
        """What the identity in force has and this one lacks."""
        current, now = self.identity, self._clock.seconds()
        if current.crls and not identity.crls:
            return "the revocation list is gone; only a restart goes on without it"
        if current.allowed is not None and identity.allowed is None:
            return "the allow-list is gone; only a restart goes on without it"
        complaints = identity.complaints(now)
        return "; ".join(complaints) if complaints and not current.complaints(now) else None

    def _outdated(self, connection: PeerConnection) -> str | None:
        if connection.transport.getHandle() is not connection:
            return None  # it is over
        if connection.peer_id is None or connection.certificate is None:
            late = self._clock.seconds() - connection.opened > self.settings.handshake_timeout
            return "no TLS handshake in time" if late else None
        admission = self._material.admission
        if connection.admission is admission:
            return None
        connection.admission = admission
        chain = connection.get_peer_cert_chain(as_cryptography=True) or ()
        return admission.refusal(connection.certificate, chain)

    def _remind(self) -> None:
        now = self._clock.seconds()
        if self._refused is not None or now - self._reminded < _DAY:
            return
        self._reminded = now
        identity = self.identity
        complaints = identity.complaints(now)
        for complaint in complaints:
            self.log.critical("peers cannot be reached: {complaint}", complaint=complaint)
        crl_days = identity.crl_days_left(now)
        for what, days in (("certificate", identity.days_left(now)), ("revocation list", crl_days)):
            if not complaints and days is not None and days < self.settings.warn_days:
                self.log.warn("the {what} expires in {days:.1f} days", what=what, days=days)

    def _noted(self, connection: PeerConnection, reason: str) -> None:
        self.refusals += 1
        if self._refused is not None:
            self._refused()
        if connection.host is not None:  # a dialer is told by the exception
            return
        now = self._clock.seconds()
        if now - self._said < 1.0:  # strangers do not fill our disk
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} more)" if self._unsaid else ""
        self.log.info(
            "no connection with {address}: {reason}{more}",
            address=connection.address,
            reason=reason,
            more=more,
        )
        self._said, self._unsaid = now, 0


_Stamps = tuple[tuple[int, int, int] | None, ...]


def _stamps(paths: IdentityPaths) -> _Stamps:
    """What changes when a file does: modification time, size and inode; None where there is no file."""
    return tuple(_stamp(path) for path in paths.all)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
