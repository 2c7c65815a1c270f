#!/bin/bash
# Pid 1 of a user-mode Linux whose disk loses its power: checks what the last cut left, then has the crash program work on it until
# the next. Lines for the test begin with @@. What it needs to know is in the file that burrow= of the kernel's command line names:
# test/suite/power-machine.ts writes it. Everything of the host is seen read-only.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
given=$(sed -n 's/.*burrow=\([^ ]*\).*/\1/p' /proc/cmdline)
# shellcheck source=/dev/null
. "$given"
export LD_LIBRARY_PATH=$root/lib/x86_64-linux-gnu
modules=$(echo "$root"/usr/lib/uml/modules/*/kernel/drivers/md)
for module in dm-mod dm-flakey dm-log-writes; do "$root/bin/busybox" insmod "$modules/$module.ko"; done
dm() { "$root/sbin/dmsetup" --noudevsync --noudevrules "$@"; }
# Milliseconds, without a process for it: they are slow to start here. Nobody writes to this pipe.
mkfifo /run/never
exec 8<>/run/never
pause() {
  local seconds
  printf -v seconds '%d.%03d' $(($1 / 1000)) $(($1 % 1000))
  read -rt "$seconds" -u 8
}
halt() { "$root/bin/busybox" poweroff -f -n; }

sectors=$(</sys/block/ubda/size)
dm create disk --table "0 $sectors linear /dev/ubda 0"
mkdir /run/disk
mountDisk() { mount -t ext4 -o "$options" /dev/dm-0 /run/disk; }

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

dm load disk --table "0 $sectors flakey /dev/ubda 0 0 3600 1 $mode"
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
# Without flushing or freezing anything.
dm suspend --nolockfs --noflush disk
dm resume disk
# Where they fail it is told so.
[ "$mode" = drop_writes ] || { pause 100; mapfile -t notes </run/notes; }
echo "@@ notes ${notes[*]}"
halt
