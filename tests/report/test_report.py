"""Pictures and the page of a result: what they show, and that no data break them."""

from __future__ import annotations

import base64
import json
import re
import warnings
import xml.etree.ElementTree
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ap_spark import (
    Clustering,
    InputError,
    OutputError,
    Quality,
    SettingError,
    Similarity,
    affinity_propagation,
    cluster_points,
    make_points,
)
from ap_spark.cli import main
from ap_spark.io.readers import CELLS, read_points_of_command
from ap_spark.report import content as contents
from ap_spark.report import packages_of_report
from ap_spark.report.colors import PALETTE, color_clusters, mark_clusters
from ap_spark.report.content import gather, prepare, similarities_of
from ap_spark.report.page import files_of, write
from ap_spark.report.pictures import project, short
from ap_spark.report.rows import rows_of
from ap_spark.similarity.metrics import pairwise
from tests.conftest import ROOT

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
RNG = np.random.default_rng(3)
X = np.repeat(RNG.normal(size=(5, 3)) * 30.0, 12, axis=0) + RNG.normal(size=(60, 3))
AWKWARD = [
    "<script>alert('x')</script>",
    "\"quoted\" & 'single'",
    "x" * 5_000,
    "   ",
    "שלום עולם",
    "$\\frac{1}{2}$ $",
    "a\nb\x1b[31m",
    "表 🦓",
    "</svg></style>--><b>",
    "{{ 7 * 7 }}",
    "font: 5px x",
    "#010203",
    'id="x',
    "url(#a)",
    'href="#z',
]


@pytest.fixture(scope="module")
def clustering() -> Clustering:
    return cluster_points(pd.DataFrame(X, index=[f"p{n:02}" for n in range(60)]), preference=-300.0)


