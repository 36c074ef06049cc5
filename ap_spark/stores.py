"""A directory anywhere Spark can write, through Hadoop's file systems; these are calls of classic Spark."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from ap_spark.errors import reason

__all__ = ["SUCCESS", "Store", "is_a"]

SUCCESS = "_SUCCESS"  # written last: what is in the directory is whole

ATOMIC_RENAME = ("file", "hdfs", "viewfs")
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
        Of any scheme that Spark knows; without one, of Spark's default file system.

    Raises
    ------
    OSError
        If it is of none. A name server that does not know the host is an error of Java's, which may pass.
    """

    def __init__(self, spark: SparkSession, path: str) -> None:
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
            raise OSError(f"{path}: {reason(error)}") from error

    def __str__(self) -> str:
        return str(self.root.toString())

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
        return self.path_of(self.root, name)

    def contains(self, path: str) -> bool:
        """Whether a path is this directory, or lies in it."""
        try:
            given: Any = self.path_of(path)
            qualified = given.getFileSystem(self.configuration).makeQualified(given)
        except (Py4JJavaError, PySparkException):  # no path, or of no file system
            return False
        return f"{qualified.toString()}/".startswith(f"{self}/")

    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self.path(name)))

    def names(self) -> list[str]:
        """What lies in the directory; nothing if it does not exist."""
        if not self.fs.exists(self.root):
            return []
        return sorted(found.getPath().getName() for found in self.fs.listStatus(self.root))

    def delete(self, name: str) -> None:
        self.fs.delete(self.path(name), True)

    def read_text(self, name: str) -> str | None:
        """The text of a small file; None if there is none."""
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
        place = self.root
        try:
            while self.renames_at_once and not self.fs.exists(place):
                place = place.getParent()
            file = self.path_of(place, probe)
            self.fs.create(file, True).close()
            self.fs.delete(file, False)
        except Py4JJavaError as error:
            if not any(is_a(error, name) for name in REFUSALS):
                raise
            raise OSError(f"{place.toString()}: {reason(error)}") from error

    @contextmanager
    def locked(self, name: str) -> Iterator[bool | None]:
        """Hold a lock file: True, or False if another process does, or None where there are no locks.

        It falls with the process, whatever ends that. Only file systems of this machine have such locks, not all.
        """
        if not self.is_local:
            yield None
            return
        root = Path(self.root.toUri().getPath())
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
                ours = True  # unless another process holds it
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):  # another process may have deleted it in the meantime
                    if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                        break
            granted: bool | None = True
        except BlockingIOError:
            granted = ours = False
        except OSError:  # a file system without locks
            granted = None
        try:
            yield granted
        finally:
            if ours:
                with suppress(OSError):
                    path.unlink()


def is_a(error: Py4JJavaError, name: str) -> bool:
    """Whether an error of Java's is of a class, or of one below it."""
    kind = error.java_exception.getClass()
    while kind is not None and kind.getName() != name:
        kind = kind.getSuperclass()
    return kind is not None


def opened(path: Path) -> TextIO:
    try:
        return path.open("a")
    except PermissionError:  # another user's
        return path.open()
