"""The host's side: streams a case to a board and saves the masks that come back."""
