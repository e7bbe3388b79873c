"""A whole swarm in one process: real nodes, simulated time, network, threads and power.

The same seed gives the same run, event by event. ``python -m swarm.testing.simulation --seeds 0:100``
runs many; a bug found is a pair of commit and seed. What a run looks like is :mod:`.plan`'s decision,
what must hold :mod:`.invariants`'.
"""
