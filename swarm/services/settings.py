"""The limits of pulls that the fetcher and its parts share. Values only."""

from __future__ import annotations

from attrs import Factory, frozen

from swarm.core.sources import SourceSettings
from swarm.services.pull import PullSettings


@frozen
class FetchSettings:
    """Limits of all pulls together; seconds and counts."""

    gather: float = 0.1  # wait this long for more holders after the first, if others have yet to answer (D1)
    answer_within: float = 6.0  # who does not say by then whether it has a blob is passed over this time
    search_every: float = 2.0  # look for holders again: partial ones grow, others come
    search_hungry: float = 0.25  # sooner while others pull it, too, and have nothing for us
    asked_again: int = 16  # of those that had nothing lately, so many at a time
    pulls_at_once: int = 64
    probation_after: float = 600.0  # a peer proven bad for a blob, and told so, may then serve it again
    retry_unfinished: float = 30.0  # pulls left over by an earlier run are tried again after this,
    resumes_at_once: int = 8  # so many at the same time
    pull: PullSettings = Factory(PullSettings)
    sources: SourceSettings = Factory(SourceSettings)
