"""What runs: each service looks (through a port), asks the core, and acts. No decision is made here
that ``swarm.core`` could make."""
