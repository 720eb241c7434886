"""What every part of the kit must agree on: cases, labels, slices, metrics, cards and the wire.

Research software, no medical device.
"""

__version__ = "0.1.0"
