"""The HTTP server of the page on 127.0.0.1: its files, the grey volumes and one WebSocket.

A `Scene` makes the volumes, the images under the masks. The page's voxels are bytes with X fastest;
X and Y are reversed so that they grow to the patient's right and to the front, which NiiVue shows
without another rotation.

A `Feed` keeps the messages of a run, so that a late or reloaded tab gets them all:

    case    {"kind": "case", ...}                       text, once the run is known
    slice   u32 index, f32 milliseconds, labels         binary, in the order of arrival
    numbers {"kind": "numbers", ...}                    text, the latest only

`websockets` serves all of it: it has no dependencies, and a few files need no framework. A
patient's volume is protected from others as follows:

- it listens on 127.0.0.1 alone, and every path begins with a random token, which other users of the
  machine and other pages do not know;
- a request for another host is refused (a foreign name that resolves to 127.0.0.1), and so is one
  from another origin;
- the page's policy lets it load only its own files, connect only to this server, and appear in no
  frame.
"""

import hmac
import http
import json
import logging
import math
import secrets
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.montage import BRIGHT, DARK
from glioslice.preprocessing import Crop, Images, brain_mask, extract_slices, modality_statistics

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")

FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "boards.js": ("boards.js", "text/javascript; charset=utf-8"),
    "panel.js": ("panel.js", "text/javascript; charset=utf-8"),
    "niivue.js": ("vendor/niivue.umd.js", "text/javascript; charset=utf-8"),
}
VOLUME = "volume/"
TRUTH = "volume/truth"
FEED = "feed"

CLOSE_TIMEOUT = 2.0
"""Seconds that tabs get to close their WebSocket."""

SLICE = struct.Struct("<If")

IDLE = 1.0
"""Seconds without a message after which a follower may check whether its tab still exists."""

FeedPosition = tuple[str | None, int, str | None]
"""What a follower has had: the case, the number of its slices, the numbers."""


@dataclass(frozen=True)
class Scene:
    """The window `crop` of a volume; `images` (4, X, Y, Z) is None if they are on the board.

    `missing` modalities are not shown. `truth` are the labels of the ground truth (X, Y, Z), None
    where there is none.
    """

    crop: Crop
    images: Images | None = None
    missing: tuple[str, ...] = ()
    truth: NDArray[np.uint8] | None = None
    _volumes: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that can be shown."""
        if self.images is None:
            return ()
        return tuple(modality for modality in MODALITIES if modality not in self.missing)

    @property
    def truth_voxels(self) -> bytes:
        """The labels of the ground truth as the page's voxels."""
        assert self.truth is not None
        return to_page_voxels(extract_slices(self.truth, self.crop))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels of the page's volume in X, Y, Z."""
        return (*self.crop.window, self.crop.z[1] - self.crop.z[0])

    def volume(self, modality: str) -> bytes:
        """Return a modality as voxels: 0 for air, 1 to 255 for z-scores as in the montage.

        It is computed on first use and kept (4 MB).
        """
        with self._lock:  # two tabs may request it at once
            if modality not in self._volumes:
                self._volumes[modality] = self._grey(MODALITIES.index(modality))
            return self._volumes[modality]

    def _grey(self, place: int) -> bytes:
        assert self.images is not None
        mean, deviation = modality_statistics(self.images, place, self._brain)
        (x, wx), (y, wy) = self.crop.overlap(0), self.crop.overlap(1)
        grey = np.zeros((self.grid[2], *self.crop.window), np.uint8)
        # One slice at a time: memory that a thread has used is rarely returned to the system.
        for out, z in zip(grey, range(*self.crop.z), strict=True):
            scores = (self.images[place, x, y, z] - mean) / (deviation or np.float32(1))
            shades = np.clip((scores - DARK) * (254 / (BRIGHT - DARK)), 0, 254) + 1
            out[wx, wy] = np.where(self._brain[x, y, z], shades, 0)
        return to_page_voxels(grey)

    @cached_property
    def _brain(self) -> NDArray[np.bool_]:
        assert self.images is not None
        return brain_mask(self.images)


def to_page_voxels(slices: NDArray[np.uint8]) -> bytes:
    """Return LPS slices (..., X, Y) as the page's voxels, with X and Y reversed."""
    return np.ascontiguousarray(np.swapaxes(slices[..., ::-1, ::-1], -1, -2)).tobytes()


