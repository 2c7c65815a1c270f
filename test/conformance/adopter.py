#!/usr/bin/env python3
# A server for burrow-stub's tests, in place of node (BURROW_NODE): Node itself can't receive FDs.
# Adopts as docs/protocol/adopt.md says, writes what it saw as JSON to $ADOPTER_REPORT, then does what
# the words of $ADOPTER_DO say, one after the other. Assumes nothing of Burrow but that document.
import array, json, os, resource, signal, socket, struct, sys, time

MAGIC, ADOPT, KEEP, DROP = 0x31575242, 1, 2, 3
control = socket.socket(fileno=int(os.environ["BURROW_ADOPT_FD"]))


def adopt():
    records, fds, messages = [], [], 0
    while True:
        data, anc, flags, _ = control.recvmsg(65536, socket.CMSG_SPACE(4 * 253))
        assert data and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), (len(data), flags)
        got = array.array("i")
        for level, kind, payload in anc:
            got.frombytes(payload[: len(payload) // 4 * 4])
        magic, kind, count, more, length = struct.unpack_from("<IHHII", data)
        assert magic == MAGIC and kind == ADOPT and count == len(got), (magic, kind, count, len(got))
        assert len(data) == 16 + 16 * count + length
        for i in range(count):
            role, index, sub, reserved = struct.unpack_from("<IIII", data, 16 + 16 * i)
            assert reserved == 0
            records.append((role, index, sub))
        fds += list(got)
        messages += 1
        if not more & 1:
            return records, fds, messages


def send(kind, keys, fds, body=b""):
    data = struct.pack("<IHHII", MAGIC, kind, len(keys), 0, len(body))
    data += b"".join(struct.pack("<IIII", *key, 0) for key in keys) + body
    control.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def status_of(pid):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


# Not getppid(): that is 1 in the stub's pid namespace, and /proc is still the host's.
stub = int(status_of("self")["PPid"])


def stub_fds():
    out = {}
    for name in os.listdir(f"/proc/{stub}/fd"):
        try:
            out[name] = os.readlink(f"/proc/{stub}/fd/{name}")
        except OSError:
            pass
    return out


def stub_zombies():
    out = []
    for name in os.listdir("/proc"):
        try:
            one = status_of(name) if name.isdigit() else {}
        except OSError:
            continue
        if one.get("PPid") == str(stub) and one["State"].startswith("Z"):
            out.append(name)
    return out


records, fds, messages = adopt()
byKey = dict(zip(records, fds))
status = status_of("self")
report = {
    "argv": sys.argv,
    "records": records,
    "messages": messages,
    "links": [os.readlink(f"/proc/self/fd/{fd}") for fd in fds],
    "ownFds": sorted(int(n) for n in os.listdir("/proc/self/fd")),
    "stubFds": [] if os.getuid() else stub_fds(),
    "umask": status["Umask"].strip(),
    "noNewPrivs": status["NoNewPrivs"].strip(),
    "blocked": status["SigBlk"].strip(),
    "fileLimit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "ids": [os.getuid(), os.getgid()],
    "stubPid": stub,
}
code = 0


def write_report():
    path = os.environ["ADOPTER_REPORT"]
    with open(path + ".new", "w") as file:
        json.dump(report, file)
    os.rename(path + ".new", path)


memfds = []
for word in os.environ.get("ADOPTER_DO", "").split():
    verb, _, value = word.partition("=")
    if verb == "exit":
        code = int(value)
    elif verb == "kill":
        write_report()
        os.kill(os.getpid(), int(value))
    elif verb == "keep":  # keep=INDEX/COUNT: COUNT memfds of connection INDEX and one socket
        index, count = map(int, value.split("/"))
        keys = [(16, index, sub) for sub in range(count)] + [(17, index, 0)]
        pair = socket.socketpair()
        memfds = [os.memfd_create(f"kept-{index}-{sub}") for sub in range(count)]
        send(KEEP, keys, memfds + [pair[1].fileno()])
        pair[1].close()
    elif verb == "drop":
        send(DROP, [], [], struct.pack("<I", int(value)))
    elif verb == "junk":  # every one of these is to be refused, and none to be the stub's end
        control.send(b"x")
        control.send(struct.pack("<IHHII", MAGIC, 9, 0, 0, 0))
        control.send(struct.pack("<IHHII", MAGIC, KEEP, 3, 0, 0))
        control.send(struct.pack("<IHHII", 1, DROP, 0, 0, 4) + b"\0\0\0\0")
        control.send(struct.pack("<IHHII", MAGIC, DROP, 0, 0, 8) + b"\0" * 8)
        extra = os.memfd_create("refused")
        send(KEEP, [(1, 0, 0)], [extra])  # a server may not replace an io-fd
        send(KEEP, [(99, 0, 0)], [extra])
        control.send(b"y" * 9000)
        os.close(extra)
    elif verb == "look":  # look=NAME: what the stub holds now
        time.sleep(0.1)  # nothing is answered, so give it the time
        report[value] = stub_fds()
    elif verb == "orphan":  # a grandchild that ends as an orphan: pid 1 (or a subreaper) has it to reap
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.05)
                os._exit(0)
            os._exit(0)
        os.wait()
        time.sleep(0.2)
        report["zombies"] = stub_zombies()
    elif verb == "wait":  # until SIGTERM or SIGINT, which is reported
        got = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda s, _: got.append(s))
        write_report()
        while not got:
            time.sleep(0.02)
        report["signal"] = got[0]
    elif verb == "close":
        control.close()
        time.sleep(0.1)
    else:
        raise SystemExit(f"ADOPTER_DO: {word}?")
write_report()
sys.exit(code)
