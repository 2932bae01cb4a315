"""Floor 3: simulated training sets on disk."""
