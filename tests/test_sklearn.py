"""The class and the function of scikit-learn: its own tests of them, and what it does not test. No Spark."""

from __future__ import annotations

import inspect
import pickle
import types
from typing import Any

import numpy as np
import pytest
import sklearn.cluster
import sklearn.cluster.tests.test_affinity_propagation as theirs
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.datasets import load_iris, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_array_api_input, parametrize_with_checks

from ap_spark.sklearn import AffinityPropagation, affinity_propagation
from tests.conftest import LONG

pytestmark = pytest.mark.filterwarnings("ignore:All samples have mutually equal:UserWarning")

EXCEPTIONS = {
    "test_affinity_propagation_precomputed_with_sparse_input": "sparse similarities are accepted here",
    "test_affinity_propagation_random_state": (
        "a random state breaks exact ties here, and changes nothing else: two of them give the same two iterations"
    ),
    "test_sparse_input_for_fit_predict": (
        "five points full of ties, of which scikit-learn has another answer for nearly every random state"
    ),
    "test_equal_similarities_and_preferences": "a private function of scikit-learn's",
}


def with_ours(test: types.FunctionType) -> types.FunctionType:
    """The same test with our class and function where it says AffinityPropagation and affinity_propagation."""
    names = {
        **test.__globals__,
        "AffinityPropagation": AffinityPropagation,
        "affinity_propagation": affinity_propagation,
    }
    ours = types.FunctionType(test.__code__, names, test.__name__, test.__defaults__, test.__closure__)
    ours.__dict__.update(test.__dict__)
    return ours


THEIRS = {name: test for name, test in inspect.getmembers(theirs, inspect.isfunction) if name.startswith("test_")}
globals().update({name: with_ours(test) for name, test in THEIRS.items() if name not in EXCEPTIONS})


@pytest.fixture(params=[0, pytest.param(42, marks=LONG)])
def global_random_seed(request: pytest.FixtureRequest) -> int:
    seed: int = request.param
    return seed


@pytest.fixture(params=[np.float64, pytest.param(np.float32, marks=LONG)])
def global_dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_exceptions_are_tests_of_scikit_learn() -> None:
    assert EXCEPTIONS.keys() <= THEIRS.keys()
    assert len(THEIRS) > 15


