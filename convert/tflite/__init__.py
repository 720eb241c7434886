"""Reading, editing and packing TFLite files."""
