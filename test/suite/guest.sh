# What every pid 1 of a user-mode Linux in test/suite begins with: `. "${0%/*}/guest.sh" SIZE`, of /run. Everything of the host is seen
# read-only. What a guest needs to know is in the file that burrow= of the kernel's command line names, as assignments; lines for the test
# begin with @@.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o "size=$1" run /run
given=$(sed -n 's/.*burrow=\([^ ]*\).*/\1/p' /proc/cmdline)
# shellcheck source=/dev/null
. "$given"
busybox=$root/bin/busybox
halt() { "$busybox" poweroff -f -n; }
say() { echo "@@ $*"; }
# insert MODULE…: paths below the kernel's folder of modules, without .ko; what is built in or there already is passed over.
insert() {
  local module
  for module; do "$busybox" insmod "$(echo "$root"/usr/lib/uml/modules/*/kernel)/$module.ko" 2>/dev/null; done
}
# startNode: what `burrow` and Linux's 9P client need.
startNode() {
  # Which of netfs and fscache needs the other differs between kernels.
  insert fs/netfs/netfs fs/fscache/fscache fs/netfs/netfs net/9p/9pnet net/9p/9pnet_fd fs/9p/9p
  "$busybox" ifconfig lo 127.0.0.1 up
  mkdir /run/mnt /run/t
  export TMPDIR=/run/t BURROW_STATE=/run/state BURROW_CACHE=/run/cache BURROW_STORE=/run/store HOME=/run/t
}
