// The filter of system calls: the table's meaning, judged by an interpreter of BPF, and the kernel's own judgement of the same program.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno, errnoName } from "../../lib/base/errno.ts";
import { CALLS, type Call, type Need } from "../../lib/gofer/calls.ts";
import { filterProgram, INSTRUCTION_BYTES, Verdict } from "../../lib/gofer/filter.ts";
import { verdictOf } from "../suite/bpf.ts";

const NEEDS: readonly Need[] = ["channels", "daemon", "host", "writes"];
const ALL: readonly Need[] = [...NEEDS, "clients", "devices", "sockets", "launches"];
const AT_FDCWD = -100;
const NUMBERS_MAX = 600;
const SIGSYS = 31;
const PID = 4711;
const program = (...needs: Need[]) => filterProgram(CALLS, new Set(needs), Verdict.kill, PID);
const numberOf = (name: string) => CALLS.find((call) => call.name === name)!.number;
const refusal = (errno: number) => Verdict.errno | errno;

/** Arguments that pass the first list of tests of a call. */
function passing({ when }: Call): number[] {
  const args = [0, 0, 0, 0, 0, 0];
  for (const { arg, is } of when?.[0] ?? [])
    if (is !== undefined) args[arg]! |= is === "self" ? PID : is;
  return args;
}

test("what the table has is let through, and nothing else", (t) => {
  const all = program(...ALL);
  for (const call of CALLS) {
    const isNever = call.when?.length === 0;
    const wanted = isNever ? refusal(call.refusal!) : Verdict.allow;
    t.equal(verdictOf(all, { number: call.number, args: passing(call) }), wanted, call.name);
  }
  const known = new Set(CALLS.map((call) => call.number));
  const passed = [];
  for (let number = 0; number < NUMBERS_MAX; number++) {
    if (known.has(number)) continue;
    if (verdictOf(all, { number }) !== Verdict.kill) passed.push(number);
  }
  t.same(passed, [], "any other ends the process");
  t.ok(all.length / INSTRUCTION_BYTES < 4096, "BPF_MAXINSNS");
  t.end();
});

/** An entry as docs/seccomp.md shows it. */
function rowOf({ name, number, why, when, refusal, needs }: Call): string {
  const show = (value: number | string) =>
    typeof value === "string"
      ? "own pid"
      : value === AT_FDCWD >>> 0
        ? "AT_FDCWD"
        : `0x${value.toString(16)}`;
  const tests = when?.map((list) =>
    list
      .map(({ arg, mask, is, not }) => {
        const masked = mask === undefined ? `${arg}` : `${arg} & ${show(mask)}`;
        return `${masked} ${is === undefined ? "≠" : "="} ${show(is ?? not!)}`;
      })
      .join(", "),
  );
  const allowed = tests === undefined ? "" : tests.length === 0 ? "never" : tests.join("; or ");
  const otherwise = refusal === undefined ? "" : errnoName(-refusal);
  return `| ${name} | ${number} | ${(needs ?? []).join(", ")} | ${allowed} | ${otherwise} | ${why} |`;
}

test("docs/seccomp.md is the table", (t) => {
  const path = join(import.meta.dirname, "../../../docs/seccomp.md");
  const rows = readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => /^\| \w+ \| \d/.test(line));
  t.same(rows, CALLS.map(rowOf), CALLS.map(rowOf).join("\n"));
  t.end();
});

test("calls of other tables end the process: i386, x32, negative numbers", (t) => {
  const all = program(...NEEDS);
  const read = numberOf("read");
  t.equal(verdictOf(all, { number: read }), Verdict.allow);
  t.equal(verdictOf(all, { number: read, arch: 0x40000003 }), Verdict.kill, "i386");
  t.equal(verdictOf(all, { number: read | 0x40000000 }), Verdict.kill, "x32");
  t.equal(verdictOf(all, { number: -1 }), Verdict.kill, "a tracer's way to skip a call");
  t.end();
});

