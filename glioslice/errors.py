"""The one exception family of glioslice."""


class GliosliceError(Exception):
    """An error that the user can fix: the message names the cause, the place and the remedy.

    Commands print it as one line and exit with code 2 (`glioslice.cli`).
    """
