"""Passwords in URLs: in no message, no traceback, no list of processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgevid.secrets import redact
from tests.conftest import Outcome

PRINTABLE = "".join(map(chr, range(0x21, 0x7F))) + "äßñ€"  # without spaces, which end a URL
PARTS = st.one_of(
    st.text(PRINTABLE, min_size=3, max_size=20),
    st.text(PRINTABLE + " ", min_size=3, max_size=20).map(lambda text: quote(text, safe="")),
)
URL = "rtsp://admin:hunter2/?#@:x@10.0.0.7:554/live"


@given(user=PARTS, password=PARTS, scheme=st.sampled_from(["rtsp", "rtsps", "http", "HTTP", "a+b.c-1"]))
def test_no_user_and_no_password_is_left(user: str, password: str, scheme: str) -> None:
    around = f"source '{scheme}://%s10.0.0.7:554/live?quality=7': no answer"
    shown = redact(around % f"{user}:{password}@")
    assume(not any(secret in around % "***@" for secret in (user, password)))
    assert shown == around % "***@"
    encoded = quote(around.split("'")[1] % f"{user}:{password}@", safe="")
    assert quote(password, safe="") not in redact(f"proxy {encoded} refused")


@given(
    name=st.sampled_from(["password", "PWD", "access_token", "client-secret", "apikey", "X-Auth", "sig", "passwd"]),
    value=PARTS.map(lambda text: quote(text, safe="")),
    separator=st.sampled_from("?&;/#"),
)
def test_no_secret_parameter_is_left(name: str, value: str, separator: str) -> None:
    url = f"http://10.0.0.7/hls{separator}{name}=%s"
    assume(value not in url % "***")
    assert redact(f"'{url % value}': gone") == f"'{url % '***'}': gone"
    assert redact(f"{url % value}&mode=a") == f"{url % '***'}&mode=a"


@pytest.mark.parametrize(
    "text",
    [
        "clip.mp4: 60 frames at 25 a second",
        "rtsp://10.0.0.7:554/live: no answer",
        "--engine-option 'x': expected KEY=VALUE",
        "http://10.0.0.7/mail%40home?quality=7&mode=a",
        "write to someone@example.org",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_errors_and_chained_tracebacks_are_redacted(
    cli: Callable[..., Outcome], bundle_path: Path, clip: Path, log_format: str, tmp_path: Path
) -> None:
    config = tmp_path / "edgevid.toml"
    config.write_text(f"max-frames = {json.dumps(URL)}\n")
    usage = ([f"--{URL}"], ["--config", config])
    chained = ["--source", clip, "--require-signature", URL]
    for arguments in (*usage, ["--source", URL], ["--camera", URL], chained):
        outcome = cli("run", bundle_path, *arguments, "--log-format", log_format, "--debug")
        assert outcome.status in (1, 2)
        assert ("Traceback" in outcome.err) == (arguments not in usage)
        assert ("direct cause" in outcome.err) == (arguments is chained)
        assert "rtsp://***@10.0.0.7:554/live" in outcome.err
        assert "hunter2" not in outcome.err
        assert "admin" not in outcome.err


def test_the_list_of_processes_does_not_show_them(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"""
import pathlib, time
from edgevid.cli import terminal
class Waiting(terminal.Terminal):
    def __init__(self):
        pathlib.Path({str(started)!r}).touch()
        time.sleep(60)
import edgevid.cli
edgevid.cli.Terminal = Waiting
edgevid.cli.main()
"""
    arguments = ["run", "--source", URL, "http://host/?token=t0ps3cret&x=1", "--window", "8", "ä rtsp://ü:ö@h"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        deadline = time.monotonic() + 20
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode().split("\0")
    finally:
        process.kill()
        process.wait()
    assert shown[3:-1] == [
        "run",
        "--source",
        f"rtsp://{'*' * len('admin:hunter2/?#@:x')}@10.0.0.7:554/live",
        "http://host/?token=*********&x=1",
        "--window",
        "8",
        f"ä rtsp://{'*' * len('ü:ö'.encode())}@h",
    ]


def test_a_pipeline_shows_no_password() -> None:
    shown = redact("gst:rtspsrc location=rtsp://cam/live user-id=admin user-pw=topsecret latency=0 ! appsink")
    assert shown == "gst:rtspsrc location=rtsp://cam/live user-id=*** user-pw=*** latency=0 ! appsink"


@pytest.mark.parametrize(
    "text",
    [
        "http://10.0.0.7/snap?loginuse=bob&loginpas=geheim",
        "rtsp://10.0.0.7/user=bob_password=geheim_channel=1.sdp",
        "rtsp://bob:my geheim@10.0.0.7/live: lost",
        'gst:rtspsrc user-id = bob user-pw="my geheim" ! appsink',
        "headers=Authorization: Bearer geheim",
    ],
)
def test_the_ways_of_other_cameras_are_known(text: str) -> None:
    assert not re.search("bob|geheim", redact(text))


def test_a_source_option_that_is_wrong_is_not_shown(cli: Callable[..., Outcome], clip: Path, tmp_path: Path) -> None:
    outcome = cli("run", "--source", clip, "--source-option", "headers:topsecret")
    assert outcome.status == 2
    assert outcome.error == "edgevid: --source-option: expected KEY=VALUE, such as rtsp_transport=udp"
