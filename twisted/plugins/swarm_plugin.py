"""Tells ``twistd`` that there is a ``swarm`` command.

Imports nothing of ours: twistd loads every plugin file before it chooses a reactor,
and klein would import the global one.
"""

from twisted.application.service import ServiceMaker

swarm = ServiceMaker("swarm", "swarm.tap", "Keep and fetch large immutable files between nodes.", "swarm")
