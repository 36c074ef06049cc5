"""Files as they are read and written: what pandas and Excel mean by them, and what is wrong with the others."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from py4j.protocol import MEMORY_COMMAND_NAME
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import DataFrame, SparkSession

from ap_spark import InputError, SettingError, describe, make_points, read_points, read_similarities
from ap_spark.cli import main
from ap_spark.io.records import Dialect, parse_records
from ap_spark.io.tables import BROKEN, PATH, START
from ap_spark.io.text_files import _LINE, _Layout, _LinesTable, _rows_of
from ap_spark.io.writer import _WRITERS
from tests.conftest import LONG, every_third

SEPARATORS = {"csv": ",", "tsv": "\t"}
BREAKS = ("\n", "\r", "\r\n")
ODD = [
    "a",
    " a",
    "a ",
    '"',
    '5" pipe',
    '"a"',
    '""',
    ",",
    ";",
    "\t",
    "a\tb",
    "é",
    "日本",
    "\U0001f600",
    "NA",
    "null",
    "None",
]
ODD += [
    "nan",
    "007",
    "1.0",
    "=1+1",
    "#a",
    "'",
    "\\",
    '\\"',
    "a\\",
    "\x01",
    "\x01b",
    "\x7f",
    "\u2028",
    "\u0085",
    "\ufffd",
]
ODD += [
    f"{before}{char}{after}"
    for char in "\ufeff\ufffe\uffff\ufdd0\U0001ffff"
    for before in ("", "a")
    for after in ("", "b")
]
ODD += [f"a{end}b" for end in BREAKS] + [f"{end}a" for end in BREAKS] + [f"a{end}" for end in BREAKS] + list(BREAKS)


def odd_ids(*without: str) -> list[str]:
    """Some hundreds of ids, of odd ones and of their parts."""
    rng = random.Random(7)
    made = {"".join(rng.choices([*"a,;\t\"' \\=é\x01", *BREAKS], k=rng.randint(1, 5))) for _ in range(300)}
    return [one for one in sorted({*ODD, *made}) if one.strip(" \t") and not any(part in one for part in without)]


def similarities(spark: SparkSession, path: Path, **options: Any) -> list[tuple[Any, ...]]:
    rows = read_similarities(spark, str(path), **options).orderBy("i", "k").collect()
    return [tuple(row) for row in rows]


def points(spark: SparkSession, path: Path, **options: Any) -> list[tuple[Any, ...]]:
    rows = read_points(spark, str(path), **options).orderBy("id").collect()
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("separator", SEPARATORS.values())
@pytest.mark.parametrize("end", BREAKS)
def test_records_are_what_was_written(separator: str, end: str) -> None:
    """Two cells of every kind, beside each other and above each other."""
    odd = [*ODD, "", " ", "\n\n"]
    for first, second in itertools.product(odd, odd):
        rows = [["h", "i"], [first, second], [second, first]]
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
        table, others = parse_records(text.getvalue(), Dialect(source="x", separator=separator), 2)
        assert ([list(row.values()) for row in table.to_pylist()], others) == (rows[1:], [])


def test_a_record_that_never_ends_is_none() -> None:
    for text in ('a,"b\nc,d\n', 'a,"b', '"a\n', 'a,b\n"'):
        assert parse_records(text, Dialect(source="x", separator=",", header=False), 2)[1], text


@pytest.mark.usefixtures("compiled")
def test_lines_mean_what_pandas_says_or_are_not_taken_for_records(spark: SparkSession) -> None:
    """Every text of up to four letters, a file each, between two lines of two cells."""
    texts = ["q,q\n" + "".join(text) + "\nz,z" for n in range(1, 5) for text in itertools.product('a,"\n', repeat=n)]
    lines = [(str(n), at, line) for n, text in enumerate(texts) for at, line in enumerate(text.split("\n"))]
    frame = spark.createDataFrame(pa.table(list(map(list, zip(*lines, strict=True))), names=[PATH, START, _LINE]))
    dialect = Dialect(source="x", separator=",", header=False)
    rows = _rows_of(frame, dialect, [_Layout(header=None, order=(0, 1))], 0)
    table = _LinesTable(
        rows=rows, names=["0", "1"], source="x", is_text=True, paths=("x",),
        lines=frame, dialect=dialect, width=2, first=("", ""), with_header=frozenset(),
    )  # fmt: skip
    doubts = {row[PATH]: row.open for row in rows.groupBy(PATH).agg(*table.watched()).collect()}
    found: dict[str, list[Any]] = {}
    for row in rows.orderBy(START).collect():
        found.setdefault(row[PATH], []).append(row[BROKEN] or [row.c0 or "", row.c1 or ""])
    taken = 0
    for n, text in enumerate(texts):
        if doubts[str(n)]:
            continue
        meant = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        if all(len(row) == 2 for row in meant):
            read = pd.read_csv(io.StringIO(text), header=None, dtype=str, keep_default_na=False).to_numpy().tolist()
            assert found[str(n)] == read == meant, text
            taken += 1
        else:
            assert any(isinstance(row, str) for row in found[str(n)]), text
    assert taken > 50


@pytest.mark.parametrize("kind", ["csv", pytest.param("tsv", marks=LONG)])
def test_what_pandas_writes_is_read(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    """By lines, whole, and with every cell quoted; pandas does not quote a lone carriage return by itself."""
    for name, ids, quoting in (
        ("lines", odd_ids("\n", "\r"), csv.QUOTE_MINIMAL),
        ("whole", odd_ids("\r"), csv.QUOTE_MINIMAL),
        ("quoted", [*odd_ids(), "", " ", " \t"], csv.QUOTE_ALL),
    ):
        path = tmp_path / f"{name}.{kind}"
        table = pd.DataFrame({"id": ids, "x": range(len(ids))})
        table.to_csv(path, sep=SEPARATORS[kind], index=False, quoting=quoting)  # type: ignore[call-overload]
        found = points(spark, path, id_column="id")
        assert found == sorted((one, [float(n)]) for n, one in enumerate(ids))


@pytest.mark.parametrize("kind", SEPARATORS)
def test_what_we_write_is_read_by_pandas_and_by_us(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    ids = [*odd_ids(), "", " ", " \t"]
    table = spark.createDataFrame(pa.table([ids, list(map(float, range(len(ids))))], names=["id", "x"]))
    source, options = _WRITERS[kind]
    table.coalesce(1).write.format(source).options(**options).save(str(tmp_path / f"x.{kind}"))
    (part,) = (tmp_path / f"x.{kind}").glob("part-*")
    read = pd.read_csv(part, sep=SEPARATORS[kind], dtype=str, keep_default_na=False, lineterminator="\n")
    assert read.id.tolist() == ids
    assert points(spark, tmp_path / f"x.{kind}", id_column="id") == sorted(
        (one, [float(n)]) for n, one in enumerate(ids)
    )


FILES: dict[str, tuple[str, str | bytes, dict[str, Any], list[tuple[Any, ...]]]] = {
    "of Excel": ("x.csv", '\ufeffid,"x y"\r\n"5"" pipe",1\r\nb,2\r\n', {"id_column": "id"}, [('5" pipe', [1.0]), ("b", [2.0])]),
    "of Excel, with line breaks": ("x.csv", '\ufeffid,x\r\n"5"" \npipe",1\r\nb,2\r\n', {"id_column": "id"}, [('5" \npipe', [1.0]), ("b", [2.0])]),
    "of Excel, as Unicode text": ("x.tsv", "id\tx\r\né\t1\r\n".encode("utf-16"), {"id_column": "id", "encoding": "utf-16"}, [("é", [1.0])]),
    "of Excel, on Windows": ("x.csv", "id,x\r\n€é,1\r\n".encode("cp1252"), {"id_column": "id", "encoding": "windows-1252"}, [("€é", [1.0])]),
    "compressed": ("x.csv.gz", gzip.compress('\ufeffid,x\na,1\n"b\n",2\n'.encode()), {"id_column": "id"}, [("a", [1.0]), ("b\n", [2.0])]),
    "header with a line break": ("x.csv", '"i\nd",x\na,1\n', {"id_column": "i\nd"}, [("a", [1.0])]),
    "row like the header": ("x.csv", "id\nid\nx\n", {"id_column": "id", "feature_columns": ""}, [("id",), ("x",)]),
    "blank lines": ("x.csv", "\n \nx\n1\n\t\n \n2\n\n", {}, [(0, [1.0]), (1, [2.0])]),
    "tabs are cells": ("x.tsv", "\n \nx\ty\n1\t2\n\t\n3\t4\n", {"drop_missing": True}, [(0, [1.0, 2.0]), (2, [3.0, 4.0])]),
    "control characters are ids": ("x.csv", "id\n\x01\nb\n", {"id_column": "0", "feature_columns": ""}, [("\x01",), ("b",)]),
    "blanks around": ("x.csv", " id , x \n 1 , 2.5 \n2, -3\n", {"id_column": "id", "feature_columns": " x"}, [(1, [2.5]), (2, [-3.0])]),
    "blanks are parts of ids": ("x.csv", "id,x\na,1\n a,2\n1,3\n 1,4\n", {"id_column": "id"}, [(" 1", [4.0]), (" a", [2.0]), ("1", [3.0]), ("a", [1.0])]),
    "inner names": ("x.csv", "__row__,__path__,c0,broken,line\n1,2,3,4,5\n", {"feature_columns": "c0,__row__,broken"}, [(0, [3.0, 1.0, 4.0])]),
    "names in other case": ("x.csv", "id,x,X,ID\na,1,2,9\n", {"id_column": "id", "feature_columns": "X,x"}, [("a", [2.0, 1.0])]),
    "a name twice": ("x.csv", "id,x,x\na,1,2\n", {"id_column": "id"}, [("a", [1.0, 2.0])]),
    "a name twice, by position": ("x.csv", "id,x,x\na,1,2\n", {"id_column": "id", "feature_columns": "2"}, [("a", [2.0])]),
    "odd names": ("x.csv", 'id,,a.b,"`",a b\na,1,2,3,4\n', {"id_column": "id", "feature_columns": "a.b,`,a b,1"}, [("a", [2.0, 3.0, 4.0, 1.0])]),
    "exponents": ("x.csv", "x\n1e3\n+.5\n-1E-3\n", {}, [(0, [1000.0]), (1, [0.5]), (2, [-0.001])]),
}  # fmt: skip


@pytest.mark.parametrize("case", every_third(FILES))
def test_points_of_a_file(spark: SparkSession, tmp_path: Path, case: str) -> None:
    name, content, options, rows = FILES[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert points(spark, tmp_path / name, **options) == rows


def test_similarities_of_a_file(spark: SparkSession, tmp_path: Path) -> None:
    for text, rows in (
        ("0, 1, -1.0\n1, 0, -inf\n", [(0, 1, -1.0), (1, 0, float("-inf"))]),
        ("s,S,k,K,i\n-1,x,b,y,a\n", [("a", "b", -1.0)]),
        ('"i","I","k"\n"a","b",-2\n', [("a", "b", -2.0)]),
    ):
        (tmp_path / "e.csv").write_text(text)
        assert similarities(spark, tmp_path / "e.csv", header="k" in text) == rows


DIRECTORIES: dict[str, tuple[dict[str, str], list[tuple[Any, ...]] | str]] = {
    "other order": ({"b": "k,s,i\n4,-3,3\n", "a": "i,k,s\n1,2,-1\n"}, [(1, 2, -1.0), (3, 4, -3.0)]),
    "other order, and a line break": ({"b": 'k,s,i\n2,-3,"1\n"\n', "a": "i,k,s\n1,2,-1\n"}, [("1", "2", -1.0), ("1\n", "2", -3.0)]),
    "header quoted, blanks, empty files": ({"0": "", "1": "\n \n", "a": "i,k,s\n1,2,-1\n", "b": '"i" , k,s\n3,4,-2\n', "c": ""}, [(1, 2, -1.0), (3, 4, -2.0)]),
    "header alone": ({"a": "i,k,s\n1,2,-1\n", "b": "i,k,s\n"}, [(1, 2, -1.0)]),
    "row like a header": ({"a": "i,k,s\n1,2,-1\n", "b": "i,k,s\ni,k,s\n"}, "column 's' must hold finite numbers, but in 1 row it is not a number: i='i', k='k', s='s'"),
    "other names": ({"a": "i,k,s\n1,2,-1\n", "b": "i,k,t\n1,2,-1\n"}, "/a.csv has 'i,k,s' and file:DIR/b.csv has 'i,k,t'"),
    "other names, and a line break": ({"a": "i,k,s\n1,2,-1\n", "b": 'i,k,"t\n"\n1,2,-1\n'}, "/a.csv has 'i,k,s' and file:DIR/b.csv has 'i,k,t'"),
    "no header in one": ({"a": "i,k,s\n1,2,-1\n", "b": "1,3,-1\n"}, "b.csv has '1,3,-1'"),
    "more columns in one": ({"a": "i,k,s\n1,2,-1\n", "b": "i,k,s,t\n1,2,-1,0\n"}, "b.csv has 'i,k,s,t'"),
    "names of their own": ({"a": "from,to,score\n1,2,-1\n", "b": "to,from,score\n4,3,-2\n", "c": '"from",to,score \n5,6,-3\n'}, [(1, 2, -1.0), (3, 4, -2.0), (5, 6, -3.0)]),
    "a quote in the header that is never closed": ({"a": '"i,k,s\n' + 20_000 * "1,2,-1\n"}, "a file must begin with a record of cells, but file:DIR/a.csv does not"),
    "which of two": ({"a": "i,k,s,x,x\n1,2,-1,8,9\n", "b": "k,i,s,x,x\n1,2,-1,8,9\n"}, "all files of"),
}  # fmt: skip


@pytest.mark.parametrize("case", every_third(DIRECTORIES))
def test_files_have_their_own_headers(spark: SparkSession, tmp_path: Path, case: str) -> None:
    files, meant = DIRECTORIES[case]
    directory = tmp_path / "e [1] é.csv"
    directory.mkdir()
    for name, text in files.items():
        (directory / f"{name}.csv").write_text(text)
    found = [tmp_path / "e ?1? é.csv", tmp_path / "e ?1? *.csv" / "*.csv"]
    if isinstance(meant, str):
        with pytest.raises(InputError) as refused:
            similarities(spark, found[0])
        assert meant.replace("DIR", str(directory)) in str(refused.value)
    else:
        for path in found:
            assert similarities(spark, path) == meant


def test_rows_are_numbered_over_files_with_other_headers(spark: SparkSession, tmp_path: Path) -> None:
    directory = tmp_path / "p.csv"
    directory.mkdir()
    for name, text in {"a": "x,y\n0,1\n", "b": "y,x\n3,2\n5,4\n", "c": "x,y\n6,7\n"}.items():
        (directory / name).write_text(text)
    assert points(spark, directory) == [(n, [2.0 * n, 2.0 * n + 1]) for n in range(4)]


@pytest.mark.long
def test_directories_add_columns(spark: SparkSession, tmp_path: Path) -> None:
    for break_, ends in (("", ["01", "2"]), ("\n", ["01\n", "2\n"])):
        for day in ("01", "2"):
            (tmp_path / "p.csv" / f"day={day}").mkdir(parents=True, exist_ok=True)
            (tmp_path / "p.csv" / f"day={day}" / "x.csv").write_text(f'id,x\n"{day}{break_}",1\n')
        found = points(spark, tmp_path / "p.csv", id_column="id", feature_columns="day")
        assert found == [(end, [float(end)]) for end in ends]


Columns = dict[str, list[Any]]
WRITE: dict[str, Callable[[pa.Table, Path], Any]] = {
    "parquet": pq.write_table,
    "orc": orc.write_table,
    "json": lambda table, path: path.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist())),
}
BINARY = ("parquet", "orc")
SEVERAL: dict[str, tuple[tuple[str, ...], list[Columns], list[tuple[Any, ...]] | str]] = {
    "a feature in the second file alone": (BINARY, [{"id": [1], "x": [1.0]}, {"id": [2], "x": [2.0], "y": [9.0]}], "column 'y' must hold finite numbers, but in 1 row it is missing, no number, NaN, infinite or beyond 1e150: id=1, y=None"),
    "another order": (BINARY, [{"id": [1], "x": [1.0], "y": [2.0]}, {"y": [3.0], "id": [2], "x": [4.0]}], [(1, [1.0, 2.0]), (2, [4.0, 3.0])]),
    "two types": (BINARY, [{"id": [1], "x": [1]}, {"id": [2], "x": [2.5]}], "column 'x' is bigint in some and double in others: write it with one type"),
    "two types, in one of three files": (BINARY, [{"id": [1], "x y": [1]}, {"id": [2], "x y": [2]}, {"id": [3], "x y": ["3"]}], "column 'x y' is bigint in some and string in others: write it with one type"),
    "a name in two cases": ((*BINARY, "json"), [{"id": [1], "x": [1.0]}, {"id": [2], "X": [2.0]}], "names of columns must differ, in more than upper and lower case, but in 'DIR' there are"),
}  # fmt: skip


@pytest.mark.parametrize("case_and_kind", every_third([(case, kind) for case in SEVERAL for kind in SEVERAL[case][0]]))
def test_files_have_their_own_columns(spark: SparkSession, tmp_path: Path, case_and_kind: tuple[str, str]) -> None:
    case, kind = case_and_kind
    _, tables, meant = SEVERAL[case]
    directory = tmp_path / f"p.{kind}"
    directory.mkdir()
    for n, columns in enumerate(tables):
        WRITE[kind](pa.table(columns), directory / f"{n}.{kind}")
    if isinstance(meant, str):
        with pytest.raises(InputError) as refused:
            points(spark, directory, id_column="id")
        assert meant.replace("DIR", str(directory)) in str(refused.value)
    else:
        assert points(spark, directory, id_column="id") == meant


def test_similarities_of_files_with_other_columns(spark: SparkSession, tmp_path: Path) -> None:
    """What is not asked for does not matter; what is missing is null, and refused with those."""
    directory = tmp_path / "e.parquet"
    directory.mkdir()
    pq.write_table(pa.table({"i": [2], "k": [1], "s": [-1.0], "note": ["x"]}), directory / "a.parquet")
    pq.write_table(pa.table({"i": [1], "k": [2], "s": [-1.0]}), directory / "b.parquet")
    assert similarities(spark, directory) == [(1, 2, -1.0), (2, 1, -1.0)]
    pq.write_table(pa.table({"i": [1], "k": [3]}), directory / "0.parquet")
    with pytest.raises(InputError, match=r"in column 's' 1 row is null, NaN or \+infinite: i=1, k=3, s=None"):
        describe(read_similarities(spark, str(directory)))
    pq.write_table(pa.table({"x": [1], "y": [3], "z": [-1.0]}), directory / "0.parquet")
    with pytest.raises(InputError, match=r"ids must not be null, but in columns 'i' and 'k' 1 pair has a null id"):
        describe(read_similarities(spark, str(directory)))


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_directories_have_any_names_but_the_same_ones(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    def write(name: str, place: str) -> None:
        (directory / place).mkdir(parents=True, exist_ok=True)
        row = pa.table({"id": [name], "x": [1]})
        if kind == "csv":
            row.to_pandas().to_csv(directory / place / "x.csv", index=False)
        else:
            WRITE[kind](row, directory / place / f"x.{kind}")

    directory = tmp_path / f"p.{kind}"
    write("a", "value=01")
    write("b", "value=2")
    assert points(spark, directory, id_column="id") == [("a", [1.0, 1.0]), ("b", [1.0, 2.0])]
    assert points(spark, directory, id_column="value", feature_columns="x") == [("01", [1.0]), ("2", [1.0])]
    write("c", ".")
    with pytest.raises(InputError, match=r"either all files or none must lie in directories such as day=1.*x\."):
        points(spark, directory, id_column="id")
    (directory / f"x.{kind}").unlink()
    write("d", "line=3")
    with pytest.raises(InputError, match=r"directories such as day=1 must have the same names.*(line=3|value=)"):
        points(spark, directory, id_column="id")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_further_down_are_told_of(
    spark: SparkSession, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Spark leaves them out, as it leaves out those whose names begin with _ or a dot."""
    (tmp_path / f"p.{kind}" / "older one").mkdir(parents=True)
    for name in ("x", "_y", "older one/z"):
        file = tmp_path / f"p.{kind}" / f"{name}.{kind}"
        if kind == "csv":
            file.write_text(f"id\n{name}\n")
        else:
            pq.write_table(pa.table({"id": [name]}), file)
    assert points(spark, tmp_path / f"p.{kind}", id_column="id", feature_columns="") == [("x",)]
    assert f"p.{kind}' are left out, such as file:" in caplog.text
    assert f"older%20one/z.{kind} (1 in all): to read them, move them up" in caplog.text
    caplog.clear()
    for path in (tmp_path / f"p.{kind}" / f"x.{kind}", tmp_path / f"p.{kind}" / "older one" / f"*.{kind}"):
        points(spark, path, id_column="id", feature_columns="")
    assert not caplog.text


