"""The params of the estimator and of its model, with their getters and setters.

What a param means, its rule and its default are those of `settings.py`; here it has the name that pyspark.ml gives such
a thing. A param without a default, such as ``damping``, is left alone until it is set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasFeaturesCol, HasMaxIter, HasPredictionCol, HasSeed, HasWeightCol

from ap_spark.errors import SettingError
from ap_spark.settings import Checked, NewPoints, Quality, Settings, Similarity, parameters

__all__ = ["AffinityPropagationParams", "EstimatorParams", "errors_by_params"]


def _about(record: type[Checked], name: str) -> str:
    """Return the help of a parameter, with its rule."""
    about = next(declared.metadata for declared, _ in parameters(record) if declared.name == name)
    rule = "one of " + ", ".join(about["choices"]) if about["choices"] else about["rule"]
    return f"{about['help']} ({rule})"


class AffinityPropagationParams(HasFeaturesCol, HasPredictionCol, HasMaxIter, HasSeed, HasWeightCol):
    """What the estimator and the model have: all params, and the setters of those that a model uses."""

    idCol: Param[str] = Param(
        Params._dummy(),
        "idCol",
        "ids of the points, integers or strings (default: points are numbered)",
        TypeConverters.toString,
    )
    exemplarCol: Param[str] = Param(
        Params._dummy(),
        "exemplarCol",
        "column for the id of the nearest exemplar (default: none)",
        TypeConverters.toString,
    )
    similarityCol: Param[str] = Param(
        Params._dummy(),
        "similarityCol",
        "column for the similarity to the nearest exemplar (default: none)",
        TypeConverters.toString,
    )
    minSimilarity: Param[float] = Param(
        Params._dummy(), "minSimilarity", _about(NewPoints, "min_similarity"), TypeConverters.toFloat
    )
    preference: Param[float] = Param(
        Params._dummy(), "preference", _about(Settings, "preference"), TypeConverters.toFloat
    )
    preferenceQuantile: Param[float] = Param(
        Params._dummy(), "preferenceQuantile", _about(Settings, "preference_quantile"), TypeConverters.toFloat
    )
    k: Param[int] = Param(Params._dummy(), "k", _about(Settings, "clusters"), TypeConverters.toInt)
    damping: Param[float] = Param(Params._dummy(), "damping", _about(Settings, "damping"), TypeConverters.toFloat)
    convergenceIter: Param[int] = Param(
        Params._dummy(), "convergenceIter", _about(Settings, "convergence_iter"), TypeConverters.toInt
    )
    polish: Param[bool] = Param(
        Params._dummy(),
        "polish",
        "open, close and swap exemplars for better ones after the iterations",
        TypeConverters.toBoolean,
    )
    gap: Param[float] = Param(
        Params._dummy(),
        "gap",
        "bound what any clustering could reach, until this one is known to be within this share of the best; infinity: "
        "no bound",
        TypeConverters.toFloat,
    )
    scale: Param[str] = Param(Params._dummy(), "scale", _about(Similarity, "scale"), TypeConverters.toString)
    metric: Param[str] = Param(Params._dummy(), "metric", _about(Similarity, "metric"), TypeConverters.toString)
    width: Param[float] = Param(Params._dummy(), "width", _about(Similarity, "width"), TypeConverters.toFloat)
    neighbors: Param[int] = Param(
        Params._dummy(),
        "neighbors",
        "take each point's similarities to so many nearest neighbours alone, at least 1 (default: to all points)",
        TypeConverters.toInt,
    )
    search: Param[str] = Param(Params._dummy(), "search", _about(Similarity, "search"), TypeConverters.toString)
    recall: Param[float] = Param(Params._dummy(), "recall", _about(Similarity, "recall"), TypeConverters.toFloat)
    srcCol: Param[str] = Param(
        Params._dummy(), "srcCol", "of assignClusters: column with one end of a pair", TypeConverters.toString
    )
    dstCol: Param[str] = Param(
        Params._dummy(), "dstCol", "of assignClusters: column with the other end", TypeConverters.toString
    )
    symmetrize: Param[str] = Param(
        Params._dummy(),
        "symmetrize",
        "of assignClusters: union: a pair that is given once has its similarity in both directions; mutual: it has "
        "none; none: in one alone",
        TypeConverters.toString,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(
            maxIter=Settings.max_iter,
            seed=Settings.seed,
            polish=Quality.polish,
            gap=Quality.gap,
            scale=Similarity.scale,
            metric=Similarity.metric,
            search=Similarity.search,
            recall=Similarity.recall,
            srcCol="src",
            dstCol="dst",
            symmetrize="union",
        )

    def getIdCol(self) -> str:
        """Return the value of `idCol`."""
        return self.getOrDefault(self.idCol)

    def getExemplarCol(self) -> str:
        """Return the value of `exemplarCol`."""
        return self.getOrDefault(self.exemplarCol)

    def getSimilarityCol(self) -> str:
        """Return the value of `similarityCol`."""
        return self.getOrDefault(self.similarityCol)

    def getMinSimilarity(self) -> float:
        """Return the value of `minSimilarity`."""
        return self.getOrDefault(self.minSimilarity)

    def getPreference(self) -> float:
        """Return the value of `preference`."""
        return self.getOrDefault(self.preference)

    def getPreferenceQuantile(self) -> float:
        """Return the value of `preferenceQuantile`."""
        return self.getOrDefault(self.preferenceQuantile)

    def getK(self) -> int:
        """Return the value of `k`."""
        return self.getOrDefault(self.k)

    def getDamping(self) -> float:
        """Return the value of `damping`."""
        return self.getOrDefault(self.damping)

    def getConvergenceIter(self) -> int:
        """Return the value of `convergenceIter`."""
        return self.getOrDefault(self.convergenceIter)

    def getPolish(self) -> bool:
        """Return the value of `polish`."""
        return self.getOrDefault(self.polish)

    def getGap(self) -> float:
        """Return the value of `gap`."""
        return self.getOrDefault(self.gap)

    def getScale(self) -> str:
        """Return the value of `scale`."""
        return self.getOrDefault(self.scale)

    def getMetric(self) -> str:
        """Return the value of `metric`."""
        return self.getOrDefault(self.metric)

    def getWidth(self) -> float:
        """Return the value of `width`."""
        return self.getOrDefault(self.width)

    def getNeighbors(self) -> int:
        """Return the value of `neighbors`."""
        return self.getOrDefault(self.neighbors)

    def getSearch(self) -> str:
        """Return the value of `search`."""
        return self.getOrDefault(self.search)

    def getRecall(self) -> float:
        """Return the value of `recall`."""
        return self.getOrDefault(self.recall)

    def getSrcCol(self) -> str:
        """Return the value of `srcCol`."""
        return self.getOrDefault(self.srcCol)

    def getDstCol(self) -> str:
        """Return the value of `dstCol`."""
        return self.getOrDefault(self.dstCol)

    def getSymmetrize(self) -> str:
        """Return the value of `symmetrize`."""
        return self.getOrDefault(self.symmetrize)

    def setFeaturesCol(self, value: str) -> Self:
        """Set the value of `featuresCol`."""
        return self._set(featuresCol=value)

    def setPredictionCol(self, value: str) -> Self:
        """Set the value of `predictionCol`."""
        return self._set(predictionCol=value)

    def setExemplarCol(self, value: str) -> Self:
        """Set the value of `exemplarCol`."""
        return self._set(exemplarCol=value)

    def setSimilarityCol(self, value: str) -> Self:
        """Set the value of `similarityCol`."""
        return self._set(similarityCol=value)

    def setMinSimilarity(self, value: float) -> Self:
        """Set the value of `minSimilarity`."""
        return self._set(minSimilarity=value)


class EstimatorParams(AffinityPropagationParams):
    """The setters that the estimator alone has, and its params as the parameters of `pipeline.py`."""

    def setMaxIter(self, value: int) -> Self:
        """Set the value of `maxIter`."""
        return self._set(maxIter=value)

    def setSeed(self, value: int) -> Self:
        """Set the value of `seed`."""
        return self._set(seed=value)

    def setWeightCol(self, value: str) -> Self:
        """Set the value of `weightCol`."""
        return self._set(weightCol=value)

    def setIdCol(self, value: str) -> Self:
        """Set the value of `idCol`."""
        return self._set(idCol=value)

    def setPreference(self, value: float) -> Self:
        """Set the value of `preference`."""
        return self._set(preference=value)

    def setPreferenceQuantile(self, value: float) -> Self:
        """Set the value of `preferenceQuantile`."""
        return self._set(preferenceQuantile=value)

    def setK(self, value: int) -> Self:
        """Set the value of `k`."""
        return self._set(k=value)

    def setDamping(self, value: float) -> Self:
        """Set the value of `damping`."""
        return self._set(damping=value)

    def setConvergenceIter(self, value: int) -> Self:
        """Set the value of `convergenceIter`."""
        return self._set(convergenceIter=value)

    def setPolish(self, value: bool) -> Self:
        """Set the value of `polish`."""
        return self._set(polish=value)

    def setGap(self, value: float) -> Self:
        """Set the value of `gap`."""
        return self._set(gap=value)

    def setScale(self, value: str) -> Self:
        """Set the value of `scale`."""
        return self._set(scale=value)

    def setMetric(self, value: str) -> Self:
        """Set the value of `metric`."""
        return self._set(metric=value)

    def setWidth(self, value: float) -> Self:
        """Set the value of `width`."""
        return self._set(width=value)

    def setNeighbors(self, value: int) -> Self:
        """Set the value of `neighbors`."""
        return self._set(neighbors=value)

    def setSearch(self, value: str) -> Self:
        """Set the value of `search`."""
        return self._set(search=value)

    def setRecall(self, value: float) -> Self:
        """Set the value of `recall`."""
        return self._set(recall=value)

    def setSrcCol(self, value: str) -> Self:
        """Set the value of `srcCol`."""
        return self._set(srcCol=value)

    def setDstCol(self, value: str) -> Self:
        """Set the value of `dstCol`."""
        return self._set(dstCol=value)

    def setSymmetrize(self, value: str) -> Self:
        """Set the value of `symmetrize`."""
        return self._set(symmetrize=value)

    def _checked_parameters(self) -> tuple[Similarity, dict[str, Any]]:
        """Return how points become similarities, and the parameters that decide the numbers, given these.

        Raises
        ------
        SettingError
            If one is outside its range, or two exclude each other; with the names of params.
        """
        with errors_by_params():
            similarity = Similarity(**{param.name: self.getOrDefault(param) for param in self._given(_COMPARING)})
            gap = self.getGap()
            quality = Quality(polish=self.getPolish(), gap=None if gap == math.inf else gap)
            passing = {_OURS.get(param.name, param.name): self.getOrDefault(param) for param in self._given(_PASSING)}
            Settings(**passing)
        return similarity, passing | {"quality": quality}

    def _given(self, names: tuple[str, ...]) -> list[Param[Any]]:
        """Return those of some params that have a value."""
        return [self.getParam(name) for name in names if self.isDefined(name)]


_PASSING = ("preference", "preferenceQuantile", "k", "damping", "maxIter", "convergenceIter", "seed")
_COMPARING = ("scale", "metric", "width", "neighbors", "search", "recall")
_OURS = {
    "preferenceQuantile": "preference_quantile",
    "k": "clusters",
    "maxIter": "max_iter",
    "convergenceIter": "convergence_iter",
    "minSimilarity": "min_similarity",
}


@contextmanager
def errors_by_params() -> Iterator[None]:
    """Give parameters the names of params in a SettingError.

    >>> with errors_by_params():
    ...     Settings(max_iter=0)
    Traceback (most recent call last):
    ap_spark.errors.SettingError: maxIter must be at least 1, got 0
    """
    theirs = {ours: name for name, ours in _OURS.items()}
    try:
        yield
    except SettingError as error:
        words = re.sub("|".join(sorted(theirs, key=len, reverse=True)), lambda found: theirs[found[0]], str(error))
        raise SettingError(words) from error
