"""What is trained: networks, and their training as a pair of pure functions."""
