"""The program as others start it: spark-submit, a killed job, Spark Connect, and what README says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from ap_spark.cli import main
from ap_spark.java import wrapper_home
from tests.conftest import INTERPRETED, INTERPRETING, ROOT
from tests.outputs import result

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYSPARK_PYTHON": sys.executable}


LONG = ["-c", "10000000", "--checkpoint-every", "1000min", "-d", "0.5"]
SUBMIT = ["spark-submit", "--master", "local[2]", "--properties-file", str(ROOT / "conf" / "local.properties")]


def start(command: list[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )


def finish(command: list[str], **options: object) -> str:
    process = start(command, **options)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return told


def blocks_of(session: int) -> list[Path]:
    """The files of blocks that belong to the processes of a session."""
    found = []
    for path in Path(tempfile.gettempdir()).glob("blockmgr-*/ap-spark.*/block-0"):
        with suppress(OSError):
            if os.getsid(int(path.parent.name.split(".")[2])) == session:
                found.append(path)
    return found


@pytest.mark.cluster
@pytest.mark.parametrize("moment", ["iterating", "publishing"])
def test_a_job_killed_halfway_leaves_no_output_and_does_not_disturb_the_next(
    tmp_path: Path, spark: SparkSession, moment: str
) -> None:
    points = tmp_path / "points.csv"
    points.write_text("x\n0\n1\n5\n6\n")
    command = ["ap-spark", "cluster", str(points), "--verbose", "--output", str(tmp_path / "out"), *INTERPRETING]
    long = ["-i", "100000000", "-c", "10000000"] if moment == "iterating" else []
    process = start([*command, *long], cwd=tmp_path, start_new_session=True)
    assert process.stdout
    deadline = time.monotonic() + 120
    reached = {"iterating": lambda: blocks_of(process.pid), "publishing": lambda: list(tmp_path.glob(".out.staging.*"))}
    while time.monotonic() < deadline and process.poll() is None and not reached[moment]():
        time.sleep(0.001)
    assert process.poll() is None, process.stdout.read()
    blocks = blocks_of(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (tmp_path / "out").exists()
    assert bool(list(tmp_path.glob(".out.staging.*"))) == (moment == "publishing")
    assert bool(blocks) == (moment == "iterating")
    assert all(path.exists() for path in blocks)
    assert main(command[1:]) == 0
    assert not any(path.exists() for path in blocks), "cleared by the next run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "points.csv"]
    assert (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.cluster
@pytest.mark.parametrize("way", ["ap-spark", "spark-submit"])
def test_a_stopped_job_takes_a_snapshot_and_the_same_command_goes_on(
    tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    """SIGTERM for Python alone; what Ctrl-C in a terminal sends to Python and to the Java that has started it."""
    points = tmp_path / "points.csv"
    points.write_text("x\n0\n1\n5\n6\n7\n")
    command = ["cluster", str(points), *LONG, "--checkpoint", str(tmp_path / "c"), "--output", str(tmp_path / "out")]
    program = ["ap-spark", "cluster"] if way == "ap-spark" else [*SUBMIT, str(ROOT / "jobs" / "cluster.py")]
    process = start([*program, *command[1:], "-i", "100000000", *INTERPRETING], cwd=tmp_path, start_new_session=True)
    assert process.stdout
    assert any(re.search(r"iteration \d+ of", line) for line in process.stdout), "a line once iterations are running"
    if way == "ap-spark":
        process.send_signal(signal.SIGTERM)
    else:
        os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=200)
    assert process.returncode == (143 if way == "ap-spark" else 130), told
    stopped = re.search(r"stopped after iteration (\d+), with a snapshot in .*: the same command resumes", told)
    assert stopped, told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "points.csv"], "no lock, nothing staged"
    assert not blocks_of(process.pid)
    upto = int(stopped[1]) + 1000
    assert main([*command, "-i", str(upto)]) == 0
    assert f"NOT converged after {upto:,} iterations" in capsys.readouterr().out
    resumed = result(tmp_path / "out")
    assert main([*command, "-i", str(upto), "--overwrite"]) == 0
    assert result(tmp_path / "out") == resumed


HANGING = """
import sys, time
from ap_spark.cli import main
from ap_spark.io.stores import Store
write_text = Store.write_text
def never(store, name, text):
    if name.startswith("snapshot-000002"):
        print("hangs", flush=True)
        time.sleep(1000)
    write_text(store, name, text)
