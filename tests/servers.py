"""Real servers for the tests, and a link to them that can be stalled and cut."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2

from tests.conftest import picture

RTSP_SERVER = Path(__file__).parent / "rtsp_server.py"
SYSTEM_PYTHON = "/usr/bin/python3"  # which has GStreamer's bindings


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def rtsp_server(port: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run tests/rtsp_server.py; yields its process, once it listens."""
    command = [SYSTEM_PYTHON, str(RTSP_SERVER), str(port), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        try:
            assert server.stdout.readline() == "listening\n"
            yield server
        finally:
            server.kill()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing of it."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Camera(BaseHTTPRequestHandler):
    """Serves green pictures for ever as multipart JPEG, as network cameras do.

    Attributes:
        flow: cleared, nothing comes any more.
        spoiled: set, what comes cannot be decoded.
    """

    flow = threading.Event()
    spoiled = threading.Event()

    def do_GET(self) -> None:
        """Answer with a stream that has no end."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for number in range(100_000):
                self.flow.wait()
                data = cv2.imencode(".jpg", picture("green", 120, 160, number % 50))[1].tobytes()
                if self.spoiled.is_set():
                    data = data[:200] + bytes(len(data) - 200)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                threading.Event().wait(0.04)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def http_server(handler: Any, address: str = "127.0.0.1") -> Iterator[str]:
    """Serve HTTP in this process; yields the URL of its root."""
    with ThreadingHTTPServer((address, 0), handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://{address}:{server.server_port}"
        finally:
            server.shutdown()


def files_of(folder: Path) -> Any:
    """Return what serves the files of a folder."""
    return partial(Quiet, directory=str(folder))


class Locked(Quiet):
    """Serves files to ``viewer`` with the password ``secret``."""

    def do_GET(self) -> None:
        """Serve, or ask who it is."""
        if self.headers.get("Authorization") == "Basic " + base64.b64encode(b"viewer:secret").decode():
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="clips"')
        self.send_header("Content-Length", "0")
        self.end_headers()


class Web(Quiet):
    """Serves files over HTTP/1.1 or as 1.0, part by part, and in the other ways that there are.

    Attributes:
        sends_parts: whether a client may ask for a part of a file.
        length: how it says where a body ends: ``stated``, ``chunked``, or ``untold``, which is where it hangs up.
        hangs_up: when it ends a connection: ``asked`` by the client, or ``always``, both without a word.
        whole: what share of a body it sends before it hangs up.
        mute: the numbers of the requests that it hangs up on without an answer.
        asked: the paths it was asked for.
    """

    protocol_version = "HTTP/1.1"
    sends_parts, length, hangs_up, whole = True, "stated", "asked", 1.0
    mute: tuple[int, ...] = ()
    asked: list[str]

    def do_GET(self) -> None:
        """Serve a file, or a part of it."""
        self.asked.append(self.path)
        if len(self.asked) in self.mute:
            self.close_connection = True
            return
        path = Path(self.translate_path(self.path))
        if not path.exists():
            self.send_error(404)
            return
        data = path.read_bytes()
        part = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.sends_parts else None
        first, last = (int(part[1]), int(part[2] or len(data) - 1)) if part else (0, len(data) - 1)
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        body = data[first : last + 1]
        if self.length == "stated":
            self.send_header("Content-Length", str(len(body)))
        elif self.length == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = body[: round(len(body) * self.whole)]
        chunks = [sent[at : at + 5000] for at in range(0, len(sent), 5000)] + [b""] * (self.whole == 1.0)
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if self.length == "chunked" else chunk)
        self.close_connection |= self.hangs_up == "always" or self.length == "untold" or self.whole < 1.0


def web(folder: Path, **ways: Any) -> Any:
    """Return what serves the files of a folder in the ways that are attributes of :class:`Web`."""
    return partial(type("Web", (Web,), {"asked": [], **ways}), directory=str(folder))


class Halting(Quiet):
    """Serves the first half of a file, and then nothing more."""

    def do_GET(self) -> None:
        """Serve, and halt."""
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[: len(data) // 2])
            threading.Event().wait(20)


@contextmanager
def live_playlist(folder: Path, color: str) -> Iterator[threading.Event]:
    """Write an HLS playlist ``live.m3u8`` with segments of a second as time goes by; the event ends it."""
    over = threading.Event()
    options = {"hls_time": "1", "hls_list_size": "3", "hls_flags": "delete_segments"}

    def write() -> None:
        with av.open(str(folder / "live.m3u8"), "w", format="hls", options=options) as output:
            stream = output.add_stream("libx264", rate=25, options={"g": "25", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            for number in range(1000):
                shown = av.VideoFrame.from_ndarray(picture(color, 120, 160, number), format="bgr24")
                output.mux(stream.encode(shown))
                if over.wait(0.04):
                    break
            output.mux(stream.encode(None))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        while not (folder / "live.m3u8").exists():
            over.wait(0.05)
        yield over
    finally:
        over.set()
        writer.join()


class Link:
    """A TCP link to a port of this machine, that can be stalled and cut.

    Attributes:
        port: what to connect to.
        flow: cleared, nothing passes any more.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.flow = threading.Event()
        self.flow.set()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """Break what is connected now."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self) -> None:
        """Break everything, and listen no more."""
        self._listener.close()
        self.cut()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self.flow.wait()
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.close()
