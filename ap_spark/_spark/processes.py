"""The name of this machine, which stands in the names of what its processes leave behind."""

from __future__ import annotations

import socket
from pathlib import Path

__all__ = ["machine"]


def machine() -> str:
    """Return the name of this machine.

    Two containers may have one host name, and number their processes separately: the namespace distinguishes them.
    """
    processes = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{processes.stat().st_ino if processes.exists() else 0}"
