"""The pictures of README and docs, made from a run on the digits: python docs/pictures.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from ap_spark import affinity_propagation, read_points, similarities
from ap_spark.session import start_session

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
PREFERENCE = -25_000.0
COLUMNS = 10


def main() -> None:
    spark = start_session()
    path = str(ROOT / "data" / "digits.csv.gz")
    points = read_points(spark, path, feature_columns="0-63")
    clustering = affinity_propagation(similarities(points), points=points.select("id"), preference=PREFERENCE)
    exemplars = clustering.exemplars.orderBy("size", ascending=False).toPandas()
    pixels = np.loadtxt(path, delimiter=",", skiprows=1)[:, :64].reshape(-1, 8, 8)
    rows = -(-len(exemplars) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(COLUMNS, 1.25 * rows + 0.4), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (_, row) in zip(axes.flat, exemplars.iterrows(), strict=False):
        axis.imshow(pixels[int(row.exemplar)], cmap="gray_r")
        axis.set_title(f"{int(row['size'])}", fontsize=9, pad=2)
    summary = clustering.summary
    figure.suptitle(
        f"{summary.n_points:,} handwritten digits, {summary.n_clusters} exemplars and the sizes of their clusters "
        f"({summary.n_iter} iterations, preference {PREFERENCE:,.0f})",
        fontsize=9,
    )
    figure.tight_layout()
    target = ROOT / "docs" / "images" / "digits.png"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=110)
    spark.stop()


if __name__ == "__main__":
    main()
