"""The wall towards other nodes: who they are, what is asked of them, what they may ask of us."""
