"""The faults themselves: each the kind of mistake that a promise stands or falls with.

A mutant names the promise it breaks and the suites that must notice, the likeliest first. Words are taken
from the module's source and must stand there exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen
class Mutant:
    """
    One fault.

    :ivar promise: what no longer holds, for people.
    :ivar module: whose source is changed.
    :ivar old: words that stand once in it.
    :ivar new: what stands there instead.
    :ivar suites: paths below the checkout, as pytest takes them; one of them must fail.
    :ivar unseen: why the simulated swarm does not see it, or hardly ever.
    """

    name: str
    promise: str
    module: str
    old: str
    new: str
    suites: tuple[str, ...]
    unseen: str = ""


def _storage(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/storage/test_{name}.py" for name in names)


_CRASH = ("tests/crash/test_power_loss.py",)

_ALL = (
    # -- durability -------------------------------------------------------------
    Mutant(
        "no-file-fsync",
        "what was acknowledged survives a power cut: the bytes",
        "swarm.storage.commit",
        "            self._steps.sync_file(fd, what)\n",
        "            pass\n",
        _storage("publish", "faults"),
    ),
    Mutant(
        "no-sync-of-a-group",
        "what was acknowledged survives a power cut: blobs that were stored together",
        "swarm.storage.commit",
        "            self._disk.sync_volume(volume)\n",
        "            pass\n",
        _storage("group"),
        unseen="so few clients rarely make a group of several that a power cut meets",
    ),
    Mutant(
        "named-after-a-failed-sync",
        "no blob of a group is acknowledged whose sync failed",
        "swarm.storage.commit",
        """        for each in candidates:
            each.error = e
""",
        """        candidates[0].error = e
""",
        _storage("group"),
        unseen="takes a group of several and a failed sync of one of them",
    ),
    Mutant(
        "no-directory-fsync",
        "what was acknowledged survives a power cut: its name",
        "swarm.storage.steps",
        "            self._disk.fsync_dir(path)\n",
        "            pass\n",
        _storage("publish", "faults"),
    ),
    Mutant(
        "existing-blob-acknowledged-at-once",
        "a blob that was there already is durable, too, before it is acknowledged",
        "swarm.storage.commit",
        """            self._steps.sync_file(fd, "what is there")
""",
        "",
        _storage("publish", "faults"),
        unseen="takes two PUTs of one blob at one node and a power cut before the first is synced",
    ),
    Mutant(
        "existing-blob-believed",
        "a damaged copy is replaced, not confirmed",
        "swarm.storage.commit",
        "if self._sha512.digest_of(fd, blob.size) == blob.digest:",
        "if True:",
        ("tests/contracts",),
        unseen="takes a PUT of the very blob that rotted at this node",
    ),
    Mutant(
        "failed-fsync-forgotten",
        "after a failed fsync the volume takes no writes: the kernel marked lost pages clean",
        "swarm.storage.volume",
        "if broken or (sync and error.errno not in _NOT_SYNCED_YET):",
        "if broken:",
        _storage("faults", "publish", "filesystem"),
        unseen="takes a failed sync, then a PUT, then a power cut, all at one node",
    ),
    Mutant(
        "journal-before-data",
        "a journaled grain is on the platter before its record",
        "swarm.storage.partial_files",
        """        with self.data.held() as data, guard("syncing a pull", sync=True):
            disk.fdatasync(data)
        if not entries:
""",
        """        if not entries:
""",
        _storage("partial", "faults", "journal"),
        unseen="a journaled grain is hashed again before it counts; what is lost is fetched again",
    ),
    Mutant(
        "journal-not-synced",
        "a grain that counts as saved is not fetched again after a crash",
        "swarm.storage.partial_files",
        """            with guard("syncing a journal", sync=True):
                disk.fdatasync(journal)