BAD: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    "latin-1": ("x.csv", b"id,x\r\n\na,1\n\xe9,1\n\xe8,1\n", {"id_column": "id"}, "text must be UTF-8, but line 4 of file:DIR/x.csv is not: b'\\xe9,1' (and 1 more); give its --encoding, such as windows-1252"),
    "latin-1 in an unread column": ("x.csv", b"id,x,y\na,1,\xe9\n", {"id_column": "id", "feature_columns": "x"}, "line 2 of"),
    "latin-1 in the header": ("x.csv", b"\xe9,x\na,1\n", {"id_column": "0"}, "line 1 of file:DIR/x.csv is not: b'\\xe9,x'"),
    "latin-1 with line breaks": ("x.csv", b'"i\nd",x\na,1\n"\n\xe9",1\n', {"id_column": "0"}, "text must be utf-8, but line 5 of"),
    "utf-16 untold": ("x.csv", "id,x\na,1\n".encode("utf-16"), {"id_column": "id"}, "such as utf-16"),
    "not its encoding": ("x.csv", b"id,x\na,1\n\x81,1\n", {"id_column": "id", "encoding": "windows-1252"}, "text must be windows-1252, but line 3 of"),
    "half a character": ("x.csv", "id,x\na,1\n".encode("utf-16")[:-1], {"id_column": "id", "encoding": "utf-16"}, "text must be utf-16, but line"),
    "quote that is not closed": ("x.csv", 'id,x\na,1\n"b,2\nc,3\n', {"id_column": "id"}, "every line must have 2 fields, but in"),
    "quote that is not closed, right number": ("x.csv", 'id,x\na,1\nb,"2\nc,3\n', {"id_column": "id"}, "1 line has more or fewer, such as 'b,2\\nc,3"),
    "fields of an unread column": ("x.csv", "x,y,z\n0,1\n", {"feature_columns": "x"}, "every line must have 3 fields, but in"),
    "java's double": ("x.csv", "id,x\na,1d\nb,1F\nc,0x1p3\nd,2\n", {"id_column": "id"}, "in 3 rows it is missing, no number, NaN, infinite or beyond 1e150: id='a', x='1d'; id='b', x='1F'; id='c', x='0x1p3'"),
    "wrong cells of two columns": ("x.csv", "x,y,x\n1,1,no\n1,b,no\n1,a,1\n", {}, "column 'y' must hold finite numbers, but in 2 rows it is missing, no number, NaN, infinite or beyond 1e150: id=1, y='b'; id=2, y='a'"),
    "semicolons": ("x.csv", "id;x\na;1,5\n", {"id_column": "id"}, "cells must be separated by ',', but the first line of 'DIR/x.csv' is 'id;x', as if ';' were the separator"),
    "name twice": ("x.csv", "id,x,x\na,1,2\n", {"id_column": "x"}, "2 are called 'x': give the position, one of 1, 2"),
    "names as they are": ("x.csv", "id,ID,x\na,1,2\n", {"id_column": "Id"}, "there is no column 'Id' (did you mean 'ID'?); there are id, ID, x (or positions 0-2)"),
    "superscript": ("x.csv", "id,x\na,1\n", {"id_column": "id", "feature_columns": "²"}, "there is no column '²'; there are id, x"),
    "superscript range": ("x.csv", "id,x\na,1\n", {"feature_columns": "0-²"}, "there is no column '0-²'"),
    "descending": ("x.csv", "id,x\na,1\n", {"feature_columns": "1-0"}, "a range of columns must ascend, got '1-0'"),
    "many columns": ("x.csv", ",".join(map(str, range(3000))) + "\n" + ",".join("0" * 3000) + "\n", {"id_column": "no"}, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ... (3,000 in all)"),
    "no gzip": ("x.csv.gz", b"id,x\na,1\n", {"id_column": "id"}, "a file must be whole, but file:///"),
    "gzip cut off": ("x.csv.gz", gzip.compress(b"id,x\n" + random.Random(0).randbytes(999).hex().encode())[:-99], {"id_column": "id"}, "x.csv.gz is damaged or cut off, or is no file of its kind (Unexpected end of input stream): write or copy it again"),
    "bzip2 cut off": ("x.csv.bz2", bz2.compress(b"id,x\n" + random.Random(0).randbytes(999).hex().encode())[:-99], {"id_column": "id"}, "x.csv.bz2 is damaged"),
    "no Parquet": ("x.parquet", b"PAR1 nonsense\x00\x01\x02\x03", {"id_column": "id"}, "x.parquet is damaged or cut off, or is no file of its kind"),
    "no ORC": ("x.orc", b"ORC nonsense", {"id_column": "id"}, "x.orc' is damaged or cut off, or is no file of its kind"),
    "no JSON": ("x.json", b'{"id": "\xe9", "x": 1}\n{"id": "a", "x": 1}\n', {"id_column": "id"}, "every line must be a JSON object in UTF-8"),
    "JSON objects on one line": ("x.json", '{"id": "}{", "x": 1}\n{"id":"a","x":1}{"id":"b","x":2}\n', {"id_column": "id"}, "every line must be one JSON object, but in 'DIR/x.json' there are some with more, such as '{\"id\":\"a\""),
    "JSON and more": ("x.json", '{"id":"a","x":1},\n', {"id_column": "id"}, "every line must be one JSON object"),
    "JSON and no more": ("x.json", '{"id":"},{", "x":[1, "]b"]} \n', {"id_column": "id"}, "column 'x' must hold numbers"),
    "JSON with a key twice": ("x.json", '{"x": 1, "x": 2}\n', {}, "names of columns must differ, in more than upper and lower case"),
    "JSON in two cases": ("x.json", '{"x": 1, "X": 2}\n', {}, "names of columns must differ, in more than upper and lower case"),
}  # fmt: skip


