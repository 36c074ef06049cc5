"""scikit-learn's affinity propagation, with the same parameters, attributes and methods, on this package.

A program that imports `AffinityPropagation` from ``sklearn.cluster`` works with the import from here. Small data stay
in this process. Larger data go to the Spark session that is there, or to a local one.
"""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import sklearn.cluster
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import euclidean_distances
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import validate_data

from ap_spark import pipeline
from ap_spark.errors import InputError
from ap_spark.graph.numbering import WrongInput
from ap_spark.propagation import Watch
from ap_spark.result import Clustering
from ap_spark.run import LocalSource, cluster
from ap_spark.settings import Quality, Settings

__all__ = ["AffinityPropagation", "affinity_propagation"]

_MOST_PAIRS = 9_000_000  # that are clustered in this process, in 0.8 GB


class AffinityPropagation(sklearn.cluster.AffinityPropagation):  # type: ignore[misc]
    """Affinity propagation with the interface of scikit-learn.

    Parameters
    ----------
    damping, max_iter, convergence_iter, copy, preference, affinity, verbose
        As in scikit-learn.
    random_state : int, RandomState or None
        Breaks exact ties; it seeds the same jitter as ``seed`` of `cluster_points`.
    clusters : int, optional
        Search for the preference that gives so many clusters. Then no preference may be given.
    polish : bool
        Go on from the exemplars that the messages name to better ones, and bound how good any could be
        (docs/quality.md).

    Attributes
    ----------
    labels_ : int array of shape (n_samples,)
        -1 where there is no exemplar.
    cluster_centers_indices_ : int array of shape (n_clusters,)
    cluster_centers_ : array of shape (n_clusters, n_features)
        Where the affinity is not precomputed.
    affinity_matrix_ : array of shape (n_samples, n_samples)
        The similarities, with the preferences on the diagonal unless they are sparse. Only where they were computed in
        this process, or given: up to 3,000 samples.
    n_iter_ : int
    summary_ : Summary
        The run in numbers: converged, net similarity, upper bound and more.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Frey & Dueck, Clustering by passing messages between data points, Science 315 (2007). A sparse matrix of
    precomputed similarities stores the pairs that count: a sample is never in the cluster of one that it stores no
    similarity to. Its diagonal is not read.

    Examples
    --------
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [4, 2], [4, 4], [4, 0]])
    >>> model = AffinityPropagation(random_state=5).fit(X)
    >>> model.labels_, model.predict([[0, 0], [4, 4]])
    (array([0, 0, 0, 1, 1, 1]), array([0, 1]))
    >>> AffinityPropagation(clusters=3, polish=True, random_state=0).fit_predict(X)
    array([0, 1, 0, 2, 2, 2])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **sklearn.cluster.AffinityPropagation._parameter_constraints,
        "clusters": [Interval(Integral, 1, None, closed="left"), None],
        "polish": ["boolean"],
    }

    def __init__(
        self,
        *,
        damping: float = 0.5,
        max_iter: int = 200,
        convergence_iter: int = 15,
        copy: bool = True,
        preference: float | ArrayLike | None = None,
        affinity: str = "euclidean",
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
        clusters: int | None = None,
        polish: bool = False,
    ) -> None:
        super().__init__(
            damping=damping,
            max_iter=max_iter,
            convergence_iter=convergence_iter,
            copy=copy,
            preference=preference,
            affinity=affinity,
            verbose=verbose,
            random_state=random_state,
        )
        self.clusters = clusters
        self.polish = polish

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: object = None) -> Self:
        """Cluster samples, or the similarities between them.

        Parameters
        ----------
        X : array or sparse matrix of shape (n_samples, n_features), or (n_samples, n_samples)
            Samples; or similarities where the affinity is precomputed.
        y : ignored

        Returns
        -------
        AffinityPropagation

        Raises
        ------
        ValueError
            If X or a parameter breaks a rule, or similarities differ so much in size that 64-bit floats do not hold
            their sums.
        """
        precomputed = self.affinity == "precomputed"
        for name in ("affinity_matrix_", "cluster_centers_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        X = validate_data(self, X, accept_sparse="csr", copy=self.copy and precomputed, force_writeable=precomputed)
        n_samples = X.shape[0]
        if precomputed and n_samples != X.shape[1]:
            raise ValueError(f"The matrix of similarities must be a square array. Got {X.shape} instead.")
        if precomputed and X.dtype.kind != "f":  # preferences are written into it
            X = X.astype(np.float64)
        S = X if precomputed else None
        if S is None and n_samples * (n_samples - 1) <= _MOST_PAIRS:
            S = -euclidean_distances(X, squared=True)
        try:
            clustering = self._cluster_samples(X) if S is None else self._cluster_similarities(S)
        except InputError as error:
            raise ValueError(str(error)) from error
        except WrongInput as wrong:
            raise ValueError(
                "similarities and preferences must be of like size, but 64-bit floats do not hold their sums "
                f"({wrong}): replace very large numbers that stand for 'too far' by smaller ones"
            ) from wrong
        if S is not None:
            self.affinity_matrix_ = S
        self.summary_ = clustering.summary
        self.n_iter_ = clustering.n_iter
        self.cluster_centers_indices_ = clustering.exemplars["exemplar"].to_numpy()
        labels = clustering.assignments["label"].to_numpy()
        self.labels_ = labels if len(labels) else np.full(n_samples, -1)
        self._tell()
        if not precomputed:
            self.cluster_centers_ = X[self.cluster_centers_indices_].copy()
        return self

    def _cluster_similarities(self, S: Any) -> Clustering:
        """Cluster by a matrix of similarities, whose diagonal becomes the preferences: here, or on Spark if large."""
        n_samples = S.shape[0]
        if issparse(S):
            stored = S.copy()
            stored.sum_duplicates()
            stored = stored.tocoo()
            i, k, s = stored.row.astype(np.int64), stored.col.astype(np.int64), stored.data.astype(np.float64)
            i, k, s = i[i != k], k[i != k], s[i != k]
            median = float(np.median(s)) if len(s) else 0.0
        else:
            i, k = np.nonzero(~np.eye(n_samples, dtype=bool))
            s, median = S[i, k].astype(np.float64), float(np.median(S))
        preference, by_sample = self._preferences(n_samples)
        if preference is None and by_sample is None and self.clusters is None:
            preference = median
        if not issparse(S) and self.clusters is None:
            S.flat[:: n_samples + 1] = preference if by_sample is None else by_sample
        if len(s) > _MOST_PAIRS:
            return pipeline.affinity_propagation(
                pd.DataFrame({"i": i, "k": k, "s": s}),
                points=pd.DataFrame({"id": np.arange(n_samples)}),
                preference=preference if by_sample is None else _table(by_sample),
                quality=self._quality(),
                **self._options(),
            )
        quality: dict[str, Any] = {} if self.polish else {"polish": False, "gap": None}
        settings = Settings(preference=preference, **self._options(), **quality)
        source = LocalSource(i, k, s, pa.array(np.arange(n_samples)), by_sample)
        found = cluster(source, settings, Watch(), warns=False)  # scikit-learn has warnings of its own
        if not issparse(S) and self.clusters is not None:
            S.flat[:: n_samples + 1] = found.summary.preference
        return found

    def _cluster_samples(self, X: Any) -> Clustering:
        """Cluster many samples on Spark, with the similarities of all pairs."""
        n_samples = X.shape[0]
        X = X.toarray() if issparse(X) else X
        # The median of the whole matrix, with its n zeros on the diagonal, is this quantile of the other elements.
        quantile = (n_samples**2 - 1) / (2 * (n_samples**2 - n_samples - 1))
        is_open = self.preference is None and self.clusters is None
        preference, by_sample = self._preferences(n_samples)
        return pipeline.cluster_points(
            np.asarray(X, np.float64),
            preference=preference if by_sample is None else _table(by_sample),
            preference_quantile=quantile if is_open else None,
            quality=self._quality(),
            **self._options(),
        )

    def _preferences(self, n_samples: int) -> tuple[float | None, NDArray[np.float64] | None]:
        """Return the preference of all samples, or an array with that of each; None for what is not given."""
        if self.preference is None:
            return None, None
        given = np.asarray(self.preference, np.float64)
        if not np.isfinite(given).all():
            raise ValueError(f"preferences must be finite numbers, got {given[~np.isfinite(given)][0]}")
        if given.ndim == 0:
            return float(given), None
        if given.shape != (n_samples,):
            raise ValueError(
                f"preference must be a number, or one for each of the {n_samples} samples, got shape {given.shape}"
            )
        return None, given

    def _options(self) -> dict[str, Any]:
        """Return the parameters that have other names in this package, or the same."""
        return {
            "clusters": self.clusters,
            "damping": float(self.damping),
            "max_iter": int(self.max_iter),
            "convergence_iter": int(self.convergence_iter),
            "seed": int(check_random_state(self.random_state).randint(2**31)),
        }

    def _quality(self) -> Quality:
        """Return whether to polish; scikit-learn does not."""
        return Quality() if self.polish else Quality(polish=False, gap=None)

    def _tell(self) -> None:
        """Warn, and print, as scikit-learn does."""
        about = self.summary_
        if about.engine == "none" and about.n_edges == about.n_points * (about.n_points - 1):
            warnings.warn(
                "All samples have mutually equal similarities. Returning arbitrary cluster center(s).", stacklevel=3
            )
            return
        if self.verbose:
            print(f"Converged after {about.n_iter} iterations." if about.converged else "Did not converge")
        if not about.converged:
            words = "this model may return degenerate cluster centers and labels."
            if not about.n_clusters:
                words = "this model will not have any cluster centers."
            warnings.warn(f"Affinity propagation did not converge, {words}", ConvergenceWarning, stacklevel=3)


def affinity_propagation(
    S: ArrayLike,
    *,
    preference: float | ArrayLike | None = None,
    convergence_iter: int = 15,
    max_iter: int = 200,
    damping: float = 0.5,
    copy: bool = True,
    verbose: bool = False,
    return_n_iter: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[Any, ...]:
    """Cluster by a matrix of similarities, as the function of this name in scikit-learn.

    Parameters
    ----------
    S : array or sparse matrix of shape (n_samples, n_samples)
    preference, convergence_iter, max_iter, damping, copy, verbose, random_state
        See `AffinityPropagation`.
    return_n_iter : bool

    Returns
    -------
    cluster_centers_indices : int array of shape (n_clusters,)
    labels : int array of shape (n_samples,)
    n_iter : int
        Where ``return_n_iter``.

    Raises
    ------
    ValueError
        See `AffinityPropagation.fit`.

    Examples
    --------
    >>> X = np.array([[1.0], [2.0], [3.0], [7.0], [8.0], [9.0]])
    >>> affinity_propagation(-np.square(X - X.T), preference=-25.0, random_state=0)
    (array([1, 4]), array([0, 0, 0, 1, 1, 1]))
    """
    model = AffinityPropagation(
        damping=damping,
        max_iter=max_iter,
        convergence_iter=convergence_iter,
        copy=copy,
        preference=preference,
        affinity="precomputed",
        verbose=verbose,
        random_state=random_state,
    ).fit(S)
    found = model.cluster_centers_indices_, model.labels_
    return (*found, model.n_iter_) if return_n_iter else found


def _table(preferences: NDArray[np.float64]) -> pd.DataFrame:
    """Return the preferences of samples as a table (id, preference)."""
    return pd.DataFrame({"id": np.arange(len(preferences)), "preference": preferences})
