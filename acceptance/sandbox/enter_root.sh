#!/bin/sh
# Makes a machine's root and becomes its process 1. It runs in mount, process and UTS namespaces of the machine's own, so
# that whatever it mounts ends with the machine.
#   $1: the machine's folder, with the user data   $2: the layers of its root, from the top, with : between them
#   $3: its host name   $4: the size of its disk in bytes, or nothing   $5: `builder` or nothing   $6: first_process.sh
set -eu
folder=$1 layers=$2 name=$3 disk_size=$4 builder=$5 first_process=$6
root=$folder/root disk=$folder/disk

mkdir -p "$root" "$disk"
[ -z "$disk_size" ] || mount -t tmpfs -o "size=$disk_size" tmpfs "$disk"
mkdir -p "$disk/upper" "$disk/work"
mount -t overlay -o "lowerdir=$layers,upperdir=$disk/upper,workdir=$disk/work" overlay "$root"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
[ ! -d /sys/fs/cgroup ] || mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do
  ln -s "/proc/self/fd/${number%:*}" "$root/dev/${number#*:}"
done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -m 1777 "$root/run/lock"
mkdir -m 700 "$root/run/sandbox"
cp "$folder/user-data" "$first_process" "$root/run/sandbox"

# Programs such as Spark look up the machine's own name.
echo "$name" >/proc/sys/kernel/hostname
echo "$name" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$root/etc/hosts"

if [ -n "$builder" ]; then
  # This machine's way to the packages. Nothing of it but the list of trusted authorities stays in an image.
  mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
  [ ! -f /etc/pip.conf ] || export PIP_CONFIG_FILE=/run/sandbox/pip.conf
  [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/run/sandbox"
  if [ -d /usr/local/share/ca-certificates ]; then
    mkdir -p "$root/usr/local/share/ca-certificates"
    mount --bind /usr/local/share/ca-certificates "$root/usr/local/share/ca-certificates"
    chroot "$root" update-ca-certificates >/dev/null 2>&1
  fi
fi

cd "$root"
pivot_root . .
umount -l .
cd /
unset OLDPWD
exec sh /run/sandbox/first_process.sh /run/sandbox/user-data /run/sandbox/first-process