@pytest.mark.parametrize("case", every_third(BAD))
def test_what_is_wrong_with_a_file(spark: SparkSession, tmp_path: Path, case: str) -> None:
    name, content, options, message = BAD[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as refused:
        points(spark, tmp_path / name, **options)
    assert message.replace("DIR", str(tmp_path)) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_java_numbers_are_no_similarities(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("i,k,s\na,b,1d\nb,a,2f\nb,c,inf\na,c,nan\n")
    with pytest.raises(InputError, match=r"in 2 rows it is not a number: i='a', k='b', s='1d'; i='b', k='a', s='2f'$"):
        similarities(spark, tmp_path / "e.csv")


def test_a_file_too_large_to_be_read_whole(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ap_spark.io.text_files._LARGEST_WHOLE_FILE", 20)
    (tmp_path / "x.csv").write_text('id,x\n"a\n",1\n' + "b,2\n" * 9)
    with pytest.raises(InputError, match=r"must have at most 0 MiB, but file:.*x\.csv has 0: split it"):
        points(spark, tmp_path / "x.csv", id_column="id")


def test_an_encoding_is_one_of_a_text_file(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(SettingError, match="encoding is of csv and tsv files"):
        points(spark, tmp_path / "x.parquet", encoding="latin-1")
    for name in ("nope", "rot13", ""):
        with pytest.raises(SettingError, match="encoding must be an encoding that Python knows, got"):
            points(spark, tmp_path / "x.csv", encoding=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id_column": None}, "id_column must name a column, got None: the rows of a DataFrame have no numbers"),
        ({"id_column": 0}, "id_column must be a string, got 0"),
        ({"preference_column": 1}, "preference_column must be a string, got 1"),
        ({"feature_columns": 1}, "feature_columns must be a string, or a list of strings, got 1"),
        ({"feature_columns": [1, 2]}, "feature_columns must be a string, or a list of strings, got [1, 2]"),
        ({"feature_columns": {"x"}}, "feature_columns must be a string, or a list of strings, got {'x'}"),
        ({"drop_missing": "no"}, "drop_missing must be True or False, got 'no'"),
    ],
)
def test_columns_that_are_no_names(spark: SparkSession, options: dict[str, Any], message: str) -> None:
    table = spark.createDataFrame([(0, 1.0)], "id int, x double")
    with pytest.raises(SettingError) as refused:
        make_points(table, **options)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (Path("x.csv"), {}, "a path must be a string, as Spark takes it, got "),
        (None, {}, "a path must be a string, as Spark takes it, got None"),
        ("x.csv", {"format": "xml"}, "format must be one of auto, csv, tsv, parquet, json, orc, got 'xml'"),
        ("x.csv", {"format": None}, "format must be one of auto, csv, tsv, parquet, json, orc, got None"),
        ("x.csv", {"header": "no"}, "header must be True or False, got 'no'"),
    ],
)
def test_files_that_are_none(spark: SparkSession, path: Any, options: dict[str, Any], message: str) -> None:
    for read in (read_points, read_similarities):
        with pytest.raises(SettingError) as refused:
            read(spark, path, **options)
        assert message in str(refused.value)


def test_the_command_reads_what_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The points need no encoding: they are no text."""
    (tmp_path / "e.csv").write_bytes("é, 1 ,-1\nè,é,-1\n1,é,-2\n".encode("latin-1"))
    pq.write_table(pa.table({"id": ["é", "è", " 1 ", "1"]}), tmp_path / "p.parquet")
    command = ["graph", str(tmp_path / "e.csv"), "--edges", "--no-header", "--points", str(tmp_path / "p.parquet")]
    assert main(command) == 2
    assert "text must be UTF-8, but line 1 of" in capsys.readouterr().err
    assert main([*command, "--encoding", "latin-1"]) == 0
    assert "4 points, 3 similarities" in capsys.readouterr().out


def test_ids_with_blanks_are_told(spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "e.csv").write_text("a, b, -1\nb, a, -1\n")
    similarities(spark, tmp_path / "e.csv", header=False)
    assert "2 ids of column 'k' begin or end with blanks, which are part of them" in caplog.text
    assert "'i'" not in caplog.text


def test_a_table_whose_names_are_equal(spark: SparkSession) -> None:
    table = spark.createDataFrame([("a", 1.0, 2)], "id string, x double, y int").toDF("id", "X", "x")
    assert make_points(table.toDF("id", "x", "x")).collect() == [("a", [1.0, 2.0])]
    assert make_points(table, feature_columns=["x"]).collect() == [("a", [2.0])]
    with pytest.raises(InputError, match="2 are called 'x': give the position, one of 1, 2"):
        make_points(table.toDF("id", "x", "x"), feature_columns="x")


def test_wide_tables_are_read_in_as_many_steps_as_narrow_ones(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of Java's takes its time: none is made for a column."""
    client = spark.sparkContext._gateway._gateway_client  # type: ignore[union-attr]
    send, calls = client.send_command, 0

    def counted(command: str, *arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += not command.startswith(MEMORY_COMMAND_NAME)  # what other tests have left is given back at any time
        return send(command, *arguments, **keywords)

    def steps(read: Callable[[], DataFrame]) -> int:
        nonlocal calls
        calls = 0
        assert read().count() == 2
        return calls

    monkeypatch.setattr(client, "send_command", counted)
    taken = []
    for width in (10, 200):
        path = tmp_path / f"{width}.csv"
        path.write_text(f"{','.join(map('x{}'.format, range(width)))}\n" + f"{','.join('1' * width)}\n" * 2)
        taken.append(steps(lambda path=path: read_points(spark, str(path))))  # type: ignore[misc]
    assert taken[1] < taken[0] + 100


def test_id_and_features_are_taken_as_they_are(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From a file and from a table alike: an embedding in Parquet, and what VectorAssembler adds to a table."""
    path = str(tmp_path / "x.parquet")
    table = spark.createDataFrame([("a", 1.0, 2.0), ("b", 3.0, 4.0)], "id string, x double, y double")
    meant = [("a", [1.0, 2.0]), ("b", [3.0, 4.0])]
    for table_with_vectors in (
        table.selectExpr("id", "array(x, y) AS embedding"),
        VectorAssembler(inputCols=["x", "y"], outputCol="features").transform(table),
    ):
        table_with_vectors.write.mode("overwrite").parquet(path)
        assert points(spark, Path(path)) == meant
        assert make_points(table_with_vectors).orderBy("id").collect() == meant
    assert "columns x, y are left out beside the vectors of column 'features'" in caplog.text
    with pytest.raises(InputError, match=r"there is no column 'id' \(did you mean 'Id'\?\); there are Id, x, y: name"):
        make_points(table.toDF("Id", "x", "y"))


@pytest.mark.long
def test_text_beside_the_features(spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With an id it is left out by name; without one it may be the id. A number with a slip is no text."""
    (tmp_path / "x.csv").write_text("id,city,x,note\n7,Bern,1,\n8,,2,new\n")
    assert points(spark, tmp_path / "x.csv") == [(7, [1.0]), (8, [2.0])]
    assert "columns city, note have no numbers and are left out" in caplog.text
    table = spark.createDataFrame([("a", "Bern", "1")], "id string, city string, x string")
    assert make_points(table).collect() == [("a", [1.0])]
    (tmp_path / "x.csv").write_text("customer_id,x\nC1,1\nC2,2\n")
    with pytest.raises(InputError, match="column 'customer_id' is text: if it is the id, give --id-column customer_id"):
        points(spark, tmp_path / "x.csv")
    assert points(spark, tmp_path / "x.csv", id_column="", feature_columns="x") == [(0, [1.0]), (1, [2.0])]
    (tmp_path / "x.csv").write_text("id,x,y\n1,1,1\n2,n/a,2\n")
    with pytest.raises(InputError, match=r"'x' must hold finite numbers.*x='n/a'; if it is no feature, choose those"):
        points(spark, tmp_path / "x.csv")


def test_a_file_without_a_header_loses_no_point(spark: SparkSession, tmp_path: Path) -> None:
    iris = "5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.4,0.2,Iris-setosa\n"
    (tmp_path / "x.csv").write_text(iris)
    for options in ({}, {"feature_columns": "0-3"}):
        with pytest.raises(InputError, match=r"the first line .*x\.csv' holds numbers: '5\.1, .*give --no-header"):
            points(spark, tmp_path / "x.csv", **options)
    assert len(points(spark, tmp_path / "x.csv", feature_columns="0-3", header=False)) == 2
    assert len(points(spark, tmp_path / "x.csv", feature_columns="0-3", header=True)) == 1
    pd.DataFrame([[1.5, 2.5], [3.5, 4.5]]).to_csv(tmp_path / "x.csv", index=False)
    assert points(spark, tmp_path / "x.csv") == [(0, [1.5, 2.5]), (1, [3.5, 4.5])]
    (tmp_path / "x.csv").write_text("a,b,0.9\nb,a,0.8\n")
    with pytest.raises(InputError, match=r"holds numbers: 'a, b, 0\.9'\. If the file has no header, give --no-header"):
        similarities(spark, tmp_path / "x.csv")
    for text, separator in (("0.5 1.5 -2e3\n1 2 3\n", "a blank"), ("1;2;3\n", "';'"), ("1\t2.5\n", "a tab")):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(InputError, match=f"cells must be separated by ',', but .* as if {separator} were"):
            points(spark, tmp_path / "x.csv", header=False)


def test_similarities_by_other_names(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("source,target,score,day\na,b,1,2\n")
    with pytest.raises(InputError, match="has source, target, score, day: rename three of them, or write a file of"):
        similarities(spark, tmp_path / "x.csv")
    table = spark.createDataFrame([("a", "b", 3, 0.9)], "source string, target string, n int, score double")
    with pytest.raises(InputError) as refused:
        describe(table)
    assert "it has source, target, n, score: rename them" in str(refused.value)
    assert '.withColumnsRenamed({"source": "i", "target": "k", "score": "s"})' in str(refused.value)
