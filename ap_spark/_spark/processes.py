"""Who left something behind: this machine, and whether a process on it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["is_running", "machine"]


def machine() -> str:
    """This machine; two containers that share a name have process numbers of their own, and are told apart."""
    processes = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{processes.stat().st_ino if processes.exists() else 0}"


def is_running(process: str) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True
