"""The resident engine after kills, spoilt files, lost executors, full disks: bitwise identical, or a clear error."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame

from ap_spark._spark.machine import machine_name
from ap_spark._spark.shortages import OUT_OF_MEMORY
from ap_spark.blocks import kernel
from ap_spark.engines.resident import ResidentEngine
from ap_spark.engines.tasks import Plan
from ap_spark.errors import StorageError
from ap_spark.graph.edge_graph import EdgeGraph, build_edge_graph
from ap_spark.settings import Settings
from tests.conftest import INTERPRETED, LONG, Edges, random_edges
from tests.on_blocks import OnBlocks, advance, bits, delete, messages_of, names, paths, tear
from tests.test_jobs import BIN, SUBMIT, finish
from tests.test_jobs import start as start_program

Frame = Callable[[Edges], DataFrame]

BEFORE, AFTER = 4, 3  # iterations before and after something happens


@pytest.fixture(scope="module")
def graph(frame: Frame) -> Iterator[EdgeGraph]:
    graph = build_edge_graph(frame(random_edges(np.random.default_rng(5), 60, 0.2, symmetric=False)), Settings())
    yield graph
    graph.release()


def start(graph: EdgeGraph, blocks: int) -> ResidentEngine:
    """With three blocks what they share goes through an exchange."""
    return OnBlocks(graph, 0.7, blocks, "numpy", collected_bytes=0 if blocks == 3 else 1 << 20)


def end(engine: ResidentEngine) -> tuple[bytes, list[Any]]:
    """What the engine has come to, once it has been released."""
    result = bits(messages_of(engine)), names(engine)
    files = paths(engine)
    engine.release()
    assert not any(path.parent.exists() for path in files)
    return result


@pytest.fixture(scope="module")
def undisturbed(graph: EdgeGraph) -> tuple[bytes, list[Any]]:
    engine = start(graph, 2)
    advance(engine, BEFORE + AFTER)
    return end(engine)


def truncate(path: Path, older: bytes) -> None:
    os.truncate(path, len(older) // 2)


def swap(path: Path, older: bytes) -> None:
    path.unlink()
    path.write_bytes(older)


def write_over(path: Path, older: bytes) -> None:
    with path.open("r+b") as file:
        file.write(older)


def mistake(path: Path, older: bytes) -> None:
    """The file of another run."""
    other = bytearray(path.read_bytes())
    other[8:16] = bytes(8)
    path.write_bytes(other)


@pytest.mark.parametrize(
    ("spoil", "blocks"),
    [
        pytest.param(mistake, 2, marks=LONG),
        (delete, 1),
        pytest.param(truncate, 2, marks=LONG),
        pytest.param(swap, 2, marks=LONG),
        pytest.param(tear, 3, marks=LONG),
    ]
    + [pytest.param(spoil, blocks, marks=LONG) for spoil in (delete, write_over) for blocks in (2, 3)],
)
def test_a_spoilt_file_is_recognised_and_rebuilt(
    graph: EdgeGraph,
    undisturbed: tuple[bytes, list[Any]],
    spoil: Callable[[Path, bytes], None],
    blocks: int,
) -> None:
    engine = start(graph, blocks)
    advance(engine, BEFORE - 2)
    path = paths(engine)[-1]
    older = path.read_bytes()
    advance(engine, 2)
    spoil(path, older)
    advance(engine, AFTER)
    assert engine.iteration == BEFORE + AFTER
    spoil(path, older)
    assert end(engine) == undisturbed


@dataclass(frozen=True)
class Fatal(Plan):
    """A plan whose first task, once there is a file at ``order``, dies in the middle of its iteration."""

    order: str

    @property
    def iterate(self) -> Callable[..., None]:
        def half(block: Any, *others: Any) -> None:
            try:
                Path(self.order).unlink()
            except FileNotFoundError:
                kernel.iterate(block, *others)
                return
            block.r[: len(block.r) // 2] = 1e3
            os.kill(os.getpid(), signal.SIGKILL)

        return half


@LONG
@pytest.mark.parametrize("blocks", [1, pytest.param(2, marks=LONG)])
def test_a_worker_killed_in_the_middle_of_an_iteration_is_replaced(
    graph: EdgeGraph, undisturbed: tuple[bytes, list[Any]], blocks: int, tmp_path: Path
) -> None:
    engine = start(graph, blocks)
    order = tmp_path / "die"
    engine.plan = Fatal(**{field.name: getattr(engine.plan, field.name) for field in fields(Plan)}, order=str(order))
    advance(engine, BEFORE)
    order.touch()
    advance(engine, AFTER)
    assert not order.exists()
    assert end(engine) == undisturbed


LOST = """
import sys
import psutil
from pathlib import Path
from ap_spark.graph.block_graph_builder import build_block_graph
from ap_spark.engines.resident import ResidentEngine
from ap_spark._spark.session import start_session
from ap_spark.settings import Settings
from tests.on_blocks import advance, bits, messages_of, names

edges, result, *conf = sys.argv[1:]
spark = start_session("local-cluster[2,1,1024]", conf)
engine = ResidentEngine(build_block_graph(spark.read.parquet(edges), Settings(partitions=2)), 0.7, "numpy")
print("places", len({handle.path.rsplit("/", 1)[0] for handle in engine.blocks.located.collect()}))
for block in range(2):  # first the executor of one block, then that of the other: all that was held is gone
    advance(engine, 2)
    handle = next(handle for handle in engine.blocks.located.collect() if handle.block == block)
    psutil.Process(int(handle.path.split("/ap-spark.")[1].split(".")[1])).parent().kill()
