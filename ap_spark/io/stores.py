"""A directory anywhere Spark can write, through Hadoop's file systems; these are calls of classic Spark."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from ap_spark.errors import ApSparkError
from ap_spark.wording import format_reason

__all__ = ["SUCCESS", "Store", "is_of_class"]

SUCCESS = "_SUCCESS"  # written last: what is in the directory is whole

_ATOMIC_RENAME = ("file", "hdfs", "viewfs")
_MAY_PASS = (errno.EAGAIN, errno.EDQUOT, errno.EINTR, errno.EIO, errno.ENOSPC, errno.ESTALE, errno.ETIMEDOUT)
_CRC = re.compile(r"\..*\.crc").fullmatch  # a file of checksums, as Hadoop writes one beside each
_PRIVATE = 0o700  # for directories that nobody else is to read, or to put something into
_LOCK_MODE = 0o666  # so that other users can ask for the lock too
_LOCK_TIMEOUT_S = 0.1  # in which a lock that is just being deleted is gone
_REFUSALS = (  # as opposed to what may pass: a store that is overloaded, or starting
    "java.io.FileNotFoundException",  # also a local directory's "Permission denied" and "Not a directory"
    "java.nio.file.AccessDeniedException",
    "org.apache.hadoop.fs.FileAlreadyExistsException",  # a file, where there would be a directory
    "org.apache.hadoop.fs.ParentNotDirectoryException",
    "org.apache.hadoop.fs.s3a.UnknownStoreException",
    "org.apache.hadoop.security.AccessControlException",
)


class Store:
    """A directory and what lies in it, by name; it need not exist yet.

    Parameters
    ----------
    spark : SparkSession
    path : str
        Of any scheme that Spark knows; without one, of Spark's default file system. Links of this machine are resolved.
    dangling : bool
        Whether a link to nothing is accepted, as for input: reading it raises the error.

    Attributes
    ----------
    root : org.apache.hadoop.fs.Path
    local : pathlib.Path or None
        The same, where it is of this machine.

    Raises
    ------
    OSError
        If it is of no scheme, or a link to nothing. A name server that does not know the host is an error of Java's,
        which may pass.
    """

    def __init__(self, spark: SparkSession, path: str, *, dangling: bool = False) -> None:
        self.jvm: Any = spark.sparkContext._jvm
        self.gateway: Any = spark.sparkContext._gateway
        self.configuration = spark.sparkContext._jsc.hadoopConfiguration()
        try:
            given: Any = self.path_of(path)
            self.fs = given.getFileSystem(self.configuration)
            self.root = self.fs.makeQualified(given)
        except (Py4JJavaError, PySparkException) as error:
            if "UnknownHostException" in str(error):
                raise
            raise OSError(f"{path}: {_without_class(error)}") from error
        self.spark = spark
        self.local: Path | None = None
        if self.is_local:
            named = Path(self.root.toUri().getPath())
            if not dangling:
                _refuse_dangling(named)
            self.local = Path(os.path.realpath(named))
            self.root = self.path_of(f"file:{self.local}")
        self.shown = str(self.root.toString())

    def __str__(self) -> str:
        return self.shown

    @property
    def parent(self) -> str | None:
        """The directory this one is in; None for the top."""
        parent = self.root.getParent()
        return parent.toString() if parent else None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return str(self.root.getName())

    @property
    def is_local(self) -> bool:
        """Whether these are files of this machine, or mounted on it."""
        return bool(self.fs.getUri().getScheme() == "file")

    @property
    def renames_at_once(self) -> bool:
        """Whether a directory is renamed all at once, or one object after the other."""
        return self.fs.getUri().getScheme() in _ATOMIC_RENAME

    def path_of(self, *parts: Any) -> Any:
        """Return a path of Hadoop's."""
        return self.jvm.org.apache.hadoop.fs.Path(*parts)

    def path(self, name: str) -> Any:
        """Return the path of something in the directory; of the directory itself for ""."""
        return self.path_of(self.root, name) if name else self.root

    def matching(self) -> list[str]:
        """Return the paths that match this one as a pattern; itself if it is none.

        Raises
        ------
        OSError
            If it is no pattern, or may not be looked at.
        """
        try:
            return [str(status.getPath().toString()) for status in self.fs.globStatus(self.root) or ()]
        except Py4JJavaError as error:
            raise OSError(f"{self}: {_without_class(error)}") from error

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.path(name)))

    def names(self) -> list[str]:
        """Return the names of what lies in the directory; none if it does not exist."""
        if not self.fs.exists(self.root):
            return []
        return sorted(found.getPath().getName() for found in self.fs.listStatus(self.root))

    def is_file(self, name: str) -> bool:
        """Return whether there is something of this name that is no directory."""
        return self.exists(name) and not self.fs.getFileStatus(self.path(name)).isDirectory()

    def entries(self, name: str) -> dict[str, bool]:
        """Return what lies in a directory: {name: whether it is a directory}."""
        if self.local is not None:  # Hadoop hides what looks like its checksums
            listed = {found.name: found.is_dir() for found in os.scandir(self.local / name)}
            return {entry: is_directory for entry, is_directory in listed.items() if is_directory or not _CRC(entry)}
        return {found.getPath().getName(): found.isDirectory() for found in self.fs.listStatus(self.path(name))}

    def make_private(self, name: str = "") -> None:
        """Make a directory, and those above it, that only this user may read, where the file system has modes."""
        if self.local is not None:
            path = self.local / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=_PRIVATE)
        else:
            private: Any = self.jvm.org.apache.hadoop.fs.permission.FsPermission(f"{_PRIVATE:o}")
            path = self.path(name)
            self.fs.mkdirs(path.getParent())
            self.fs.mkdirs(path, private)

    def delete(self, name: str) -> None:
        self.fs.delete(self.path(name), True)

    def read_text(self, name: str) -> str | None:
        """Return the text of a small file; None if there is none.

        A file of this machine is read without Hadoop's checksum, which does not fit once somebody has edited it.
        """
        if self.local is not None:
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
                return (self.local / name).read_bytes().decode()
            return None
        try:
            stream = self.fs.open(self.path(name))
        except Py4JJavaError as error:
            if is_of_class(error, "java.io.FileNotFoundException"):
                return None
            raise
        try:
            return bytes(stream.readAllBytes()).decode()
        finally:
            stream.close()

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        stream = self.fs.create(self.path(name), True)
        try:
            stream.write(bytearray(data))
        finally:
            stream.close()

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name, which must be free.

        Raises
        ------
        Py4JJavaError
            If it is not, or the directory cannot be renamed.
        """
        if not self.renames_at_once:
            if not self.fs.rename(self.path(old), self.path(new)):
                raise OSError(f"{self}/{old} cannot be renamed to {new}")
            return
        hadoop = self.jvm.org.apache.hadoop.fs
        files = hadoop.FileContext.getFileContext(self.root.toUri(), self.configuration)
        options = self.gateway.new_array(getattr(hadoop, "Options$Rename"), 0)
        files.rename(self.path(old), self.path(new), options)

    def check_writable(self, probe: str) -> None:
        """Raise OSError unless a file can be written here and deleted again.

        Where there is no such directory yet, the nearest above is asked; object stores have none, and need none. An
        error that may pass, such as of a store that does not answer, is not turned into an OSError.
        """
        if self.local is not None:
            with _refused(self.local):
                nearest = next(place for place in (self.local, *self.local.parents) if os.path.lexists(place))
                os.close(os.open(nearest / probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
                os.unlink(nearest / probe)
            return
        place = self.root
        try:
            while self.renames_at_once and not self.fs.exists(place):
                place = place.getParent()
            file = self.path_of(place, probe)
            self.fs.create(file, False).close()
            self.fs.delete(file, False)
        except Py4JJavaError as error:
            if not any(is_of_class(error, name) for name in _REFUSALS):
                raise
            raise OSError(f"{place.toString()}: {_without_class(error)}") from error

    def check_access(self) -> None:
        """Raise OSError unless this user may write here, as far as that shows without writing: on this machine."""
        if self.local is None:
            return
        nearest = next(place for place in (self.local, *self.local.parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise OSError(f"file:{nearest}: {os.strerror(errno.ENOTDIR)}")
        if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
            raise OSError(f"file:{nearest}: {os.strerror(errno.EACCES)}")

    @contextmanager
    def locked(self, name: str) -> Iterator[bool | None]:
        """Hold a lock file: True, or False if another process does, or None where there are no locks.

        The lock is given back when the process ends, however it ends. Only file systems of this machine have such
        locks, and not all of those.
        """
        root = self.local
        if root is None:
            yield None
            return
        made = [place for place in (root, *root.parents) if not place.exists()]
        try:
            with _held(root / name) as granted:
                yield granted
        finally:
            with suppress(OSError):  # others have put something there
                for place in made:
                    place.rmdir()


@contextmanager
def _held(path: Path) -> Iterator[bool | None]:
    """Hold the lock of a file, which is deleted afterwards; see `Store.locked`."""
    lock = FileLock(path, mode=_LOCK_MODE, fallback_to_soft=False)  # a soft lock would outlast a killed process
    was_there = os.path.lexists(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOCK_TIMEOUT_S, poll_interval=_LOCK_TIMEOUT_S / 4)
        granted: bool | None = True
    except Timeout:
        granted = False
    except OSError as error:  # a file system without locks, or another user's file
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(f"{path} is where the lock would be, and no file: move it away") from error
        granted = None
    try:
        yield granted
    finally:
        if granted or (granted is None and not was_there):
            with suppress(OSError):
                if _is_lock(path.lstat()):
                    path.unlink()  # while it is held: who waits for it finds it gone, and makes another one
        lock.release()


def _without_class(error: Exception) -> str:
    """Return what Java says of a path, without the class of the error."""
    return format_reason(error).rpartition("Exception: ")[2]


def is_of_class(error: Py4JJavaError, name: str) -> bool:
    """Return whether an error of Java's is of a class, or of a subclass."""
    kind = error.java_exception.getClass()
    while kind is not None and kind.getName() != name:
        kind = kind.getSuperclass()
    return kind is not None


def _is_lock(found: os.stat_result) -> bool:
    """Return whether a file is one that `_held` makes, and may delete."""
    return stat.S_ISREG(found.st_mode) and found.st_size == 0 and found.st_uid == os.geteuid()


def _refuse_dangling(path: Path) -> None:
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise OSError(f"{place} is a link to {os.readlink(place)}, which does not exist")


@contextmanager
def _refused(place: Path) -> Iterator[None]:
    """Name the directory in an OSError; turn an error that may pass, such as a full disk, into an ApSparkError."""
    try:
        yield
    except OSError as error:
        if error.errno in _MAY_PASS:
            raise ApSparkError(f"file:{place} cannot be written for now ({error.strerror}): start again") from error
        raise OSError(f"file:{place}: {error.strerror}") from error
