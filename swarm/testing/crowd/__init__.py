"""Large swarms on one machine: the real decisions over links of fluid, held against Kumar and Ross's bound.

One blob spreads from one seed to up to a thousand nodes. Decisions are those of :mod:`swarm.core`, with the
node's own settings; the bytes between them are flows with a rate. Run ``python -m swarm.testing.crowd``.
"""
