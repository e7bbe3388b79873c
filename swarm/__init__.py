"""swarm moves and keeps large immutable files between sites."""

__version__ = "0.1.0"
