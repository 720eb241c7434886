"""The one exception family of the kit."""


class GliosliceError(Exception):
    """Something a user can mend: the message says what was wrong, where, and what to do.

    Commands print it as one line and exit with 2 (`glioslice.cli`).
    """
