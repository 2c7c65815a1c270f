#!/bin/bash
# Pid 1 of a user-mode Linux that mounts what `burrow serve` serves in it, by Linux's own 9P client, and compares.
# test/suite/v9fs-machine.ts says what it needs to know.
# shellcheck source=test/suite/guest.sh
. "${0%/*}/guest.sh" 700m
startNode
mkdir /run/tmp /run/none

# One that never changes, and an empty one beside another server's.
$burrow serve tree="$tree" --quiet --listen unix:/run/9p.sock --listen tcp:127.0.0.1:5640 >/run/out 2>/run/err &
server=$!
$burrow serve none=/run/none --writable --tmp-size 300M --quiet --listen tcp:127.0.0.1:5642 >/run/out2 2>>/run/err &
writer_server=$!
for out in out out2; do
  until grep -q ^serving /run/$out || ! kill -0 $server || ! kill -0 $writer_server; do sleep 0.2; done 2>/dev/null
  grep -q ^serving /run/$out || { say "failed: $(tr '\n' ' ' </run/err)"; halt; }
done

# mountBy NAME OPTIONS DEVICE ANAME
mountBy() { mount -t 9p -o "version=9p2000.L,msize=131072,aname=$4,uname=root,access=any,$2" "$3" "/run/$1"; }
tcp=trans=tcp,port=5640
written=trans=tcp,port=5642
read -ra modes <<<"$caches"
# Sizes and links of directories are the file system's own.
list() { (cd "$1" && find . -type d -printf '%y %m %p\n' -o -printf '%y %m %s %n %l %p\n' | sort); }
list "$tree" >/run/wanted
sums=$(cd "$tree" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
for cache in "${modes[@]}"; do
  for how in unix tcp; do
    if [ $how = unix ]; then device=/run/9p.sock options=trans=unix; else device=127.0.0.1 options=$tcp; fi
    mountBy mnt "$options,cache=$cache" $device tree || { say "no mount by $how"; halt; }
    if list /run/mnt | cmp -s - /run/wanted; then
      say "find $cache $how same"
    else
      say "find $cache $how differs"
      list /run/mnt | diff - /run/wanted | head -n 5
    fi
    got=$(cd /run/mnt && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
    [ "$got" = "$sums" ] && say "sums $cache $how same" || say "sums $cache $how differs"
    say "python $cache $how $(PYTHONHOME=/run/mnt/usr /run/mnt/usr/bin/python3 -B -c "$program" 2>&1 | tr '\n' ' ')"
    echo x 2>/dev/null >/run/mnt/x && say "written" || say "readonly $cache $how"
    umount /run/mnt
  done
done

# A writable view, as a program sees it.
mountBy tmp "$written,cache=mmap" 127.0.0.1 tmp || { say "no mount of tmp"; halt; }
say "write $(/usr/bin/python3 -B "$writer" /run/tmp 2>&1 | tr '\n' ' ')"
umount /run/tmp
mountBy tmp "$written,cache=none" 127.0.0.1 tmp
say "again $(sha256sum </run/tmp/large)"
umount /run/tmp
# fio finds what it wrote, by calls and by mappings.
if [ -n "$fio" ]; then
  for cache in "${modes[@]}"; do
    mountBy tmp "$written,cache=$cache" 127.0.0.1 tmp
    mkdir /run/tmp/fio
    for engine in psync mmap; do
      [ "$cache/$engine" = none/mmap ] && continue # no shared writable mappings there
      $fio --minimal --thread --size=8m --bs=4k --rw=randwrite --verify=crc32c --verify_fatal=1 --numjobs=2 \
        --name=v --ioengine=$engine --directory=/run/tmp/fio >/run/fio 2>&1
      say "fio $cache $engine $?"
    done
    rm -r /run/tmp/fio
    umount /run/tmp
  done
fi

# The same by diod, in turns.
if [ -n "$diod" ]; then
  mkdir /run/shared
  LD_LIBRARY_PATH=$diodLibraries $diod -f -n -N -c /dev/null -e "$tree" -e /run/shared -l 127.0.0.1:5641 >/run/diod 2>&1 &
  peer=$!
  until (: >/dev/tcp/127.0.0.1/5641) 2>/dev/null || ! kill -0 $peer 2>/dev/null; do sleep 0.2; done
  mkdir /run/diodmnt /run/diodtmp
  for cache in none loose; do
    mountBy mnt "$tcp,cache=$cache" 127.0.0.1 tree
    mountBy tmp "$written,cache=$cache" 127.0.0.1 tmp
    mountBy diodmnt "trans=tcp,port=5641,cache=$cache" 127.0.0.1 "$tree"
    mountBy diodtmp "trans=tcp,port=5641,cache=$cache" 127.0.0.1 /run/shared
    /usr/bin/python3 -B "$turns" 2 burrow $cache /run/mnt /run/tmp diod $cache /run/diodmnt /run/diodtmp 2>&1 ||
      say "took all $cache turns 0 1"
    umount /run/mnt /run/tmp /run/diodmnt /run/diodtmp
  done
  kill $peer
fi
kill $writer_server $server
wait $writer_server
wait $server
say "ended $? $(ls /run/9p.sock 2>/dev/null)"
head -c 2000 /run/err
halt
