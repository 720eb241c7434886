"""Scores written as for the benchmarks."""

from tests.benchmarks.conftest import kept

__all__ = ["kept"]
