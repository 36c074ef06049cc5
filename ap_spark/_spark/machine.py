"""The name of this machine: files that outlast their process carry it, so that a later run knows whose they were."""

from __future__ import annotations

import socket
from pathlib import Path

__all__ = ["machine_name"]


def machine_name() -> str:
    """Return the name of this machine.

    Two containers may have one host name, and number their processes separately: the namespace distinguishes them.
    """
    processes = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{processes.stat().st_ino if processes.exists() else 0}"
