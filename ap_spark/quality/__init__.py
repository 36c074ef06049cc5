"""Better exemplars, and how good they are: polish, bound, proof (docs/quality.md)."""