test("arguments are looked at", (t) => {
  const all = program(...NEEDS);
  const says = (name: string, args: number[], wanted: number, why: string) =>
    t.equal(verdictOf(all, { number: numberOf(name), args }), wanted, `${name}: ${why}`);
  const enoent = refusal(Errno.ENOENT);
  says("openat", [AT_FDCWD, 0, 0], enoent, "by path");
  says("openat", [7, 0, 2], Verdict.allow, "to write, where something is written");
  says("openat2", [AT_FDCWD], Verdict.kill, "by path");
  says("socket", [2, 1, 0], Verdict.kill, "AF_INET");
  says("socket", [16, 3, 0], Verdict.kill, "AF_NETLINK");
  says("socket", [1, 5, 0], Verdict.kill, "packets");
  says("socketpair", [1, 1, 0], Verdict.kill, "streams");
  says("connect", [5, 0, 14], Verdict.kill, "a longer name");
  says("connect", [5, 0, 110], Verdict.kill, "any path");
  says("mmap", [0, 4096, 5, 2, 9], Verdict.kill, "code of a file");
  says("mmap", [0, 4096, 7, 0x22, -1], Verdict.allow, "code of V8's");
  says("mmap", [0, 4096, 3, 1, 9], Verdict.allow, "a window");
  says("recvmsg", [5, 0, 0], Verdict.kill, "FDs that an execve would keep");
  says("tgkill", [PID, 1, 9], Verdict.kill, "SIGKILL");
  says("tgkill", [1, 1, 6], Verdict.kill, "another process");
  says("tgkill", [PID, 1, 15], Verdict.allow, "the end by SIGTERM");
  says("fcntl", [5, 1024, 1], Verdict.kill, "a lease");
  says("linkat", [5, 0, 6, 0, 0x1000], Verdict.kill, "AT_EMPTY_PATH");
  says("ioctl", [5, 0x5413], Verdict.kill, "a terminal's size");
  says("mknodat", [5, 0, 0o020000, 0], Verdict.allow, "a whiteout");
  says("mknodat", [5, 0, 0o020000, 0x103], Verdict.kill, "a character device");
  says("mknodat", [5, 0, 0o010000, 0], Verdict.kill, "a FIFO, where there is no tmpfs");
  const devices = program(...NEEDS, "devices");
  const made = (type: number, device: number) =>
    verdictOf(devices, { number: numberOf("mknodat"), args: [5, 0, type, device] });
  t.equal(made(0o010000, 0), Verdict.allow, "a FIFO, in the place of a device");
  t.equal(made(0o140000, 0), Verdict.allow, "a socket, in the place of another");
  t.equal(made(0o020000, 0), Verdict.allow, "a whiteout");
  t.equal(made(0o020000, 0x103), Verdict.kill, "a character device");
  t.equal(made(0o060000, 0x801), Verdict.kill, "a disk");
  t.end();
});

test("each door has its own calls", (t) => {
  const kinds = (has: readonly Need[]) => {
    const made = program("daemon", ...has);
    const may = (name: string, ...args: number[]) =>
      verdictOf(made, { number: numberOf(name), args }) === Verdict.allow;
    return {
      channels: [may("memfd_create"), may("futex_waitv"), may("socketpair", 1, 0x80005)],
      seals: [may("fcntl", 5, 1033), may("fcntl", 5, 3)],
      clients: [may("accept4", 5, 0, 0, 0x80000), may("getpeername"), may("getsockopt", 5, 1, 17)],
      others: [may("accept4", 5, 0, 0, 0), may("getsockopt", 5, 6, 11), may("listen"), may("bind")],
    };
  };
  const [all, none] = [
    [true, true, true],
    [false, false, false],
  ];
  const never = [...none, false];
  const gofer = { channels: all, seals: [true, true], clients: none, others: never };
  t.same(kinds(["channels"]), gofer, "a gofer");
  const ninep = { channels: none, seals: [false, true], clients: all, others: never };
  t.same(kinds(["clients"]), ninep, "a 9P server");
  t.same(kinds([]), { ...ninep, clients: none }, "a FUSE server");
  t.end();
});

