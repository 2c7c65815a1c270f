#!/bin/bash
# What scripts that are pid 1 of a user-mode Linux with a disk of its own begin with: file systems of the kernel, what the test has
# given, device mapper's modules, and functions. What a script needs to know is in the file that burrow= of the kernel's command line
# names. Everything of the host is seen read-only.
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
# From now on writes to it fail, or are lost. Nothing is flushed or frozen for that.
cutDisk() {
  dm suspend --nolockfs --noflush disk
  dm resume disk
}
# What cutDisk has it do.
loadDisk() { dm load disk --table "0 $sectors flakey /dev/ubda 0 0 3600 1 $1"; }
