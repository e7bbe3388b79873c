"""How much of a peer's chatter, and how much of its silence, this node puts up with."""

from __future__ import annotations

from attrs import frozen


@frozen
class PeerLimits:
    """Budgets against other nodes, friendly or not. Bytes and seconds."""

    # asking for bytes (lanes)
    connect: float = 10.0  # TCP and TLS together
    silence: float = 10.0  # without a byte, while something was asked
    head_time: float = 30.0  # from the moment an answer is due to the end of its head
    head: int = 16 << 10  # status line, fields and every 1xx before them
    refusal: int = 64 << 10  # the body of a 404 or 503, read and thrown away
    batch: int = 512 << 10  # handed to the sink at once: a write of this size is still in the L2 cache,
    batch_time: float = 0.1  # or what came in this time: who decides must know that a slow peer is not silent
    receive: int = 1 << 20  # per recv()

    # asking for everything else
    chatter: int = 64 << 10  # head and 1xx of one answer
    document: int = 1 << 20  # a cluster document
    answer: float = 30.0  # a small answer, from dialing to its last byte
    midstates: float = 120.0  # a peer may have to hash the whole blob first
    push_stall: float = 60.0  # a push of which the peer takes no byte
    verdict: float = 600.0  # from the last byte of a push to its verified and durable end
    idle: float = 90.0  # keep an unused connection; longer than greetings need to go round, below web.idle
    connections: int = 2  # kept per address: one for midstates, one for a lane to begin on

    # being asked
    uploads: int = 64  # answers with blob bytes at once, all peers together
    per_blob: int = 4  # and at once of one blob: a grain that is whole can be passed on;
    per_crowd: int = 1  # fewer where more peers than that ask for it, who then have it the sooner to pass on;
    waiting: int = 4  # so many more wait for their turn, in the order they came,
    wait: float = 1.0  # for so long
    slow: float = 4.0  # an answer that takes longer, in a crowd four times the usual, takes nobody's turn
    forget: float = 60.0  # what was given of a blob counts no more after this long without a request
    busy: int = 2  # Retry-After of a 503
    reason: int = 1 << 10  # of POST /blobs/{id}/corrupt
