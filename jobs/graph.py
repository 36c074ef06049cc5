"""The description of the similarity graph for spark-submit: the options are those of `ap-spark graph`.

spark-submit --master 'local[2]' jobs/graph.py data/iris.csv --feature-columns 0-3
"""

import sys

from ap_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["graph", *sys.argv[1:]]))
