"""The HTTP server of the page on 127.0.0.1: its files, the grey volumes and one WebSocket.

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
import logging
import secrets
import threading
from collections.abc import Callable
from importlib import resources
from typing import Any

from firmware_host.viewer.feed import Feed
from firmware_host.viewer.scene import Scene
from glioslice.errors import GliosliceError

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
EXPERT = "volume/expert"
FEED = "feed"

CLOSE_TIMEOUT = 2.0
"""Seconds that tabs get to close their WebSocket."""


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
        if path == EXPERT and scene is not None and scene.truth is not None:
            return self._reply(http.HTTPStatus.OK, scene.expert, "application/octet-stream")
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
