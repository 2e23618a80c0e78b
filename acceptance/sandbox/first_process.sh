#!/bin/sh
# The first process of a machine: says that it runs, starts the user data as cloud-init does, and ends, and the machine
# with it, when `shutdown` sends it a signal. That the user data has ended does not end a machine.
#   $1: the user data; $2: a file to write the process id to, by which `shutdown` finds it
trap 'exit 0' TERM
echo $$ >"$2"
echo runs >&0
exec </dev/null
"$1" &
while :; do
  wait
  sleep 3600 &
  wait $!
done