advance(engine, 3)
Path(result).write_bytes(bits(messages_of(engine)))
print("exemplars", names(engine))
engine.release()
spark.stop()
"""


@pytest.mark.cluster
def test_lost_executors_take_nothing_with_them(
    graph: EdgeGraph, undisturbed: tuple[bytes, list[Any]], tmp_path: Path
) -> None:
    edges, result = tmp_path / "edges", tmp_path / "messages"
    graph.similarities().write.parquet(str(edges))
    quick = ["spark.executor.extraJavaOptions=-XX:TieredStopAtLevel=1", "spark.shuffle.io.retryWait=100ms"]
    conf = [*INTERPRETED, *quick, "spark.ui.enabled=false", "spark.sql.shuffle.partitions=2"]
    output = finish([sys.executable, "-c", LOST, str(edges), str(result), *conf, f"spark.local.dir={tmp_path}"])
    assert "places 2" in output, "each executor has a block"
    messages, exemplars = undisturbed
    assert result.read_bytes() == messages
    assert f"exemplars {exemplars}" in output


def test_leftovers_of_the_dead_are_cleared_and_those_of_the_living_are_not(graph: EdgeGraph) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = {
        f"ap-spark.{7:016x}.{ended.pid}.{machine_name()}": False,
        f"ap-spark.{8:016x}.{os.getpid()}.{machine_name()}": True,
        f"ap-spark.{9:016x}.{ended.pid}.another-machine": True,
    }
    engine = start(graph, 2)
    beside = paths(engine)[0].parent.parent.parent / "blockmgr-of-another-executor"
    engine.release()
    for name in names:
        (beside / name).mkdir(parents=True)
        (beside / name / "block-0").touch()
    start(graph, 2).release()
    assert {name: (beside / name).exists() for name in names} == names
    shutil.rmtree(beside)


FULL = """
import resource, sys
from pathlib import Path
from ap_spark.cli import main
from ap_spark._spark.session import start_session
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
local, *arguments = sys.argv[1:]
spark = start_session("local[2]", [f"spark.local.dir={local}", *%r])
code = main(arguments)
print("left", [str(path) for path in Path(local).rglob("ap-spark.*/*")])
spark.stop()
sys.exit(code)
"""


@pytest.mark.programs
def test_a_disk_without_room_for_the_blocks_is_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    """No file may be larger than 0.6 MB, and the block needs 1 MB: the error is another, its handling the same."""
    points = tmp_path / "points.csv"
    points.write_text("\n".join(["x", *(str(n * n % 977) for n in range(190))]))
    command = [sys.executable, "-c", FULL % (INTERPRETED,), str(tmp_path / "local"), "cluster", str(points)]
    command += ["--output", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 4, ended.stderr
    assert "in a local directory of Spark's" in ended.stderr
    assert "File too large" in ended.stderr
    assert "left []" in ended.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [600, 900])
def test_a_disk_without_room_for_the_totals_is_an_error_and_nothing_is_left(graph: EdgeGraph, size: int) -> None:
    """The broadcast's file of 60 totals does not fit, or it does and all of them together do not."""
    engine = start(graph, 2)
    files = paths(engine)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(StorageError, match="no room, or no permission"):
            advance(engine, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    engine.release()
    assert not any(path.parent.exists() for path in files)


def test_a_local_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "points.csv").write_text("x\n1\n2\n")
    command = [str(BIN / "ap-spark"), "cluster", str(tmp_path / "points.csv"), "--output", str(tmp_path / "out")]
    command += ["--conf", f"spark.local.dir={tmp_path / 'file' / 'below'}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 4, ended.stderr
    assert str(tmp_path / "file" / "below") in ended.stderr
    assert not (tmp_path / "out").exists()


FAILING = """
import os, sys
from ap_spark import cli
def hungry(edges, *_, **__):
    edges.sparkSession.range(1).selectExpr("aggregate(sequence(1, 200000000 + id), 0L, (a, b) -> a + b)").collect()
def killed(edges, *_, **__):
    os.kill(edges.sparkSession.sparkContext._gateway.proc.pid, 9)
    edges.collect()
cli.affinity_propagation = %s
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("hungry", "Spark ran out of memory: its heap is full"),
        ("killed", "Spark's process was killed"),
    ],
)
def test_a_spark_that_ends_or_is_killed_is_an_error_in_one_line(tmp_path: Path, failing: str, message: str) -> None:
    edges = tmp_path / "edges.csv"
    edges.write_text("i,k,s\n0,1,-1\n1,0,-2\n")
    command = [sys.executable, "-c", FAILING % failing, "cluster", str(edges), "--edges"]
    command += ["--output", str(tmp_path / "out"), "--conf", "spark.driver.memory=600m"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 4, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith(("WARNING", "Setting", "To adjust"))]
    lines = [line for line in lines if not line.endswith(" so far")]  # the progress of a slow machine
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("ap-spark: ")
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.cluster
def test_under_spark_submit_a_spark_that_ends_itself_is_no_signal(tmp_path: Path) -> None:
    edges, job = tmp_path / "edges.csv", tmp_path / "job.py"
    edges.write_text("i,k,s\n0,1,-1\n1,0,-2\n")
    job.write_text(FAILING % "hungry")
    command = [*SUBMIT, "--driver-memory", "600m", str(job), "cluster", str(edges), "--edges"]
    process = start_program([*command, "--output", str(tmp_path / "out")])
    output, _ = process.communicate(timeout=200)
    assert process.returncode == OUT_OF_MEMORY, output
    assert "ap-spark: Spark ran out of memory: its heap is full" in output
    assert "SIGTERM" not in output
    assert not (tmp_path / "out").exists()
