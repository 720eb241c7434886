"""From a trained network to packed TFLite files, and the proof that they still compute it.

`convert.to_tflite.convert` is the public function; `convert.pack.pack` shrinks any TFLite file.
"""
