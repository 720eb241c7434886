"""A recording's file: complete under its name, and refused where it is damaged."""

import itertools
import zlib
from collections.abc import Callable
from io import BufferedWriter, FileIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glioslice.errors import GliosliceError
from glioslice.wire import capture
from glioslice.wire.capture import MAGIC, MAX_CONTENT, Kind, Record, Recording, pack_record, records

some = [(Kind.UP, b"\0up\0"), (Kind.DOWN, b"down"), (Kind.RATE, (921600).to_bytes(4, "little"))]


def clock() -> Callable[[], float]:
    """A clock that ticks a quarter of a second each time it is read."""
    ticks = itertools.count()
    return lambda: next(ticks) / 4


def write(path: Path, content: list[tuple[Kind, bytes]]) -> Path:
    keep = Recording(path, clock=clock())
    for kind, data in content:
        keep.add(kind, data)
    keep.close()
    assert keep.problem == ""
    return path


def test_what_was_added_is_read_with_its_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", some)
    times = [0.25, 0.5, 0.75]
    assert list(records(path)) == [
        Record(kind, at, data) for (kind, data), at in zip(some, times, strict=True)
    ]


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.sampled_from([Kind.UP, Kind.DOWN]), st.binary(max_size=300))))
def test_any_bytes_come_back(tmp_path: Path, content: list[tuple[Kind, bytes]]) -> None:
    path = write(tmp_path / "a.rec", content)
    assert [(one.kind, one.data) for one in records(path)] == content


def test_a_long_read_takes_several_records(tmp_path: Path) -> None:
    data = bytes(range(256)) * 300
    found = list(records(write(tmp_path / "a.rec", [(Kind.DOWN, data)])))
    assert [len(one.data) for one in found] == [MAX_CONTENT, len(data) - MAX_CONTENT]
    assert b"".join(one.data for one in found) == data


def test_nothing_is_there_before_it_is_closed_but_what_a_killed_host_leaves_can_be_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "a.rec"
    keep = Recording(path, clock=clock())
    for kind, data in [*some, *some]:  # over a second by its clock: the first ones are on the disk
        keep.add(kind, data)
    assert not path.exists()
    (hidden,) = path.parent.iterdir()
    found = []
    with pytest.raises(GliosliceError, match="cut short at byte"):
        for one in records(hidden):
            found.append((one.kind, one.data))
    assert found[:3] == some
    keep.close()
    assert list(path.parent.iterdir()) == [path]
    keep.close()
    keep.add(Kind.UP, b"too late")
    assert len(list(records(path))) == 6


def test_damage_at_any_byte_is_named_and_what_is_before_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", some)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for change in (0x01, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            with pytest.raises(GliosliceError, match=r"a\.rec: "):
                list(records(path))


def test_a_file_that_is_cut_anywhere_or_goes_on_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", some)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(GliosliceError, match=r"not a recording|cut short"):
            list(records(path))
    path.write_bytes(whole + b"\0")
    with pytest.raises(GliosliceError, match="damaged"):
        list(records(path))


def test_other_files_and_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    end = pack_record(Kind.END, 0, b"")
    for content, why in (
        (b"\x1f\x8b" + bytes(100), "not a recording; `glioslice stream --record` makes one"),
        (MAGIC + b"\2" + end, "version 2, this side reads 1"),
        (MAGIC + b"\1" + pack_record(Kind.RATE, 0, b"\0\0\0") + end, "damaged at byte 5"),
        (MAGIC + b"\1" + pack_record(Kind.LINE, 0, b"") + end, "damaged at byte 5"),
        (MAGIC + b"\1" + pack_record(Kind.UP_REDACTED, 0, b"no stream") + end, "damaged at byte 5"),
        (MAGIC + b"\1" + pack_record(Kind.END, 0, b"x"), "damaged at byte 5"),
    ):
        path.write_bytes(content)
        with pytest.raises(GliosliceError, match=why):
            list(records(path))
    with pytest.raises(GliosliceError, match="No such file"):
        list(records(tmp_path / "none.rec"))


def test_time_does_not_go_back(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(MAGIC + b"\1" + pack_record(Kind.UP, 2, b"x") + pack_record(Kind.UP, 1, b"y"))
    with pytest.raises(GliosliceError, match="damaged at byte 19"):
        list(records(path))


def test_a_redacted_record_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    bomb = zlib.compress(bytes(50_000_000))[:60000]
    path.write_bytes(MAGIC + b"\1" + pack_record(Kind.UP_REDACTED, 0, bomb))
    with pytest.raises(GliosliceError, match="damaged"):
        list(records(path))


def test_a_recording_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_SIZE", 1000)
    path = tmp_path / "a.rec"
    keep = Recording(path)
    for _ in range(100):
        keep.add(Kind.UP, bytes(50))
    keep.close()
    assert "1,000 bytes" in keep.problem
    assert 900 < path.stat().st_size <= 1000
    assert len(list(records(path))) == 15
    path.write_bytes(path.read_bytes() + bytes(100))
    with pytest.raises(GliosliceError, match="at most 1,000 bytes"):
        list(records(path))


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path) -> None:
    keep = Recording(tmp_path / "a.rec")
    keep.add(Kind.UP, b"first")
    keep._file.close()
    keep._file = BufferedWriter(FileIO("/dev/full", "wb"), buffer_size=2)
    keep.add(Kind.UP, b"second")
    assert "No space left" in keep.problem
    keep.add(Kind.UP, b"third")
    keep.close()
    found = records(tmp_path / "a.rec")
    assert next(found).data == b"first"
    with pytest.raises(GliosliceError, match="cut short"):
        next(found)
