"""The main job for spark-submit: the options are those of `ap-spark cluster`.

spark-submit --master 'local[2]' jobs/cluster.py data/iris.csv --output out/iris --feature-columns 0-3
"""

import sys

from ap_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["cluster", *sys.argv[1:]]))
