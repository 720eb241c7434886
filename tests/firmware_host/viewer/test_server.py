"""Who may read the page, and which messages tabs get; without a browser."""

import hashlib
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from firmware_host.progress import Reporter
from firmware_host.viewer import finished_case
from firmware_host.viewer import page as page_module
from firmware_host.viewer.page import Page, open_page
from firmware_host.viewer.server import FILES, SLICE, Feed, Scene, Server, to_page_voxels
from glioslice.errors import GliosliceError
from glioslice.preprocessing import Crop, brain_mask, extract_slices, find_crop
from tools.viewer import NOTE, VENDOR

Volumes = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True)
class Site:
    """A server with a scene, and its token."""

    server: Server
    feed: Feed
    scene: Scene

    @property
    def token(self) -> str:
        return self.server.url.rstrip("/").rsplit("/", 1)[1]

    def get(self, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of the response of the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())


@pytest.fixture
def site(volumes: Volumes) -> Iterator[Site]:
    images, _ = volumes
    feed, scene = Feed(), Scene(find_crop(brain_mask(images), (32, 40)), images)
    server = Server(feed, lambda: scene)
    yield Site(server, feed, scene)
    server.close()


def test_the_files_and_the_volumes_are_served(site: Site) -> None:
    for path, (name, kind) in FILES.items():
        status, body, headers = site.get(f"/{site.token}/{path}")
        assert (status, headers["Content-Type"]) == (200, kind), name
        assert len(body) > 500
    status, body, _ = site.get(f"/{site.token}/volume/t2")
    assert (status, len(body)) == (200, 32 * 40 * 14)
    for path in ("volume/t3", "volume/", "vendor/niivue.json", "../server.py", "%2e%2e/server.py"):
        assert site.get(f"/{site.token}/{path}")[0] == 404, path


def test_without_the_token_nothing_is_served(site: Site) -> None:
    other = site.token[:-1] + ("a" if site.token[-1] != "a" else "b")
    for path in (
        "/",
        "/page.js",
        "/volume/flair",
        f"/{other}/",
        f"/{site.token[:-1]}/",
        "//",
        "/x",
    ):
        status, body, _ = site.get(path)
        assert status == 403, path
        assert b"token" in body


def test_another_name_for_this_machine_is_refused(site: Site) -> None:
    """As where a foreign name is made to resolve to 127.0.0.1, or a proxy passes a request on."""
    page = f"/{site.token}/"
    port = site.server.port
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        assert site.get(page, Host=host)[0] == 421, host
    assert site.get(page, Host=f"localhost:{port}")[0] == 200