class Tags(HTMLParser):
    """The tags of a page, the addresses that it names, and its text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), "a page has no handlers of events"
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.text += data


def page_of(files: dict[str, bytes]) -> Tags:
    return Tags(files["report.html"].decode())


def test_the_page_needs_no_network_and_no_script(clustering: Clustering) -> None:
    files = files_of(gather(clustering), title="Sixty points")
    page = page_of(files)
    assert "script" not in page.tags
    assert page.addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert page.tags["svg"] == 5  # a flat result has no tree
    assert "Sixty points" in page.text
    assert f"{clustering.summary.netsim:,.6g}" in page.text
    for name in ("scatter", "sizes", "matrix", "trace", "quality"):
        assert files[f"pictures/{name}.png"].startswith(b"\x89PNG")
        xml.etree.ElementTree.fromstring(files[f"pictures/{name}.svg"])
    assert len(files) == 11
    assert files == files_of(gather(clustering), title="Sixty points"), "the same files every time"


def test_names_within_pictures_do_not_meet(clustering: Clustering) -> None:
    page = files_of(gather(clustering))["report.html"].decode()
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))
    for used in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert used in names


def test_no_data_break_the_page() -> None:
    """Ids, cells, the names of columns and the title hold what would be HTML, formulas, or nothing to see."""
    count = 2 * len(AWKWARD)
    x = np.arange(float(count))[:, None] // 4 * 100.0 + np.arange(float(count))[:, None]
    ids = [*AWKWARD, *(f"{name} again" for name in AWKWARD)]
    points = pd.DataFrame(x, index=ids)
    result = cluster_points(points, preference=-50.0)
    rows = pd.DataFrame(dict.fromkeys(AWKWARD[:4], AWKWARD * 2), index=ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = files_of(gather(result, rows=rows), title=AWKWARD[0])
    plain = page_of(files_of(gather(cluster_points(x, preference=-50.0), rows=pd.DataFrame({"a": range(count)}))))
    page = page_of(files)
    assert set(page.tags) == set(plain.tags), "no tag comes from data"
    assert "<script>alert('x')</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "␣␣␣" in page.text
    assert "שלום עולם" in page.text
    assert "\\x1b[31m" in page.text
    assert "\x1b" not in page.text
    assert "x" * 100 not in page.text, "long text is cut"
    for text in AWKWARD[-5:]:
        assert page.text.count(text) > 5, "text is no markup, also in pictures"
    for name, data in files.items():
        if name.endswith(".svg"):
            xml.etree.ElementTree.fromstring(data)


def test_what_is_shown_of_a_result(clustering: Clustering) -> None:
    """Against the tables themselves."""
    content = gather(clustering)
    assignments = clustering.assignments
    assert content.features is not None
    np.testing.assert_array_equal(content.features, X)
    assert content.sample["label"].tolist() == assignments["label"].tolist()
    heads = content.heads["exemplar"].to_numpy()[content.place]
    assert heads.tolist() == assignments["exemplar"].tolist()
    assert content.sizes.tolist() == np.bincount(assignments["label"]).tolist()
    found = similarities_of(content)
    assert found is not None
    similarity, labels = found
    members = content.members[content.members["any"] <= contents.MATRIX // 5]
    order = np.concatenate([members.index[members["label"] == label] for label in dict.fromkeys(labels)])
    at = [int(id[1:]) for id in content.members["id"][order]]
    np.testing.assert_allclose(similarity, pairwise(X[at], X[at]))
    inside = labels[:, None] == labels[None, :]
    assert similarity[inside].mean() > similarity[~inside].mean()


def test_pictures_are_figures_of_what_there_is(clustering: Clustering) -> None:
    scatter: Any = clustering.plot.scatter()
    (axes,) = scatter.axes
    assert len(axes.collections[0].get_segments()) == 60, "a spoke for each point"
    drawn = sum(len(one.get_offsets()) for one in axes.collections[1:])
    assert drawn == 60 + clustering.summary.n_clusters
    assert scatter._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"
    sizes: Any = clustering.plot.sizes()
    assert sorted(int(bar.get_width()) for bar in sizes.axes[0].patches) == sorted(clustering.exemplars["size"])
    lines: Any = clustering.plot.trace().axes[0].get_lines()
    assert lines[0].get_ydata().tolist() == clustering.trace["exemplars"].tolist()
    netsim: Any = clustering.plot.quality().axes[0].get_lines()[0].get_ydata()
    assert netsim[-1] == pytest.approx(clustering.summary.netsim)
    assert (np.diff(netsim) >= 0).all(), "what is kept never gets worse"
    with pytest.raises(InputError, match=r"nothing to draw for the picture 'tree'.*one level"):
        clustering.plot.tree()


def test_without_points_exemplars_are_drawn_alone(clustering: Clustering, tmp_path: Path, spark: SparkSession) -> None:
    clustering.save(tmp_path / "out")
    loaded = Clustering.load(tmp_path / "out")
    content = gather(loaded)
    assert content.are_exemplars
    assert content.sample["id"].tolist() == sorted(clustering.exemplars["exemplar"])
    assert "exemplars alone" in page_of(files_of(content)).text
    with pytest.raises(InputError, match="nothing to draw for the picture 'matrix'"):
        loaded.plot.matrix()
    points = pd.DataFrame(X, index=[f"p{n:02}" for n in range(60)])
    again = gather(loaded, points)
    assert again.features is not None
    np.testing.assert_array_equal(again.features, X)
    pd.testing.assert_frame_equal(again.quality, clustering.quality)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"points must be those of the result, but id 'p00' is not among them"):
        gather(loaded, X)


def test_results_of_similarities_have_no_points(spark: SparkSession) -> None:
    s = pairwise(X, X)
    i, k = np.nonzero(~np.eye(60, dtype=bool))
    result = affinity_propagation(pd.DataFrame({"i": i, "k": k, "s": s[i, k]}), preference=-300.0)
    files = files_of(gather(result))
    assert {name for name in files if name.endswith("svg")} == {
        f"pictures/{x}.svg" for x in ("sizes", "trace", "quality")
    }
    with pytest.raises(InputError, match="no features of points"):
        result.plot.scatter()
    drawn: Any = result.plot.scatter(pd.DataFrame(X))  # features may come from anywhere
    assert len(drawn.axes[0].collections[0].get_segments()) == 60


@pytest.mark.long
def test_large_tables_are_drawn_by_a_sample(monkeypatch: pytest.MonkeyPatch, spark: SparkSession) -> None:
    """A tenth of the points, from a table of Spark, with scaled features; all clusters count in the sizes."""
    monkeypatch.setattr(contents, "SAMPLE", 6)
    points = make_points(
        spark.createDataFrame([(n, x.tolist()) for n, x in enumerate(X)], "id int, features array<double>")
    )
    result = cluster_points(points, similarity=Similarity(scale="standard"), preference=-5.0)
    content = gather(result)
    assert content.features is not None
    assert content.head_features is not None
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_array_equal(content.features, X[content.sample["id"]])
    np.testing.assert_allclose(prepare(content, content.head_features), scaled[content.heads["exemplar"]])
    assert len(content.sample) == 6
    assert content.sizes.sum() == 60
    assert "6 of 60 points, drawn by chance" in page_of(files_of(content)).text


def test_a_result_of_levels_has_a_tree() -> None:
    x = np.repeat(RNG.normal(size=(6, 2)) * 50.0, 40, axis=0) + RNG.normal(size=(240, 2))
    result = cluster_points(x, similarity=Similarity(neighbors=8), clusters=6, quality=Quality(gap=None))
    assert result.tree is not None
    figure = result.plot.tree()
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert sorted(names) == sorted(map(str, result.exemplars["exemplar"]))
    assert "pictures/tree.svg" in files_of(gather(result))


def test_points_that_are_others_are_refused(clustering: Clustering) -> None:
    """The same ids in another order, other features, an id twice."""
    ids = [f"p{n:02}" for n in range(60)]
    wrong: list[tuple[Any, str]] = [
        (pd.DataFrame(X[::-1], index=ids), r"exemplar 'p\d\d' has the features \(.*\) there, and \(.*\) here"),
        (pd.DataFrame(X[:, :2], index=ids), "has the features"),
        (pd.DataFrame(X, index=ids).iloc[1:], "id 'p00' is not among them"),
    ]
    for points, words in wrong:
        with pytest.raises(InputError, match=words):
            clustering.plot.scatter(points)
    doubled = pd.DataFrame({"id": [*ids, "p00"], "features": [*X, X[0]]})
    with pytest.raises(InputError, match="each id once, but 'p00'"):
        clustering.plot.scatter(doubled)


def test_the_names_of_features(spark: SparkSession) -> None:
    flat = pd.DataFrame(X[:, :2], columns=["height", "weight"])
    cases: list[tuple[Any, list[str]]] = [
        (flat, ["height", "weight"]),
        (flat[["height"]], ["height", "cluster"]),
        (X[:, :2], ["feature 0", "feature 1"]),
        (pd.DataFrame(X[:, :2]), ["feature 0", "feature 1"]),
        (spark.createDataFrame(flat.assign(id=range(60))), ["height", "weight"]),
    ]
    for points, names in cases:
        (axes,) = cluster_points(points, preference=-300.0).plot.scatter().axes
        assert [axes.get_xlabel(), axes.get_ylabel()] == names


def test_pictures_leave_the_settings_of_matplotlib_as_they_are(clustering: Clustering) -> None:
    before = dict(mpl.rcParams)
    files_of(gather(clustering))
    clustering.plot.sizes()
    assert dict(mpl.rcParams) == before


def test_equal_similarities_have_one_colour() -> None:
    x = np.repeat([[0.0], [1.0], [5.0]], 30, axis=0) + np.zeros((1, 3))
    (axes, _) = cluster_points(x, preference=-3.0).plot.matrix().axes
    assert len(np.unique(np.asarray(axes.images[0].get_array()))) == 4  # of 0, 1, 16 and 25, times 3


def test_the_tree_of_very_many_clusters(clustering: Clustering) -> None:
    """A chain of joins as deep as it can be."""
    n = 1_000
    left = np.append([0], np.arange(n, 2 * n - 2))
    chain = {"join": np.arange(n - 1), "left": left, "right": np.arange(1, n), "height": np.arange(1.0, n)}
    tree = pd.DataFrame(chain | {"size": np.arange(2, n + 1)})
    assert replace(clustering, tree=tree).plot.tree().axes


def test_one_cluster_and_none() -> None:
    one = cluster_points(np.array([[1.0, 2.0, 1.0], [1.0, 3.0, 1.0]]), preference=-100.0)
    assert "pictures/scatter.svg" in files_of(gather(one))
    assert "pictures/scatter.svg" in files_of(gather(replace(one, points=None))), "one exemplar, of three features"
    none = cluster_points(X, max_iter=1)
    assert none.summary.n_clusters == 0
    assert set(files_of(gather(none))) == {"report.html", "pictures/trace.svg", "pictures/trace.png"}
    alone = cluster_points(np.array([[1.0, 2.0]]))
    files = files_of(gather(alone))
    assert "pictures/matrix.svg" not in files
    assert "pictures/trace.svg" not in files


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_projection(dimensions: int) -> None:
    x = RNG.normal(size=(50, dimensions)) * np.array([1.0, 9.0, 3.0])[:dimensions] + 7.0
    to_plane, names, has_one_unit = project(x)
    found = to_plane(x)
    assert found.shape == (50, 2)
    if dimensions == 2:
        np.testing.assert_array_equal(found, x)
    if dimensions == 3:
        assert has_one_unit
        covariance = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
        np.testing.assert_allclose(np.var(found, axis=0, ddof=1), covariance[:2])
        assert names[0] == f"component 1 ({100 * covariance[0] / covariance.sum():.0f} % of the variance)"


def test_clusters_beside_each_other_differ() -> None:
    """With few clusters each has its own colour; with many, the nearest exemplars have others."""
    assert color_clusters(X[:6, :2]).tolist() == list(range(6))
    heads = RNG.uniform(size=(400, 2))
    colors = color_clusters(heads)
    distance = np.linalg.norm(heads[:, None] - heads[None], axis=2) + 9.0 * np.eye(400)
    nearest = distance.argmin(axis=1)
    assert np.mean(colors == colors[nearest]) < 0.05  # by chance 1 in 6
    assert np.bincount(colors, minlength=len(PALETTE)).min() > 30
    some = color_clusters(heads[:24])
    assert len(set(zip(some, mark_clusters(some), strict=True))) == 24
    assert color_clusters(np.zeros((50, 2))).max() < len(PALETTE)  # all in one place


@pytest.mark.parametrize("text", AWKWARD)
def test_short_text(text: str) -> None:
    found = short(text)
    assert 0 < len(found) <= 22
    assert found.isprintable()


def test_rows_of_the_input_and_images(clustering: Clustering) -> None:
    """Of pandas, and of a table that Spark has read."""
    ids = [f"p{n:02}" for n in range(60)]
    rows = pd.DataFrame(
        {"id": ids, "name": [f"point {n}" for n in range(60)], "picture": [PNG] * 30 + [b"no image"] * 30}
    )
    content = gather(clustering, rows=rows)
    page = page_of(files_of(content))
    assert content.rows.names == ["name"]
    shown = {*content.largest["exemplar"], *content.members["id"]}
    assert content.rows.cells.keys() == shown
    assert all(content.rows.cells[id] == [f"point {int(id[1:])}"] for id in shown)
    assert 0 < page.tags["img"] < 60
    assert "point " in page.text
    exact = pd.DataFrame({"a": [9007199254740993, 2], "b": [1.5, None], "c": ["x", None], "d": [pd.NaT, pd.NA]})
    found = rows_of(exact, pd.Series(["0", "1"]))
    assert found.cells == {"0": ["9007199254740993", "1.5", "x", None], "1": ["2", None, None, None]}
    wrong: list[tuple[pd.DataFrame, str]] = [
        (pd.DataFrame({"a": [1]}, index=["nobody"]), "rows must be those of the result, but id"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "each name once"),
    ]
    for rows, words in wrong:
        with pytest.raises(InputError, match=words):
            gather(clustering, rows=rows)


def test_features_as_images(clustering: Clustering) -> None:
    page = page_of(files_of(gather(clustering), image_shape=(3, 1)))
    assert page.tags["img"] == 5 * 7  # of each cluster its exemplar, and three at each end
    with pytest.raises(InputError, match=r"images of 2 x 2 need 4 features, but points have 3"):
        files_of(gather(clustering), image_shape=(2, 2))
    wrong: Any
    for wrong in ("3x", 3, (2, 0)):
        with pytest.raises(SettingError, match="images must be two whole numbers"):
            clustering.report("nowhere", image_shape=wrong)


def fail() -> None:
    raise OSError("no room")


def test_a_report_appears_whole_and_replaces_only_reports(
    clustering: Clustering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clustering.report(tmp_path / "page", title="First")
    files = {"report.html": b"Third"}
    assert sorted(found.name for found in tmp_path.iterdir()) == ["page"]
    with pytest.raises(OutputError, match="overwrite=True replaces it"):
        write(files, tmp_path / "page")
    clustering.report(tmp_path / "page", title="Second", overwrite=True)
    assert "Second" in (tmp_path / "page" / "report.html").read_text()
    for mine in ("mine.txt", "pictures/holiday.jpg", "pictures/more"):
        (tmp_path / "page" / mine).write_text("mine")
        with pytest.raises(OutputError, match="it is no report, or holds more"):
            write(files, tmp_path / "page", overwrite=True)
        (tmp_path / "page" / mine).unlink()
    (tmp_path / "other" / "pictures").mkdir(parents=True)
    with pytest.raises(OutputError, match="it is no report, or holds more"):
        write(files, tmp_path / "other", overwrite=True)
    (tmp_path / "other" / "pictures").rmdir()
    (tmp_path / "other").rmdir()
    with monkeypatch.context() as patch:
        rename = Path.rename
        patch.setattr(Path, "rename", lambda old, new: rename(old, new) if old.name != "report" else fail())
        with pytest.raises(OutputError, match="no room"):
            write(files, tmp_path / "page", overwrite=True)
    assert "Second" in (tmp_path / "page" / "report.html").read_text(), "the old one is put back"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="can be written"):
        write({"report.html": b""}, tmp_path / "file" / "page")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "page"]


def test_a_missing_package_is_named() -> None:
    def miss(name: str) -> None:
        with packages_of_report():
            raise ModuleNotFoundError(name=name)

    with pytest.raises(ValueError, match=r"pictures need matplotlib, .* pip install 'ap-spark\[report\]'"):
        miss("matplotlib")
    with pytest.raises(ModuleNotFoundError):
        miss("another")


@pytest.fixture
def iris(tmp_path: Path, spark: SparkSession) -> Callable[..., int]:
    def run(*options: str) -> int:
        columns = ["--feature-columns", "0-3", "--preference", "-50"]
        out = ["--output", str(tmp_path / "out")]
        return main(["cluster", str(ROOT / "data" / "iris.csv"), *columns, *out, *options])

    return run


def test_the_command_makes_the_page_with_the_clusters(
    iris: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cells of the input are shown, the numbers of its rows being the ids; the page is part of the output."""
    assert iris("--report", "--title", "Flowers") == 0
    assert "quality, report.html, summary.json" in capsys.readouterr().out
    page = Tags((tmp_path / "out" / "report.html").read_text())
    assert "Flowers" in page.text
    assert "virginica" in page.text
    assert "drawn by chance" not in page.text
    assert (tmp_path / "out" / "pictures" / "scatter.png").exists()


