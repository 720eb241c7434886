"""External networks, converted by the command and by `convert`, without a network connection."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convert.calibration import SPLIT
from convert.pack import pack
from convert.tflite.interpreter import output_values
from convert.to_tflite import convert
from convert.verify.acceptance import Limits
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from tests.convert import external_networks
from tests.convert.commands import expect_error, files_in, run_convert
from tests.convert.external_networks import images, onnx_of_any


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Refuse and record every attempt to reach another machine."""
    attempts: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        attempts.append(arguments)
        raise OSError("no network here")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.chdir(tmp_path)
    return attempts


def saved(path: Path, **arrays: Any) -> Path:
    if list(arrays) == ["images"]:
        np.save(path, arrays["images"])
    else:
        np.savez(path, **arrays)
    return path


@pytest.mark.slow
def test_a_module_with_concatenated_skips_and_three_channels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], offline: list[Any]
) -> None:
    given = images()
    network = external_networks.skips()
    with torch.no_grad():
        masks = network(torch.from_numpy(given)).numpy() > 0
    array = saved(tmp_path / "cells.npz", images=given, masks=masks)
    out = tmp_path / "out"
    arguments = [
        "--module",
        "tests.convert.external_networks:skips",
        "--calibration",
        array,
        "--out",
        out,
    ]
    run_convert(*arguments, "--max-drop", "0.02", "--target", "micro")
    assert not offline
    assert files_in(out) == [
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
    made = np.moveaxis(output_values(content, np.moveaxis(given, 1, -1)), -1, 1) > 0
    assert (made == masks).mean() > 0.97  # as the author's code would see it
    assert "evaluating on 4 others" in capsys.readouterr().out

    # A file that is not compatible with a target is rejected, and nothing is written.
    expect_error(*arguments[:-1], tmp_path / "pi", "--max-drop", "0.02", "--target", "pi")
    output = capsys.readouterr()
    assert "pi: 1 RESIZE_NEAREST_NEIGHBOR left" in output.err
    assert "RESIZE_BILINEAR" in output.err
    assert "MMAC" in output.out
    assert files_in(tmp_path / "pi") == []


@pytest.mark.slow
def test_an_onnx_file_of_open_sizes_and_average_pooling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], offline: list[Any]
) -> None:
    file = onnx_of_any(
        tmp_path / "pooled.onnx", external_networks.pooled(), (1, 24, 32), free=(0, 2, 3)
    )
    array = saved(tmp_path / "images.npy", images=images(shape=(1, 24, 32)))
    arguments = ["--onnx", file, "--calibration", array, "--out", tmp_path / "out"]
    expect_error(*arguments)
    assert "its input is of (open, 1, open, open)" in capsys.readouterr().err
    run_convert(*arguments, "--input-shape", "1,1,24,32", "--min-agreement", "0.97")
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
    tmp_path: Path, capsys: pytest.CaptureFixture[str], offline: list[Any]
) -> None:
    file = onnx_of_any(tmp_path / "classifier.onnx", external_networks.classifier(), (2, 24, 24))
    array = saved(tmp_path / "images.npy", images=images(32, (2, 24, 24)))
    arguments = ["--onnx", file, "--calibration", array, "--out", tmp_path / "out"]
    run_convert(*arguments, "--min-agreement", "0.5")
    warning = capsys.readouterr().err
    assert "2 (Conv)" in warning
    assert "use a plain convolution" in warning
    assert not offline
    report = read_json(tmp_path / "out" / "report.json")
    assert report["output"] == [5]
    assert "DEPTHWISE_CONV_2D" in [entry["op"] for entry in report["layers"]]


@pytest.mark.slow
def test_a_network_that_int8_cannot_hold_is_rejected_with_its_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = saved(tmp_path / "images.npy", images=images())
    arguments = ["--module", "tests.convert.external_networks:cancelling", "--calibration", array]
    expect_error(*arguments, "--out", "out", "--precision", "int8")
    output = capsys.readouterr()
    assert "most of its error arises at 0 (CONV_2D" in output.err
    assert output.out.count(": failed") == 5
    assert "MMAC" in output.out
    assert files_in(tmp_path / "out") == []


@pytest.mark.slow
def test_a_file_over_the_limit_is_rejected_with_its_bytes_by_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = saved(tmp_path / "images.npy", images=images())
    arguments = ["--module", "tests.convert.external_networks:skips", "--calibration", array]
    expect_error(*arguments, "--out", "out", "--max-bytes", "4000")
    output = capsys.readouterr()
    assert (
        "more than the 4,000 of a product; use fewer channels, or allow more with --max-bytes"
        in output.err
    )
    assert "MMAC" in output.out
    assert files_in(tmp_path / "out") == []


@pytest.mark.slow
def test_a_torch_module_from_python(tmp_path: Path, offline: list[Any]) -> None:
    network, given = external_networks.skips(), images()
    with torch.no_grad():
        masks = network(torch.from_numpy(given)).numpy() > 0
    out = convert(
        network, tmp_path / "out", images=given, masks=masks, limits=Limits(max_drop=0.02)
    )
    assert out == tmp_path / "out"
    assert {"skips-int8.tflite", "skips-fp16.tflite", "report.json"} <= set(files_in(out))
    assert read_json(out / "report.json")["judged_on"]["what"] == "images"
    assert not offline


def test_arguments_that_do_not_go_together(tmp_path: Path) -> None:
    network = external_networks.skips()
    with pytest.raises(GliosliceError, match="images"):
        convert(network, tmp_path / "out")
    with pytest.raises(GliosliceError, match="--data"):
        convert(network, tmp_path / "out", data=tmp_path, images=images())
    with pytest.raises(GliosliceError, match="--threshold"):
        convert("nano", tmp_path / "out", threshold=0.5)
    assert not (tmp_path / "out").exists()