def test_another_origin_is_refused(site: Site) -> None:
    page = f"/{site.token}/volume/flair"
    port = site.server.port
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{port + 1}", "file://"):
        assert site.get(page, Origin=origin)[0] == 403, origin
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(site.server.url.replace("http", "ws") + "feed", origin=Origin(origin)),
        ):
            pass
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus), connect(site.server.url.replace("http", "ws") + "feed"):
        pass  # no origin: no browser
    assert site.get(page, Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_it_listens_on_this_machine_alone(site: Site) -> None:
    address = site.server._server.socket.getsockname()
    assert address[0] == "127.0.0.1"


def test_what_the_page_may_do(site: Site) -> None:
    headers = site.get(f"/{site.token}/")[2]
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "*" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"  # the token is in the address
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    for name in FILES.values():
        text = (VENDOR.parent / name[0]).read_text()
        if "vendor" not in name[0]:
            assert "http://" not in text and "https://" not in text, name


def test_a_port_that_is_taken(site: Site) -> None:
    with pytest.raises(GliosliceError, match=r"cannot be served at port"):
        Server(Feed(), lambda: None, site.server.port)


def test_grey_volumes(volumes: Volumes) -> None:
    images, _ = volumes
    crop = find_crop(brain_mask(images), (32, 40))
    shown = np.frombuffer(Scene(crop, images).volume("t1"), np.uint8).reshape(14, 40, 32)
    window = extract_slices(brain_mask(images), crop).astype(np.uint8)
    brain = np.frombuffer(to_page_voxels(window), np.uint8)
    np.testing.assert_array_equal(shown > 0, brain.reshape(shown.shape) > 0)
    bright = np.unravel_index(images[1].argmax(), images.shape[1:])
    x, y, z = (int(n) for n in bright)
    x, y = x - crop.origin[0], y - crop.origin[1]
    assert shown[z - crop.z[0], 39 - y, 31 - x] == shown.max()  # turned to the right and the front


def all_messages(feed: Feed) -> list[str | bytes | None]:
    return [message for message in feed.follow() if message is not None]


def test_a_late_follower_gets_all_messages() -> None:
    feed = Feed()
    feed.add(3, 1.5, b"before")
    feed.start_case({"name": "a"})
    feed.add(0, 2.0, b"zero")
    feed.publish_numbers({"masks": 1})
    feed.publish_numbers({"masks": 2})
    early: list[str | bytes | None] = []
    follower = threading.Thread(target=lambda: early.extend(all_messages(feed)))
    follower.start()
    time.sleep(0.1)
    feed.add(1, 3.0, b"one")
    feed.publish_numbers({"masks": 3})
    time.sleep(0.1)
    feed.close()
    follower.join(60)
    late = all_messages(feed)
    assert [json.loads(m)["kind"] for m in late if isinstance(m, str)] == ["case", "numbers"]
    slices = [m for m in late if isinstance(m, bytes)]
    assert slices == [SLICE.pack(0, 2.0) + b"zero", SLICE.pack(1, 3.0) + b"one"]
    assert [m for m in early if isinstance(m, bytes)] == slices
    last = [m for m in early if isinstance(m, str)][-1]
    assert json.loads(str(last))["masks"] == 3


def test_a_restarted_case_is_sent_from_its_first_slice() -> None:
    feed = Feed()
    feed.start_case({"name": "a"})
    feed.add(0, 1.0, b"old")
    messages = feed.follow()
    assert [next(messages) for _ in range(2)][1] == SLICE.pack(0, 1.0) + b"old"
    feed.start_case({"name": "a"})
    feed.add(0, 1.0, b"new")
    assert json.loads(str(next(messages)))["round"] == 2
    assert next(messages) == SLICE.pack(0, 1.0) + b"new"


@pytest.mark.slow
def test_a_tab_that_never_reads_blocks_nobody(volumes: Volumes) -> None:
    page = Page()
    crop = Crop((160, 192, 200), (0, 0), (0, 200), (160, 192))
    page.start_case(Scene(crop), {"name": "x"}, dict)
    for index in range(200):  # 6 MB, more than any buffer on the way
        page.add(index, 1.0, np.zeros((160, 192), np.uint8))
    host = page.url.split("/")[2]
    deaf = socket.create_connection(("127.0.0.1", int(host.rsplit(":", 1)[1])))
    path = page.url.split(host)[1]
    deaf.sendall(
        f"GET {path}feed HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    time.sleep(0.5)
    # Else both wait for the tab, which never reads.
    for work in (lambda: page.add(0, 1.0, np.zeros((160, 192), np.uint8)), page.close):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
    deaf.close()


def test_the_viewer_is_the_one_that_the_note_names() -> None:
    note = json.loads(NOTE.read_text())
    file = VENDOR / note["file"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == note["sha256"]
    licence = (VENDOR / "LICENSE").read_text()
    assert f"{note['package']} {note['version']}" in licence
    assert "BSD 2-Clause License" in licence
    assert Path(FILES["niivue.js"][0]).name == note["file"]


def test_warnings_about_the_link_are_the_status_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for screen in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(screen, raising=False)
    monkeypatch.setattr(page_module, "_wait_for_ctrl_c", lambda *_: None)
    shown: list[str] = []
    monkeypatch.setattr(Page, "show_message", lambda self, text: shown.append(text))
    logger = logging.getLogger("glioslice.wire.connection")
    with open_page(0, Reporter()):
        logger.warning("%s: the port is lost", "COM3")
        logger.info("the port is back")
    logger.warning("after the page")
    assert shown == ["COM3: the port is lost"]


def test_a_finished_case_without_its_mask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        finished_case.main([str(tmp_path / "none.nii.gz")])
    assert end.value.code == 2
    assert "none.nii.gz" in capsys.readouterr().err
