"""What the peers of one pull say they hold, and what their bytes are worth as evidence by that.

Decides who vouches for all it sends and who is a relay, that is: passes on what it was made to believe.

The argument. Whoever holds the whole blob has proven it, so what it sends is true or it lies. A relay passes
on grains that fit the one list it works with, which a liar may have given it. So bytes of a relay
convict nobody, and it matters who is known for one when bytes are judged:

* Whatever an honest node sends while it is a relay comes in an answer that says so (``Swarm-Have``), and
  who asked notes that *before* it credits one byte of it. To have heard it once, when it was asked
  what it holds, is not enough: a node that had the whole blob then may have lost it since (a damaged copy
  set aside, a deletion), pull it anew, and pass on lies that fail the true list it offered itself.
* Once a relay, always one for this pull, for all it sent before and sends after: bytes wait for judgement,
  and those from before it was complete may be judged after. That forgives; it convicts nobody.
* A list is offered by complete holders only. One that was offered before its owner lost the blob is the
  true one, so it convicts nobody either, whatever its owner passes on since.

What it costs: a liar that calls itself a relay is suspended where it could be convicted. So a suspended
relay comes back when it no longer offers what failed, as an honest one will when it finds out, but
:data:`AMENDS` times only; a lie of a relay costs each pull a few grains. The lie of a complete holder,
passed on by however many, is found out by each of them for itself, as if it had asked the liar.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from swarm.model.peers import PeerID

#: So often a relay may take back what failed, and be asked again.
AMENDS = 3


@define
class Parties:
    """
    Who is what.

    :ivar whole: claim the whole blob and always did: they vouch for every byte they send.
    :ivar relays: had only a part at some time; whatever they send convicts them of nothing.
    :ivar partial: those of them that have only a part now, and no list to offer.
    """

    whole: set[PeerID] = field(factory=set)
    relays: set[PeerID] = field(factory=set)
    partial: set[PeerID] = field(factory=set)
    _amends: Counter[PeerID] = field(factory=Counter)

    def claim(self, peer: PeerID, *, complete: bool) -> None:
        """A peer says what it holds."""
        if not complete:
            self.relays.add(peer)
            self.partial.add(peer)
            self.whole.discard(peer)
            return
        self.partial.discard(peer)
        if peer not in self.relays:
            self.whole.add(peer)

    def amends(self, peer: PeerID) -> bool:
        """A suspended peer offers no more what failed. Is it let go for that, this time?"""
        if peer not in self.relays or self._amends[peer] == AMENDS:
            return False
        self._amends[peer] += 1
        return True
