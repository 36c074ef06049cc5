"""What may be read, replaced and deleted: none of this starts a job of Spark's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from ap_spark._spark.machine import machine_name
from ap_spark.checkpoint import Checkpoint
from ap_spark.cli import main
from ap_spark.errors import ApSparkError, OutputError
from ap_spark.graph.describe import Degrees, Description
from ap_spark.graph.preferences import PreferenceRange
from ap_spark.io.paths import Place, conflict, places_read
from ap_spark.io.stores import Store
from ap_spark.io.writer import OutputDirectory, claimed
from ap_spark.settings import Settings, Snapshots

pytestmark = pytest.mark.usefixtures("spark")

EDGES = "i,k,s\n0,1,-1.0\n1,0,-1.0\n"
NOBODY = 65534


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an input, and no way to any job."""

    def read(*_: object) -> None:
        raise AssertionError("the input is read")

    monkeypatch.setattr("ap_spark.cli._read", read)
    work = tmp_path / "work"
    (work / "data" / "deep").mkdir(parents=True)
    for name in ("scores.csv", "deep/part.csv"):
        (work / "data" / name).write_text(EDGES)
    (work / "elsewhere").mkdir()
    (work / "elsewhere" / "linked.csv").write_text(EDGES)
    monkeypatch.chdir(work)
    return work


def contents(directory: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(directory)): path.read_text() if path.is_file() else None for path in directory.rglob("*")
    }


def an_output(path: Path) -> Path:
    """The least that is an output of ours."""
    (path / "assignments").mkdir(parents=True)
    (path / "assignments" / "part-00000.csv").touch()
    (path / "summary.json").write_text('{"format": "ap_spark/1"}')
    return path


