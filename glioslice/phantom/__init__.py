"""A synthetic head with a tumour, for the demo and tests that must not need patients."""
