#!/bin/bash
# Pid 1 of a user-mode Linux whose disk takes no more writes from some moment on: has test/suite/writeback-program.ts give out blocks
# before and after that, and the kernel write back, and then forget, all that it can. Lines for the test begin with @@.
# shellcheck source=test/suite/guest-disk.sh
. "$(dirname "$0")/guest-disk.sh"

mkfs.ext4 -q -F /dev/dm-0 2>/dev/null
mountDisk || { echo "@@ no mount"; halt; }
loadDisk error_writes
$program /run/disk/cache $words /run >/run/output 2>&1 &
pid=$!
until [ -e /run/given ] || ! kill -0 "$pid"; do pause 5; done
cutDisk
"$root/bin/busybox" sync
: >/run/failing
until [ -e /run/asked ] || ! kill -0 "$pid"; do pause 5; done
"$root/bin/busybox" sync
# More than once: what was just used is spared the first time.
for _ in 1 2 3; do echo 3 >/proc/sys/vm/drop_caches; done
: >/run/dropped
wait "$pid"
cat /run/output
halt
