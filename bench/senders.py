"""P5 and P6: what sending costs, over mutual TLS and over plain HTTP, beside nginx.

Decides the receiver: the same curl for both sides, so that only the sender differs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench import nodes
from bench.blobs import make_file, sha512_of
from bench.measure import MIB, Case, Failed, command, commands, cpu_of, one_core, peak_memory
from bench.outcome import SERVER, WALL, Result, Row, Sample, ratio
from bench.programs import Asked
from bench.rivals import need, nginx
from swarm.testing.processes import swarm_in

_SPAN = 8 * MIB
_WORKERS = "swarm, one node, --workers 2"
_LOOPBACK = (
    "loopback charges part of the receiver's kernel work to the sender: both columns together are the whole"
)


def mutual_tls(asked: Asked) -> Result:
    """
    Three senders at once, each a third of the blob to one curl, in ranges of 8 MiB on one connection.

    And a single one for four such curls, in one process and in two: what ``--workers`` is for.
    """
    size, notes = asked.size(1024, 256), list[str]()
    source = asked.disk / "blob"
    digest = make_file(source, size)
    with swarm_in(asked.disk / "swarm") as swarm:
        holders = nodes.holders(swarm, 3, source)
        identity = swarm.authority.issue("rival", ["127.0.0.1", "localhost"], now=nodes.now())
        with nginx(asked.disk / "nginx", asked.disk, identity, servers=3) as server:
            senders = {
                "swarm, 3 nodes": (holders, nodes.processes(holders)),
                "swarm, one node": (holders[:1] * 4, nodes.processes(holders[:1])),
            }
            if nodes.knows("--workers"):
                several = nodes.holders(swarm, 1, source, "--workers=2", name="workers")
                nodes.wait_workers(several[0], 2)
                senders[_WORKERS] = several * 4, nodes.processes(several)
            cases = []
            for number, (name, (made, pids)) in enumerate(senders.items()):
                urls = [f"https://{node.address}/blobs/{digest}" for node in made]
                _check(asked.disk / f"ours{number}", urls, identity, size, digest)
                cases.append(Case(name, _fetch(asked.disk / f"ours{number}", urls, identity, size, pids)))
            theirs = [f"https://127.0.0.1:{port}/blob" for port in server.tls_ports]
            _check(asked.disk / "theirs", theirs, identity, size, digest)
            fetch = _fetch(asked.disk / "theirs", theirs, identity, size, server.pids)
            cases.insert(1, Case("nginx, 3 ports", fetch))
            shared = senders[_WORKERS][1] if _WORKERS in senders else []
            before = [cpu_of([pid]) for pid in shared]
            rows = list(asked.interleave(cases, notes).values())
            spent = [cpu_of([pid]) - was for pid, was in zip(shared, before, strict=True)]
        notes += _of_workers({row.name: row for row in rows}, spent)
        pids = nodes.processes(holders)
        memory = peak_memory(pids)
    return Result(
        f"sending {size >> 20} MiB from three ports over mutual TLS 1.3",
        tuple(rows),
        (ratio("P5", rows[0], rows[1], SERVER),),
        (
            *notes,
            "three curls at once, each asks for a third of the blob in ranges of 8 MiB, one connection each; "
            "what they got was hashed once before the rounds",
            _LOOPBACK,
            f"peak memory of the three nodes together: {memory:.0f} MB",
        ),
    )


def _of_workers(rows: dict[str, Row], spent: list[float]) -> list[str]:
    """What a second process gave to a node that feeds all alone; CPU seconds each of the two spent."""
    one, two = rows.get("swarm, one node"), rows.get(_WORKERS)
    if one is None or two is None or not (one.samples and two.samples):
        return []
    time, cpu = (two.median(what) / one.median(what) for what in (WALL, SERVER))
    return [
        f"one node for four curls: with --workers 2 it takes {time:.2f} of the time of one process and "
        f"{cpu:.2f} of its CPU, {max(spent) / sum(spent):.0%} of that in its busier process; the curls want "
        "the same two cores: it is that share which bounds a sender with cores of its own"
    ]


def _configs(directory: Path, urls: list[str], identity: Path, size: int, out: str) -> list[list[str]]:
    """curl's arguments: a configuration file for each third, with a line for each range."""
    directory.mkdir(exist_ok=True)
    third = -(-size // len(urls) // _SPAN) * _SPAN
    made = []
    for number, url in enumerate(urls):
        lines = []
        for start in range(number * third, min(size, (number + 1) * third), _SPAN):
            stop = min(size, start + _SPAN)
            target = out.format(start)
            lines.append(f'url = "{url}"\nrange = "{start}-{stop - 1}"\noutput = "{target}"\n')
            lines.append(f'cacert = "{identity}/ca.pem"\ncert = "{identity}/cert.pem"\n')
            lines.append(f'key = "{identity}/key.pem"\nfail\nsilent\nhttp1.1\nnext\n')
        file = directory / f"{number}.curl"
        file.write_text("".join(lines)[: -len("next\n")])
        made.append([need("curl"), "-K", str(file)])
    return made


def _fetch(
    directory: Path, urls: list[str], identity: Path, size: int, pids: list[int]
) -> Callable[[], Sample]:
    many = _configs(directory, urls, identity, size, "/dev/null")
    return lambda: commands(many, pids)


def _check(directory: Path, urls: list[str], identity: Path, size: int, digest: str) -> None:
    """Do these ranges make the blob? :raises Failed:"""
    parts = directory / "parts"
    parts.mkdir(parents=True)
    commands(_configs(directory, urls, identity, size, f"{parts}/{{:015}}"))
    whole = directory / "whole"
    with whole.open("wb") as out:
        for part in sorted(parts.iterdir()):
            out.write(part.read_bytes())
            part.unlink()
    if sha512_of(whole) != digest:
        raise Failed(f"{urls[0]}: the ranges do not make the blob")
    whole.unlink()


def plain(asked: Asked) -> Result:
    """One curl, the whole blob, plain HTTP."""
    size, notes = asked.size(1024, 512), list[str]()
    source = asked.disk / "blob"
    digest = make_file(source, size)
    with swarm_in(asked.disk / "swarm") as swarm:
        (node,) = nodes.holders(swarm, 1, source)
        identity = swarm.authority.issue("rival", ["127.0.0.1"], now=nodes.now())
        with nginx(asked.disk / "nginx", asked.disk, identity) as server:
            fetch = [need("curl"), "-sf", "-o", "/dev/null"]
            pids = nodes.processes([node])

            def ours() -> Sample:
                return command([*fetch, f"{node.url}/{digest}"], pids)

            def theirs() -> Sample:
                return command([*fetch, f"{server.url}/blob"], server.pids)

            def ours_on_one_core() -> Sample:
                with one_core(pids):
                    return ours()

            def theirs_on_one_core() -> Sample:
                with one_core(server.pids):
                    return theirs()

            cases = [
                Case("swarm", ours),
                Case("nginx, sendfile", theirs),
                Case("swarm, both ends on one core", ours_on_one_core),
                Case("nginx, both ends on one core", theirs_on_one_core),
            ]
            rows = list(asked.interleave(cases, notes, max(asked.rounds, 7)).values())
        memory = peak_memory(pids)
    return Result(
        f"GET of {size >> 20} MiB, plain HTTP",
        tuple(rows),
        (
            ratio("P6 rate", rows[0], rows[1], WALL, inverse=True),
            ratio("P6 CPU", rows[0], rows[1], SERVER),
        ),
        (
            *notes,
            "curl to /dev/null, from the page cache; swarm's headers, digest and all, are part of it",
            _LOOPBACK,
            "on cores of their own, a server that sends while curl reads does curl's kernel work too, and "
            "both are done in half the time; on one core that cannot be, and the server's column is its own",
            f"peak memory of the node: {memory:.0f} MB",
        ),
    )
