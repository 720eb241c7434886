"""A synthetic head, with or without a tumour, for all that must not need real patients."""
