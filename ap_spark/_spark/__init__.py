"""Spark and Java: the parts that only this package uses."""
