"""What `device/deploy.py` does in steps; none of it goes onto the board."""