Store.write_text = never
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.cluster
@pytest.mark.parametrize("way", ["ap-spark", "spark-submit"])
def test_whatever_hangs_a_stopped_job_ends_in_time_and_says_what_was_saved(tmp_path: Path, way: str) -> None:
    points, job = tmp_path / "points.csv", tmp_path / "job.py"
    points.write_text("x\n0\n1\n5\n6\n7\n")
    job.write_text(HANGING)
    program = [sys.executable] if way == "ap-spark" else SUBMIT
    command = [*program, str(job), "cluster", str(points), *LONG, "-i", "100000000", *INTERPRETING, "--grace", "5"]
    command += ["--checkpoint", str(tmp_path / "c"), "--checkpoint-every", "1000", "--output", str(tmp_path / "out")]
    process = start(command, cwd=tmp_path, start_new_session=True)
    assert process.stdout
    assert any(line == "hangs\n" for line in process.stdout)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 5 + 10, "on a busy machine"
    assert process.returncode == 143, told
    last = told.splitlines()[-1]
    assert "stopped by SIGTERM, and not done 5 s later (--grace): the last snapshot is" in last
    assert re.search(r"/c/snapshot-000001-[0-9a-f]{8}, after iteration 1000: the same command resumes from it$", last)
    gone = time.monotonic() + 10
    while time.monotonic() < gone and subprocess.run(["pgrep", "-s", str(process.pid), "java"]).returncode == 0:
        time.sleep(0.1)
    assert time.monotonic() < gone, "Java goes too"


@pytest.mark.cluster
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_snapshot_that_finds_no_room_does_not_keep_a_job_from_stopping(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(full)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (full / "ballast").write_bytes(bytes(1_700_000))  # room for one snapshot
        command = ["ap-spark", "cluster", str(ROOT / "data" / "digits.csv.gz"), "--feature-columns", "0-63"]
        command += ["--neighbors", "30", "-d", "0.99", "-i", "100000", "-c", "99999", *INTERPRETING]
        command += ["--checkpoint", str(full / "c"), "--checkpoint-every", "5", "--output", str(tmp_path / "out")]
        process = start(command, cwd=tmp_path, start_new_session=True)
        assert process.stdout
        assert any("no snapshot taken" in line for line in process.stdout)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGTERM)
        told, _ = process.communicate(timeout=100)
        assert time.monotonic() - began < 30 + 10
        assert process.returncode == 143, told
        last = told.splitlines()[-1]
        assert re.search(r"the last snapshot is file:.*/snapshot-\d+-[0-9a-f]+, after iteration \d+: the same", last)
    finally:
        subprocess.run(["umount", str(full)], check=True)


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark's defaults for sessions with a handful of rows."""
    defaults = tmp_path_factory.mktemp("conf")
    java = "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1"
    (defaults / "spark-defaults.conf").write_text("\n".join([*INTERPRETED, java, "spark.sql.shuffle.partitions=2"]))
    monkeypatch.setitem(ENVIRONMENT, "SPARK_CONF_DIR", str(defaults))


CONNECT = """
import sys
from pyspark.sql import SparkSession
from ap_spark import (
    Execution, SettingError, Similarity, affinity_propagation, cluster_points, describe, nearest_neighbors, scale
)
spark = SparkSession.builder.remote("local[2]").config("spark.sql.shuffle.partitions", 2).getOrCreate()
assert type(spark).__module__.startswith("pyspark.sql.connect")
x = [1, 2, 3, 7, 8, 9]
pairs = [(i, k, -float((a - b) ** 2)) for i, a in enumerate(x) for k, b in enumerate(x) if i != k]
similarities = spark.createDataFrame(pairs, "i int, k int, s double")
found = affinity_propagation(similarities, preference=-25.0, damping=0.5, convergence_iter=3)
exemplars = [row.exemplar for row in found.assignments.orderBy("id").collect()]
print(found.summary.engine, found.converged, found.n_iter, found.summary.netsim, exemplars)
try:
    affinity_propagation(similarities, execution=Execution(engine="resident"))
except SettingError as error:
    print(error)
points = spark.createDataFrame([(n, [float(a), 1.0]) for n, a in enumerate(x)], "id int, features array<double>")
for search in ("exact", "approximate"):
    edges = nearest_neighbors(scale(points), 2, search=search).edges
    print(search, sorted((row.i, row.k) for row in edges.collect()))
print("components", describe(edges).n_components)
found = cluster_points(points, similarity=Similarity(neighbors=2), preference=-25.0)
print("points", [row.exemplar for row in found.assignments.orderBy("id").collect()])
spark.stop()
"""


