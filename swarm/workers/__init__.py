"""More processes that serve reads on the node's ports (CONTRACT, ``--workers``)."""
