"""The command ap-spark, also as ``python -m ap_spark``: help and mistakes in options need no Spark."""

from __future__ import annotations

import sys

from ap_spark.parser import parse

__all__ = ["main"]


def main() -> int:
    """Parse the command line, then import what runs it; return the exit code."""
    given = parse()
    from ap_spark.cli import run_command

    return run_command(given)


if __name__ == "__main__":
    sys.exit(main())
