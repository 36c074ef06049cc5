"""What a result says of itself, and how it is kept."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import get_args

import pytest
from pyspark.sql import SparkSession

from ap_spark import Clustering, InputError, OutputError, SettingError, affinity_propagation
from ap_spark.settings import OutputFormat

ODD = ["0123", 'a"b', "x, y", "line\nbreak", " blank "]


@pytest.fixture(scope="module")
def clustering(spark: SparkSession) -> Clustering:
    pairs = [(a, b, -1.0 - abs(n - m)) for n, a in enumerate(ODD) for m, b in enumerate(ODD) if n != m]
    return affinity_propagation(spark.createDataFrame(pairs, "i string, k string, s double"), preference=-3.0)


def test_its_repr_says_what_came_out_in_ten_lines(clustering: Clustering) -> None:
    text = repr(clustering)
    assert len(text.splitlines()) <= 10
    assert f"5 points, 20 similarities: {clustering.summary.n_clusters} clusters" in text
    assert "converged after" in text
    assert ".assignments: id, exemplar, label, similarity" in text


def test_it_is_not_pickled(clustering: Clustering) -> None:
    with pytest.raises(TypeError, match=r"clustering\.save\(DIR\) keeps it, and Clustering\.load\(DIR\)"):
        pickle.dumps(clustering)


@pytest.mark.parametrize("format", get_args(OutputFormat))
def test_what_is_saved_is_loaded(clustering: Clustering, tmp_path: Path, format: OutputFormat) -> None:
    path = tmp_path / "out"
    clustering.save(path, format=format)
    loaded = Clustering.load(path)
    assert loaded.summary == clustering.summary
    for name, table in clustering.tables.items():
        assert loaded.tables[name].schema == table.schema or format != "parquet"
        assert sorted(map(repr, loaded.tables[name].collect())) == sorted(map(repr, table.collect()))
    with pytest.raises(OutputError, match="must not exist yet"):
        clustering.save(path)
    clustering.save(path, overwrite=True)
    with pytest.raises(OutputError, match="the directory that the result was loaded from"):
        loaded.save(path, overwrite=True)


@pytest.mark.parametrize("summary", [{"graph": 1}, [], None])
def test_what_is_no_output_is_not_loaded(clustering: Clustering, tmp_path: Path, summary: object) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "link").symlink_to(tmp_path / "none")
    for path in (tmp_path, tmp_path / "none", tmp_path / "link", "no-scheme://none"):
        with pytest.raises(InputError, match=r"must be a whole output of `ap-spark cluster` or of Clustering\.save"):
            Clustering.load(str(path))


def test_a_format_that_is_none_is_refused(clustering: Clustering, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="output_format must be one of parquet, csv, tsv, json, got 'xls'"):
        clustering.save(str(tmp_path / "out"), format="xls")  # type: ignore[arg-type]
