"""Does a file still hold its blob? Read it all, with several threads where midstates allow it."""

from __future__ import annotations

from attrs import define, frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults

from swarm.hashing import Sha512, Stretch
from swarm.model.digest import Digest
from swarm.model.grains import Grains
from swarm.model.midstates import Midstates
from swarm.storage.descriptor import Descriptor
from swarm.storage.volume import Volume
from swarm.storage.work import Work

#: More would only wait for one disk.
_THREADS = 4


@frozen
class Proven:
    """A file holds its blob; with the midstates that were proven on the way, if they can be."""

    midstates: Midstates | None


@define(eq=False)
class Proof:
    """How a store proves its own copies."""

    _sha512: Sha512
    _volume: Volume
    _work: Work

    async def holds(
        self, file: Descriptor, digest: Digest, grains: Grains, claim: Midstates | None
    ) -> Proven | None:
        """
        Hash the whole file; None if it holds other bytes.

        :param claim: our own stored list. From SHA-512's IV over every grain to the id, it proves as much
            as hashing in order; but it is only a file too, so when it does not fit, hashing in order decides.
        :raises StoreFailed: the file is shorter than ``grains``, or cannot be read.
        """
        if claim is not None and grains.count > 1 and self._sha512.provides_midstates:
            step = -(-grains.count // _THREADS)
            runs = [range(at, min(at + step, grains.count)) for at in range(0, grains.count, step)]
            waits = [
                Deferred.fromCoroutine(self._work.in_thread(self._chained, file, digest, claim, run))
                for run in runs
            ]
            try:
                results: list[bool] = await gatherResults(waits, consumeErrors=True)
            except FirstError as e:
                e.subFailure.raiseException()
            if all(results):
                return Proven(claim)
        found, midstates = await self._work.in_thread(self._in_order, file, grains.size)
        return Proven(midstates) if found == digest else None

    def _chained(self, file: Descriptor, digest: Digest, claim: Midstates, run: range) -> bool:
        grains, step = claim.grains, self._sha512.together
        with file.held() as fd, self._volume.guard("reading a blob to verify it", write=False):
            for at in range(0, len(run), step):
                group = run[at : at + step]
                ends = self._sha512.end_states_of(
                    [
                        Stretch(
                            fd,
                            grains.start(index),
                            grains.length(index),
                            claim.before(index),
                            index == grains.last,
                        )
                        for index in group
                    ]
                )
                if ends != [claim.after(index, digest.raw) for index in group]:
                    return False
        return True

    def _in_order(self, file: Descriptor, size: int) -> tuple[Digest, Midstates | None]:
        with file.held() as fd, self._volume.guard("reading a blob to verify it", write=False):
            return self._sha512.prove(fd, size)
