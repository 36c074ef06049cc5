# One image for all that docker-compose.yml starts: master, workers, history server, and the drivers of the job and the
# tests. Nothing in it is secret: docker/entrypoint makes what is.
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make openjdk-17-jre-headless python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Dependencies first: this layer stays as it is until one of them changes. The package itself is a link to /app.
WORKDIR /app
COPY pyproject.toml constraints.txt ./
COPY ap_spark/version.py ap_spark/
RUN mkdir conf && touch README.md LICENSE \
    && python3 -m venv /opt/ap-spark \
    && /opt/ap-spark/bin/pip install --no-cache-dir --use-pep517 --constraint constraints.txt --editable '.[test]'

# Volumes take their owner from the directories they are first mounted on.
RUN useradd --uid 10001 --create-home spark && install --directory --owner spark --group spark \
    /app /events /secret /shared /var/lib/spark
COPY --chown=spark:spark . .

ENV PATH=/opt/ap-spark/bin:$PATH \
    SPARK_HOME=/opt/ap-spark/lib/python3.11/site-packages/pyspark \
    SPARK_LOCAL_DIRS=/var/lib/spark/local \
    SPARK_WORKER_DIR=/var/lib/spark/work
USER spark
ENTRYPOINT ["/app/docker/entrypoint"]
