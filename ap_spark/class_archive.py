"""A class-data archive: Spark's classes as Java has once loaded them, so that it starts some seconds faster.

    python -m ap_spark.class_archive   makes it, in half a minute: 190 MB in the Python environment

`java.use_java` has it used from then on. Java itself leaves an archive aside that does not fit, such as one of other
versions.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from pyspark import SparkContext

from ap_spark._spark.session import JAVA_OPTIONS, configuration, read_properties, with_log
from ap_spark.cli import main
from ap_spark.errors import ApSparkError, JavaNotFound
from ap_spark.java import use_java, wrapper_home

__all__ = ["make_archive"]

_QUIET = "-Xlog:disable -Xlog:all=error:stderr"  # without it Java prints a line for each class that it leaves out
_TRIALS: tuple[tuple[str, ...], ...] = ((), ("--neighbors", "10"))


def make_archive() -> Path:
    """Run some small clusterings, and keep the classes that Java has loaded for them.

    Raises
    ------
    JavaNotFound
        If there is no Java, or only one that makes no archives.
    ApSparkError
        If a clustering fails.
    """
    use_java()
    home = wrapper_home()
    if Path(os.environ["JAVA_HOME"]) != home:
        raise JavaNotFound(f"the archive lies beside a script that starts Java, but {home} cannot be written")
    archive = home / "classes.jsa"
    archive.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as work:
        points, draft = Path(work) / "points.csv", Path(work) / archive.name
        points.write_text("".join(f"{n},{n % 7},{n % 11}\n" for n in range(100)))
        options = with_log(read_properties(configuration("local.properties"))[JAVA_OPTIONS])
        options += f" {_QUIET} -XX:ArchiveClassesAtExit={draft}"
        for trial in _TRIALS:
            given = ["cluster", str(points), "--no-header", "--id-column", "0", "--conf", f"{JAVA_OPTIONS}={options}"]
            with redirect_stdout(StringIO()):
                code = main([*given, "--output", f"{work}/output", "--overwrite", *trial])
            if code:
                raise ApSparkError(f"no archive was made: a small clustering ended with exit code {code}")
        _end_java()
        if not draft.exists():
            raise JavaNotFound(
                f"the Java that {home} starts makes no class-data archives: give another JAVA_HOME, such as that of a "
                "Linux distribution"
            )
        draft.replace(archive)
    return archive


def _end_java() -> None:
    """End Java, and wait until it has written the archive."""
    gateway = SparkContext._gateway
    assert gateway is not None
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(timeout=300)


if __name__ == "__main__":
    try:
        print(make_archive())
    except ApSparkError as error:
        sys.exit(f"ap-spark: {error}")
