"""An int8 TFLite interpreter in numpy, bit-exact with TFLite's reference kernels.

    y = interpreter.invoke(Path("compact-int8.tflite").read_bytes(), x)

    tflite_reader   a TFLite file as frozen dataclasses
    fixed_point     TFLite's fixed-point arithmetic
    kernels         the ops as functions of arrays
    interpreter     runs a file op by op

The tests use it as an oracle: whatever runs reference kernels, such as TFLite Micro, must give the
same bytes, intermediate tensors included. XNNPACK scales in float32 and rounds once where the
reference kernels round twice. A single convolution then differs by one step in under 1 % of its
values, and the logits at the end of a network by several steps. What runs on XNNPACK is therefore
compared with XNNPACK. No board needs this package, and only tests may import it.
"""
