"""Which packets of a file need to be decoded for the frames that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgevid.sources.pick import Pick
from edgevid.sources.timing import EvenTiming

__all__ = ["Plan"]

WORTH_A_JUMP = 8  # frames: after a jump the decoder starts anew


class Plan:
    """Follows the packets of a file on their way into the decoder, in decoding order, and says where to go on.

    Args:
        timing: of the file.
        pick: which frames are wanted.
        time_base: seconds in a unit of its timestamps.
        sought: whether decoding begins somewhere before the first frame that is wanted, as far as seeking tells.
    """

    def __init__(self, timing: EvenTiming, pick: Pick, time_base: float, sought: bool) -> None:
        self.timing, self._pick, self._time_base = timing, pick, time_base
        self._targets = self._wanted_numbers()
        self._target = next(self._targets, None)
        self._early: set[int] = set()  # wanted, and sent before another that is shown earlier
        # Which key frame decoding was sent to, until a packet of it is there, and its number until its picture is.
        self._key = timing.key_before(self._target) if sought and self._target is not None else None
        self._landing = None if self._key is None else self._number_of_key()

    @property
    def finished(self) -> bool:
        """Whether every frame that is wanted has been sent."""
        return self._target is None

    def wants(self, number: int) -> bool:
        """Return whether the frame of that number is wanted, or might be."""
        return self._pick.wants(number, self._seconds(number))

    def _seconds(self, number: int) -> float:
        return self.timing.timestamp(number) * self._time_base

    @property
    def landing(self) -> bool:
        """Whether nothing was shown yet of where the last jump led to."""
        return self._landing is not None

    def jumps(self) -> None:
        """Note that decoding goes on where :meth:`sent` said."""
        self._landing = self._number_of_key()

    def is_astray(self, number: int, is_key_frame: bool) -> bool:
        """Return whether the first picture after a jump is not that key frame: the file says so of what is none."""
        if self._landing is None or number < self._landing:
            return False
        astray = number != self._landing or not is_key_frame
        self._landing = None
        return astray

    def _number_of_key(self) -> int:
        return self.timing.key_frames[max(0, self._key or 0)]

    def missed(self, number: int) -> bool:
        """Return whether a jump went too far: the first packet there is shown after the frame that was meant."""
        key, self._key = self._key, None
        too_far = key is not None and key > 0 and self._target is not None and number > self._target
        if too_far:
            self._key = key
        return too_far

    def earlier_key(self) -> int:
        """Return the timestamp of the key frame before the one that was too far."""
        assert self._key
        self._key -= 1
        self._landing = self._number_of_key()
        return self.timing.timestamp(self._landing)

    def sent(self, number: int) -> int | None:
        """Note that a frame went into the decoder; return the timestamp to jump to, None to go on from here."""
        if number != self._target:
            if self.wants(number):
                self._early.add(number)
            return None
        self._target = next((target for target in self._targets if target not in self._early), None)
        if self._target is None:
            return None
        self._early = {early for early in self._early if early > self._target}
        key = self.timing.key_before(self._target)
        if key < 0 or self.timing.key_frames[key] < max((number, *self._early)) + WORTH_A_JUMP:
            return None
        self._key = key
        return self.timing.timestamp(self._number_of_key())

    def _wanted_numbers(self) -> Iterator[int]:
        ahead = replace(self._pick)  # it will have been asked for these frames when they come out
        for number in range(self.timing.count):
            seconds = self._seconds(number)
            if seconds >= ahead.end:
                return
            if ahead.wants(number, seconds):
                ahead.take(seconds)
                yield number
