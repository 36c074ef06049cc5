"""Which columns are the id, the features and the preference: none of this starts a job of Spark's."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    LongType,
    StringType,
)

from ap_spark import InputError
from ap_spark.io.columns import (
    Chosen,
    check_header,
    choose_columns,
    leave_out_texts,
    one_column,
    warn_of_lookalikes,
)

TYPES: dict[str, DataType] = {
    "number": DoubleType(),
    "integer": LongType(),
    "text": StringType(),
    "array": ArrayType(DoubleType()),
    "vector": VectorUDT(),
    "switch": BooleanType(),
}


def table(columns: str, **attributes: Any) -> Any:
    """A table without rows: "id:text x:number"; numbers by default."""
    names, _, kinds = zip(*(column.partition(":") for column in columns.split(" ")), strict=True)
    found = {"names": list(names), "kinds": [TYPES[kind or "number"] for kind in kinds], "source": "'x.csv'"}
    return SimpleNamespace(**(found | {"header_is_assumed": False} | attributes))


CHOSEN: dict[str, tuple[str, dict[str, Any], tuple[int | None, list[int], int | None], str]] = {
    "a column called id": ("x id:integer y", {}, (1, [0, 2], None), ""),
    "none": ("x y", {}, (None, [0, 1], None), ""),
    "names are as they are": ("x ID y", {}, (None, [0, 1, 2], None), ""),
    "another one is named": ("id name:text y", {"id_column": "name"}, (1, [0, 2], None), ""),
    "rows are to be numbered": ("id:integer x", {"id_column": ""}, (None, [0, 1], None), ""),
    "id is a feature": ("id:integer x", {"feature_columns": "0-1"}, (None, [0, 1], None), "column 'id' is a feature, so that rows are numbered: if it is the id, give --id-column id"),
    "id and a named feature": ("id:integer x y", {"feature_columns": ["y"]}, (0, [2], None), ""),
    "id and an array": ("id:integer embedding:array", {}, (0, [1], None), ""),
    "VectorAssembler's output": ("id:integer x y features:vector", {}, (0, [3], None), "columns x, y are left out beside the vectors of column 'features'"),
    "text beside a vector": ("id:integer title:text features:vector", {}, (0, [2], None), "column title is left out beside the vectors"),
    "a vector alone": ("features:vector x", {}, (None, [0], None), "rows are numbered: --id-column NAME"),
    "a preference beside a vector": ("id:integer p features:vector", {"preference_column": "p"}, (0, [2], 1), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOSEN)
def test_columns_are_chosen(case: str, caplog: pytest.LogCaptureFixture) -> None:
    columns, options, chosen, warning = CHOSEN[case]
    named = {"id_column": None, "feature_columns": None, "preference_column": None} | options
    found = choose_columns(table(columns), **named)
    assert (found.identity, list(found.features), found.preference) == chosen
    assert found.is_vector == ("vector" in case or "array" in case or "VectorAssembler" in case)
    assert len(caplog.records) == bool(warning)
    assert warning in caplog.text


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "text may be the id": ("customer_id:text features:array", {}, "features must be numbers, but column 'customer_id' is text: if it is the id, give --id-column customer_id (in Python id_column='customer_id'); else choose the features, such as --feature-columns features (in Python feature_columns='features')"),
    "two vectors": ("id:text a:array b:vector", {}, "several vector columns: a, b; to choose one: --feature-columns a"),
    "mixed": ("id:text x v:array", {"feature_columns": "x,v"}, "these are mixed: x, v; to choose among them: --feature-columns v"),
    "nothing but an id": ("id:text", {}, "there must be at least one feature column, but the table has only id"),
    "a type that is none": ("id:text is_new:switch", {}, "column 'is_new' must hold numbers or vectors of numbers, but it holds boolean: if it is no feature, choose those that are, --feature-columns NAMES"),
    "two ids": ("id:text x id:text", {}, "2 are called 'id': give the position, one of 0, 2"),
    "a slip": ("customer_id:text x", {"id_column": "costumer_id"}, "there is no column 'costumer_id' (did you mean 'customer_id'?); there are customer_id, x"),
    "a vector as preference": ("id:text x v:array", {"feature_columns": "x", "preference_column": "v"}, "column 'v' must hold a number for each point, but it holds vectors"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_columns_that_cannot_be_chosen(case: str) -> None:
    columns, options, message = REFUSED[case]
    named = {"id_column": None, "feature_columns": None, "preference_column": None} | options
    with pytest.raises(InputError, match=re.escape(message)):
        choose_columns(table(columns), **named)


def test_text_is_left_out_where_an_id_is_known(caplog: pytest.LogCaptureFixture) -> None:
    """Where none is known, it may be the id: one column of text, and the run would be by numbers nobody knows."""
    columns = table("id:text city:text x y kind:text")
    chosen = choose_columns(columns, None, None, None)
    assert leave_out_texts(chosen, [1, 4], columns.names).features == (2, 3)
    assert (
        "columns city, kind have no numbers and are left out: to choose the features, give --feature-columns x,y"
        in (caplog.text)
    )
    with pytest.raises(InputError, match="at least one feature column of numbers, but columns city, x, y, kind hold"):
        leave_out_texts(chosen, [1, 2, 3, 4], columns.names)
    many = table(" ".join(["id:text", "city:text", *map("x{}".format, range(20)), "kind:text", "y"]))
    leave_out_texts(choose_columns(many, None, None, None), [1, 22], many.names)
    assert "give --feature-columns 2-21,23 (in" in caplog.text, "all of them, by position where they are many"
    with pytest.raises(InputError, match=r"column 'city' \(and 1 more\) is text: if it is the id, give --id-column"):
        leave_out_texts(choose_columns(table("city:text x kind:text"), None, None, None), [0, 2], ["city", "x", "kind"])


HEADERS = {
    "id x y": "",
    "id 0 1 2 3": "",
    "0 1 2 3": "",
    "1 2 3 4": "",
    "id a1 b2": "",
    "0 1": "is taken for names",
    "id 1 2": "is taken for names",
    "5.1 3.5 1.4": "refused",
    "5.1 3.5 Iris-setosa": "refused",
    "5 6 7 8": "refused",
    "0 0 0 0": "refused",
    "-1 0 1 2": "refused",
    "5": "refused",
    "0": "refused",
    "a 1": "refused",
    "a 1e3 .5": "refused",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_of_numbers_is_data(header: str, caplog: pytest.LogCaptureFixture) -> None:
    """Unless they count up, as in what pandas writes of columns without names."""
    found = table(header, header_is_assumed=True)
    numbers = range(header.startswith(("id", "a ")), len(found.names))
    if HEADERS[header] == "refused":
        with pytest.raises(InputError, match=re.escape(header.replace(" ", ", "))) as refused:
            check_header(found, numbers)
        assert "of 'x.csv' holds numbers" in str(refused.value)
        assert "give --no-header (in Python header=False)" in str(refused.value)
    else:
        check_header(found, numbers)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (HEADERS[header] == "is taken for names")
    check_header(table(header), numbers)  # the user has said that it is a header


def test_what_is_no_number_does_not_matter_in_a_header() -> None:
    check_header(table("id x 2019", header_is_assumed=True), [1])


def test_a_column_is_found_by_name_or_position() -> None:
    assert [one_column(["a", "2", "b"], wanted) for wanted in ("a", "2", "0", "1", " b ")] == [0, 1, 0, 1, 2]


LOOKALIKES: dict[str, tuple[dict[str, Any], str]] = {
    "ID x": ({}, "column 'ID' is taken for a feature: if it is the id, give --id-column ID (in Python id_column='ID')"),
    "customer_id x": ({}, "column 'customer_id' is taken for a feature: if it is the id, give --id-column customer_id"),
    "orderId x y": ({}, "if it is the id, give --id-column orderId"),
    "_id x": ({}, "if it is the id, give --id-column _id"),
    "index x": ({}, "if it is the id, give --id-column index"),
    "id order_id x y": ({}, "column 'order_id' is taken for a feature: to leave it out, give --feature-columns x,y"),
    "id Preference x": ({}, "if it holds each point's own preference, give --preference-column Preference"),
    "i k s": ({}, "columns i, k, s are taken for features: for similarities give --edges"),
    "k s i": ({}, "for similarities give --edges"),
    "i k s t": ({}, ""),
    "paid grid liquid idea x": ({}, ""),
    "user_id x": ({"feature_columns": "0-1"}, ""),
    "user_id y": ({"id_column": ""}, "to leave it out, give --feature-columns y"),
    "id preference x": ({"preference_column": "preference"}, ""),
    "customer_id features:array": ({}, ""),
}  # fmt: skip


@pytest.mark.parametrize("columns", LOOKALIKES)
def test_a_feature_by_default_that_looks_like_something_else_is_warned_of(
    columns: str, caplog: pytest.LogCaptureFixture
) -> None:
    options, warning = LOOKALIKES[columns]
    found = table(columns)
    named = {"id_column": None, "feature_columns": None, "preference_column": None} | options
    chosen = choose_columns(found, **named)
    caplog.clear()
    warn_of_lookalikes(chosen, found.names)
    assert len(caplog.records) == bool(warning)
    assert warning in caplog.text


def test_an_index_that_pandas_has_written_looks_like_an_id(caplog: pytest.LogCaptureFixture) -> None:
    """It has no name, or that which pandas gives it when it reads the file."""
    for name in ("", "Unnamed: 0"):
        found = table("x y")
        found.names[0] = name
        warn_of_lookalikes(choose_columns(found, None, None, None), found.names)
        assert (
            f"column {name!r} is taken for a feature: if it is the id, give --id-column {(name and repr(name)) or 0} "
            in (caplog.text)
        ), "where '' would number the rows"


def test_what_was_chosen_is_told_by_name() -> None:
    found = table("id:text x y z title:text p")
    chosen = choose_columns(found, None, "x,z", "p")
    assert Chosen.of(chosen, found.names) == Chosen(
        id="id", features=["x", "z"], is_vector=False, preference="p", left_out=["y", "title"]
    )
    vectors = table("v:array title:text")
    assert str(Chosen.of(choose_columns(vectors, "", None, None), vectors.names)).splitlines() == [
        "id: the number of the row, from 0",
        "features: the elements of column v",
        "left out: column title",
    ]
    many = Chosen(id="id", features=list(map(str, range(99))), is_vector=False, preference="p", left_out=[])
    assert str(many).splitlines() == ["id: column id", "features: 99 columns: 0, 1, 2, ..., 98", "preference: column p"]
