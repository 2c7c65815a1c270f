#!/bin/bash
# Pid 1 of a user-mode Linux in which `burrow serve` listens at vsock sockets, over the kernel's own loopback of them, and Linux's 9P
# client mounts by such a connection. test/conformance/vsock.long.test.ts says what it needs to know.
# shellcheck source=test/suite/guest.sh
. "${0%/*}/guest.sh" 300m
startNode
insert net/vmw_vsock/vsock net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vsock_loopback

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