test("who writes nothing may make no call that does", (t) => {
  const readers = [program(), program("daemon"), program("daemon", "host")];
  const [openat, ...changing] = [
    "openat",
    "pwrite64",
    "mkdirat",
    "symlinkat",
    "unlinkat",
    "linkat",
    "renameat2",
    "fchmodat",
    "fchownat",
    "utimensat",
    "fallocate",
    "fsetxattr",
    "fremovexattr",
  ].map(numberOf);
  for (const each of readers) {
    for (const number of changing) t.equal(verdictOf(each, { number }), Verdict.kill, `${number}`);
    for (const flags of [1, 2, 0o100, 0o1000, 0o20200002]) {
      t.equal(verdictOf(each, { number: openat!, args: [7, 0, flags] }), refusal(Errno.ENOENT));
    }
    t.equal(verdictOf(each, { number: openat!, args: [7, 0, 0o2404000] }), Verdict.allow);
  }
  t.equal(verdictOf(program(), { number: numberOf("socket"), args: [1, 1] }), Verdict.kill);
  t.end();
});

/** Calls that a program under attack is made to make, by number and arguments. linux, syscall_64.tbl. */
const FORBIDDEN: Readonly<Record<string, readonly number[]>> = {
  execve: [59],
  execveat: [322, AT_FDCWD],
  fork: [57],
  vfork: [58],
  clone: [56],
  clone3: [435],
  ptrace: [101],
  process_vm_readv: [310, 1],
  process_vm_writev: [311, 1],
  pidfd_open: [434, 1],
  pidfd_getfd: [438, 0, 0],
  kill: [62, 0, 0],
  "socket(AF_INET)": [41, 2, 1],
  "socket(AF_INET6, datagrams)": [41, 10, 2],
  bind: [49, 0],
  listen: [50, 0],
  sendto: [44, 0],
  mount: [165],
  umount2: [166],
  pivot_root: [155],
  chroot: [161],
  chdir: [80],
  unshare: [272, 0],
  setns: [308, 0],
  open_tree: [428, AT_FDCWD],
  move_mount: [429, 0],
  fsopen: [430],
  mknodat: [259, 0],
  open_by_handle_at: [304, 0],
  bpf: [321],
  perf_event_open: [298],
  io_uring_setup: [425, 1],
  userfaultfd: [323, 0],
  keyctl: [250],
  setuid: [105, 0],
  capset: [126],
  prctl: [157, 0],
  seccomp: [317, 9],
  personality: [135, 0],
  setrlimit: [160, 0],
  ioctl: [16, 0],
  setsockopt: [54, 0],
  init_module: [175],
  finit_module: [313, 0],
  reboot: [169],
  swapon: [167],
  syslog: [103, 9],
  shmget: [29, 0],
  mprotect_with_keys: [329],
};

/** Has the kernel judge: each call is made by a process of its own under the program, which ends with the errno; a signal is -number. */
const CALLER = `
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
asked = json.load(sys.stdin)
code = bytes.fromhex(asked["program"])
buffer = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(len(code) // 8, ctypes.addressof(buffer))
def outcome(call):
    pid = os.fork()
    if pid == 0:
        words = [ctypes.c_long(word) for word in call]
        if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0: os._exit(255)
        os._exit(ctypes.get_errno() if libc.syscall(*words) < 0 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps([outcome(call) for call in asked["calls"]]))
`;

function judged(calls: readonly (readonly number[])[], filter: Uint8Array): unknown {
  const asked = { program: Buffer.from(filter).toString("hex"), calls };
  const done = spawnSync("python3", ["-c", CALLER], {
    input: JSON.stringify(asked),
    encoding: "utf8",
  });
  return done.stdout === "" ? done.stderr : JSON.parse(done.stdout);
}

test("the kernel takes the program and ends who breaks it", (t) => {
  const all = program(...NEEDS);
  const wanted = Object.fromEntries(Object.keys(FORBIDDEN).map((name) => [name, -SIGSYS]));
  const outcomes = judged(Object.values(FORBIDDEN), all) as number[];
  const found = Object.fromEntries(Object.keys(FORBIDDEN).map((name, i) => [name, outcomes[i]]));
  t.same(found, wanted);
  const others = [[39], [257, AT_FDCWD, 0, 0], [2, 0, 0]];
  t.same(judged(others, all), [0, Errno.ENOENT, Errno.ENOENT], "getpid, openat, open");
  t.end();
});
