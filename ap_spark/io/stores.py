"""A directory anywhere Spark can write, through Hadoop's file systems; these are calls of classic Spark."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from ap_spark.errors import ApSparkError, reason

__all__ = ["SUCCESS", "Store", "is_a"]

SUCCESS = "_SUCCESS"  # written last: what is in the directory is whole

ATOMIC_RENAME = ("file", "hdfs", "viewfs")
MAY_PASS = (errno.EAGAIN, errno.EDQUOT, errno.EINTR, errno.EIO, errno.ENOSPC, errno.ESTALE, errno.ETIMEDOUT)
CRC = re.compile(r"\..*\.crc").fullmatch  # a file of checksums, as Hadoop writes one beside each
PRIVATE = 0o700  # for directories that nobody else is to read, or to put something into
REFUSALS = (  # as opposed to what may pass: a store that is overloaded, or starting
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
        Whether it may be a link to nothing, or below one: what is to be read may, for reading it tells.

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
            raise OSError(f"{path}: {without_class(error)}") from error
        self.spark = spark
        self.local: Path | None = None
        if self.is_local:
            named = Path(self.root.toUri().getPath())
            if not dangling:
                refuse_dangling(named)
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
        return self.fs.getUri().getScheme() in ATOMIC_RENAME

    def path_of(self, *parts: Any) -> Any:
        return self.jvm.org.apache.hadoop.fs.Path(*parts)

    def path(self, name: str) -> Any:
        return self.path_of(self.root, name) if name else self.root

    def matching(self) -> list[str]:
        """What the path names, as a pattern: itself, where it is none.

        Raises
        ------
        OSError
            If it is no pattern, or may not be looked at.
        """
        try:
            return [str(status.getPath().toString()) for status in self.fs.globStatus(self.root) or ()]
        except Py4JJavaError as error:
            raise OSError(f"{self}: {without_class(error)}") from error

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.path(name)))

    def names(self) -> list[str]:
        """What lies in the directory; nothing if it does not exist."""
        if not self.fs.exists(self.root):
            return []
        return sorted(found.getPath().getName() for found in self.fs.listStatus(self.root))

    def is_file(self, name: str) -> bool:
        """Whether there is something of this name that is no directory."""
        return self.exists(name) and not self.fs.getFileStatus(self.path(name)).isDirectory()

    def entries(self, name: str) -> dict[str, bool]:
        """What lies in a directory, and whether each is a directory itself."""
        if self.local is not None:  # Hadoop hides what looks like its checksums
            listed = {found.name: found.is_dir() for found in os.scandir(self.local / name)}
            return {entry: is_directory for entry, is_directory in listed.items() if is_directory or not CRC(entry)}
        return {found.getPath().getName(): found.isDirectory() for found in self.fs.listStatus(self.path(name))}

    def make_private(self, name: str = "") -> None:
        """Make a directory, and those above it, that only this user may read, where the file system has modes."""
        if self.local is not None:
            path = self.local / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=PRIVATE)
        else:
            private: Any = self.jvm.org.apache.hadoop.fs.permission.FsPermission(f"{PRIVATE:o}")
            path = self.path(name)
            self.fs.mkdirs(path.getParent())
            self.fs.mkdirs(path, private)

    def delete(self, name: str) -> None:
        self.fs.delete(self.path(name), True)

    def read_text(self, name: str) -> str | None:
        """The text of a small file; None if there is none.

        On this machine without Hadoop's checksum, which no longer fits a file that somebody has edited.
        """
        if self.local is not None:
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
                return (self.local / name).read_bytes().decode()
            return None
        try:
            stream = self.fs.open(self.path(name))
        except Py4JJavaError as error:
            if is_a(error, "java.io.FileNotFoundException"):
                return None
            raise
        try:
            return bytes(stream.readAllBytes()).decode()
        finally:
            stream.close()

    def write_text(self, name: str, text: str) -> None:
        stream = self.fs.create(self.path(name), True)
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()

    def rename(self, old: str, new: str) -> None:
        """Give a directory another name, which must be free.

        Raises
        ------
        Py4JJavaError
            If it is not, or the directory cannot be renamed.
        """
        hadoop = self.jvm.org.apache.hadoop.fs
        files = hadoop.FileContext.getFileContext(self.root.toUri(), self.configuration)
        options = self.gateway.new_array(getattr(hadoop, "Options$Rename"), 0)
        files.rename(self.path(old), self.path(new), options)

    def check_writable(self, probe: str) -> None:
        """Raise OSError unless a file can be written here and deleted again.

        Where there is no such directory yet, the nearest above is asked; object stores have none, and need none. An
        error that may pass, such as of a store that does not answer, goes on as it is.
        """
        if self.local is not None:
            with refused(self.local):
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
            if not any(is_a(error, name) for name in REFUSALS):
                raise
            raise OSError(f"{place.toString()}: {without_class(error)}") from error

    @contextmanager
    def locked(self, name: str) -> Iterator[bool | None]:
        """Hold a lock file: True, or False if another process does, or None where there are no locks.

        It falls with the process, whatever ends that. Only file systems of this machine have such locks, not all.
        """
        root = self.local
        if root is None:
            yield None
            return
        made = [place for place in (root, *root.parents) if not place.exists()]
        try:
            with held(root / name) as granted:
                yield granted
        finally:
            with suppress(OSError):  # others have put something there
                for place in made:
                    place.rmdir()


@contextmanager
def held(path: Path) -> Iterator[bool | None]:
    """The lock of a file, which is deleted afterwards; see `Store.locked`."""
    with ExitStack() as until:
        ours = False
        try:
            while True:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = until.enter_context(opened(path))
                ours = is_lock(os.fstat(file))  # unless another process holds it
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):  # another process may have deleted it in the meantime
                    if os.path.samestat(os.fstat(file), path.stat()):
                        break
                until.pop_all().close()
            granted: bool | None = True
        except BlockingIOError:
            granted = ours = False
        except OSError as error:  # a file system without locks
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise OSError(f"{path} is where the lock would be, and no file: move it away") from error
            granted = None
        try:
            yield granted
        finally:
            if ours:
                with suppress(OSError):
                    path.unlink()


def without_class(error: Exception) -> str:
    """What Java says of a path, for somebody who knows no Java."""
    return reason(error).rpartition("Exception: ")[2]


def is_a(error: Py4JJavaError, name: str) -> bool:
    """Whether an error of Java's is of a class, or of one below it."""
    kind = error.java_exception.getClass()
    while kind is not None and kind.getName() != name:
        kind = kind.getSuperclass()
    return kind is not None


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The descriptor of a lock file, made where there is none; never what a link leads to."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:  # another user's
        file = os.open(path, os.O_RDONLY | flags)
    try:
        yield file
    finally:
        os.close(file)


def is_lock(found: os.stat_result) -> bool:
    """Whether a file is one that `held` makes, and may delete."""
    return stat.S_ISREG(found.st_mode) and found.st_size == 0 and found.st_uid == os.geteuid()


def refuse_dangling(path: Path) -> None:
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise OSError(f"{place} is a link to {os.readlink(place)}, which does not exist")


@contextmanager
def refused(place: Path) -> Iterator[None]:
    """Name the directory in an OSError; one that may pass becomes a fault that is no refusal."""
    try:
        yield
    except OSError as error:
        if error.errno in MAY_PASS:
            raise ApSparkError(f"file:{place} cannot be written for now ({error.strerror}): start again") from error
        raise OSError(f"file:{place}: {error.strerror}") from error