@pytest.mark.programs
@pytest.mark.usefixtures("quick")
def test_everything_runs_on_spark_connect(tmp_path: Path) -> None:
    told = finish([sys.executable, "-c", CONNECT], cwd=tmp_path)
    assert re.search(r"^dataframe True \d+ -54\.0 \[1, 1, 1, 4, 4, 4\]$", told, re.M), told
    assert "engine must be dataframe on Spark Connect" in told
    pairs = [(i, k) for group in ((0, 1, 2), (3, 4, 5)) for i in group for k in group if i != k]
    assert f"exact {pairs}\n" in told
    assert f"approximate {pairs}\n" in told
    assert "components 2" in told
    assert "points [1, 1, 1, 4, 4, 4]" in told


QUIET = """
import pandas as pd
from ap_spark import Execution, Similarity, cluster_points
points = pd.DataFrame({"x": [1.0, 2.0, 3.0, 7.0, 8.0, 9.0]})
on_spark = Execution(engine="resident")
found = cluster_points(points, similarity=Similarity(neighbors=2), preference=-10.0, execution=on_spark)
print(found.assignments["exemplar"].tolist())
"""


@pytest.mark.programs
@pytest.mark.usefixtures("quick")
def test_python_from_pandas_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr, done.returncode) == ("[1, 1, 1, 4, 4, 4]\n", "", 0)


def code_of(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def shown_after(language: str, page: str = "README.md") -> list[str]:
    """The lines of a page's blocks of text that follow a block of code at once, as `comparable` has them."""
    return comparable(
        "".join(re.findall(rf"^```{language}\n[^`]*^```\n\n```text\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S))
    )


def comparable(told: str) -> list[str]:
    """The lines without seconds, which differ, and without blanks at their ends, which pages do not have."""
    return [line.rstrip() for line in re.sub(r"[\d.]+ s in all", "", told).splitlines()]


@pytest.mark.programs
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("page", "lines"), [("README.md", 8), ("docs/tutorial.md", 12), ("docs/report.md", 0)])
def test_the_commands_of_the_pages(tmp_path: Path, page: str, lines: int) -> None:
    """They work, tell what the page shows, and README's spark-submit does what its command does."""
    for name in ("data", "jobs", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name)
    # Blocks with make build an environment; CI and newcomers run them.
    blocks = [block for block in code_of("bash", page) if not re.search("make |docker ", block)]
    told = comparable("".join(finish(["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path) for block in blocks))
    shown = shown_after("bash", page)
    assert len(shown) == lines
    for line in shown:
        assert line in told
    if page == "README.md":
        assert result(tmp_path / "out" / "iris") == result(tmp_path / "out" / "submitted")


@pytest.mark.programs
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("pages", "n_blocks", "lines"),
    [
        (("README.md", "docs/choosing.md"), 3, 14),
        (("docs/tutorial.md",), 6, 35),
        (("docs/report.md", "docs/gallery.md"), 6, 0),
    ],
)
def test_the_python_of_the_pages(tmp_path: Path, pages: tuple[str, ...], n_blocks: int, lines: int) -> None:
    """It works, and tells what the first page shows."""
    shutil.copytree(ROOT / "data", tmp_path / "data")
    blocks = [block for page in pages for block in code_of("python", page)]
    assert len(blocks) == n_blocks
    told = comparable(finish([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path))
    shown = shown_after("python", pages[0])
    assert len(shown) == lines
    assert told[: len(shown)] == shown


@pytest.mark.programs
def test_java_starts_from_an_archive_of_its_classes() -> None:
    archive = wrapper_home() / "classes.jsa"
    before = archive.exists()  # a developer's own, made again
    try:
        archived = subprocess.run(
            [sys.executable, "-m", "ap_spark.class_archive"],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        assert archived.stdout == f"{archive}\n"
        assert "[warning]" not in archived.stderr
        script = (
            "from pyspark import SparkContext; from ap_spark._spark.session import start_session; start_session(); "
            "print(open(f'/proc/{SparkContext._gateway.proc.pid}/maps').read())"
        )
        told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
        assert str(archive) in told.stdout
        assert not told.stderr
    finally:
        if not before:
            archive.unlink(missing_ok=True)
