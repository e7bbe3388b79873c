"""Bad peers, as real processes, beside honest ones and alone.

All kinds misbehave at the same time, each with a blob of its own, so that waiting is done once.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from attrs import define

from swarm.testing.blobs import make_file
from swarm.testing.outsiders import Outsider, outsiders_of, wait_known
from swarm.testing.processes import Node, swarm_in, wait_until
from tests.integration.chaos import MIB, NOTHING, Answer, no_surprises, raw_get

SIZE = 6 * MIB + 4321  # seven grains

#: Proven to lie: named, and advised to verify its copy.
PROVABLE = {
    "flips-one": ("--flip=3",),
    "flips-last": ("--flip=-1",),
    "flips-first": ("--flip=0",),
    "flips-all": ("--flip=all",),
    "flips-and-agrees": ("--flip=2", "--list=own"),
    "flips-all-and-agrees": ("--flip=all", "--list=own"),
    "bends-its-list": ("--list=bent",),
}
#: Of these every byte is wrong, so who asks them for any finds out. Whom to ask is the pull's to choose, and
#: the quickest may give it all: so there are more blobs, to be pulled until they were asked.
ALL_WRONG = ("flips-all", "flips-all-and-agrees")
MORE = 9
#: Of no use, and left alone: nobody can prove that it is not just broken.
SLOW = {
    "cuts": ("--cut=70000",),
    "resets": ("--reset=70000",),
    "stalls": ("--stall=100000",),
    "says-nothing": ("--answer=nothing",),
    "drips": ("--drip=1000",),
    "busy": ("--answer=busy",),
    "claims-none": ("--claim=0",),
}
USELESS = {
    "whole": ("--answer=whole",),
    "shifted": ("--answer=shifted",),
    "no-range": ("--answer=no-range",),
    "gzip": ("--answer=gzip",),
    "chunked": ("--answer=chunked",),
    "etag": ("--answer=etag",),
    "heads": ("--answer=heads",),
    "chatter": ("--answer=chatter",),
    "broken": ("--answer=broken",),
    "garbage": ("--answer=garbage",),
}
#: Wrong about the size: proven, if it was asked for bytes that are not there.
SIZES = {
    "claims-more": (f"--claim={SIZE + 5 * MIB}",),
    "claims-less": (f"--claim={SIZE - 3 * MIB}",),
}
#: Refuted by nothing it sends, only by what an honest peer has; and one that says it only passes on.
SUBTLE = {
    "withholds": ("--flip=1,2", "--list=joined", "--withhold=4"),
    "relays": ("--flip=all", f"--have=bytes=0-{SIZE - 1}"),
}
#: Wrong about nothing that matters: these alone suffice.
HARMLESS = {
    "longer": ("--answer=longer",),
    "no-list": ("--list=none",),
    "garbage-list": ("--list=garbage",),
}
KINDS = {**PROVABLE, **SLOW, **USELESS, **SIZES, **SUBTLE, **HARMLESS}


#: So many misbehave at a time: every pull asks every peer, and the machine is small.
AT_ONCE = 7


@define
class Get:
    """One GET through the puller, and what came."""

    digest: str
    data: bytes
    answer: Answer = NOTHING
    seconds: float = 0.0

    def run(self, puller: Node, patience: float) -> None:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            self.answer = raw_get(puller, f"/{self.digest}", timeout=patience)
        self.seconds = time.monotonic() - began


@define
class Case:
    """One liar and blobs it has: one nobody else has, some that honest nodes have, some they may get."""

    liar: Outsider
    alone: Get
    beside: list[Get]
    spare: list[Get]


@define
class Trial:
    """All cases, run."""

    puller: Node
    honest: list[Node]
    cases: dict[str, Case]


def _run(puller: Node, gets: list[Get], patience: float) -> None:
    threads = [threading.Thread(target=get.run, args=(puller, patience)) for get in gets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Everybody lies, beside honest nodes first and alone then."""
    path, random = tmp_path_factory.mktemp("liars"), Random(7)
    settings = path / "settings.toml"
    # The machine may be busy.
    settings.write_text("[pull]\nanswer_within = 20\ngather = 2.0\n[pull.pull]\npatience = 8\n")
    with swarm_in(path / "swarm") as swarm, outsiders_of(swarm) as outsiders:
        honest = [swarm.add(f"honest{n}", "--copies=1") for n in range(2)]
        puller = swarm.add("puller", "--config", str(settings), join=tuple(honest))
        swarm.wait_acquainted([puller, *honest])
        cases: dict[str, Case] = {}
        kinds = list(KINDS)
        for batch in (kinds[at : at + AT_ONCE] for at in range(0, len(kinds), AT_ONCE)):
            for kind in batch:
                files = [path / f"{kind}.{n}" for n in range(2 + MORE * (kind in ALL_WRONG))]
                alone, beside, *spare = [
                    Get(make_file(file, SIZE, random), file.read_bytes()) for file in files
                ]
                for node in honest:
                    node.put(beside.data, kind)
                liar = outsiders.liar(kind, files, *KINDS[kind], greet=[puller])
                cases[kind] = Case(liar, alone, [beside], spare)
            wait_known(batch, puller)
            _run(puller, [get for kind in batch for get in cases[kind].beside], 120)
            for kind in set(ALL_WRONG).intersection(batch):
                _pull_until_named(puller, honest, kind, cases[kind])
            _run(puller, [cases[kind].alone for kind in batch], 50)
            time.sleep(0.5)  # for advice on its way
            for kind in batch:
                cases[kind].liar.kill()
        yield Trial(puller, honest, cases)


