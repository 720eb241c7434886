"""Networks of other architectures, made with Keras, as TFLite files in four precisions."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # keeps the test output readable

PRECISIONS = ("fp32", "fp16", "int8", "16x8")
Layers = Callable[[Any, Any], Any]


def classifier(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(2)(layers.Conv2D(12, 3, activation="relu")(x))
    return layers.Dense(5, activation="softmax")(layers.Flatten()(x))


def depthwise(layers: Any, x: Any) -> Any:
    for width, stride in ((8, 1), (16, 2), (16, 1)):
        x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, strides=stride, padding="same")(x))
        y = layers.Conv2D(width, 1)(x)
        x = layers.Add()([x, y]) if x.shape == y.shape else y
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def unet(layers: Any, x: Any) -> Any:
    top = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D(2)(top))
    x = layers.Conv2DTranspose(8, 2, strides=2, padding="same")(x)
    x = layers.Conv2D(8, 3, padding="same")(layers.Concatenate()([x, top]))
    return layers.Activation("sigmoid")(layers.Conv2D(1, 1)(x))


def autoencoder(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(6, 4, strides=2, activation="tanh")(layers.ZeroPadding2D(1)(x))
    x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2D(6, 3, padding="same")(layers.UpSampling2D(interpolation="bilinear")(x))
    return layers.Conv2DTranspose(4, 4, strides=2, padding="same")(x)


def recurrent(layers: Any, x: Any) -> Any:
    return layers.Dense(3)(layers.GRU(8, unroll=True)(x))


def attention(layers: Any, x: Any) -> Any:
    q, k, v = (layers.Dense(8)(x) for _ in range(3))
    weights = layers.Softmax()(layers.Dot(axes=2)([q, k]))
    x = layers.Add()([layers.Dense(8)(x), layers.Dot(axes=(2, 1))([weights, v])])
    return layers.Dense(4)(layers.Dense(16, activation="relu")(x))


NETWORKS: dict[str, tuple[Layers, tuple[int, ...]]] = {
    "classifier": (classifier, (20, 20, 3)),
    "depthwise": (depthwise, (16, 12, 8)),
    "unet": (unet, (16, 16, 4)),
    "autoencoder": (autoencoder, (16, 16, 4)),
    "recurrent": (recurrent, (6, 5)),
    "attention": (attention, (10, 8)),
}


def converted(make: Layers, shape: tuple[int, ...], precision: str, seed: int = 0) -> bytes:
    """The TFLite file of what `make` makes of an input (1, *shape)."""
    import tensorflow as tf
    import tf_keras as keras  # by name: what tf.keras is depends on who was imported before
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2 as frozen,
    )

    keras.utils.set_random_seed(seed)
    given = keras.Input(shape, batch_size=1)
    network = keras.Model(given, make(keras.layers, given))
    call = tf.function(lambda x: network(x, training=False))
    concrete = call.get_concrete_function(tf.TensorSpec((1, *shape), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen(concrete)])
    quantize(converter, precision, (1, *shape))
    return bytes(converter.convert())


def quantize(converter: Any, precision: str, shape: tuple[int, ...]) -> None:
    """Set the precision of a TFLiteConverter."""
    import tensorflow as tf

    def samples() -> Iterator[list[NDArray[np.float32]]]:
        rng = np.random.default_rng(0)
        for _ in range(4):
            yield [rng.normal(0, 1, shape).astype(np.float32)]

    if precision == "fp32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
        return
    wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ops, kind = {"int8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8), "16x8": (wide, tf.int16)}[
        precision
    ]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [ops]
    converter.inference_input_type = converter.inference_output_type = kind
