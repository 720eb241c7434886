"""From a checkpoint to packed TFLite files, and the proof that they are still that network."""
