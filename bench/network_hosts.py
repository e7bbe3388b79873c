"""Hosts far apart, on one machine: network namespaces joined by wires with a rate and a delay.

Decides how they are made: each host is a namespace with a TUN device, whose other end is in the hub,
where the measuring program itself lives; a token bucket (``tc … tbf``) on the host's end shapes what it
sends, and ``network_relay`` delays both directions. Needs root, ``/dev/net/tun``, ``ip`` and ``tc``.
Nothing has a name outside this process, so all is gone when it ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

from bench.rivals import Missing, need

_CLONE_NEWNET = 0x4000_0000
_TUNSETIFF, _TUNSETOFFLOAD = 0x4004_54CA, 0x4004_54D0  # linux/if_tun.h
_TUN, _NO_PI, _VNET_HDR = 0x0001, 0x1000, 0x4000
_CSUM, _TSO4, _TSO6 = 0x01, 0x02, 0x04

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise Missing(f"network namespaces: {os.strerror(code)}")


@define
class Namespace:
    """A network of its own, held open by a descriptor."""

    descriptor: int

    @classmethod
    def made(cls) -> Namespace:
        """A new one; this thread stays where it is."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _checked(_libc.unshare(_CLONE_NEWNET))
            made = cls(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
            _run("ip", "link", "set", "lo", "up")
            return made
        finally:
            _checked(_libc.setns(here, _CLONE_NEWNET))
            os.close(here)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts meanwhile, live there."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _checked(_libc.setns(self.descriptor, _CLONE_NEWNET))
            yield
        finally:
            _checked(_libc.setns(here, _CLONE_NEWNET))
            os.close(here)


@define
class Host:
    """One far host. ``rate`` in bits a second is what it may send, ``delay`` seconds one way."""

    name: str
    namespace: Namespace
    address: str
    device: str  # the hub's end of its wire: its receive counter is what the host sent
    rate: float
    delay: float

    def shape(self, rate: float) -> None:
        """From now on it may send so many bits a second."""
        verb = "change" if self.rate else "add"
        self.rate = rate
        burst = max(16 << 10, min(128 << 10, int(rate / 8 * 0.005)))
        queue = max(256 << 10, int(rate / 8 * 0.1))  # a tenth of a second, as routers have
        with self.namespace.entered():
            bits = f"{rate:.0f}bit"
            tbf = ("tbf", "rate", bits, "burst", str(burst), "limit", str(queue))
            _run("tc", "qdisc", verb, "dev", "wire", "root", *tbf)

    def leave(self) -> None:
        """Its wire is cut: packets go nowhere, and nobody is told."""
        with self.namespace.entered():
            _run("ip", "link", "set", "wire", "down")


@define
class Network:
    """A hub and the hosts around it."""

    hub: Namespace
    hosts: list[Host] = field(factory=list)
    congestion: str = ""  # the TCP congestion control of all, where it is not the system's
    _ends: list[int] = field(factory=list)
    _relay: subprocess.Popen[bytes] | None = None

    def host(self, name: str, *, rate: float, rtt: float) -> Host:
        """A new one; before :meth:`connect`. ``rate`` in bits a second, 0: unshaped; ``rtt`` in seconds."""
        number = len(self.hosts) + 1
        namespace = Namespace.made()
        ours, theirs = f"10.77.{number}.1", f"10.77.{number}.2"
        device = f"host{number}"
        self._ends.append(_tun(self.hub, device, ours, theirs))
        self._ends.append(_tun(namespace, "wire", theirs, ours))
        host = Host(name, namespace, theirs, device, 0.0, rtt / 2)
        if self.congestion:
            with namespace.entered():  # as a default for a whole namespace it might not be allowed
                _run("ip", "route", "replace", ours, "dev", "wire", "congctl", self.congestion)
        if rate:
            host.shape(rate)
        self.hosts.append(host)
        return host

    def connect(self) -> None:
        """Start the wires."""
        wires = [
            f"{a}:{b}:{host.delay}"
            for host, a, b in zip(self.hosts, self._ends[::2], self._ends[1::2], strict=True)
        ]
        self._relay = subprocess.Popen(
            [sys.executable, "-m", "bench.network_relay", *wires],
            stdin=subprocess.PIPE,
            pass_fds=self._ends,
            cwd=Path(__file__).resolve().parent.parent,
        )

    @property
    def relay_pid(self) -> int:
        """The process that carries the packets."""
        assert self._relay is not None
        return self._relay.pid

    def close(self) -> None:
        """Cut all wires and forget the hosts; the last program in a namespace takes it along."""
        if self._relay is not None:
            self._relay.communicate()
        for each in (*self._ends, *(host.namespace.descriptor for host in self.hosts), self.hub.descriptor):
            os.close(each)


@contextmanager
def network(congestion: str = "") -> Iterator[Network]:
    """
    A network that is gone afterwards; this thread is in its hub meanwhile.

    :raises Missing: this machine, or this user, cannot have one.
    """
    need("ip"), need("tc")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise Missing("/dev/net/tun is not there, or not for this user")
    made = Network(Namespace.made(), congestion=congestion)
    try:
        with made.hub.entered():
            yield made
    finally:
        made.close()


def _tun(namespace: Namespace, name: str, ours: str, theirs: str) -> int:
    """A TUN device in a namespace, up, with an address and its peer's; its descriptor."""
    with namespace.entered():
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", name.encode(), _TUN | _NO_PI | _VNET_HDR)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _CSUM | _TSO4 | _TSO6)
        _run("ip", "address", "add", ours, "peer", theirs, "dev", name)
        _run("ip", "link", "set", name, "up", "txqueuelen", "10000")
    return descriptor


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run([need(program), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
