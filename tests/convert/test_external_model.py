"""Networks that are not ours, converted by the command, with nothing to download anything from."""

import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convert import to_tflite
from convert.external_model import SPLIT
from convert.pack import pack
from convert.tflite.interpreter import outputs_of
from glioslice.files import read_json
from tests.convert import external_networks
from tests.convert.external_networks import images, onnx_of_any
from tests.convert.test_to_tflite import left


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Refuse and write down every try to reach another machine."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        tried.append(arguments)
        raise OSError("no network here")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.chdir(tmp_path)
    return tried


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["to_tflite.py", *map(str, arguments)])
    to_tflite.main()


def refused(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == 2


def saved(path: Path, **arrays: Any) -> Path:
    if list(arrays) == ["images"]:
        np.save(path, arrays["images"])
    else:
        np.savez(path, **arrays)
    return path


@pytest.mark.slow
def test_a_module_with_concatenated_skips_and_three_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    offline: list[Any],
) -> None:  # fmt: skip
    given = images()
    network = external_networks.skips()
    with torch.no_grad():
        masks = network(torch.from_numpy(given)).numpy() > 0
    array = saved(tmp_path / "cells.npz", images=given, masks=masks)
    out = tmp_path / "out"
    asked = [
        "--module",
        "tests.convert.external_networks:skips",
        "--calibration",
        array,
        "--out",
        out,
    ]
    run(monkeypatch, *asked, "--max-drop", "0.02", "--target", "micro")
    assert not offline
    assert left(out) == [
        "compare/skips-fp32.tflite", "model.c", "model.h", "report.json", "report.svg",
        "skips-fp16.tflite", "skips-int8.tflite",
    ]  # fmt: skip
    report = read_json(out / "report.json")
    assert (report["input"], report["output"]) == ([3, 24, 32], [2, 24, 32])
    assert report["judged_on"] == {
        "what": "cells.npz", "slices": 4, "masks": True, "split": SPLIT
    }  # fmt: skip
    assert report["gate"]["by"] == "drop"
    assert [entry["target"] for entry in report["targets"]] == ["micro"]
    names = [entry["name"] for entry in report["layers"]]
    assert {"input", "top.0", "low.0", "join.0", "head"} <= set(names)
    assert [entry["op"] for entry in report["layers"]].count("CONCATENATION") == 1
    folded = 8 * 27 + 8 + 12 * 72 + 12 + 8 * 180 + 8 + 2 * 8 + 2
    assert report["parameters"] == folded
    content = (out / "skips-int8.tflite").read_bytes()
    assert pack(content) == content
    made = np.moveaxis(outputs_of(content, np.moveaxis(given, 1, -1)), -1, 1) > 0
    assert (made == masks).mean() > 0.97  # as the author's code would see it
    assert "judging on 4 others" in capsys.readouterr().out

    # It gives up what does not suit a board, and says so without a file.
    refused(monkeypatch, *asked[:-1], tmp_path / "pi", "--max-drop", "0.02", "--target", "pi")
    said = capsys.readouterr()
    assert "skips-int8.tflite does not suit pi: 1 RESIZE_NEAREST_NEIGHBOR left" in said.err
    assert "RESIZE_BILINEAR" in said.err
    assert "MMAC" in said.out
    assert left(tmp_path / "pi") == []


@pytest.mark.slow
def test_an_onnx_file_of_open_sizes_and_average_pooling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    offline: list[Any],
) -> None:  # fmt: skip
    file = onnx_of_any(
        tmp_path / "pooled.onnx", external_networks.pooled(), (1, 24, 32), free=(0, 2, 3)
    )
    array = saved(tmp_path / "images.npy", images=images(shape=(1, 24, 32)))
    asked = ["--onnx", file, "--calibration", array, "--out", tmp_path / "out"]
    refused(monkeypatch, *asked)
    assert "its input is of (open, 1, open, open)" in capsys.readouterr().err
    run(monkeypatch, *asked, "--input-shape", "1,1,24,32", "--min-agreement", "0.97")
    assert not offline
    report = read_json(tmp_path / "out" / "report.json")
    assert report["name"] == "pooled"
    assert report["gate"]["by"] == "agreement"
    assert not report["judged_on"]["masks"]
    assert "AVERAGE_POOL_2D" in [entry["op"] for entry in report["layers"]]
    assert {file["precision"]: file["product"] for file in report["files"]} == {
        "int8": True, "fp16": True, "fp32": False
    }  # fmt: skip
    assert report["files"][2]["agreement"] > 0.999


@pytest.mark.slow
def test_an_onnx_classifier_of_two_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    offline: list[Any],
) -> None:  # fmt: skip
    file = onnx_of_any(tmp_path / "classifier.onnx", external_networks.classifier(), (2, 24, 24))
    array = saved(tmp_path / "images.npy", images=images(32, (2, 24, 24)))
    asked = ["--onnx", file, "--calibration", array, "--out", tmp_path / "out"]
    run(monkeypatch, *asked, "--min-agreement", "0.5")
    said = capsys.readouterr().out
    assert "known: 2 (Conv)" in said
    assert "use a plain convolution" in said
    assert not offline
    report = read_json(tmp_path / "out" / "report.json")
    assert report["output"] == [5]
    assert "DEPTHWISE_CONV_2D" in [entry["op"] for entry in report["layers"]]


@pytest.mark.slow
def test_what_int8_cannot_hold_is_refused_with_the_layers_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    array = saved(tmp_path / "images.npy", images=images())
    asked = ["--module", "tests.convert.external_networks:cancelling", "--calibration", array]
    refused(monkeypatch, *asked, "--out", "out", "--precision", "int8")
    said = capsys.readouterr()
    assert "most of its error enters at 0 (CONV_2D" in said.err
    assert said.out.count("did not hold") == 5
    assert "MMAC" in said.out
    assert left(tmp_path / "out") == []


@pytest.mark.slow
def test_a_file_over_the_limit_is_refused_with_its_bytes_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    array = saved(tmp_path / "images.npy", images=images())
    asked = ["--module", "tests.convert.external_networks:skips", "--calibration", array]
    refused(monkeypatch, *asked, "--out", "out", "--max-bytes", "4000")
    said = capsys.readouterr()
    assert (
        "more than the 4,000 of a product; use fewer channels, or allow more with --max-bytes"
        in said.err
    )
    assert "MMAC" in said.out
    assert left(tmp_path / "out") == []
