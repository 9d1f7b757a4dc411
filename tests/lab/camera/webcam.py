"""A USB camera in software: what Linux' uvcvideo sees is a webcam with MJPG and YUYV, plugged into vhci-hcd.

    modprobe vhci-hcd; modprobe uvcvideo; python webcam.py FOLDER LOG &

FOLDER has NAME.jpg and NAME.yuyv for each size, NAME being as 640x480-00; they are shown in turn. LOG gets a line for
each that is sent: its number, and when that began, on the monotonic clock. Lines on standard input tell it what to do:
``mute`` and ``speak`` (no frames, and again), ``garbage N`` (the next N frames are no JPEG), ``cut N`` (the next N end
in the middle), ``empty N``, ``unplug``, ``plug``, ``quit``. Only Python's own library is needed.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
import threading
import time
from pathlib import Path

ATTACH = Path("/sys/devices/platform/vhci_hcd.0/attach")
HIGH_SPEED, ENDPOINT, PAYLOAD = 3, 0x81, 16384
RATES = (30, 15, 5)
INTERVALS = [10_000_000 // rate for rate in RATES]
YUY2 = b"YUY2" + bytes.fromhex("00001000800000aa00389b71")
STALL, GONE = -32, -104

Size = tuple[int, int]
Pictures = dict[str, dict[Size, list[bytes]]]  # by format, then by size


def read_pictures(folder: Path) -> Pictures:
    """Return the files of a folder, in the order in which they are shown."""
    pictures: Pictures = {"jpg": {}, "yuyv": {}}
    for path in sorted(folder.glob("*x*-*.*")):
        match = re.fullmatch(r"(\d+)x(\d+)-\d+\.(jpg|yuyv)", path.name)
        assert match, path
        pictures[match[3]].setdefault((int(match[1]), int(match[2])), []).append(path.read_bytes())
    return pictures


def block(kind: int, body: bytes) -> bytes:
    """Return a descriptor of USB: its length, its kind, and what it says."""
    return struct.pack("BB", len(body) + 2, kind) + body


def configuration(pictures: Pictures) -> bytes:
    """Return what the camera says of itself: a control and a streaming interface, whose endpoint is a bulk one."""
    streaming = b""
    for number, (kind, sizes) in enumerate(pictures.items(), 1):
        if kind == "jpg":
            streaming += block(0x24, struct.pack("9B", 6, number, len(sizes), 1, 1, 0, 0, 0, 0))
        else:
            streaming += block(0x24, struct.pack("3B", 4, number, len(sizes)) + YUY2 + bytes([16, 1, 0, 0, 0, 0]))
        for index, (width, height) in enumerate(sorted(sizes), 1):
            area, subtype = width * height, 7 if kind == "jpg" else 5
            frame = struct.pack("<3B2H3I", subtype, index, 0, width, height, area * 80, area * 480, area * 2)
            frame += struct.pack("<IB3I", INTERVALS[0], len(INTERVALS), *INTERVALS)
            streaming += block(0x24, frame)
        streaming += block(0x24, struct.pack("4B", 13, 1, 1, 4))
    head = bytearray(block(0x24, struct.pack("<BBH7B", 1, len(pictures), 0, ENDPOINT, 0, 2, 0, 0, 0, 1) + bytes(2)))
    struct.pack_into("<H", head, 4, len(head) + len(streaming))
    sensor = block(0x24, struct.pack("<BBHBBHHHB", 2, 1, 0x0201, 0, 0, 0, 0, 0, 3) + bytes(3))
    output = block(0x24, struct.pack("<BBHBBB", 3, 2, 0x0101, 0, 1, 0))
    control = block(0x24, struct.pack("<BHHIBB", 1, 0x0100, 13 + len(sensor) + len(output), 48_000_000, 1, 1))
    body = (
        block(0x0B, bytes([0, 2, 0x0E, 3, 0, 2]))
        + block(4, bytes([0, 0, 0, 0x0E, 1, 0, 2]))
        + control
        + sensor
        + output
        + block(4, bytes([1, 0, 1, 0x0E, 2, 0, 0]))
        + bytes(head)
        + streaming
        + block(5, struct.pack("<BBHB", ENDPOINT, 2, 512, 0))
    )
    return block(2, struct.pack("<H5B", 9 + len(body), 2, 1, 0, 0x80, 250)) + body


DEVICE = block(1, struct.pack("<H4B3H4B", 0x0200, 0xEF, 2, 1, 64, 0x1209, 0x0001, 0x0100, 1, 2, 3, 1))
STRINGS = ("", "edgevid tests", "Software webcam", "0001")


class Webcam:
    """One plugged in camera: answers what vhci-hcd asks over a socket, in the protocol of USB/IP."""

    def __init__(self, pictures: Pictures, log: Path) -> None:
        self.pictures, self.log = pictures, log
        self.ours, theirs = socket.socketpair()
        self.probe = self.commit = self.chosen(1, 1, INTERVALS[0])
        self.wanted: dict[int, int] = {}  # transfers that wait for a picture, and their lengths
        self.changed = threading.Condition(threading.RLock())
        self.plugged, self.muted = True, False
        self.spoil = {"garbage": 0, "cut": 0, "empty": 0}
        ATTACH.write_text(f"0 {theirs.fileno()} 65538 {HIGH_SPEED}")
        theirs.close()
        threading.Thread(target=self.answer, daemon=True).start()
        threading.Thread(target=self.film, daemon=True).start()

    def sizes(self, form: int) -> tuple[str, list[Size]]:
        """Return a format's name, and its sizes."""
        kind = list(self.pictures)[form - 1]
        return kind, sorted(self.pictures[kind])

    def chosen(self, form: int, frame: int, interval: int) -> bytes:
        """Return the camera's answer to what is asked for: the nearest that it has."""
        form = min(max(form, 1), len(self.pictures))
        sizes = self.sizes(form)[1]
        frame = min(max(frame, 1), len(sizes))
        width, height = sizes[frame - 1]
        interval = min(INTERVALS, key=lambda one: abs(one - interval))
        return struct.pack("<HBBI5H2I", 1, form, frame, interval, 0, 0, 0, 0, 0, width * height * 2, PAYLOAD)

    def read(self, count: int) -> bytes:
        """Return so many bytes of what vhci-hcd says."""
        data = b""
        while len(data) < count:
            more = self.ours.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def reply(self, number: int, data: bytes = b"", *, status: int = 0, length: int | None = None) -> None:
        """Answer a transfer."""
        length = len(data) if length is None else length
        with self.changed:
            self.ours.sendall(struct.pack(">5I5i8x", 3, number, 0, 0, 0, status, length, 0, 0, 0) + data)

    def answer(self) -> None:
        """Answer transfers until it is unplugged."""
        try:
            while True:
                command, number, _, inward, endpoint = struct.unpack(">5I", self.read(20))
                rest = self.read(28)
                if command == 2:
                    self.unlink(number, struct.unpack(">I", rest[:4])[0])
                    continue
                length = struct.unpack(">Ii", rest[:8])[1]
                data = b"" if inward else self.read(length)
                if endpoint:
                    with self.changed:
                        self.wanted[number] = length
                        self.changed.notify_all()
                else:
                    self.control(number, rest[20:28], data)
        except OSError:
            self.plugged = False

    def unlink(self, number: int, victim: int) -> None:
        """Give up a transfer that waits."""
        with self.changed:
            status = GONE if self.wanted.pop(victim, None) else 0
            self.ours.sendall(struct.pack(">5Ii24x", 4, number, 0, 0, 0, status))

    def control(self, number: int, setup: bytes, data: bytes) -> None:
        """Answer what is asked of the camera itself."""
        kind, request, value, index, length = struct.unpack("<BBHHH", setup)
        if kind == 0x80 and request == 6:
            found = self.descriptor(value >> 8, value & 0xFF)
            self.reply(number, found[:length]) if found else self.reply(number, status=STALL)
        elif kind == 0x21 and request == 1 and index == 1:  # what is to be streamed
            form, frame, interval = struct.unpack_from("<BBI", data, 2)
            self.probe = self.chosen(form, frame, interval)
            if value >> 8 == 2:
                self.commit = self.probe
            self.reply(number, length=len(data))
        elif kind == 0xA1 and index == 1:
            agreed = self.probe if value >> 8 == 1 else self.commit
            self.reply(number, {0x85: struct.pack("<H", 26), 0x86: b"\3"}.get(request, agreed)[:length])
        elif kind & 0x60 == 0x20:
            self.reply(number, status=STALL)
        elif kind & 0x80:  # status, interface
            self.reply(number, bytes(length))
        else:
            self.reply(number, length=len(data))

    def descriptor(self, kind: int, which: int) -> bytes:
        """Return what the camera says of itself; empty where it says nothing."""
        if kind == 3 and which < len(STRINGS):
            return block(3, STRINGS[which].encode("utf-16-le") if which else struct.pack("<H", 0x409))
        return {1: DEVICE, 2: configuration(self.pictures)}.get(kind, b"")

    def film(self) -> None:
        """Give the pictures to whoever asks for them, at their rate, each in as many transfers as it needs."""
        count, toggle, due = 0, 0, time.monotonic()
        with self.log.open("a") as log:
            while self.plugged:
                with self.changed:
                    if not self.changed.wait_for(lambda: self.wanted, 0.2):
                        continue
                form, frame, interval = struct.unpack_from("<BBI", self.commit, 2)
                kind, sizes = self.sizes(form)
                due = max(due + interval / 1e7, time.monotonic() - 0.1)
                time.sleep(max(0.0, due - time.monotonic()))
                while self.muted and self.plugged:
                    time.sleep(0.02)
                shown = self.pictures[kind][sizes[frame - 1]]
                how, data = self.spoilt(shown[count % len(shown)])
                log.write(f"{count % len(shown)} {time.monotonic():.6f} {how}\n")
                log.flush()
                count, toggle = count + 1, toggle ^ 1
                try:
                    while data := self.send(data, toggle):
                        pass
                except OSError:
                    return

    def spoilt(self, data: bytes) -> tuple[str, bytes]:
        """Return how a picture is to be spoilt, and the picture."""
        for how, count in self.spoil.items():
            if count:
                self.spoil[how] -= 1
                return how, {"garbage": os.urandom(len(data)), "cut": data[: len(data) // 2], "empty": b""}[how]
        return "whole", data

    def send(self, data: bytes, toggle: int) -> bytes:
        """Send as much of a picture as one transfer takes; return the rest."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.wanted, 5):
                return b""
            number = next(iter(self.wanted))
            room = min(self.wanted.pop(number), PAYLOAD) - 12
            now = time.monotonic_ns()
            ticks, last = now // 1000 * 48 & 0xFFFFFFFF, 2 if len(data) <= room else 0
            head = struct.pack("<BBIIH", 12, 0x8C | toggle | last, ticks, ticks, now // 1_000_000 & 0x7FF)
            self.reply(number, head + data[:room])
        return data[room:]

    def unplug(self) -> None:
        """Be gone."""
        self.plugged = False
        self.ours.shutdown(socket.SHUT_RDWR)
        self.ours.close()


def main() -> None:
    """Be a camera, and do what lines on standard input say."""
    pictures, log = read_pictures(Path(sys.argv[1])), Path(sys.argv[2])
    camera = Webcam(pictures, log)
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "unplug":
            camera.unplug()
        elif word == "plug":
            camera = Webcam(pictures, log)
        elif word in ("mute", "speak"):
            camera.muted = word == "mute"
        elif word in camera.spoil:
            camera.spoil[word] = int(number)
        elif word == "quit":
            break
    camera.unplug()


if __name__ == "__main__":
    main()
