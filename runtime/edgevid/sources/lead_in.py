"""The packets of a file before the part that is wanted, which are counted and not decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from av.packet import Packet

from edgevid.sources.timestamps import MOST_REORDERED, Timestamps

__all__ = ["LeadIn"]

MOST_HELD = 64 << 20  # bytes: longer than that no key frame is waited for


class LeadIn:
    """Passes over the packets before the last key frame that is shown before a time.

    It reads all of them, so that frames keep their numbers where no index tells them.

    Args:
        start: in seconds of the file's time.
        clock: of the file; it is used up.

    Attributes:
        offset: what is added to the timestamps where decoding begins, in seconds.
    """

    def __init__(self, start: float, clock: Timestamps) -> None:
        self.offset = 0.0
        self._start, self._clock = start, clock
        self._passed = 0
        self._held: list[Packet[Any]] = []
        self._bytes = 0

    def packets(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        """Yield the packets from that key frame on."""
        rest = iter(packets)
        for packet in rest:
            if self._ends_with(packet):
                break
        yield from self._held
        yield from rest

    def number(self, timestamp: int) -> int | None:
        """Return the number of the first picture, by its timestamp; None if the key frame was not decoded."""
        key = self._held[0] if self._held else None
        if key is None or key.pts is None or not key.is_keyframe or timestamp > key.pts:
            return None
        return self._passed + sum(packet.pts is not None and packet.pts < timestamp for packet in self._held)

    def _ends_with(self, packet: Packet[Any]) -> bool:
        """Hold a packet back; return whether decoding begins with what is held."""
        if packet.dts is not None:
            self._clock.place(float(packet.dts * packet.time_base))
        shown = None if packet.pts is None else float(packet.pts * packet.time_base) + self._clock.offset
        if packet.is_keyframe and shown is not None and shown <= self._start:
            if self._held and self._held[0].is_keyframe:  # what comes before the first cannot be decoded
                self._passed += sum(map(_is_shown, self._held))
            self._held, self._bytes, self.offset = [], 0, self._clock.offset
        self._held.append(packet)
        self._bytes += packet.size
        there = self._clock.last is not None and self._clock.last >= self._start
        return (there and len(self._held) > MOST_REORDERED) or self._bytes > MOST_HELD


def _is_shown(packet: Packet[Any]) -> bool:
    """Return whether there is a picture in a packet; VP8 has some that others are only made of."""
    codec = packet.stream.codec_context
    return codec.name not in ("vp8", "libvpx") or bool(memoryview(packet)[0] & 0x10)
