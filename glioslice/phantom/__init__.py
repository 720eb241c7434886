"""A synthetic head with a tumour, so that demo and tests need no patient."""