def _right(get: Get) -> None:
    answer = get.answer
    assert (answer.status, answer.ended) == (200, True), (answer.status, len(answer.body), answer.head)
    assert answer.body == get.data


def _named(puller: Node, kind: str, digest: str) -> list[str]:
    """What the puller logged when it convicted."""
    lines = puller.log.splitlines()
    return [x for x in lines if f"{kind} (" in x and "gave wrong" in x and digest[:12] in x]


def _pull_until_named(puller: Node, honest: list[Node], kind: str, case: Case) -> None:
    """Or until there are no more blobs."""
    while not _named(puller, kind, case.beside[-1].digest) and case.spare:
        get = case.spare.pop(0)
        for node in honest:
            node.put(get.data, kind)
        _run(puller, [get], 120)
        case.beside.append(get)


@pytest.mark.parametrize("kind", KINDS)
def test_beside_honest_peers_the_download_is_right(trial: Trial, kind: str) -> None:
    for get in trial.cases[kind].beside:
        _right(get)
        wait_until(lambda get=get: trial.puller.has(get.digest), "published")


@pytest.mark.parametrize("kind", PROVABLE)
def test_who_lied_is_named_and_advised(trial: Trial, kind: str) -> None:
    case = trial.cases[kind]
    assert _named(trial.puller, kind, case.alone.digest), trial.puller.log
    assert case.liar.asked(f"{case.alone.digest}/corrupt")
    if kind in ALL_WRONG:
        last = case.beside[-1]
        assert _named(trial.puller, kind, last.digest), trial.puller.log
        assert case.liar.asked(f"{last.digest}/corrupt")


def test_no_honest_peer_is_convicted(trial: Trial) -> None:
    named = [x for x in trial.puller.log.splitlines() if "gave wrong" in x]
    for line in named:
        assert any(f"{kind} (" in line for kind in (*PROVABLE, *SIZES, "withholds")), line
    for node in trial.honest:
        assert "/corrupt" not in node.log
        assert "our copy" not in node.log
    assert trial.puller.metrics()["swarm_proofs_total"] == len(named)
    no_surprises(trial.puller, *trial.honest)


@pytest.mark.parametrize("kind", KINDS)
def test_alone_a_bad_peer_gives_right_bytes_or_no_ended_answer(trial: Trial, kind: str) -> None:
    get = trial.cases[kind].alone
    if kind in HARMLESS:
        _right(get)
        return
    assert not trial.puller.has(get.digest)
    if get.answer.ended:
        assert get.answer.status in ((404,) if kind == "claims-none" else (502, 503)), get.answer.head
        assert get.answer.status == 404 or b"cannot pull" in get.answer.body


def test_what_useless_peers_claimed_does_not_occupy_the_disk(trial: Trial) -> None:
    left = {each.name.partition(".")[0] for each in (trial.puller.data / "partial").iterdir()}
    for kind in ("whole", "gzip", "etag", "broken", "heads", "garbage", "says-nothing"):
        assert trial.cases[kind].alone.digest not in left, kind


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in HARMLESS and kind != "drips"])
def test_alone_a_bad_peer_ends_in_an_error_in_time(trial: Trial, kind: str) -> None:
    get = trial.cases[kind].alone
    assert get.seconds < 45, get.seconds  # patience is 8 s here, after the last byte; the machine is slow


