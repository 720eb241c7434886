"""The steps of `device/deploy.py`, which run on the user's machine and not on boards."""
