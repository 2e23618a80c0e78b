# The deployment's services as containers: one image, a container each. README.md, "In containers", has the commands.
FROM python:3.11-slim

WORKDIR /opt/audience-explorer/app
COPY . .
# The code belongs to root: the services can't change it.
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt -e '.[deploy]' \
 && python -m compileall -q audience_explorer_dagster spark_jobs

RUN useradd --system --user-group --home-dir /var/lib/audience-explorer audience-explorer \
 && install -d -o audience-explorer -g audience-explorer \
      /run/audience-explorer /var/lib/audience-explorer /var/lib/audience-explorer/logs \
 && install -m 644 deploy/dagster.yaml /var/lib/audience-explorer/dagster.yaml
USER audience-explorer

ENV DAGSTER_HOME=/var/lib/audience-explorer \
    DAGSTER_GRPC_SOCKET=/run/audience-explorer/code.sock \
    AUDIENCE_EXPLORER_LOGS_FOLDER=/var/lib/audience-explorer/logs
# The code server's socket, and the copies of logs, which all three share.
VOLUME /run/audience-explorer /var/lib/audience-explorer/logs
CMD ["dagster", "api", "grpc", "--module-name", "audience_explorer_dagster.definitions", "--location-name", "audience_explorer"]
