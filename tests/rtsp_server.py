"""An RTSP server (GStreamer's), for the tests; run by the system's Python, which has its bindings.

    /usr/bin/python3 rtsp_server.py PORT [COLOR] [USER PASSWORD]

Serves H.264 at rtsp://127.0.0.1:PORT/live, 320 by 240, 25 frames a second, a key frame each second: a white ball that
moves on a ground of that colour; ``still`` for a picture that never changes. Prints one line once it listens.
"""

import sys

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402 - its way

COLORS = {"red": "0xffc82828", "green": "0xff28c828", "blue": "0xff2828c8"}
PIPELINE = (
    "( videotestsrc is-live=true {picture} ! video/x-raw,width=320,height=240,framerate=25/1 "
    "! x264enc tune=zerolatency key-int-max=25 bitrate=1000 ! rtph264pay name=pay0 config-interval=1 )"
)


def main(port: str, color: str = "green", *credentials: str) -> None:
    """Serve until killed."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory()
    still = "pattern=blue"
    factory.set_launch(
        PIPELINE.format(picture=still if color == "still" else f"pattern=ball background-color={COLORS[color]}")
    )
    factory.set_shared(True)
    if credentials:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*credentials), token)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.from_string("viewer, media.factory.access=true, media.factory.construct=true;")[0]
        )
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


main(*sys.argv[1:])