""",
        "",
        _storage("partial", "faults", "journal"),
        unseen="it costs bytes that are fetched again, and a kill loses nothing that was written",
    ),
    Mutant(
        "torn-journal-believed",
        "a record that was torn by a crash says nothing",
        "swarm.storage.journal",
        "if not hmac.compare_digest(check, _check(self.salt, _NUMBER.pack(number) + body)):",
        "if False:",
        _storage("journal", "partial"),
        unseen="what a record names is hashed again before it counts",
    ),
    Mutant(
        "journal-believed-unseen",
        "a journaled grain is hashed again before it is used after a restart",
        "swarm.storage.partial",
        "return (mark.start, mark.end) if end == mark.end else None",
        "return (mark.start, mark.end)",
        (*_storage("partial"), "tests/services/test_fetcher.py", "tests/contracts"),
        unseen="as long as order and records are right, what they name is there",
    ),
    Mutant(
        "hint-not-durable",
        "a blob that lacks copies is remembered over a restart",
        "swarm.services.replicator",
        "        await self._hint_store.add(digest, wanted)\n",
        "",
        ("tests/services/test_replicator.py",),
        unseen="takes a crash between a 202 and its copy",
    ),
    Mutant(
        "quota-counts-nothing-under-way",
        "writes under way count against the quota",
        "swarm.storage.volume",
        "self._totals.bytes + self.reserved + length > quota",
        "self._totals.bytes + length > quota",
        (*_storage("filesystem"), "tests/contracts"),
        unseen="no simulated node has a quota",
    ),
    Mutant(
        "old-copy-never-proven",
        "an old copy is proven again before its bytes leave the node",
        "swarm.storage.publish",
        "and abs(self._clock.seconds() - row.verified_at) < self._settings.verify_after",
        "",
        _storage("filesystem", "proving_reader"),
        unseen="takes rot in a copy that has grown old by a jump of the clock",
    ),
    Mutant(
        "catalog-not-synced",
        "hints, tombstones and peers survive a power cut",
        "swarm.storage.database",
        "{'FULL' if durable else 'NORMAL'}",
        "NORMAL",
        _CRASH,
        unseen="takes a power cut between a hint or tombstone and its delivery",
    ),
    Mutant(
        "unclean-start-believed",
        "after a crash the counters are compared with the disk",
        "swarm.storage.catalog",
        "        self.doubts += not clean\n",
        "",
        _CRASH,
        unseen="a wrong count breaks no promise to anybody outside",
    ),
    Mutant(
        "failed-sync-of-the-catalog-forgotten",
        "what the catalog acknowledges after a failed sync survives a power cut",
        "swarm.storage.database",
        'if getattr(e, "extendedresult", apsw.SQLITE_IOERR) in _LOST:',
        "if False:",
        ("tests/crash/test_kth_call.py",),
        unseen="takes a failed sync of the log, a hint behind it and a power cut",
    ),
    Mutant(
        "log-not-renewed",
        "what the catalog acknowledges after a failed sync and a restart survives a power cut",
        "swarm.storage.database",
        "            self._renew_log()\n",
        "",
        ("tests/crash/test_kth_call.py",),
        unseen="takes a failed sync of the log, a kill, a hint and a power cut, in this order",
    ),
    Mutant(
        "tombstone-after-removal",
        "a tombstone is durable before anything is removed",
        "swarm.services.deletion",
        "            await self._tombstones.bury(digest, generation, sorted(peers))\n",
        """            await self._remove(digest)
            await self._tombstones.bury(digest, generation, sorted(peers))
""",
        _CRASH,
        unseen="takes a crash between the two",
    ),
    Mutant(
        "deletion-not-synced",
        "what was deleted does not come back after a power cut",
        "swarm.storage.publish",
        "            self._steps.sync_directory(directory)\n            self._changed(digest)\n",
        "            self._changed(digest)\n",
        _CRASH,
        unseen="the tombstone is, and the next start removes the copy again",
    ),
    Mutant(
        "pull-forgotten-before-it-is-a-blob",
        "a pull's files go when its blob is there, not before",
        "swarm.storage.partial",
        """        with self._volume.guard("publishing a pull"):
""",
        """        self._files.remove()
        with self._volume.guard("publishing a pull"):
