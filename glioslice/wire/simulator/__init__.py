"""A simulated serial link: baud rate, noise, unplugging, a board process at the far end."""
