#!/bin/bash
# Pid 1 of a user-mode Linux in which `burrow serve` listens at vsock sockets, over the kernel's own loopback of them, and Linux's 9P
# client mounts by such a connection. Lines for the test begin with @@. What it needs to know is in the file that burrow= of the
# kernel's command line names: test/conformance/vsock.long.test.ts writes it. Everything of the host is seen read-only.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o size=300m run /run
given=$(sed -n 's/.*burrow=\([^ ]*\).*/\1/p' /proc/cmdline)
# shellcheck source=/dev/null
. "$given"
busybox=$root/bin/busybox
halt() { "$busybox" poweroff -f -n; }
say() { echo "@@ $*"; }
modules=$(echo "$root"/usr/lib/uml/modules/*/kernel)
vsock=net/vmw_vsock
for module in fs/netfs/netfs fs/fscache/fscache fs/netfs/netfs net/9p/9pnet net/9p/9pnet_fd fs/9p/9p \
  $vsock/vsock $vsock/vmw_vsock_virtio_transport_common $vsock/vsock_loopback; do
  "$busybox" insmod "$modules/$module.ko" 2>/dev/null
done
"$busybox" ifconfig lo 127.0.0.1 up
mkdir /run/mnt /run/t
export TMPDIR=/run/t BURROW_STATE=/run/state BURROW_CACHE=/run/cache BURROW_STORE=/run/store HOME=/run/t

$burrow serve tree="$tree" --quiet --listen vsock:1:5640 --listen vsock:any:5641 --allow cid:7 >/run/out 2>/run/err &
server=$!
until grep -q ^serving /run/out || ! kill -0 $server 2>/dev/null; do sleep 0.2; done
say "out $(tr '\n' ' ' </run/out)$(tr '\n' ' ' </run/err)"

# mountBy PORT: by a socket that is connected already, which mount(8) inherits.
mountBy() {
  /usr/bin/python3 -c '
import os, socket, sys
link = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
link.connect((1, int(sys.argv[1])))
at = link.fileno()
os.set_inheritable(at, True)
options = f"trans=fd,rfdno={at},wfdno={at},version=9p2000.L,aname=tree,uname=root,access=any"
os.execvp("mount", ["mount", "-t", "9p", "-o", options, "vsock", "/run/mnt"])' "$1"
}
for port in 5640 5641; do
  mountBy $port || { say "no mount by $port"; continue; }
  got=$(cd /run/mnt && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
  say "sums $port ${got%% *}"
  umount /run/mnt
done
kill $server
wait $server
say "ended $?"
halt