""",
        _CRASH,
    ),
    Mutant(
        "identity-not-synced",
        "a node keeps its identity over a power cut after its first start",
        "swarm.pki.directory",
        "        sync_directory(path.parent)\n",
        "",
        ("tests/crash/test_identity.py",),
        unseen="identities are made before a run begins",
    ),
    # -- proof ------------------------------------------------------------------
    Mutant(
        "put-of-other-bytes",
        "a blob put under an id hashes to it",
        "swarm.storage.writer",
        "if self._expect is not None and digest != self._expect:",
        "if False:",
        ("tests/contracts", "tests/storage/test_filesystem.py"),
        unseen="simulated clients put what they say",
    ),
    Mutant(
        "short-body-kept",
        "a body shorter than declared is no blob",
        "swarm.storage.writer",
        "if self._length is not None and self.received != self._length:",
        "if False:",
        ("tests/contracts", "tests/storage/test_filesystem.py"),
        unseen="simulated clients send what they declare, or break off",
    ),
    Mutant(
        "no-verification",
        "no grain is accepted that does not hash from a midstate to the next",
        "swarm.core.trust",
        "return ends.get(claim.midstates.before(grain)) == self._after(claim, grain)",
        "return True",
        ("tests/core/test_trust.py",),
    ),
    Mutant(
        "trust-from-the-front",
        "grains are proven from the end, where the truth is known",
        "swarm.core.trust",
        "return grain >= self._proven_from",
        "return grain < self.grains.count - self._proven_from",
        ("tests/core/test_trust.py", "tests/core/test_trust_worlds.py"),
        unseen="only the order in which grains are proven; each is proven all the same",
    ),
    Mutant(
        "one-list-is-enough",
        "what only one peer vouches for is not released as if it were proven",
        "swarm.core.trust",
        "return self._working is not None and len(self._working.supporters) >= 2 and len(self._claims) == 1",
        "return self._working is not None and len(self._claims) == 1",
        ("tests/core/test_trust.py", "tests/core/test_trust_worlds.py"),
        unseen="takes a liar with a list of its own whose grains nobody else has contradicted yet",
    ),
    Mutant(
        "ban-by-participation",
        "nobody is convicted for a grain that several sent",
        "swarm.core.trust",
        """        if len(senders) == 1:
            self._blame(found, senders[0], grain, ends)
""",
        """        if senders:
            for sender in senders:
                self._blame(found, sender, grain, ends)
""",
        ("tests/core/test_trust.py", "tests/core/test_trust_worlds.py"),
        unseen="takes a bad grain of which an honest peer sent a part",
    ),
    Mutant(
        "relay-convicted",
        "a peer that only passes on what it was given is not convicted for it",
        "swarm.core.trust",
        "if own is not None and peer in self.parties.whole:",
        "if own is not None:",
        ("tests/core/test_trust.py", "tests/core/test_trust_worlds.py"),
        unseen="takes a node that passes on a liar's grain before it finds out",
    ),
    Mutant(
        "relay-not-noted",
        "a holder that answers as a partial one is known for a relay before its bytes count",
        "swarm.services.pull",
        """        if have is not None:
            self._proving.trust.claim(peer, complete=False)
        if peer in self._sources.haves and self._sources.haves[peer] != have:
