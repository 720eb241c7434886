"""What makes a release: goldens, cards, test vectors, codec tables, figures of the README."""