class Feed:
    """The messages of one run. Any thread may call its methods."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._case: str | None = None
        self._numbers: str | None = None
        self._slices: list[bytes] = []
        self._rounds = 0
        self._closed = False

    def start_case(self, case: Mapping[str, Any]) -> None:
        """Publish the case; once more if its slices start again from the first."""
        with self._changed:
            self._rounds += 1
            self._case = json.dumps({"kind": "case", **case, "round": self._rounds})
            self._slices = []
            self._changed.notify_all()

    def add(self, index: int, milliseconds: float | None, labels: bytes) -> None:
        """Publish a slice's labels, as the page's voxels; its time is NaN if unknown."""
        time = math.nan if milliseconds is None else milliseconds
        with self._changed:
            self._slices.append(SLICE.pack(index, time) + labels)
            self._changed.notify_all()

    def publish_numbers(self, numbers: Mapping[str, Any]) -> None:
        """Publish the latest numbers, if they have changed."""
        text = json.dumps({"kind": "numbers", **numbers})
        with self._changed:
            if text != self._numbers:
                self._numbers = text
                self._changed.notify_all()

    def close(self) -> None:
        """Let every follower end once it has all messages."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def follow(self) -> Iterator[str | bytes | None]:
        """Yield all messages so far and then new ones; None after a second without any."""
        seen: FeedPosition = (None, 0, None)
        while True:
            with self._changed:
                if self._position == seen and not self._closed:
                    self._changed.wait(IDLE)
                case, done, numbers = seen
                seen = self._position
                closed = self._closed
                fresh: list[str | bytes | None] = []
                if seen[0] is not None:
                    fresh += [seen[0]] if seen[0] != case else []
                    fresh += self._slices[done if seen[0] == case else 0 :]
                fresh += [seen[2]] if seen[2] != numbers else []
            yield from fresh or [None]
            if closed:
                return

    @property
    def _position(self) -> FeedPosition:
        return self._case, len(self._slices), self._numbers


class Server:
    """Serves one page at `url` until it is closed; `scene` is called when a tab requests images."""

    def __init__(self, feed: Feed, scene: Callable[[], Scene | None], port: int = 0) -> None:
        try:
            from websockets.sync.server import serve
        except ImportError:
            raise GliosliceError(
                "the page needs a package that is not installed: pip install 'glioslice[host]'"
            ) from None
        self._feed, self._scene = feed, scene
        self._token = secrets.token_urlsafe(24)
        quiet = logging.getLogger(f"{__name__}.websockets")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        try:
            self._server = serve(
                self._follow,
                HOST,
                port,
                process_request=self._respond,
                compression=None,
                server_header=None,
                close_timeout=CLOSE_TIMEOUT,
                max_size=1024,
                logger=quiet,
            )
        except OSError as error:
            raise GliosliceError(
                f"the page cannot be served at port {port} ({error.strerror}); name another port"
            ) from None
        self.port = int(self._server.socket.getsockname()[1])
        self._hosts = [f"{name}:{self.port}" for name in NAMES]
        # Its threads are daemons too: a tab that hangs must not block the command.
        threading.Thread(target=self._server.serve_forever, name="page", daemon=True).start()

    @property
    def url(self) -> str:
        """The page's address; whoever knows it can read the patient's images."""
        return f"http://{HOST}:{self.port}/{self._token}/"

    def close(self) -> None:
        """Send every tab its remaining messages and stop; a tab that hangs is abandoned."""
        self._feed.close()
        ending = threading.Thread(target=self._server.shutdown, daemon=True)
        ending.start()
        ending.join(2 * CLOSE_TIMEOUT)

    def _follow(self, connection: Any) -> None:
        """Send a tab all messages, old and new."""
        from websockets.exceptions import ConnectionClosed

        try:
            for message in self._feed.follow():
                if message is not None:
                    connection.send(message)
                elif connection.close_code is not None:
                    return
        except ConnectionClosed:
            pass  # a closed tab must not end the run

    def _respond(self, connection: Any, request: Any) -> Any:
        """Return the response to a request; None lets a WebSocket open."""
        headers = request.headers
        origins = headers.get_all("Origin")
        own = [f"http://{host}" for host in self._hosts]
        if headers.get_all("Host") not in [[host] for host in self._hosts]:
            return self._reply(http.HTTPStatus.MISDIRECTED_REQUEST, b"wrong host")
        if not set(origins) <= set(own):
            return self._reply(http.HTTPStatus.FORBIDDEN, b"wrong origin")
        _, token, path = (*str(request.path).split("/", 2), "", "")[:3]
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return self._reply(http.HTTPStatus.FORBIDDEN, b"the address lacks its token")
        if path == FEED:
            if not origins:
                return self._reply(http.HTTPStatus.FORBIDDEN, b"no origin")
            return None
        return self._content(path)

    def _content(self, path: str) -> Any:
        scene = self._scene()
        if path in FILES:
            name, kind = FILES[path]
            content = resources.files(__package__).joinpath(name).read_bytes()
            return self._reply(http.HTTPStatus.OK, content, kind)
        modality = path.removeprefix(VOLUME)
        if path.startswith(VOLUME) and scene is not None and modality in scene.modalities:
            content = scene.volume(modality)
            return self._reply(http.HTTPStatus.OK, content, "application/octet-stream")
        if path == TRUTH and scene is not None and scene.truth is not None:
            return self._reply(http.HTTPStatus.OK, scene.truth_voxels, "application/octet-stream")
        return self._reply(http.HTTPStatus.NOT_FOUND, b"not found")

    def _reply(self, status: http.HTTPStatus, body: bytes, kind: str = "text/plain") -> Any:
        from websockets.datastructures import Headers
        from websockets.http11 import Response

        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self._policy(),
            "Connection": "close",
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(status.value, status.phrase, Headers(headers), body)

    def _policy(self) -> str:
        """Return the content security policy; NiiVue keeps font and shading as data: images."""
        sockets = " ".join(f"ws://{host}" for host in self._hosts)
        return "; ".join(
            (
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "img-src 'self' data:",
                f"connect-src 'self' {sockets}",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )
