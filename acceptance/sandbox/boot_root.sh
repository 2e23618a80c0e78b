#!/bin/sh
# Boots a machine's root with systemd as its process 1. It runs in mount and process namespaces of the machine's own.
#   $1: the machine's folder   $2: the layers of its root, from the top, with : between them   $3: its host name
#   the rest: further options of systemd-nspawn, --boot, and what systemd is given, as by a kernel's command line
set -eu
folder=$1 layers=$2 name=$3
shift 3
mkdir -p "$folder/root" "$folder/disk/upper" "$folder/disk/work" "$folder/journal"
mount -t overlay -o "lowerdir=$layers,upperdir=$folder/disk/upper,workdir=$folder/disk/work" overlay "$folder/root"
echo "$name" >"$folder/root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$folder/root/etc/hosts"
seed=$folder/root/var/lib/cloud/seed/nocloud
mkdir -p "$seed"
cp "$folder/user-data" "$seed/user-data"
printf 'instance-id: %s\nlocal-hostname: %s\n' "$(basename "$folder")" "$name" >"$seed/meta-data"
# Debian 12 has cgroups of version 2; this machine's systemd knows nothing of the machine.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
echo runs >&0
exec </dev/null
exec systemd-nspawn --quiet --register=no --keep-unit --console=read-only --link-journal=no --resolv-conf=off \
  --machine="$name" --directory="$folder/root" --bind="$folder/journal:/var/log/journal" "$@"