@pytest.mark.parametrize(
    "lies",
    [
        ("--flip=1,4", "--list=own"),
        ("--list=bent",),
        ("--flip=all", "--list=own"),
        ("--flip=-1", "--list=bent"),
    ],
    ids=["some", "list", "all", "end"],
)
def test_two_that_tell_the_same_lie_lose_against_one_honest_peer(
    tmp_path: Path, lies: tuple[str, ...]
) -> None:
    with swarm_in(tmp_path / "swarm") as swarm, outsiders_of(swarm) as outsiders:
        honest = swarm.add("honest", "--copies=1")
        settings = tmp_path / "settings.toml"
        settings.write_text("[pull]\nanswer_within = 20\n")
        puller = swarm.add("puller", f"--config={settings}", join=(honest,))
        file = tmp_path / "blob"
        digest = make_file(file, SIZE, Random(9))
        data = file.read_bytes()
        honest.put(data)
        for name in ("liar0", "liar1"):
            outsiders.liar(name, [file], *lies, greet=[puller])
        wait_known(["honest", "liar0", "liar1"], puller)
        answer = raw_get(puller, f"/{digest}")
        if not answer.ended:  # bytes two peers vouched for were handed out, then refuted
            answer = raw_get(puller, f"/{digest}")
        _right(Get(digest, data, answer))
        assert "honest (" not in "".join(x for x in puller.log.splitlines() if "gave wrong" in x)
        no_surprises(puller, honest)


def test_what_a_liar_alone_made_nodes_believe_is_set_right_by_one_honest_holder(tmp_path: Path) -> None:
    """They pass its lies on to one another meanwhile, and are blamed for nothing."""
    file = tmp_path / "blob"
    digest = make_file(file, SIZE, Random(11))
    data = file.read_bytes()
    settings = tmp_path / "settings.toml"
    settings.write_text("[pull]\nanswer_within = 20\ngather = 2.0\n[pull.pull]\npatience = 300\n")
    with swarm_in(tmp_path / "swarm") as swarm, outsiders_of(swarm) as outsiders:
        first = swarm.add("believer0", f"--config={settings}")
        believers = [
            first,
            *(swarm.add(f"believer{n}", f"--config={settings}", join=(first,)) for n in (1, 2)),
        ]
        outsiders.liar("withholds", [file], *SUBTLE["withholds"], greet=believers)
        for node in believers:
            wait_known(["withholds", *(each.name for each in believers if each is not node)], node)
        gets = [Get(digest, data) for _ in believers]
        threads = [
            threading.Thread(target=get.run, args=(node, 300.0))
            for get, node in zip(gets, believers, strict=True)
        ]
        for thread in threads:
            thread.start()
        for node in believers:  # all but the grain that is withheld
            wait_until(
                lambda node=node: node.metrics()["swarm_grains_verified_total"] >= 6, "believed", 120.0
            )  # type: ignore[misc]  # bound now
        honest = swarm.add("honest", "--copies=1", join=tuple(believers))
        honest.put(data)
        for thread in threads:
            thread.join()
        for get, node in zip(gets, believers, strict=True):
            if not get.answer.ended:  # it had sent what proved wrong, and broke off
                get.run(node, 120.0)
            _right(get)
            named = [x for x in node.log.splitlines() if "gave wrong" in x]
            assert all("withholds (" in line for line in named), named
            assert node.metrics()["swarm_grains_rejected_total"] <= 4 * len(("1", "2"))
        no_surprises(*believers, honest)


def test_a_peer_that_only_says_it_has_a_blob_is_no_holder_of_it(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    make_file(file, 200_000, Random(12))
    with swarm_in(tmp_path / "swarm") as swarm, outsiders_of(swarm) as outsiders:
        node, other = swarm.full(2, "--copies=4")
        outsiders.liar("says-so", [file], "--answer=busy", greet=[node])
        outsiders.liar("has-others", [file], "--flip=all", greet=[node])
        wait_known(["says-so", "has-others", other.name], node)
        status, _, answer = node.request("PUT", "/blob", file.read_bytes())
        assert (status, set(json.loads(answer)["holders"])) == (202, {node.name, other.name})
        metrics = node.metrics()
        assert metrics["swarm_copies_missing_total"] >= 1 and metrics["swarm_copies_refuted_total"] == 1
        [named] = [x for x in node.log.splitlines() if "gave wrong" in x]
        assert "has-others (" in named
        no_surprises(node, other)