""",
        "        if False:\n",
        ("tests/services/test_passing.py",),
        unseen="takes a node that passes on a liar's grain before it finds out",
    ),
    Mutant(
        "relay-known-too-late",
        "what an answer says of its sender is heard before its bytes",
        "swarm.peering.http1",
        "        self._hear(answer, events)\n",
        "",
        ("tests/peering/test_http1.py", "tests/peering/test_contract.py"),
        unseen="takes a node that passes on a liar's grain before it finds out",
    ),
    Mutant(
        "taken-back-passed-on",
        "an answer to a peer that touches bytes taken back breaks off",
        "swarm.services.passing",
        "if any(self._touched.overlap(span.start, span.stop)):",
        "if False:",
        ("tests/services/test_passing.py",),
        unseen="what was passed on is proven by who gets it, too",
    ),
    Mutant(
        "holders-by-claim",
        "who says it has a blob counts as a holder once it gave right bytes of it",
        "swarm.services.challenging",
        "            if theirs != ours:\n",
        "            if False:\n",
        ("tests/services/test_replicator.py",),
        unseen="takes a liar among the few that are asked to hold a copy",
    ),
    Mutant(
        "our-rot-their-fault",
        "nobody is convicted for what our own disk lost",
        "swarm.services.challenging",
        "if await self._ours_is_right(info, *wrong):",
        "if True:",
        ("tests/services/test_replicator.py",),
        unseen="takes a challenge about a copy of ours that has just rotted",
    ),
    Mutant(
        "two-lists-forgiven",
        "who offers two different lists is a liar",
        "swarm.core.trust",
        "if self._own[peer].midstates != midstates:",
        "if False:",
        ("tests/core/test_trust.py",),
        unseen="such a liar costs bytes, within their bound, or is caught by what it sends",
    ),
    Mutant(
        "last-bytes-before-proof",
        "the last bytes of a response are released when the blob is proven, not before",
        "swarm.services.reading",
        "return first == stop or self._pull.beyond_doubt(ByteRange(first, stop))",
        "return True",
        ("tests/services/test_reading.py", "tests/services/test_fetcher.py"),
        unseen="takes a list that proves wrong when all but the last bytes were read",
    ),
    Mutant(
        "taken-back-in-silence",
        "a response part of which proved wrong is aborted",
        "swarm.services.reading",
        "if any(run.start < span.stop and span.start < run.stop for run in self._given):",
        "if False:",
        ("tests/services/test_reading.py", "tests/services/test_fetcher.py"),
        unseen="takes bytes that prove wrong while somebody reads them",
    ),
    Mutant(
        "conviction-forgotten",
        "a peer proven to lie about a blob is not asked for it again",
        "swarm.core.standing",
        "if record is not None and digest not in record.verified:",
        "if False:",
        ("tests/core/test_standing.py",),
        unseen="a liar that is asked again costs bytes, within their bound",
    ),
    Mutant(
        "no-advice",
        "a peer whose copy is bad is told, so that it heals itself",
        "swarm.services.holders",
        '        self._tasks.start("advising a peer", self._advise(peer, proof))\n',
        "",
        ("tests/services/test_proving.py",),
        unseen="the next proof of the copy finds it, too",
    ),
    Mutant(
        "lanes-believed",
        "compiled code hashes nothing unless it agreed with libcrypto when it was loaded",
        "swarm.hashing.lanes",
        "if lanes.kernels and self_test(lanes, library):",
        "if lanes.kernels:",
        ("tests/hashing/test_lanes.py",),
        unseen="the kernels are right here; only a test can make one err",
    ),
    Mutant(
        "lanes-crossed",
        "each grain's end is its own, whichever lane hashed it",
        "swarm.hashing.lanes",
        "zip(most, ends, strict=True)",
        "zip(reversed(most), ends, strict=True)",
        ("tests/hashing/test_lanes.py",),
    ),
    # -- pulling ----------------------------------------------------------------
    Mutant(
        "span-not-requeued",
        "what a failed span did not bring is asked of somebody else",
        "swarm.core.table",
        "        self.free(flight.at, flight.stop)\n\n    def free",
        "\n    def free",
        ("tests/core/test_dispatch.py", "tests/core/test_pulls.py"),
        unseen="a pull that lacks it is tried again as a whole",
    ),
    Mutant(
        "rejected-grain-lost",
        "a grain that proved wrong is fetched again",
        "swarm.core.ledger",
        "        self.parole[grain] = None\n        return lost\n",
        "        return lost\n",
        ("tests/core/test_dispatch.py", "tests/core/test_pulls.py"),
        unseen="a pull that lacks it is tried again as a whole",
    ),
    Mutant(
        "single-flight-leak",
        "a pull that failed makes room for another try",
        "swarm.services.fetch",
        "            self._over()\n",
        "",
        ("tests/services/test_fetcher.py",),
    ),
    Mutant(
        "one-pull-each",
        "ten clients missing the same id cause one pull",
        "swarm.services.fetcher",
        "fetch = self._fetches.get(digest)\n        if fetch is None:\n            if self._stop",
        "fetch = None\n        if fetch is None:\n            if self._stop",
        ("tests/services/test_fetcher.py",),
    ),
    Mutant(
        "silence-tolerated",
        "a peer that stops sending is given up",
        "swarm.peering.lane",
        'self._end(PeerError(self.peer.id, Fault.SILENT, "nothing for too long"))',
        "pass",
        ("tests/peering/test_lane.py", "tests/peering/test_client.py"),
    ),
    Mutant(
        "buried-copy-pulled",
        "a copy older than its deletion is not pulled",
        "swarm.services.holders",
        "holding.generation < self._tombstones.generation(digest)",
        "False",
        ("tests/services/test_fetcher.py", "tests/services/test_deletion.py"),
    ),
    # -- replication and deletion -------------------------------------------------
    Mutant(
        "failed-push-counts",
        "only a copy that was confirmed durable is a copy",
        "swarm.core.replication",
        "copy is Copy.HOLDING for copy in copies.values()",
        "copy in (Copy.HOLDING, Copy.FAILED) for copy in copies.values()",
        ("tests/core/test_replication.py",),
    ),
    Mutant(
        "push-without-asking",
        "a blob is pushed only where the answer was 404",
        "swarm.core.replication",
        "lacking = [peer for peer in candidates if copies.get(peer) is Copy.LACKING]",
        "lacking = [peer for peer in candidates if copies.get(peer) in (None, Copy.LACKING)]",
        ("tests/core/test_replication.py",),
        unseen="it costs bytes, and no promise",
    ),
    Mutant(
        "old-tombstone-removes-new-copy",
        "a late tombstone never removes a copy that was put after it",
        "swarm.services.deletion",
        "if generation <= self._tombstones.generation(digest):",
        "if False:",
        ("tests/services/test_deletion.py", "tests/peering"),
        unseen="takes a PUT of what was deleted, and a late tombstone",
    ),
    Mutant(
        "late-push-undoes-deletion",
        "a push that was under way does not bring a deleted blob back",
        "swarm.services.deletion",
        "if generation < self._tombstones.generation(digest):",
        "if False:",
        ("tests/services/test_deletion.py", "tests/peering"),
        unseen="takes a deletion while a push of the same blob is under way",
    ),
    Mutant(
        "tombstone-not-owed",
        "a peer that was away hears of a deletion when it comes back",
        "swarm.services.deletion",
        "await self._tombstones.bury(digest, generation, sorted(peers))",
        "await self._tombstones.bury(digest, generation)",
        ("tests/services/test_deletion.py",),
    ),
    # -- doors ------------------------------------------------------------------
    Mutant(
        "range-off-by-one",
        "a range ends with the last byte that was asked for",
        "swarm.web.ranges",
        "ranges.append(ByteRange(first, min(last + 1, size)))",
        "ranges.append(ByteRange(first, min(last, size)))",
        ("tests/web/test_ranges.py",),
    ),
    Mutant(
        "if-range-ignored",
        "a client that resumes another blob gets the whole one",
        "swarm.web.ranges",
        "if conditions.if_range is not None and conditions.if_range.strip() != etag:",
        "if False:",
        ("tests/web/test_ranges.py",),
        unseen="simulated clients resume nothing",
    ),
    Mutant(
        "expired-token",
        "a token ends when its file says so",
        "swarm.api.tokens",
        "if g.until is None or now < g.until]",
        "]",
        ("tests/api/test_tokens.py",),
        unseen="simulated nodes ask for no token",
    ),
    Mutant(
        "any-purpose",
        "a certificate for servers only is no peer's",
        "swarm.peering.admission",
        "        if lacking:\n",
        "        if False:\n",
        ("tests/peering/test_admission.py", "tests/peering/test_tls.py"),
        unseen="simulated identities are all proper",
    ),
    Mutant(
        "any-host",
        "the certificate names the host that was dialled",
        "swarm.peering.admission",
        "if host is not None and (refusal := host_refusal(certificate, host)):",
        "if host is not None and (refusal := None):",
        ("tests/peering/test_admission.py", "tests/peering/test_tls.py"),
        unseen="simulated identities are all proper",
    ),
    Mutant(
        "revocation-ignored",
        "a revoked certificate is refused",
        "swarm.peering.admission",
        "        flags |= crypto.X509StoreFlags.CRL_CHECK\n",
        "",
        ("tests/peering/test_admission.py", "tests/peering/test_tls.py"),
        unseen="simulated identities are all proper",
    ),
    Mutant(
        "coded-answer-taken",
        "a peer's answer in a content coding is refused, not unpacked",
        "swarm.peering.exchange",
        'if response.headers.hasHeader("Content-Encoding"):',
        "if False:",
        ("tests/peering/test_exchange.py", "tests/peering/test_client.py"),
        unseen="the bytes fail their proof all the same",
    ),
    Mutant(
        "endless-answer",
        "an answer longer than its budget is cut off",
        "swarm.peering.exchange",
        "if len(self._collected) > self._limit and not self._done.called:",
        "if False:",
        ("tests/peering/test_exchange.py", "tests/peering/test_client.py"),
        unseen="takes an endless answer; what follows the limit is refused by others, too",
    ),
    Mutant(
        "unverified-grains-served",
        "a node that is still pulling serves only what it verified",
        "swarm.peering.reads",
        "not all(part.have.covers(each.start, each.stop) for each in selection.parts)",
        "False",
        ("tests/peering/test_server.py", "tests/peering/test_contract.py"),
        unseen="peers ask only for what a holder says it has verified",
    ),
)

MUTANTS: Mapping[str, Mutant] = {mutant.name: mutant for mutant in _ALL}
"""By name, in the order of the table in the docs."""
