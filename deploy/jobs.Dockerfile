# One job in a container, without Dagster, for any scheduler that runs containers (engine `local`, so there is no Java):
#   docker build -f deploy/jobs.Dockerfile -t audience-explorer-jobs .
#   docker run --rm -v "$PWD/demo:/data" audience-explorer-jobs spark_jobs.group_by_user /data/raw/month=2024-01 /data/users
FROM python:3.11-slim

WORKDIR /opt/audience-explorer
COPY constraints.txt .
COPY spark_jobs spark_jobs
# What jobs import, but for that of the engine `spark`.
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt $(python -c \
    "import spark_jobs; print(*(name for name in spark_jobs.REQUIRES if name not in ('pandas', 'pyspark')))") \
 && python -m compileall -q spark_jobs

ENV PYTHONPATH=/opt/audience-explorer
ENTRYPOINT ["python", "-m"]
CMD ["spark_jobs.kmeans", "--help"]
