"""Where paths lead: whether an output or the snapshots lie apart from all that is read, and what is never replaced.

Paths are compared by where they lead. On this machine that is after links are resolved, and by the device and number of
each directory above, so that other spellings and bind mounts are found; elsewhere it is their qualified URI.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from ap_spark.io.formats import path_list
from ap_spark.io.stores import Store

__all__ = ["Place", "conflict", "irreplaceable", "places_read"]

_SAME_SCHEME = {"s3": "s3a", "s3n": "s3a", "abfss": "abfs", "wasbs": "wasb"}
_DEFAULT_PORT = ":8020"  # of a name node

_Node = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """Where a path leads.

    Attributes
    ----------
    what : str
        What it is to the command, such as "--points".
    shown : str
        The path for a message.
    parts : tuple of str
        Scheme, authority and names.
    nodes : tuple
        Device and number of the file and of all directories above it, on this machine; without what does not exist.
    exists : bool
        Whether the first of these nodes is the file itself.
    """

    what: str
    shown: str
    parts: tuple[str, ...]
    nodes: tuple[_Node, ...] = ()
    exists: bool = False

    @classmethod
    def of(cls, what: str, store: Store) -> Place:
        return cls.local(what, store.local) if store.local is not None else cls.remote(what, str(store))

    @classmethod
    def remote(cls, what: str, uri: str) -> Place:
        scheme, _, rest = uri.partition(":")
        authority, _, path = rest.removeprefix("//").partition("/")
        scheme, authority = scheme.lower(), authority.lower().removesuffix(_DEFAULT_PORT)
        return cls(what, uri, (_SAME_SCHEME.get(scheme, scheme), authority, *filter(None, path.split("/"))))

    @classmethod
    def local(cls, what: str, path: Path) -> Place:
        nodes: list[_Node] = []
        for above in (path, *path.parents):
            with suppress(OSError):
                found = above.stat()
                nodes.append((found.st_dev, found.st_ino))
        return cls(what, f"file:{path}", ("file", *path.parts), tuple(nodes), len(nodes) == len(path.parts))

    def lies_in(self, other: Place) -> bool:
        """Return whether this is the other place, or lies in it."""
        if self.parts[: len(other.parts)] == other.parts:
            return True
        return other.exists and other.nodes[0] in self.nodes


def conflict(place: Place, others: Sequence[Place]) -> str | None:
    """Say which of the others a place is, contains or lies in; return None if it lies apart from all."""
    for other in others:
        inside, around = place.lies_in(other), other.lies_in(place)
        if inside or around:
            how = "is" if inside and around else "lies in" if inside else "holds"
            return f"{place.shown} {how} {other.what}" + (f" {other.shown}" if how != "is" else "")
    return None


def places_read(spark: SparkSession, paths: Mapping[str, str | Sequence[str] | None]) -> list[Place]:
    """Return all that a command reads, with patterns expanded, and what links in a directory lead to.

    Parameters
    ----------
    spark : SparkSession
    paths : mapping
        One path or several, by their name to the user, such as "--points". Those that are no paths are left out:
        reading them raises the error.
    """
    found: list[Place] = []
    named = [(what, one) for what, path in paths.items() if path is not None for one in path_list(path)]
    for what, path in named:
        try:
            given = Store(spark, path, dangling=True)
            matching = given.matching()
        except OSError:
            continue
        found.append(Place.of(what, given))  # a name with a bracket may be meant as it is
        for uri in matching:
            if given.local is None:
                found.append(Place.remote(what, uri))
                continue
            target = Path(os.path.realpath(uri.removeprefix("file:")))
            found += [Place.local(what, each) for each in (target, *_linked(target))]
    return found


def _linked(directory: Path) -> Iterator[Path]:
    """Yield what the links in a directory lead to, and what links below that lead to."""
    seen: set[_Node] = set()
    for where, directories, files in os.walk(directory, followlinks=True):
        try:
            node = os.stat(where)
        except OSError:  # it has gone in the meantime
            continue
        if (node.st_dev, node.st_ino) in seen:
            directories.clear()
            continue
        seen.add((node.st_dev, node.st_ino))
        for name in (*directories, *files):
            path = Path(where, name)
            if path.is_symlink():
                yield path.resolve()


def irreplaceable(path: Path) -> str | None:
    """Return why a directory of this machine can't be replaced, at all or by this user; None if it can."""
    place = Place.local("", path)
    for name, kept in (("the home directory", Path("~")), ("the working directory", Path())):
        if Place.local(name, Path(os.path.expanduser(kept)).resolve()).lies_in(place):
            return f"is {name}, or holds it"
    if path.is_mount() or str(path) in _mounts():
        return "is where a file system is mounted, which cannot be renamed"
    above, found = path.parent.stat(), path.stat()
    if above.st_mode & stat.S_ISVTX and os.geteuid() not in (0, above.st_uid, found.st_uid):
        return f"belongs to another user, and {path.parent} lets nobody else rename it"
    for directory in (path, *(entry for entry in path.iterdir() if entry.is_dir())):
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            return f"cannot be deleted by this user ({directory})"
    return None


def _mounts() -> set[str]:
    """Return where something is mounted, bind mounts included, if the system has a list."""
    with suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        return {line.split()[4].decode("unicode_escape").encode("latin-1").decode(errors="replace") for line in lines}
    return set()
