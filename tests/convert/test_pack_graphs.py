"""Packing files with loops, variables, signatures, sparse weights or custom ops."""

import tempfile
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from convert.pack import pack
from convert.tflite.reader import read_model
from tests.convert.keras_networks import converted
from tests.convert.runtimes import same_outputs

pytestmark = pytest.mark.slow


def of_function(function: Callable[[Any], Any], shape: tuple[int, ...], **options: object) -> bytes:
    import tensorflow as tf

    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    for name, value in options.items():
        setattr(converter, name, value)
    return bytes(converter.convert())


def of_module(module: Any, *keys: str) -> bytes:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {key: getattr(module, key) for key in keys})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(keys))
        converter.experimental_enable_resource_variables = True
        return bytes(converter.convert())


def test_a_loop_of_subgraphs() -> None:
    import tensorflow as tf

    def power(x: Any) -> Any:
        weights = tf.constant(np.linspace(-0.4, 0.4, 64, dtype=np.float32).reshape(8, 8))
        steps = lambda i, x: (i + 1, tf.tanh(tf.matmul(x, weights)))  # noqa: E731
        return tf.while_loop(lambda i, x: i < 3, steps, (tf.constant(0), x))[1]

    content = of_function(power, (2, 8))
    packed = pack(content)
    assert len(read_model(packed).subgraphs) == 3
    assert len(same_outputs(content, packed)) == 4
    assert pack(packed) == packed


def test_a_recurrent_state_in_variable_tensors() -> None:
    import tensorflow as tf
    import tf_keras

    network = tf_keras.Sequential(
        [tf_keras.layers.Input((6, 5), batch_size=1), tf_keras.layers.LSTM(7)]
    )

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((1, 6, 5))])  # type: ignore[untyped-decorator]
        def run(self, x: Any) -> Any:
            return {"state": network(x)}

    module = Module()
    module.network = network
    content = of_module(module, "run")
    packed = pack(content)
    tensors = read_model(packed).subgraphs[0].tensors
    assert sum(tensor.isVariable for tensor in tensors) == 2
    assert len(same_outputs(content, packed)) == 4
    assert pack(packed) == packed


def test_signatures_and_variables_go_on_working() -> None:
    import tensorflow as tf

    given = [tf.TensorSpec((1, 4), tf.float32)]

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.total = tf.Variable(np.arange(4, dtype=np.float32))
            self.weights = tf.constant(np.arange(400, dtype=np.float32).reshape(4, 100))

        @tf.function(input_signature=given)  # type: ignore[untyped-decorator]
        def add(self, x: Any) -> Any:
            return {"total": self.total.assign_add(x[0])}

        @tf.function(input_signature=given)  # type: ignore[untyped-decorator]
        def project(self, x: Any) -> Any:
            return {"large": tf.matmul(x, self.weights)}

        @tf.function(input_signature=given)  # type: ignore[untyped-decorator]
        def rectify(self, x: Any) -> Any:
            return {"large": tf.nn.relu(tf.matmul(x, self.weights))}

    content = of_module(Module(), "add", "project", "rectify")
    packed = pack(content)
    assert len(packed) < len(content)
    x = np.array([[1, -2, 3, 4]], np.float32)

    def outputs(file: bytes) -> Any:
        interpreter = Interpreter(model_content=file)
        runners = {k: interpreter.get_signature_runner(k) for k in ("add", "project", "rectify")}
        values = [runners["add"](x=x)["total"] for _ in range(3)]
        values += [runners[key](x=x)["large"] for key in ("project", "rectify")]
        return interpreter.get_signature_list(), [array.tobytes() for array in values]

    assert outputs(packed) == outputs(content)
    assert "add" in outputs(packed)[0]


def test_sparse_weights() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, (64, 64)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.9] = 0
    sparsity = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    content = of_function(
        lambda x: tf.matmul(x, tf.constant(weights)), (1, 64), optimizations=sparsity
    )
    packed = pack(content)
    assert any(tensor.sparsity is not None for tensor in read_model(packed).subgraphs[0].tensors)
    assert same_outputs(content, packed) == {"LiteRT", "LiteRT reference", "tflite-runtime"}
    assert pack(packed) == packed


def test_an_op_of_tensorflow() -> None:
    import tensorflow as tf

    def root(x: Any) -> Any:
        return tf.raw_ops.Cholesky(input=tf.matmul(x, x, transpose_b=True) + tf.eye(4))

    ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    content = of_function(root, (4, 4), target_spec=tf.lite.TargetSpec(supported_ops=ops))
    packed = pack(content)
    x = np.random.default_rng(0).normal(0, 1, (4, 4)).astype(np.float32)
    outputs = []
    for file in (content, packed):
        interpreter = tf.lite.Interpreter(model_content=file)  # the only one with TensorFlow's ops
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    np.testing.assert_array_equal(*outputs)


def test_metadata_that_controls_a_runtime_is_kept() -> None:
    content = converted(lambda layers, x: layers.Dense(8)(x), (16,), "fp16")
    model = read_model(pack(content))
    [metadata] = model.metadata
    assert metadata.name == b"reduced_precision_support"
    assert model.buffers[metadata.buffer].data.tobytes() == b"fp16accfp32"
    unknown = read_model(content)
    unknown.metadata[0].name = b"OfflineMemoryAllocation"
    builder = flatbuffers.Builder(0)
    builder.Finish(unknown.Pack(builder), b"TFL3")
    kept = read_model(pack(bytes(builder.Output()))).metadata
    assert b"OfflineMemoryAllocation" in [m.name for m in kept]
    assert isinstance(kept[0], schema.MetadataT)
