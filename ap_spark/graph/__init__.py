"""From similarities to a graph."""
