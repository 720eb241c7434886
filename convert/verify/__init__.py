"""Proof that a converted file is the network that was given."""
