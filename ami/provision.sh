#!/bin/bash
# Makes Debian 13 a machine on which Audience Explorer's jobs run, on both engines. Run as root, in a folder
# with the other files of `python -m ami build` (ami/archive.py lists them). It may be run again: it mends what is missing.
# It ends with a check of both engines, and leaves no caches.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

home=/opt/audience-explorer
venv=$home/venv
work=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$work"' EXIT
# Debian 13 keeps /tmp in memory, and pip unpacks Spark's half a gigabyte.
export TMPDIR=/var/tmp
export LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

step() { echo "provision: $(date -u +%T) $*"; }

step "Debian's packages"
packages=(
  ca-certificates
  python3-venv
  openjdk-21-jre-headless # Spark's JVM; Spark 4 runs on Java 17 and 21
  libopenblas0-pthread    # native BLAS; Spark's netlib finds it by itself
  e2fsprogs mdadm         # make /scratch of the instance's own disks
)
apt-get update -qq
# Debian's image is as old as its last build: all that has had a security update since then is in ours.
apt-get upgrade -qq --with-new-pkgs -o Dpkg::Options::=--force-confold >"$work/apt.log" || { cat "$work/apt.log" && exit 1; }
apt-get install -qq --no-install-recommends "${packages[@]}" >"$work/apt.log" || { cat "$work/apt.log" && exit 1; }
# Updates at a time of their own would lock packages, load the disk and restart services under a job. Instances live for
# hours, and get updates with the next image.
ln -sf /dev/null /etc/systemd/system/apt-daily.timer
ln -sf /dev/null /etc/systemd/system/apt-daily-upgrade.timer

# Debian 13 keeps /tmp in memory, half of which the files of a job could take; here it stays on the disk.
# https://www.debian.org/releases/trixie/release-notes/issues.html
ln -sf /dev/null /etc/systemd/system/tmp.mount

step "Python's packages"
[ -x $venv/bin/pip ] || python3 -m venv $venv
$venv/bin/pip install -qq --constraint constraints.txt --requirement requirements.txt
$venv/bin/pip --quiet check

step "hadoop-aws and the AWS SDK, from Maven Central"
spark=$($venv/bin/python -c 'import pyspark; print(*pyspark.__path__)')
$venv/bin/python jars.py "$spark/jars"

step "Spark's settings"
install -D -m 644 -t "$spark/conf" spark-defaults.conf spark-env.sh

step "the boot program and its user"
id explorer >/dev/null 2>&1 || useradd --system --create-home --shell /usr/sbin/nologin explorer
install -m 644 boot.py $home/
install -m 755 audience-explorer-boot /usr/local/bin/
install -D -m 644 cloud-init.conf /etc/systemd/system/cloud-init-main.service.d/audience-explorer.conf

step "/scratch"
install -d -m 1777 /scratch
install -m 755 audience-explorer-scratch /usr/local/sbin/
install -D -m 644 -t /etc/systemd/system audience-explorer-scratch.service
install -d /etc/systemd/system/multi-user.target.wants
ln -sf ../audience-explorer-scratch.service /etc/systemd/system/multi-user.target.wants/

step "the SSM agent"
# https://docs.aws.amazon.com/systems-manager/latest/userguide/agent-install-deb.html
agent="https://s3.${AWS_DEFAULT_REGION:-us-east-1}.amazonaws.com/amazon-ssm-${AWS_DEFAULT_REGION:-us-east-1}/latest"
agent+=/debian_amd64/amazon-ssm-agent.deb
if ! dpkg-query --show amazon-ssm-agent >/dev/null 2>&1; then
  if /usr/lib/apt/apt-helper -o Acquire::Retries=0 -o Acquire::https::Timeout=10 \
    download-file "$agent" "$work/amazon-ssm-agent.deb" >/dev/null 2>"$work/agent.log"; then
    apt-get install -qq "$work/amazon-ssm-agent.deb" >/dev/null
  else
    echo "WARNING: no SSM agent in this image, so that 'audience-explorer ec2 ssh' needs a key pair: $agent cannot be" \
      "fetched: $(tail -n 1 "$work/agent.log")"
  fi
fi

step "both engines are checked"
# As a job would run; hadoop-aws needs the name of a region, though no request is made.
check() { runuser -u explorer -- env -C /tmp AWS_REGION=us-east-1 $venv/bin/python - "$1" <self_check.py; }
check local
check spark

step "caches and what is this machine's alone are removed"
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
find /tmp /var/tmp /scratch -mindepth 1 -user explorer -delete
if [ -s /etc/machine-id ]; then truncate -s 0 /etc/machine-id; fi # systemd gives each instance one of its own
step "done"
