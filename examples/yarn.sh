#!/usr/bin/env bash
# Clusters the points of a day on YARN: examples/yarn.sh [2026-01-31]
#
# In cluster mode the driver runs on the cluster too, so this machine may go away. What it needs is HADOOP_CONF_DIR, and the
# archive of `make pack`, which brings Python and all packages to every container. The nodes need a Java 17 or newer; where
# it is not their JAVA_HOME, name it with --conf spark.yarn.appMasterEnv.JAVA_HOME=... and spark.executorEnv.JAVA_HOME=...
#
# Blocks lie where YARN keeps local files (yarn.nodemanager.local-dirs): give them room for 120 bytes an edge.
#
# YARN starts a driver that failed once more, and it resumes from the snapshot; so does this script when it is started again.
# spark-submit ends with 0 or 1: the job's own exit code is in YARN's diagnosis (yarn application -status ID).
set -euo pipefail
cd "$(dirname "$0")/.."
day=${1:-$(date +%F)}

options=(
  --master yarn
  --deploy-mode cluster
  --name "ap-spark $day"
  --properties-file conf/cluster.properties
  --load-spark-defaults # what the cluster's administrators have set, where the file above says nothing
  --archives 'dist/ap-spark-environment.tar.gz#environment'
  --conf spark.pyspark.python=./environment/bin/python # of driver and executors, in the archive
  --conf spark.yarn.maxAppAttempts=2
  --num-executors 8
  --executor-cores 4
)
arguments=(
  "hdfs:///points/$day"
  --id-column id
  --neighbors 50
  --output "hdfs:///clusters/$day"
  --if-exists skip
  --checkpoint "hdfs:///checkpoints/ap-spark/$day"
  --checkpoint-every 10min
  --require-convergence
)
exec spark-submit "${options[@]}" jobs/cluster.py "${arguments[@]}"
