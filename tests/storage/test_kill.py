"""A process killed at any moment has kept every promise it printed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from random import Random

from swarm.model.digest import Digest
from swarm.testing.contracts import at_once, content
from tests.contracts.rigs import FilesystemRig

LOOP = Path(__file__).with_name("put_loop.py")


def test_every_id_printed_as_stored_is_there_after_kill_9(tmp_path: Path, our_env: dict[str, str]) -> None:
    random = Random(9)
    data = tmp_path / "data"
    promised: set[Digest] = set()
    maybe: set[Digest] = set()
    for seed in range(6):
        child = subprocess.Popen(
            [sys.executable, str(LOOP), str(data), str(seed)], stdout=subprocess.PIPE, env=our_env, text=True
        )
        assert child.stdout is not None
        # As much work on a slow machine as on a fast one; then somewhere in the middle of the next.
        lines = [child.stdout.readline() for _ in range(random.randrange(8, 40))]
        time.sleep(random.uniform(0, 0.02))
        child.kill()
        lines += child.stdout.readlines()
        child.wait()
        assert child.returncode == -9
        for line in lines:
            if line.endswith("\n"):
                _note(line.split(), promised, maybe)
        rig = FilesystemRig(str(data))
        at_once(rig.store.start())
        held = set(at_once(rig.store.digests(limit=100_000)))
        assert promised <= held
        for digest in held:
            assert Digest.of(at_once(content(rig.store, digest))) == digest
            assert at_once(rig.store.stat(digest)).names
        gone = maybe - held
        maybe -= gone
        # What was being put when it was killed may be there, promised or not.
        assert len(held - promised - maybe) <= 1 + seed
        usage = rig.store.usage()
        assert (usage.blobs, usage.partials) == (len(held), 0)
        assert usage.bytes == sum(at_once(rig.store.stat(each)).size for each in held)
        at_once(rig.store.stop())
    assert len(promised) > 20


def _note(words: list[str], promised: set[Digest], maybe: set[Digest]) -> None:
    digest = Digest.parse(words[1])
    if words[0] == "put":
        promised.add(digest)
        maybe.discard(digest)
    elif words[0] == "going":
        promised.discard(digest)
        maybe.add(digest)
    else:
        maybe.discard(digest)


def test_a_second_process_is_turned_away(tmp_path: Path, our_env: dict[str, str]) -> None:
    rig = FilesystemRig(str(tmp_path / "data"))
    at_once(rig.store.start())
    other = subprocess.run(
        [sys.executable, str(LOOP), rig.path, "0"], capture_output=True, env=our_env, text=True, timeout=60
    )
    assert other.returncode == 1
    assert "another process uses" in other.stderr
    at_once(rig.store.stop())
