"""What a run takes, looked at while it goes on: memory of the JVM and of the Python workers, disk, processor time."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["Peaks"]


class Peaks(threading.Thread):
    """Peaks over all processes below this one, in bytes, looked at twice a second, from entering to leaving it.

    Shared pages count once (PSS), and mapped files for themselves: the system takes those back when it needs memory.

    Parameters
    ----------
    local : Path, optional
        The directory whose size is the disk; files that are deleted while they are open are not seen.

    Attributes
    ----------
    jvm, workers : int
        Memory of java, and of everything else together, without mapped files.
    mapped : int
        Mapped files of everything else.
    disk : int
    cpu : float
        Seconds of all of them; on a busy machine they waver less than those of the clock.
    """

    def __init__(self, local: Path | None = None) -> None:
        super().__init__(daemon=True)
        self.local = local
        self.left = threading.Event()
        self.jvm = self.workers = self.mapped = self.disk = 0
        self.seconds: dict[int, float] = {}  # of each process, as last seen

    @property
    def cpu(self) -> float:
        return sum(self.seconds.values())

    def __enter__(self) -> Peaks:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.left.set()
        self.join()

    def run(self) -> None:
        while not self.left.wait(0.5):
            java = workers = mapped = 0
            for process in psutil.Process(os.getpid()).children(recursive=True):
                with suppress(psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
                    own, files = shares(process.pid)
                    self.seconds[process.pid] = sum(process.cpu_times()[:2])
                    if process.name() == "java":
                        java += own
                    else:
                        workers, mapped = workers + own, mapped + files
            self.jvm, self.workers = max(self.jvm, java), max(self.workers, workers)
            self.mapped, self.disk = max(self.mapped, mapped), max(self.disk, size_of(self.local))


def shares(process: int) -> tuple[int, int]:
    """A process's share of memory: its own, and of mapped files."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return (kib["Pss_Anon"] + kib["Pss_Shmem"]) << 10, kib["Pss_File"] << 10


def size_of(directory: Path | None) -> int:
    """What the files of a directory take on the disk."""
    size = 0
    for path, _, names in os.walk(directory) if directory else ():
        for name in names:
            with suppress(FileNotFoundError):
                size += os.stat(f"{path}/{name}").st_blocks * 512
    return size