@pytest.mark.long
def test_a_report_of_a_result_finds_the_points_of_the_run(
    iris: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert iris("--report") == 0
    command = ["report", str(tmp_path / "out"), "--output", str(tmp_path / "page")]
    assert main(command) == 0
    pages = [Tags((tmp_path / name / "report.html").read_text()).text for name in ("page", "out")]
    made, before = (page.partition("Seconds, versions")[0] for page in pages)
    assert made == before
    assert "virginica" in made
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["result"] == str(tmp_path / "out")
    other = str(tmp_path / "other.csv")
    pd.DataFrame({"id": ["a", "b"], "x": [1.0, 2.0], "y": [1.0, 2.0]}).to_csv(other, index=False)
    assert main(["report", str(tmp_path / "out"), other, "--output", str(tmp_path / "no")]) == 2
    assert "points must be those of the result" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert iris("--overwrite") == 0, "an output with a report is one of ours"
    assert not (tmp_path / "out" / "report.html").exists()
    capsys.readouterr()
    assert iris("--overwrite", "--title", "x") == 2
    assert "give --report too" in capsys.readouterr().err
    assert iris("--overwrite", "--report", "--images", "9x9") == 0, "a clustering is not lost for want of a picture"
    assert "there is no report.html: images of 9 x 9 need 81 features" in caplog.text
    assert "report.html" not in capsys.readouterr().out


@pytest.mark.long
def test_a_report_whose_points_have_gone(tmp_path: Path, spark: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    pd.DataFrame(X).to_csv(tmp_path / "points.csv", index_label="id")
    run: list[Any] = ["cluster", str(tmp_path / "points.csv"), "--output", str(tmp_path / "out")]
    assert main([*run, "--preference", "-300"]) == 0
    table = pd.read_csv(tmp_path / "points.csv")
    table.assign(id=table["id"].to_numpy()[::-1]).to_csv(tmp_path / "points.csv", index=False)
    assert main(["report", str(tmp_path / "out"), "--output", str(tmp_path / "changed")]) == 0
    assert "since the points have changed: points must be those of the result, but exemplar" in caplog.text
    (tmp_path / "points.csv").unlink()
    assert main(["report", str(tmp_path / "out"), "--output", str(tmp_path / "page")]) == 0
    assert "exemplars are drawn alone" in caplog.text
    assert "exemplars alone" in (tmp_path / "page" / "report.html").read_text()


def test_cells_of_a_file(tmp_path: Path, spark: SparkSession) -> None:
    """Those that are no features come first; bytes are an image."""
    table = pd.DataFrame({"id": [1, 2], "x": [0.5, 1.5], "y": [2, 3], "name": ["a", None], "photo": [PNG, PNG]})
    table.to_parquet(tmp_path / "points.parquet")
    read, _ = read_points_of_command(
        spark,
        str(tmp_path / "points.parquet"),
        format="auto",
        header=None,
        encoding="utf-8",
        id_column=None,
        feature_columns="x,y",
        preference_column=None,
        drop_missing=False,
        with_cells=True,
    )
    assert read.schema[CELLS].metadata["names"] == ["name", "x", "y"]
    shown = rows_of(read, pd.Series(["1", "2"]))
    assert shown.names == ["name", "x", "y"]
    assert shown.cells == {"1": ["a", "0.5", "2"], "2": [None, "1.5", "3"]}
    assert shown.images == {"1": PNG, "2": PNG}
    of_user = spark.createDataFrame(pd.DataFrame({"id": ["1"], "cells": ["abc"], "x": [2]}))
    assert rows_of(of_user, pd.Series(["1"])).cells == {"1": ["abc", "2"]}
