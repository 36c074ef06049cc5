"""The name of this machine, by which a process that left something behind is known (psutil tells if it lives)."""

from __future__ import annotations

import socket
from pathlib import Path

__all__ = ["machine"]


def machine() -> str:
    """Return the name of this machine.

    Two containers may share a name and yet have process numbers of their own: they are told apart by the namespace.
    """
    processes = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{processes.stat().st_ino if processes.exists() else 0}"
