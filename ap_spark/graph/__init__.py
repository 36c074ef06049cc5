"""From similarities to a graph: numbers for points, checks, preferences, and the graph in its two forms."""
