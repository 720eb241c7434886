"""What measures: the commands behind the figures in docs/, each with the tables that it writes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""
