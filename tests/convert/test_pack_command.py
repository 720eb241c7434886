import subprocess
import sys
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from convert.pack import main, pack
from convert.tflite.reader import read_model
from convert.tflite.writer import DeduplicatingBuilder, build_flatbuffer
from glioslice.errors import GliosliceError

ROOT = Path(__file__).resolve().parents[2]


def written(**parts: Any) -> bytes:
    """A TFLite file of one tensor that is input and output, with some parts changed."""
    graph = schema.SubGraphT(
        tensors=[schema.TensorT(shape=[1], name="x")], inputs=[0], outputs=[0], operators=[]
    )
    whole = {"version": 3, "operatorCodes": [], "subgraphs": [graph], "buffers": [schema.BufferT()]}
    builder = flatbuffers.Builder(0)
    builder.Finish(schema.ModelT(**(whole | parts)).Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run_pack(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def test_bytes_before_and_after_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = written(description="d" * 500)
    source = tmp_path / "network.tflite"
    source.write_bytes(content)
    run_pack(source)
    out = tmp_path / "network-packed.tflite"
    packed = pack(content)
    assert out.read_bytes() == packed
    assert source.read_bytes() == content
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{source}: {len(content):,} bytes"
    assert lines[1].startswith(f"{out}: {len(packed):,} bytes, ")


def test_out_may_be_the_file_itself(tmp_path: Path) -> None:
    file = tmp_path / "network.tflite"
    file.write_bytes(written(description="d" * 500))
    run_pack(file, file)
    once = file.read_bytes()
    assert len(once) < 500
    run_pack(file, file)
    assert file.read_bytes() == once


def test_it_runs_as_a_script(tmp_path: Path) -> None:
    source = tmp_path / "a.tflite"
    source.write_bytes(written())
    done = subprocess.run(
        [sys.executable, "convert/pack.py", source, tmp_path / "b.tflite"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.tflite").read_bytes() == pack(source.read_bytes())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04 a zip file", "not a TFLite file"),
        (written()[:-30], "damaged"),
        (b"", "not a TFLite file"),
    ],
)
def test_a_bad_file_leaves_one_line_and_no_output(
    content: bytes,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "bad.tflite"
    source.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        run_pack(source)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {source}: ") and expected in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tflite"]


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_pack(tmp_path / "none.tflite")
    assert ended.value.code == 2
    assert "none.tflite" in capsys.readouterr().err


def graph_with(operator: Any) -> Any:
    tensors = [schema.TensorT(shape=[1], name="x"), schema.TensorT(shape=[1], name="y")]
    return schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[1], operators=[operator])


def custom(name: str) -> dict[str, Any]:
    kind = schema.BuiltinOperator.CUSTOM
    code = schema.OperatorCodeT(kind, customCode=name, builtinCode=kind)
    operator = schema.OperatorT(inputs=[0], outputs=[1])
    return {"operatorCodes": [code], "subgraphs": [graph_with(operator)]}


OUTSIDE = {
    "a buffer": {"buffers": [schema.BufferT(), schema.BufferT(offset=4096, size=10)]},
    "an external buffer": {
        "externalBufferGroups": [schema.ExternalBufferGroupT(name="weights.bin")],
        "externalBuffers": [schema.ExternalBufferT(length=8)],
    },
    "large custom options": {
        "operatorCodes": [schema.OperatorCodeT()],
        "subgraphs": [
            graph_with(
                schema.OperatorT(inputs=[0], outputs=[1], largeCustomOptionsOffset=4096)
            )
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("what", OUTSIDE)
def test_constants_outside_the_flatbuffer_are_rejected(what: str) -> None:
    with pytest.raises(GliosliceError, match="outside its flatbuffer"):
        pack(written(**OUTSIDE[what]))


def test_a_custom_op_is_rejected_by_name() -> None:
    with pytest.raises(GliosliceError, match="custom op edgetpu-custom-op"):
        pack(written(**custom("edgetpu-custom-op")))
    assert pack(written(**custom("FlexErf")))


def test_a_field_of_a_newer_schema_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(written(description="d"))
    assert pack(bytes(content))
    monkeypatch.setattr(
        "convert.tflite.reader._known_slots", lambda kind: 3
    )  # a schema of long ago
    with pytest.raises(GliosliceError, match=r"field 3 of a Model.*newer"):
        pack(bytes(content))


def test_options_of_a_newer_schema_are_rejected() -> None:
    operator = schema.OperatorT(
        inputs=[0],
        outputs=[1],
        builtinOptionsType=schema.BuiltinOptions.AddOptions,
        builtinOptions=schema.AddOptionsT(),
    )
    parts = {"operatorCodes": [schema.OperatorCodeT()], "subgraphs": [graph_with(operator)]}
    assert pack(written(**parts))
    operator.builtinOptionsType = 250
    with pytest.raises(GliosliceError, match=r"BuiltinOptions of kind 250.*newer"):
        pack(written(**parts))


def test_a_validation_graph_keeps_its_name() -> None:
    names = []
    for name in ("main", "VALIDATION:main"):
        graph = graph_with(schema.OperatorT(inputs=[0], outputs=[1]))
        graph.name = name
        parts = {"operatorCodes": [schema.OperatorCodeT()], "subgraphs": [graph]}
        names.append(read_model(pack(written(**parts))).subgraphs[0].name)
    assert names == [None, b"VALIDATION:main"]


def test_files_after_the_flatbuffer_are_dropped() -> None:
    content = written()
    assert pack(content + b"PK\x03\x04 labels.txt") == pack(content)


def test_the_result_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = schema.SubGraphT(
        tensors=[schema.TensorT(shape=[9], name="x", buffer=1)],
        inputs=[],
        outputs=[0],
        operators=[],
    )
    content = written(
        buffers=[schema.BufferT(), schema.BufferT(data=np.arange(1, 10, dtype=np.uint8))],
        subgraphs=[graph],
    )
    build = build_flatbuffer
    wrong = lambda *parts: build(*parts).replace(bytes(range(1, 10)), bytes(range(2, 11)))  # noqa: E731
    monkeypatch.setattr("convert.pack.build_flatbuffer", wrong)
    with pytest.raises(AssertionError, match="differs"):
        pack(content)


def test_the_builder_has_all_methods_that_generated_code_calls() -> None:
    import re

    source = Path(schema.__file__).read_text()
    called = set(re.findall(r"builder\.([A-Za-z0-9]+)", source))
    assert not {name for name in called if not hasattr(DeduplicatingBuilder, name)}
