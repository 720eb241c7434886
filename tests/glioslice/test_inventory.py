"""Inventories of boards: what is read, and what is refused with one line."""

from pathlib import Path

import pytest

from glioslice.errors import GliosliceError
from glioslice.inventory import InventoryBoard, read_inventory

GOOD = """
model = "nano"
port = "/dev/ttyGS0"

[[board]]
name = "ada"
address = "pi@ada.local"
host_port = "/dev/ttyACM0"

[[board]]
name = "ben"
address = "pi@ben.local"
model = "compact"
ssh_options = ["Port=2222"]
"""


def test_boards_take_what_stands_at_the_top(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(GOOD)
    ada = InventoryBoard("ada", "pi@ada.local", "/dev/ttyACM0", "/dev/ttyGS0", "nano")
    ben = InventoryBoard(
        "ben", "pi@ben.local", None, "/dev/ttyGS0", "compact", None, ("Port=2222",)
    )
    assert read_inventory(path) == [ada, ben]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no board"),
        ("board = 3", "has no board"),
        ("[[board", "not valid TOML"),
        ("[[board]]\naddress = 'a'", "has the name None"),
        ("[[board]]\nname = '-o x'", "has the name '-o x'"),
        ("[[board]]\nname = 'a'\nhots = 'b'", "unknown entry 'hots'"),
        ("[[board]]\nname = 'a'\nport = 3", "port of board 'a' is not a string"),
        ("[[board]]\nname = 'a'\nssh_options = 'x'", "ssh_options of board 'a'"),
        ("[[board]]\nname = 'a'\n[[board]]\nname = 'a'", "the name a is used by two"),
        (
            "host_port = 'x'\n[[board]]\nname = 'a'\n[[board]]\nname = 'b'",
            "the host_port x is used by two",
        ),
        (
            "address = 'x'\n[[board]]\nname = 'a'\n[[board]]\nname = 'b'",
            "the address x is used by two",
        ),
    ],
)
def test_a_bad_inventory_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    with pytest.raises(GliosliceError, match=r"boards\.toml") as caught:
        read_inventory(path)
    assert expected in str(caught.value)


def test_a_missing_inventory_is_named(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="no such file"):
        read_inventory(tmp_path / "none.toml")
