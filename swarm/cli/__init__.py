"""The ``swarm`` command: a client of the public API and the operator's tool.

No node code runs here: what a command knows of a node, it was told over HTTP. Modules that cost
time to import (rich, ssl, cryptography) are imported where they are used, so that ``swarm --help``
answers at once.
"""
