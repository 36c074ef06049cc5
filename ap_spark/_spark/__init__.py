"""Spark and Java: what only this package may touch."""
