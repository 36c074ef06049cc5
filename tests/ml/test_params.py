"""The params by the conventions of pyspark.ml. No Spark."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from typing import Any, get_type_hints

import pytest
from pyspark.ml.param.shared import HasFeaturesCol, HasMaxIter, HasPredictionCol, HasSeed, HasWeightCol

from ap_spark import SettingError
from ap_spark.ml import AffinityPropagation, AffinityPropagationModel
from ap_spark.ml.params import _OURS
from ap_spark.settings import Quality, Settings, Similarity

OTHERS: dict[type, Any] = {bool: False, int: 7, float: 0.25, str: "other"}


def kind_of(name: str) -> type:
    """The type of a param, by its getter."""
    getter = getattr(AffinityPropagation, f"get{name[0].upper()}{name[1:]}")
    kind: type = get_type_hints(getter)["return"]
    return kind


NAMES = sorted(param.name for param in AffinityPropagation().params)


@pytest.mark.parametrize("name", NAMES)
def test_every_param_has_a_doc_a_keyword_a_getter_and_a_setter(name: str) -> None:
    one = AffinityPropagation()
    param, capital = one.getParam(name), name[0].upper() + name[1:]
    assert param.doc
    assert param.parent == one.uid
    value = OTHERS[kind_of(name)]
    assert getattr(one, f"set{capital}")(value) is one
    assert getattr(one, f"get{capital}")() == value == one.getOrDefault(param)
    assert one.isSet(param)
    assert getattr(AffinityPropagation(**{name: value}), f"get{capital}")() == value
    assert AffinityPropagation().setParams(**{name: value}).getOrDefault(name) == value
    one.clear(param)
    assert not one.isSet(param)


def test_defaults_are_the_declared_ones_and_what_is_none_there_is_undefined() -> None:
    declared = {each.name: each.default for record in (Settings, Similarity, Quality) for each in fields(record)}
    one, checked = AffinityPropagation(), 0
    for name in NAMES:
        ours = _OURS.get(name, name)
        if ours in declared and name != "symmetrize":  # of pairs, as PowerIterationClustering takes them
            assert (one.getOrDefault(name) if one.isDefined(name) else None) == declared[ours], name
            checked += 1
    assert checked == 16
    keywords = {name: each.default for name, each in signature(AffinityPropagation.__init__).parameters.items()}
    assert keywords.keys() - {"self"} == set(NAMES)
    for name in NAMES:
        assert keywords[name] == (one.getOrDefault(name) if one.isDefined(name) else None), name
    for mixin in (HasFeaturesCol, HasMaxIter, HasPredictionCol, HasSeed, HasWeightCol):
        assert isinstance(one, mixin)
        assert issubclass(AffinityPropagationModel, mixin)


def test_positional_and_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        AffinityPropagation("features")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        AffinityPropagation(clusters=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Invalid param value given for param"):
        AffinityPropagation(maxIter="many")  # type: ignore[arg-type]


def test_a_copy_has_the_same_uid_and_params_of_its_own() -> None:
    one = AffinityPropagation(damping=0.8, k=4)
    other = one.copy({one.damping: 0.9})
    assert other.uid == one.uid
    assert (one.getDamping(), other.getDamping(), other.getK()) == (0.8, 0.9, 4)
    other.setK(5)
    assert one.getK() == 4
    assert "damping: a fixed damping" in one.explainParams()
    assert "(current: 0.8)" in one.explainParam(one.damping)
    assert "one of sqeuclidean, euclidean" in one.explainParam("metric")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"damping": 1.0}, r"damping must be in \[0.5, 1\), got 1.0"),
        ({"maxIter": 0}, "maxIter must be at least 1, got 0"),
        ({"convergenceIter": 0}, "convergenceIter must be at least 1"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": 2, "preferenceQuantile": 0.5}, "give either preferenceQuantile or k, not both"),
        ({"preferenceQuantile": 1.5}, r"preferenceQuantile must be in \[0, 1\]"),
        ({"neighbors": 0}, "neighbors must be at least 1"),
        ({"metric": "cosin"}, "metric must be one of sqeuclidean"),
        ({"metric": "gaussian"}, "metric gaussian needs a width"),
        ({"gap": -1.0}, "gap must be at least 0"),
    ],
)
def test_values_are_checked_before_a_job_is_started(params: dict[str, Any], message: str) -> None:
    """And named as the params are."""
    with pytest.raises(SettingError, match=message):
        AffinityPropagation(**params)._checked_parameters()


def test_infinity_is_no_bound() -> None:
    _, passing = AffinityPropagation(gap=float("inf"), polish=False)._checked_parameters()
    assert passing["quality"] == Quality(gap=None, polish=False)
