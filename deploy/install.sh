#!/bin/bash
# Makes a Debian 13 machine one that runs Audience Explorer: PostgreSQL, the code in a virtual environment, the services.
# Run as root, with the project in /opt/audience-explorer/app; and again when another version is there. Runs that are going
# on go on in that.
set -euo pipefail
home=/opt/audience-explorer
cd $home/app
settings=/etc/audience-explorer/environment
state=/var/lib/audience-explorer
export DEBIAN_FRONTEND=noninteractive

[ -f "$settings" ] || {
  echo "There is no $settings: make it from $home/app/deploy/environment.example." >&2
  exit 1
}

apt-get update -qq
apt-get install -qq --no-install-recommends ca-certificates postgresql python3-venv >/dev/null

id audience-explorer >/dev/null 2>&1 ||
  useradd --system --user-group --home-dir $state --shell /usr/sbin/nologin audience-explorer
chown root:audience-explorer "$settings"
chmod 640 "$settings"
install -d -m 750 -o audience-explorer -g audience-explorer $state

# The code belongs to root: the services can't change it.
[ -x $home/venv/bin/pip ] || python3 -m venv $home/venv
$home/venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir -c constraints.txt -e '.[deploy]'
$home/venv/bin/python -m compileall -q audience_explorer_dagster spark_jobs

# The services' user is known to PostgreSQL by its socket, as the owner of the database of the same name.
as_postgres() { runuser -u postgres -- env -C / "$@"; }
as_postgres psql -qtAc "SELECT 1 FROM pg_roles WHERE rolname = 'audience-explorer'" | grep -q 1 ||
  as_postgres createuser audience-explorer
as_postgres psql -qtAc "SELECT 1 FROM pg_database WHERE datname = 'audience-explorer'" | grep -q 1 ||
  as_postgres createdb --owner audience-explorer audience-explorer

install -m 644 deploy/dagster.yaml $state/dagster.yaml
install -m 755 deploy/audience-explorer-run /usr/local/bin/
install -D -m 644 deploy/tmpfiles.conf /etc/tmpfiles.d/audience-explorer.conf
install -m 644 -t /etc/systemd/system deploy/systemd/*.service
install -D -m 644 -t /etc/systemd/system/audience-explorer-.service.d deploy/systemd/audience-explorer-.service.d/*.conf
systemctl daemon-reload

services=(audience-explorer-{code,daemon,webserver,reports})
systemctl stop "${services[@]}"
# The tables, made before all services would make them at the same time, and brought to a new version of Dagster's.
audience-explorer-run dagster instance migrate
systemctl enable --now "${services[@]}"
