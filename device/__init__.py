"""What runs on the board: the TFLite engine and the one path from a volume to its masks."""