def refuse(here: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The words of a refusal, which changes nothing; @ is the working directory, which Java does not know."""
    before = contents(here)
    assert main([argument.replace("@", str(here)) for argument in arguments]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1, told
    assert "Exception" not in told
    assert contents(here) == before
    return told


READ = {
    "the directory of the input": ("@/data/scores.csv", "@/data", "holds INPUT"),
    "the input": ("@/data/scores.csv", "@/data/scores.csv", "is INPUT"),
    "an input directory": ("@/data", "@/data", "is INPUT"),
    "in an input directory": ("@/data", "@/data/out", "lies in INPUT"),
    "in another spelling": ("@/data", "file://@/elsewhere/../data/out", "lies in INPUT"),
    "by a link": ("@/data", "@/link/out", "lies in INPUT"),
    "a link to it": ("@/data", "@/link", "is INPUT"),
    "what a pattern names": ("@/da*/sc*.csv", "@/data", "holds INPUT"),
    "a directory that a pattern names": ("@/data/d*", "@/data/deep/out", "lies in INPUT"),
    "what a link in the input leads to": ("@/linking", "@/elsewhere", "holds INPUT"),
    "what a linked directory leads to": ("@/linking", "@/data/deep", "INPUT"),
}


@pytest.mark.parametrize("case", READ)
@pytest.mark.parametrize("command", ["cluster", "graph"])
def test_an_output_lies_apart_from_the_input(
    here: Path, capsys: pytest.CaptureFixture[str], case: str, command: str
) -> None:
    (here / "link").symlink_to("data")
    (here / "linking").mkdir()
    (here / "linking" / "a.csv").symlink_to(here / "elsewhere" / "linked.csv")
    (here / "linking" / "b").symlink_to(here / "data" / "deep")
    source, output, how = READ[case]
    options = ["--edges", "--format", "csv", "--overwrite", "--output", output]
    told = refuse(here, capsys, command, source, *options)
    assert "the output must lie apart from the input and the snapshots, but" in told
    assert how in told


def test_an_output_lies_apart_from_points_and_snapshots(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    always = ["cluster", "@/data/scores.csv", "--edges", "--overwrite"]
    told = refuse(here, capsys, *always, "--points", "@/elsewhere/linked.csv", "--output", "@/elsewhere")
    assert "holds --points" in told
    for output, checkpoint, how in (("@/o", "@/o/c", "holds --checkpoint"), ("@/o/c", "@/o", "lies in --checkpoint")):
        assert how in refuse(here, capsys, *always, "--output", output, "--checkpoint", checkpoint)
    told = refuse(here, capsys, *always, "--output", "@/o", "--checkpoint", "@/data")
    assert "the checkpoint must lie apart from the input, but" in told
    assert "holds INPUT" in told


def test_places_of_object_stores_are_compared_by_their_names() -> None:
    bucket = Place("INPUT", "s3a://b/in", ("s3a", "b", "in"))
    assert (
        conflict(Place("", "s3://b/in/x", ("s3a", "b", "in", "x")), [bucket]) == "s3://b/in/x lies in INPUT s3a://b/in"
    )
    assert conflict(Place("", "s3a://b/input", ("s3a", "b", "input")), [bucket]) is None
    assert conflict(Place("", "s3a://c/in", ("s3a", "c", "in")), [bucket]) is None


def test_a_file_named_by_a_pattern_is_read_and_its_directory_is_not(here: Path, spark: SparkSession) -> None:
    read = places_read(spark, {"INPUT": f"{here}/data/*.csv", "--points": None})
    assert conflict(Place.local("the output", here / "data" / "out"), read) is None
    assert conflict(Place.local("the output", here / "data"), read)


def precious(path: Path) -> None:
    (path / ".git").mkdir(parents=True)
    (path / "thesis.tex").write_text("three years")


def dataset(path: Path) -> None:
    path.mkdir()
    (path / "_SUCCESS").touch()
    (path / "part-00000.csv").write_text("three years")


def annotated(path: Path) -> None:
    an_output(path)
    (path / "notes.txt").write_text("three years")


def annotated_within(path: Path) -> None:
    an_output(path)
    (path / "assignments" / "notes").mkdir()


def a_directory_in_a_table(path: Path) -> None:
    (an_output(path) / "assignments" / "part-2").mkdir()


def another_program(path: Path) -> None:
    path.mkdir()
    (path / "summary.json").write_text('{"settings": {}, "seconds": 1}')


FOREIGN = {
    "a thesis": (precious, "is none (by its summary.json)"),
    "a dataset": (dataset, "is none (by its summary.json)"),
    "another program's": (another_program, "is none (by its summary.json)"),
    "notes in an output": (annotated, "holds 'notes.txt', which is not of an output: move it away"),
    "notes in a table": (annotated_within, "holds 'assignments/notes', which is not of an output"),
    "a directory like a part": (a_directory_in_a_table, "holds 'assignments/part-2', which is not of an output"),
    "a file": (lambda path: path.write_text("three years"), "is a file: move it away"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_only_an_output_of_ours_is_replaced(here: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    make, words = FOREIGN[case]
    make(here / "theirs")
    for options in (["--overwrite"], ["--if-exists", "replace"]):
        told = refuse(here, capsys, "cluster", "@/data", "--format", "csv", "--output", "@/theirs", *options)
        assert words in told
    refuse(here, capsys, "cluster", "@/data", "--format", "csv", "--output", "@/theirs", "--if-exists", "skip")


SUMMARIES = {  # edited by hand: what Hadoop has noted of them no longer fits
    "a note": ('{"format": "ap_spark/1", "note": "the good one"}', None),
    "another format": ('{"format": "ap_spark/9"}', "is none (by its summary.json)"),
    "half of it": ('{"format": "ap_sp', "is none (by its summary.json)"),
}


@pytest.mark.parametrize("case", SUMMARIES)
def test_a_summary_that_was_edited_counts_as_it_stands(here: Path, spark: SparkSession, case: str) -> None:
    text, words = SUMMARIES[case]
    out = here / "out"
    OutputDirectory(spark, str(out), replace=False).publish({}, "csv", {"seconds": {}})
    assert (out / ".summary.json.crc").exists()
    (out / "summary.json").write_text(text)
    with ExitStack() as until:
        if words:
            until.enter_context(pytest.raises(OutputError, match=re.escape(words)))
        until.enter_context(claimed(spark, str(out), "replace"))
    assert (out / "summary.json").read_text() == text


def test_what_only_has_the_name_of_a_leftover_stays(
    here: Path, spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    """An input too: similarities that somebody has found in what a killed run left."""
    names = {purpose: f".out.{purpose}.{machine_name()}.1.{16 * '0'}" for purpose in ("staging", "probing", "old")}
    found = here / names["staging"] / "output" / "similarities"
    found.mkdir(parents=True)
    (found / "part-0.csv").write_text(EDGES)
    an_output(here / names["old"])
    precious(here / names["probing"])
    read = places_read(spark, {"INPUT": str(found), "--points": f"{here}/{names['old']}/assignments"})
    before = contents(here)
    with claimed(spark, f"{here}/out", "refuse", read):
        pass
    assert contents(here) == before
    assert "holds INPUT" in caplog.text
    assert "holds --points" in caplog.text
    precious(here / names["staging"])
    with claimed(spark, f"{here}/out", "replace"):
        pass
    assert (here / names["staging"] / "thesis.tex").exists()
    assert "is left as it is: it is no output of ap-spark, or holds more" in caplog.text


def test_home_and_working_directory_are_never_replaced(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = an_output(here / "home"), an_output(here / "w" / "trace").parent
    (work / "summary.json").write_text('{"format": "ap_spark/1"}')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work / "trace")
    for output, words in (
        (home, "is the home directory, or holds it"),
        (work, "is the working directory, or holds it"),
    ):
        told = refuse(here, capsys, "cluster", "no.csv", "--overwrite", "--output", str(output))
        assert words in told
    assert "must be a directory of its own" in refuse(here, capsys, "cluster", "no.csv", "--overwrite", "--output", "/")


def test_what_has_come_into_an_output_since_the_beginning_stays(here: Path, spark: SparkSession) -> None:
    out = an_output(here / "out")
    directory = OutputDirectory(spark, str(out), replace=True)
    directory._refuse_foreign()
    (out / "notes.txt").write_text("three years")
    before = contents(here)
    with pytest.raises(OutputError, match=r"holds 'notes\.txt'"):
        directory.publish({}, "csv", {"seconds": {}})
    assert contents(here) == before


def test_a_link_as_output_stays_and_its_target_is_replaced(here: Path, spark: SparkSession) -> None:
    (an_output(here / "elsewhere" / "real") / "_SUCCESS").touch()
    (here / "current").symlink_to("elsewhere/real")
    with claimed(spark, f"{here}/current", "replace") as directory:
        directory.publish({}, "csv", {"seconds": {}})
    assert (here / "current").is_symlink()
    assert json.loads((here / "elsewhere" / "real" / "summary.json").read_text())["format"] == "ap_spark/1"
    assert (here / "elsewhere" / "real").stat().st_mode == here.stat().st_mode, "as the user's umask has it"
    assert not (here / "elsewhere" / "real" / "assignments").exists()
    assert sorted(path.name for path in (here / "elsewhere").iterdir()) == ["linked.csv", "real"]


def test_what_is_staged_can_be_read_by_nobody_else(
    here: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    write_text = Store.write_text

    def watched(store: Store, name: str, text: str) -> None:
        modes.extend(path.stat().st_mode & 0o777 for path in here.glob(".out.staging.*"))
        write_text(store, name, text)

    monkeypatch.setattr(Store, "write_text", watched)
    OutputDirectory(spark, f"{here}/out", replace=False).publish({}, "csv", {"seconds": {}})
    assert set(modes) == {0o700}
    store = Store(spark, str(here / "far"))
    store.local = None  # as where there is no such file system
    store.make_private("a")
    assert [(here / name).stat().st_mode & 0o777 for name in ("far", "far/a")] == [0o755, 0o700]


PLACES = {
    "nothing": (
        ["--output", ""],
        "output must be the path of a directory, without ':' in its last part or a second '/' at its beginning, got ''",
    ),
    "no snapshots": (["--output", "@/o", "--checkpoint", ""], "checkpoint must be the path of a directory"),
    "a colon": (["--output", "./c:d"], "without ':' in its last part or a second '/' at its beginning, got './c:d'"),
    "a colon for snapshots": (
        ["--output", "@/o", "--checkpoint", "./c:d"],
        "without ':' in its last part or a second '/' at its beginning, got './c:d'",
    ),
    "a dangling link": (["--output", "@/dangling"], "dangling is a link to nowhere, which does not exist"),
    "below a dangling link": (["--output", "@/dangling/o"], "dangling is a link to nowhere, which does not exist"),
    "snapshots by one": (
        ["--output", "@/o", "--checkpoint", "@/dangling"],
        "is a link to nowhere, which does not exist",
    ),
    "a file above": (["--output", "@/data/scores.csv/o"], "Not a directory"),
    "of the system": (["--output", "/proc/o"], "/proc: No such file or directory"),
    "no scheme": (["--output", "what://host/o"], "No FileSystem for scheme"),
    "no scheme for snapshots": (["--output", "@/o", "--checkpoint", "what://host/o"], "No FileSystem for scheme"),
    "a name too long": (["--output", 240 * "@/o"], "File name too long"),
}


@pytest.mark.parametrize("case", PLACES)
def test_what_is_no_place_is_refused_before_anything_is_read(
    here: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    (here / "dangling").symlink_to("nowhere")
    options, words = PLACES[case]
    assert words in refuse(here, capsys, "cluster", "@/elsewhere", "--format", "csv", *options)
    if options[0] == options[-2]:
        assert words in refuse(here, capsys, "graph", "@/elsewhere", "--format", "csv", *options)


def test_a_colon_above_the_output_does_no_harm(here: Path, spark: SparkSession) -> None:
    with claimed(spark, f"{here}/c:d/out", "refuse") as directory:
        directory.publish({}, "csv", {"seconds": {}})
    assert (here / "c:d" / "out" / "_SUCCESS").exists()


@pytest.fixture
def as_nobody(here: Path) -> Iterator[None]:
    """This process without root's rights."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    for directory in (here, *here.parents[:-1]):
        directory.chmod(directory.stat().st_mode | 0o011)
    yield
    os.seteuid(0)


@pytest.mark.usefixtures("as_nobody")
def test_a_place_of_another_user_is_refused(here: Path, spark: SparkSession) -> None:
    mine = here / "mine"
    mine.mkdir(mode=0o755)
    shared = here / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    an_output(shared / "out").chmod(0o777)
    held = an_output(here / "open" / "out")
    held.parent.chmod(0o777)
    os.seteuid(NOBODY)
    with pytest.raises(OutputError, match="mine: Permission denied"):
        OutputDirectory(spark, str(mine / "out"), replace=True)
    for out, words in ((shared / "out", "belongs to another user, and .*shared lets nobody"), (held, "by this user")):
        with pytest.raises(OutputError, match=words):
            OutputDirectory(spark, str(out), replace=True)._refuse_foreign()


@pytest.mark.usefixtures("as_nobody")
def test_a_leftover_of_another_user_stays(here: Path, spark: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    here.chmod(0o777)
    theirs = here / f".out.staging.{machine_name()}.1.{16 * '0'}"
    theirs.mkdir(mode=0o700)
    os.seteuid(NOBODY)
    with claimed(spark, f"{here}/out", "refuse"):
        pass
    assert "is left as it is" in caplog.text
    assert theirs.exists()


def test_what_passes_is_no_refusal(here: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ap_spark.io.stores.os.open", full)
    with pytest.raises(ApSparkError, match=r"cannot be written for now \(No space left") as raised:
        OutputDirectory(spark, f"{here}/out", replace=False)
    assert raised.value.exit_code == 1


def test_a_probe_and_a_lock_follow_no_link_and_change_no_file(here: Path, spark: SparkSession) -> None:
    (here / ".out.lock").symlink_to("elsewhere/linked.csv")
    with pytest.raises(OutputError, match=r"\.out\.lock is where the lock would be, and no file: move it away"):
        claimed(spark, f"{here}/out", "refuse").__enter__()
    assert (here / "elsewhere" / "linked.csv").read_text() == EDGES
    (here / ".out.lock").unlink()
    (here / ".out.lock").write_text("a diary")
    with claimed(spark, f"{here}/out", "refuse"):
        pass
    assert (here / ".out.lock").read_text() == "a diary"
    store = Store(spark, str(here))
    (here / "probe").write_text("a diary")
    with pytest.raises(OSError, match="File exists"):
        store.check_writable("probe")
    store.local = None
    with pytest.raises(OSError, match="probe"):
        store.check_writable("probe")
    assert (here / "probe").read_text() == "a diary"


def test_only_snapshots_of_ours_are_deleted(here: Path, spark: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in ((1, "messages"), (2, "thesis.tex")):
        (here / "c" / f"snapshot-00000{number}-00000000" / name).mkdir(parents=True)
    (here / "c" / "snapshot-000003-00000000").write_text("three years")
    checkpoint = Checkpoint(spark, Settings(), Snapshots(checkpoint=f"{here}/c", resume=False))
    checkpoint.open()
    checkpoint.discard()
    assert [path.name[:15] for path in sorted((here / "c").iterdir())] == ["snapshot-000002", "snapshot-000003"]
    assert "is left as it is: thesis.tex is not of a snapshot" in caplog.text


def test_a_mount_is_not_replaced(here: Path, spark: SparkSession) -> None:
    (here / "m").mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount")
    if subprocess.run(["mount", "--bind", str(here / "data"), str(here / "m")], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OutputError, match="is where a file system is mounted"):
            OutputDirectory(spark, f"{here}/m", replace=True)._refuse_foreign()
        read = places_read(spark, {"INPUT": f"{here}/m/deep"})
        with pytest.raises(OutputError, match="lies in INPUT"):
            OutputDirectory(spark, f"{here}/data/deep/out", replace=True, apart_from=read)
    finally:
        subprocess.run(["umount", str(here / "m")], check=True)


def test_ids_are_escaped_in_words() -> None:
    degrees = Degrees(1, 1.0, 1.0, 1)
    words = str(
        Description(
            2,
            2,
            degrees,
            degrees,
            {ESCAPES: 1},
            1,
            [2],
            0,
            0,
            1,
            {0.5: -1.0},
            -1.0,
            PreferenceRange(-2.0, -1.0),
            "resident",
            9,
        )
    )
    assert "largest in-degrees: 1 of \\x1b[31mred\\u202e\\nb" in words


ESCAPES = "\x1b[31mred\u202e\nb"


def test_nothing_of_the_data_steers_a_terminal(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ApSparkError(f"there is no column {ESCAPES}")

    monkeypatch.setattr("ap_spark.cli._read", fail)
    assert main(["cluster", f"{here}/data", "--format", "csv", "--output", f"{here}/out"]) == 1
    assert capsys.readouterr().err == "ap-spark: there is no column \\x1b[31mred\\u202e\\nb\n"
