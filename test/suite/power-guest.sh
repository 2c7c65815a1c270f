#!/bin/bash
# Pid 1 of a user-mode Linux whose disk loses its power: checks what the last cut left, then has the crash program work on it until
# the next. Lines for the test begin with @@. test/suite/power-machine.ts writes what it needs to know.
# shellcheck source=test/suite/guest-disk.sh
. "$(dirname "$0")/guest-disk.sh"

start() {
  : >/run/notes
  $program /run/notes >/run/output 2>&1 &
  pid=$!
}
if [ "$mode" = log ]; then
  # From the first mount on, which is what the image is before.
  dm remove disk
  dm create disk --table "0 $sectors log-writes /dev/ubda /dev/ubdb"
  mountDisk || { echo "@@ no mount"; halt; }
  start
  wait
  mapfile -t notes </run/notes
  grep -q '^done$' /run/output || sed 's/^/@@ /' /run/output
  umount /run/disk
  # The log ends with it.
  dm remove disk
  echo "@@ notes ${notes[*]}"
  halt
fi

if [ "$isChecked" = 1 ]; then
  mountDisk || { echo "@@ no mount"; halt; }
  $check /run/disk/cache 2>&1
  umount /run/disk
fi
[ -n "$mode" ] || halt
[ "$isFresh" = 1 ] && mkfs.ext4 -q -F /dev/dm-0 2>/dev/null
mountDisk || { echo "@@ no mount"; halt; }
# For the program this is another boot: what stayed is suspect.
rm -f /run/disk/cache/boot

loadDisk "$mode"
start
# Without a process for each look, too.
hasNoted() { mapfile -t notes </run/notes && [[ " ${notes[*]} " == *" $anchor "* ]]; }
until hasNoted || ! kill -0 "$pid"; do pause 2; done
pause "$cutMs"
# Where writes are lost it believes that they weren't: it sees no more, and what it noted before counts.
if [ "$mode" = drop_writes ]; then
  kill -STOP "$pid"
  mapfile -t notes </run/notes
fi
cutDisk
# Where they fail it is told so.
[ "$mode" = drop_writes ] || { pause 100; mapfile -t notes </run/notes; }
echo "@@ notes ${notes[*]}"
halt
