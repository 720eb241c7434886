from pathlib import Path

import pytest

from convert import artifacts
from convert.artifacts import (
    SIZE_LIMIT,
    ModelFile,
    describe_excess,
    pack_files,
    publish,
    stage_files,
    write_files,
)
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import CARD, read_card, read_verified_card
from tests.convert.conftest import MakeRun

INT8 = ModelFile("tiny-int8.tflite", "int8", True, b"int8 network")
FP16 = ModelFile("tiny-fp16.tflite", "fp16", True, b"fp16 network")
FP32 = ModelFile("tiny-fp32.tflite", "fp32", False, b"fp32 network")


def sizes(int8: int, fp16: int) -> dict[str, bytes]:
    return {"int8": bytes(int8), "fp16": bytes(fp16), "fp32": bytes(4 * int8)}


def test_all_staged_files_are_listed_in_the_card(make_run: MakeRun, tmp_path: Path) -> None:
    for path in stage_files(tmp_path / "staged", read_card(make_run()), [INT8, FP32]).values():
        assert read_verified_card(path).name == "tiny"


def test_products_are_listed_in_the_card_and_files_for_comparison_are_not(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run, out = make_run(), tmp_path / "out"
    publish(run, out, read_card(run), [INT8, FP32], {"files": []})
    read_verified_card(out / INT8.name)
    read_verified_card(out / "tiny.safetensors")
    assert (out / "compare" / FP32.name).read_bytes() == FP32.content
    assert FP32.name not in read_json(out / CARD)["files"]


def test_in_place_keeps_only_unchanged_files(make_run: MakeRun) -> None:
    run = make_run()
    publish(run, run, read_card(run), [INT8, FP16], {})
    publish(run, run, read_card(run), [INT8], {})
    read_verified_card(run / FP16.name)
    (run / FP16.name).write_bytes(b"something else")
    publish(run, run, read_card(run), [INT8], {})
    with pytest.raises(GliosliceError, match="not listed"):
        read_verified_card(run / FP16.name)


def test_a_full_disk_leaves_the_card_as_it_was(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = make_run(), tmp_path / "out"
    publish(run, out, read_card(run), [INT8], {})
    before = (out / CARD).read_bytes()

    def full(path: Path, content: bytes) -> None:
        if path.name == FP16.name:
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(artifacts, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        publish(run, out, read_card(run), [INT8, FP16], {})
    assert (out / CARD).read_bytes() == before
    assert not (out / FP16.name).exists()


def test_a_disk_that_fills_half_way_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if FP32.name not in path.name:
            return write(path, content)
        write(path, content[:4])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_files(tmp_path, [INT8, FP32], {"files": []}, {"model.h": b"header"})
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["compare", INT8.name]
    assert (tmp_path / INT8.name).read_bytes() == INT8.content


def test_excess_names_the_bytes_and_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "pack", lambda content: content)
    text = describe_excess(
        pack_files("compact", sizes(59_000, SIZE_LIMIT + 1234), ("int8", "fp16"))
    )
    assert "compact-fp16.tflite would have 61,234 bytes, 1,234 more than the 60,000" in text
    assert "its int8 file has 59,000 (--precision int8)" in text
    assert "--max-bytes" in text


def test_the_limit_is_only_for_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "pack", lambda content: content)
    files = pack_files("compact", sizes(SIZE_LIMIT, SIZE_LIMIT + 1), ("int8",))
    assert describe_excess(files) == ""
    assert [(file.precision, file.product) for file in files] == [
        ("int8", True), ("fp16", False), ("fp32", False)
    ]  # fmt: skip
