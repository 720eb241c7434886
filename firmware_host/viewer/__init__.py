"""The live page: a server of this machine alone, and what it shows."""