CHECKS = [
    pytest.param(*pair, marks=[LONG] if pair[0].polish else [])
    for pair in parametrize_with_checks([AffinityPropagation(), AffinityPropagation(polish=True)]).args[1]
    if pair[1].func is not check_array_api_input  # it skips itself unless the environment asks for it
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_conventions_of_scikit_learn(estimator: AffinityPropagation, check: Any) -> None:
    check(estimator)


DATA = {
    "iris": load_iris().data,
    "blobs": make_blobs(120, random_state=3)[0],
    "random": np.random.default_rng(5).normal(size=(80, 4)),
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("preference", [None, -20.0, "own"])
def test_everything_is_that_of_scikit_learn(name: str, preference: Any) -> None:
    x = DATA[name]
    own = -10.0 - np.random.default_rng(1).random(len(x)) if preference == "own" else preference
    parameters: dict[str, Any] = {"preference": own, "damping": 0.7, "max_iter": 500, "random_state": 0}
    ours = AffinityPropagation(**parameters).fit(x)
    reference = sklearn.cluster.AffinityPropagation(**parameters).fit(x)
    assert ours.labels_.tolist() == reference.labels_.tolist()
    assert ours.cluster_centers_indices_.tolist() == reference.cluster_centers_indices_.tolist()
    assert ours.n_iter_ == reference.n_iter_
    np.testing.assert_array_equal(ours.cluster_centers_, reference.cluster_centers_)
    np.testing.assert_allclose(ours.affinity_matrix_, reference.affinity_matrix_, atol=1e-9)
    new = np.random.default_rng(2).normal(size=(50, x.shape[1])) * x.std() + x.mean()
    assert ours.predict(new).tolist() == reference.predict(new).tolist()


def netsim(x: NDArray[np.float64], model: Any, preference: float) -> float:
    """The net similarity of a model's exemplars."""
    best = (-((x[:, None, :] - x[None, model.cluster_centers_indices_, :]) ** 2).sum(axis=2)).max(axis=1)
    best[model.cluster_centers_indices_] = preference
    return float(best.sum())


def test_polish_gives_the_best_answer() -> None:
    x = DATA["iris"]
    plain = AffinityPropagation(preference=-20.0, random_state=0).fit(x)
    polished = AffinityPropagation(preference=-20.0, random_state=0, polish=True).fit(x)
    assert netsim(x, polished, -20.0) == pytest.approx(-140.39, abs=0.005) == polished.summary_.netsim
    assert netsim(x, plain, -20.0) < netsim(x, polished, -20.0)
    assert polished.summary_.gap == 0.0
    assert plain.summary_.gap is None


def test_a_number_of_clusters() -> None:
    model = AffinityPropagation(clusters=4, polish=True).fit(DATA["iris"])
    assert len(model.cluster_centers_indices_) == 4
    assert model.summary_.preference is not None
    with pytest.raises(ValueError, match="either preference or clusters"):
        AffinityPropagation(clusters=4, preference=-1.0).fit(DATA["iris"])


def test_sparse_similarities_store_the_pairs_that_count() -> None:
    """The same as a dense matrix in which the other pairs are far too dissimilar, and the diagonal is not read."""
    x = DATA["blobs"][:50]
    s = -((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=2)
    near = s > np.quantile(s, 0.7)
    far = np.where(near, s, -1e5)
    sparse = csr_array((s[near], np.nonzero(near)), shape=s.shape)
    parameters: dict[str, Any] = {"affinity": "precomputed", "preference": -30.0, "damping": 0.8, "polish": True}
    assert AffinityPropagation(**parameters).fit(sparse).labels_.tolist() == (
        AffinityPropagation(**parameters).fit(far).labels_.tolist()
    )
    sparse.setdiag(7.0)
    assert AffinityPropagation(**parameters).fit(sparse).summary_.preference == -30.0
    assert AffinityPropagation(affinity="precomputed").fit(sparse).summary_.preference == np.median(s[near & (s < 0)])


def test_a_model_is_pickled() -> None:
    model = AffinityPropagation(random_state=0).fit(DATA["blobs"])
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(DATA["blobs"]).tolist() == model.labels_.tolist()
    assert again.summary_ == model.summary_


def test_similarities_that_no_float_sums_up() -> None:
    s = np.array([[0.0, -1e-300, -1.0], [-1e-300, 0.0, -1e300], [-1.0, -2.0, 0.0]])
    with pytest.raises(ValueError, match="like size"):
        AffinityPropagation(affinity="precomputed").fit(s)
    with pytest.raises(ValueError, match="large enough to be added"):
        AffinityPropagation().fit(DATA["blobs"] * 1e-150)
    with pytest.raises(ValueError, match="finite numbers, got nan"):
        AffinityPropagation(affinity="precomputed", preference=[1.0, np.nan, 2.0]).fit(np.eye(3))
    with pytest.raises(ValueError, match="one for each of the 3 samples"):
        AffinityPropagation(affinity="precomputed", preference=[1.0, 2.0]).fit(np.eye(3))


def test_it_says_what_scikit_learn_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(ConvergenceWarning, match="degenerate"):
        AffinityPropagation(max_iter=17, verbose=True, random_state=0).fit(DATA["random"])
    with pytest.warns(UserWarning, match="mutually equal"):
        AffinityPropagation(verbose=True).fit(np.zeros((3, 2)))
    AffinityPropagation(verbose=True, random_state=0, max_iter=500, damping=0.7).fit(DATA["blobs"])
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "Did not converge"
    assert [line.split()[0] for line in rest] == ["Converged"]


def test_nothing_stays_of_an_earlier_fit() -> None:
    model = AffinityPropagation(clusters=4).fit(DATA["iris"])
    assert (model.affinity_matrix_.diagonal() == model.summary_.preference).all()
    model.set_params(affinity="precomputed", clusters=None, preference=-2.5).fit(-np.arange(9).reshape(3, 3))
    assert model.affinity_matrix_.diagonal().tolist() == [-2.5] * 3
    assert not hasattr(model, "cluster_centers_")


@pytest.mark.long
@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("preference", [None, -20.0, "own"])
def test_many_samples_go_to_spark_and_have_the_same_answer(monkeypatch: pytest.MonkeyPatch, preference: Any) -> None:
    x = DATA["iris"]
    own = -10.0 - np.random.default_rng(1).random(len(x)) if preference == "own" else preference
    here = AffinityPropagation(preference=own, random_state=0, damping=0.7).fit(x)
    monkeypatch.setattr("ap_spark.sklearn._MOST_PAIRS", 100)
    monkeypatch.setattr("ap_spark.in_process.source_of_points.__defaults__", (10,))
    monkeypatch.setattr("ap_spark.in_process._MOST_PAIRS", 100)
    there = AffinityPropagation(preference=own, random_state=0, damping=0.7).fit(x)
    assert there.summary_.engine == "resident"
    assert not hasattr(there, "affinity_matrix_")
    assert there.labels_.tolist() == here.labels_.tolist()
    assert there.n_iter_ == here.n_iter_
    matrix = AffinityPropagation(preference=own, random_state=0, damping=0.7, affinity="precomputed")
    assert matrix.fit(here.affinity_matrix_).labels_.tolist() == here.labels_.tolist()
    assert matrix.summary_.engine == "resident"
