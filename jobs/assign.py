"""New points for spark-submit: the options are those of `ap-spark assign`.

spark-submit --master 'local[2]' jobs/assign.py out/iris data/iris.csv --feature-columns 0-3 --output out/new
"""

import sys

from ap_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["assign", *sys.argv[1:]]))
