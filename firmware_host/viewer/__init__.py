"""The live page of a run, served to this machine's browser alone."""
