"""What prepares a release: goldens, cards, test vectors, tables, viewer; and the firmware demo."""
