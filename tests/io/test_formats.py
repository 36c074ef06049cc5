"""Which format files have, and which files are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ap_spark import InputError, SettingError, read_points, read_similarities
from ap_spark.io.formats import check_format
from ap_spark.io.readers import read_points_by_id
from tests.conftest import LONG


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some files, in the working directory."""
    names = ["csvs/a.csv", "csvs/b.CSV.gz", "csvs/_SUCCESS", "csvs/.a.csv.crc", "csvs/day=1/c.csv", "csvs/older/d.json"]
    names += ["mixed/a.csv", "mixed/b.parquet", "odd/a.csv", "odd/README.md", "notes.md", "part-0"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


KNOWN: list[tuple[str | list[str], str | None]] = [
    ("x.tsv.gz", "tsv"),
    ("s3a://bucket/scores.parquet/", "parquet"),
    ("x.txt", "txt"),
    ("data/*.jsonl", "json"),
    ("csvs", "csv"),
    ("file:DIR/csvs", "csv"),
    ("file://DIR/csvs/", "csv"),
    (["csvs", "x.csv"], "csv"),
    ("s3a://bucket/scores", None),
    ("csvs/*", None),
    ("no/such/directory", None),
    (["s3a://bucket/scores", "x.orc"], "orc"),
]


@pytest.mark.parametrize(("path", "kind"), KNOWN)
def test_formats_by_name(files: Path, path: str | list[str], kind: str | None) -> None:
    def here(one: str) -> str:
        return one.replace("DIR", str(files))

    assert check_format(here(path) if isinstance(path, str) else list(map(here, path))) == kind


def test_a_given_format_counts() -> None:
    assert check_format("notes.md", "csv") == "csv"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("notes.md", "the format of 'notes.md' cannot be told from its name: give --format (in Python format=...), one of csv, json, orc, parquet, tsv"),
        ("part-0", "the format of 'part-0' cannot be told"),
        ("odd", "the format of 'odd/README.md' cannot be told"),
        ("mixed", "all files must have one format, but 'mixed/a.csv' is csv by its name and 'mixed/b.parquet' is parquet"),
        (["x.csv", "y.json"], "all files must have one format, but 'x.csv' is csv by its name and 'y.json' is json"),
    ],
)  # fmt: skip
def test_formats_that_cannot_be_told(path: str | list[str], message: str) -> None:
    """Before Spark has been started."""
    with pytest.raises(InputError, match=re.escape(message)):
        check_format(path)


def test_settings_of_a_format() -> None:
    with pytest.raises(SettingError, match="format must be one of auto, csv"):
        check_format("x.csv", "xml")
    with pytest.raises(SettingError, match=r"encoding is of csv and tsv files, but 'x\.orc' is read as orc"):
        check_format("x.orc", encoding="latin-1")
    assert check_format("x.txt", encoding="latin-1") == "txt"
    with pytest.raises(SettingError, match="there must be at least one path, got none"):
        check_format([])
    with pytest.raises(SettingError, match="a path must be a string, as Spark takes it, got 1"):
        check_format(["x.csv", 1])  # type: ignore[list-item]


@LONG
def test_several_files(spark: SparkSession, tmp_path: Path) -> None:
    """By a list, a pattern and a directory; headers may order their columns differently, rows count through."""
    directory = tmp_path / "points"
    directory.mkdir()
    (directory / "a.csv").write_text("x,y\n0,1\n")
    (directory / "b.csv").write_text("y,x\n3,2\n")
    (directory / "_log.txt").write_text("not read\n")

    def read(path: str | Sequence[str]) -> list[tuple[int, list[float]]]:
        return [tuple(row) for row in read_points(spark, path).orderBy("id").collect()]

    one, other = str(directory / "a.csv"), str(directory / "b.csv")
    for path in ([one, other], (other, one), [f"{directory}/*.csv"], f"{directory}/*", str(directory)):
        assert read(path) == [(0, [0.0, 1.0]), (1, [2.0, 3.0])], path
    assert read([other]) == [(0, [3.0, 2.0])]
    for twice in ([one, one], [one, f"{directory}/*.csv"]):
        with pytest.raises(InputError, match=r"a file must be named once, but among .*a\.csv is 2 times: leave one"):
            read(twice)
    assert read_points_by_id(
        spark, [one, other], header=True, encoding="utf-8", id_column=None, preference_column="y"
    ).orderBy("id").collect() == [(0, 1.0), (2, 3.0)]


def test_parquet_in_a_directory_without_a_suffix(spark: SparkSession, tmp_path: Path) -> None:
    for name, i in (("a", 1), ("b", 2)):
        pq.write_table(pa.table({"i": [i], "k": [i + 1], "s": [-1.0]}), tmp_path / f"part-{name}.parquet")
    for path in (str(tmp_path), [str(tmp_path / f"part-{name}.parquet") for name in "ab"], f"{tmp_path}/part-*"):
        assert read_similarities(spark, path).orderBy("i").collect() == [(1, 2, -1.0), (2, 3, -1.0)]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("\nid\tx\na\t1\n", [("a", [1.0])]),
        ("id,x\na,1\n", [("a", [1.0])]),
        ("id\tx y\r\né\t1\r\n", [("é", [1.0])]),
    ],
)
def test_a_text_file_has_tabs_or_commas(
    spark: SparkSession, tmp_path: Path, text: str, rows: list[tuple[str, list[float]]]
) -> None:
    encoding = "utf-16" if "é" in text else "utf-8"  # as Excel writes "Unicode text"
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    found = read_points(spark, str(tmp_path / "x.txt"), encoding=encoding)
    assert [tuple(row) for row in found.collect()] == rows


def test_a_directory_of_another_file_system_is_not_looked_for_here(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "part-0.csv").touch()
    assert check_format(f"{tmp_path}/in") == "csv"
    assert check_format(f"{tmp_path}/in", is_local=False) is None
    assert check_format(f"file:{tmp_path}/in", is_local=False) == "csv"
