"""``python -m swarm.testing.pulls``: pulls of real nodes, one after another, and whether any stands still.

``rounds`` draws who pulls what and what goes wrong, ``playing`` does it with real processes, ``standing``
measures. See ``docs/testing.rst``.
"""
