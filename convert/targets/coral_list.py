"""The Edge TPU's list of supported operations.

Source: "TensorFlow models on the Edge TPU" (coral.ai/docs/edgetpu/models-intro), model requirements
and the table of supported operations for runtime 14, which compiler 16 builds for. Numbers behind
"issue" are those of github.com/google-coral/edgetpu, where the compiler's own words are reported.
Nobody but the compiler decides: a file that passes here may still be left on the CPU in part.
"""

NEWEST = {
    "ADD": 3,
    "AVERAGE_POOL_2D": 3,
    "CONCATENATION": 3,
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "EXPAND_DIMS": 1,
    "FULLY_CONNECTED": 9,
    "L2_NORMALIZATION": 2,
    "LOGISTIC": 3,
    "LSTM": 4,
    "MAXIMUM": 4,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MINIMUM": 4,
    "MUL": 4,
    "PACK": 3,
    "PAD": 3,
    "PRELU": 1,
    "QUANTIZE": 2,
    "REDUCE_MAX": 3,
    "REDUCE_MIN": 3,
    "RELU": 3,
    "RELU6": 3,
    "RELU_N1_TO_1": 1,
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4,
    "RSQRT": 2,
    "SLICE": 5,
    "SOFTMAX": 3,
    "SPACE_TO_DEPTH": 2,
    "SPLIT": 4,
    "SQUARED_DIFFERENCE": 2,
    "SQUEEZE": 2,
    "STRIDED_SLICE": 5,
    "SUB": 5,
    "SUM": 2,
    "TANH": 3,
    "TRANSPOSE": 5,  # since compiler 16: issue 193
    "TRANSPOSE_CONV": 3,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 3,
}
"""The supported ops, each with its newest version in TensorFlow 2.5, of the compiler's year, as
TensorFlow's `lite/tools/versioning/runtime_version.cc` lists them. The compiler refuses a whole
file over a newer one: CONV_2D 6 (issue 631), TRANSPOSE_CONV 4 (845), QUANTIZE 3 (879)."""

PERHAPS = {
    "RESHAPE": "large tensors may be left on the CPU",
    "RESIZE_BILINEAR": "left on the CPU for some sizes",
    "RESIZE_NEAREST_NEIGHBOR": "left on the CPU for some sizes",
    "TRANSPOSE": "sometimes left on the CPU (issue 433)",
}
"""Ops of the list about which the compiler decides by size."""

INSTEAD = {
    "DEQUANTIZE": "let the output be int8",
    "ELU": "use RELU",
    "GELU": "use RELU",
    "HARD_SWISH": "use RELU or RELU6",
    "LEAKY_RELU": "use RELU or PRELU",
    "BATCH_MATMUL": "use CONV_2D or FULLY_CONNECTED with constant weights",
    "DEPTH_TO_SPACE": "use TRANSPOSE_CONV",
    "TILE": "use RESIZE_NEAREST_NEIGHBOR",
}

PARAMETERS = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "EXPAND_DIMS": (1,),
    "FULLY_CONNECTED": (1, 2),
    "MEAN": (1,),
    "PAD": (1,),
    "PRELU": (1,),
    "REDUCE_MAX": (1,),
    "REDUCE_MIN": (1,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SLICE": (1, 2),
    "SPLIT": (0,),
    "STRIDED_SLICE": (1, 2, 3),
    "SUM": (1,),
    "TRANSPOSE": (1,),
    "TRANSPOSE_CONV": (0, 1, 3),
}
"""Inputs that must be known when the file is compiled."""
