"""Whether a pull should stop waiting for those near to bring from afar what is theirs to bring.

Far grains come to a site once because each node there asks for its own share only, and gets the rest from
its neighbours. One of them may be slow, gone, or not pull after all; then who waits for it would come to
its pace. So what comes is held against what the far source itself could bring. Decides that, and no more.
"""

from __future__ import annotations

from attrs import define, field


@define
class Drought:
    """
    Of one pull.

    :ivar share: of the far source's rate: less than this part of it is too little,
    :ivar seconds: if it was no more for so long.
    """

    share: float
    seconds: float
    _since: float | None = field(init=False, default=None)
    _before: int = field(init=False, default=0)
    _rate: float = field(init=False, default=float("inf"))  # bytes a second, when it was looked at last

    def ails(self, rate: float, now: float, received: int) -> bool:
        """
        Is more to be asked for from afar than one's share?

        :param rate: bytes a second of the far source; 0 if that is not known.
        :param received: bytes that came from all sources since the beginning.
        """
        if self._since is None:
            self._since, self._before = now, received
        elif now >= self._since + self.seconds:
            self._rate = (received - self._before) / (now - self._since)
            self._since, self._before = now, received
        return self._rate == 0 or self._rate < self.share * rate
