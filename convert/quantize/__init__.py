"""From a float network to an int8 file: ranges, equalization, quantization strategies."""
