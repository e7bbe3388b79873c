"""A node that names several addresses of its peer port is met at whichever works."""

from __future__ import annotations

import socket
from pathlib import Path

from swarm.testing.processes import swarm_in, wait_until

from .programs import LONG, noise


def test_one_whose_preferred_address_nobody_can_reach_is_met_and_pulled_from(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as taken, swarm_in(tmp_path / "swarm") as swarm:
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.close()  # nobody listens there
        puller = swarm.add("puller", "--copies=1")
        holder = swarm.add("holder", "--copies=1", join=(puller,), start=False)
        holder.command += [f"--advertise={dead}", f"--advertise={holder.address}"]
        holder.start()
        data = noise(3 << 20)
        digest = holder.put(data)

        def where() -> str:
            peers = puller.ready()["peers"]
            return "".join(each["address"] for each in peers if each["state"] == "alive")

        wait_until(lambda: where() == holder.address, "it is met where it listens", LONG)
        assert puller.get(digest) == data
