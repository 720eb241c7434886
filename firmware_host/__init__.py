"""The desk's side of the line."""
