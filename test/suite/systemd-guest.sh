#!/bin/bash
# Begins as pid 1 of a user-mode Linux and becomes systemd, this machine's own, with a configuration of the guest's: the units of
# docs/systemd, installed as the docs say, and one that runs test/suite/systemd-check.ts and ends the machine. The cache and the state lie
# on a disk that the next boot finds again. test/daemon/systemd.long.test.ts says what it needs to know.
# shellcheck source=test/suite/guest.sh
. "${0%/*}/guest.sh" 500m
insert fs/fuse/fuse fs/autofs/autofs4
"$busybox" ifconfig lo 127.0.0.1 up
mkdir -p /run/etc/systemd/system /run/etc/burrow /run/disk /run/t
for file in passwd group nsswitch.conf ld.so.cache hosts; do cp -L /etc/$file /run/etc/; done
echo 0123456789abcdef0123456789abcdef >/run/etc/machine-id
mount --bind /run/etc /etc
mount -t ext4 /dev/ubda /run/disk || { say "no disk"; halt; }
mkdir -p /run/disk/{cache,state,store}
mount -t tmpfs var /var
mkdir -p /var/{log,tmp,cache/burrow,lib/burrow}
mount --bind /run/disk/cache /var/cache/burrow
mount --bind /run/disk/state /var/lib/burrow
mount -t tmpfs opt /opt
mkdir /opt/burrow
mount --bind "$burrow" /opt/burrow
# What a distribution does early is neither needed nor quick here.
for each in sysinit local-fs; do mount -t tmpfs none /usr/lib/systemd/system/$each.target.wants; done

# Nothing that is needed from here on lies in it.
mount -t tmpfs tmp /tmp

units=/etc/systemd/system
cp /opt/burrow/docs/systemd/burrow-* $units/
cat >$units/check.service <<UNIT
[Unit]
After=sockets.target

[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
Environment=TMPDIR=/run/t
ExecStart=$node --no-warnings /opt/burrow/dist/test/suite/systemd-check.js $boot
ExecStopPost=-/usr/bin/sh -c 'cd /; sync; exec systemctl poweroff -ff'
UNIT
cat >$units/check.target <<UNIT
[Unit]
Requires=basic.target check.service
After=basic.target
UNIT
if [ "$boot" = 2 ]; then
  mkdir $units/sockets.target.wants
  ln -s ../burrow-daemon.socket $units/sockets.target.wants/
fi
exec /usr/lib/systemd/systemd --unit=check.target --log-target=kmsg --show-status=0
