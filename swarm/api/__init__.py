"""The public HTTP API: what CONTRACT promises users and scripts, put into routes."""
