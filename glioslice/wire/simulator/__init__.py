"""A simulated serial line: `sim://` for programs, links in virtual time for tests."""
