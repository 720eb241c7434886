"""What several boards of a deployment are given, and what is refused before any is touched."""

from pathlib import Path

import pytest

from device import deploy
from device.deploy import main
from device.deployment.release import Payload


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return tmp_path / "boards.toml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[board]]\nname = 'ada'", "board 'ada' has no address"),
        ("runtime = 'onnx'\n[[board]]\nname = 'ada'\naddress = 'x'", "the runtime 'onnx'"),
        ("model = 'huge'\n[[board]]\nname = 'ada'\naddress = 'x'", "no model 'huge'"),
        ("[[board]]\nname = 'ada'\naddress = '-oProxyCommand=x'", "expected a board such as"),
    ],
)
def test_a_bad_inventory_touches_no_board(
    text: str, expected: str, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory.write_text(text)
    with pytest.raises(SystemExit) as end:
        main(["--inventory", str(inventory)])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert expected in printed.err and printed.out == ""


@pytest.mark.parametrize(
    "options", [[], ["a", "--inventory", "b"], ["a", "--check", "--uninstall"]]
)
def test_what_does_not_go_together(options: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(options)
    assert end.value.code == 2


def test_a_board_that_is_named_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pi@a", "pi@b", "pi@a"])
    assert "pi@a: named twice" in capsys.readouterr().err


def test_all_boards_fail_by_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--ssh-option", "Port=1", "--check")
    with pytest.raises(SystemExit):
        main(["nobody@127.0.0.1", "nobody@127.0.0.2", *options])
    printed = capsys.readouterr()
    assert printed.err.count("nothing listens there") == 2
    assert "error: 2 of 2 boards failed" in printed.err
    assert [line.split()[2] for line in printed.out.splitlines()[1:]] == ["failed", "failed"]


def test_boards_of_one_kind_share_a_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []

    def make(*key: object) -> Payload:
        made.append(key)
        return Payload({}, str(key))

    monkeypatch.setattr(deploy, "make_payload", make)
    cache = deploy.PayloadCache()
    kinds = [(Path("m"), "aarch64", (3, 11), "litert"), (Path("m"), "aarch64", (3, 13), "litert")]
    for kind in (*kinds, *kinds):
        assert cache.make(*kind).model == str(kind)
    assert made == kinds
