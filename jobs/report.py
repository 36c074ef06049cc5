"""A report for spark-submit: the options are those of `ap-spark report`.

spark-submit --master 'local[2]' jobs/report.py out/iris --output out/iris-page
"""

import sys

from ap_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
