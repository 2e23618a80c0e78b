#!/bin/sh
# Adds to an image's root what Debian's own image has and a root of debootstrap's has not: systemd as process 1,
# cloud-init; and PostgreSQL, which deploy/install.sh installs. It runs in a mount namespace of its own.
#   $1: the layers of the root, from the top, with : between them   $2: the folder of the new layer
set -eu
layers=$1 folder=$2
root=$folder/root
export DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8

mkdir -p "$root" "$folder/layer" "$folder/work"
mount -t overlay -o "lowerdir=$layers,upperdir=$folder/layer,workdir=$folder/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# This machine's way to the packages.
touch "$root/etc/resolv.conf"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # nothing is started yet
chmod 755 "$root/usr/sbin/policy-rc.d"
chroot "$root" apt-get update -qq
chroot "$root" apt-get install -qq -y --no-install-recommends systemd-sysv libpam-systemd dbus udev cloud-init ifupdown \
  iproute2 netbase procps postgresql
rm "$root/usr/sbin/policy-rc.d"

# The user data come as a seed: cloud-init takes a machine without EC2's firmware for none of AWS's, and asks for no token
# of its metadata service. Debian's image has locales and an SSH server, which nothing here needs.
cat >"$root/etc/cloud/cloud.cfg.d/99_sandbox.cfg" <<'END'
datasource_list: [NoCloud]
locale: false
ssh_genkeytypes: []
END
mkdir -p "$root/var/log/journal"
: >"$root/etc/machine-id"
