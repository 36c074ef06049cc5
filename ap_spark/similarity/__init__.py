"""From points to similarities."""
