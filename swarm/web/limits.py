"""How much of this node one HTTP client may hold, and for how long."""

from __future__ import annotations

from attrs import frozen


@frozen
class WebLimits:
    """Seconds, bytes and counts for one HTTP door."""

    #: From the first byte of a request (or the connection) to the end of its head.
    head: float = 20.0
    #: From the end of a head to the decision whether its body is wanted.
    admission: float = 30.0
    #: A body may lag this long behind ``body_rate`` bytes a second (Apache's ``body=20,MinRate=1000``).
    body_grace: float = 20.0
    body_rate: int = 1000
    #: A client that has not taken one byte of its response for this long is dropped.
    progress: float = 60.0
    #: Between two requests of one connection.
    idle: float = 120.0
    #: After a refusal the connection stays this long, and so many bytes still arriving are thrown
    #: away, so that the client can read the answer before a reset destroys it (RFC 9112 section 9.6).
    #: Many clients (Python's http.client) read nothing before all is sent: room for a fair body.
    linger: float = 10.0
    linger_bytes: int = 64 << 20
    #: Most bytes of a body that nobody streams.
    small_body: int = 64 << 10
    connections: int = 1000
    connections_per_client: int = 250
    #: Bytes read from a blob and given to the transport at a time.
    chunk: int = 256 << 10
