// The system calls that a server may make once it is hardened, and why: docs/seccomp.md is the same list for people. What isn't here ends
// the process. Numbers are those of x86-64 (linux, arch/x86/entry/syscalls/syscall_64.tbl). Data; control plane.

import { Errno } from "../base/errno.ts";
import { S_IFCHR, S_IFIFO, S_IFSOCK } from "../base/file-types.ts";

/** One test of an argument's low 32 bits, which is all that the kernel reads of an int or of the flags below. */
export interface ArgumentTest {
  readonly arg: 0 | 1 | 2 | 3 | 4 | 5;
  /** The bits that are compared; all 32 when missing. */
  readonly mask?: number;
  /** "self": the process's own pid. */
  readonly is?: number | "self";
  readonly not?: number;
}

/** What a server serves or does that not every server does: `channels` are a gofer's, `clients` connect to a 9P server. */
export type Need =
  | "channels"
  | "clients"
  | "daemon"
  | "host"
  | "writes"
  | "devices"
  | "sockets"
  | "launches";

export interface Call {
  readonly name: string;
  readonly number: number;
  readonly why: string;
  /** It is let through when all tests of one of these lists hold; always when missing. */
  readonly when?: readonly (readonly ArgumentTest[])[];
  /** What the caller gets otherwise; when missing, the process ends. */
  readonly refusal?: number;
  /** Only servers with one of these needs have it. */
  readonly needs?: readonly Need[];
}

const AT_FDCWD = 0xffffff9c;
const AT_EMPTY_PATH = 0x1000;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_SYMLINK_FOLLOW = 0x400;
/** O_ACCMODE, O_CREAT, O_TRUNC and the bit of O_TMPFILE. */
const O_ANY_WRITE = 0o3 | 0o100 | 0o1000 | 0o20000000;
const PROT_EXEC = 4;
const MAP_ANONYMOUS = 0x20;
const AF_UNIX = 1;
const SOCK_STREAM_NONBLOCK = 1 | 0o2000000 | 0o4000;
const SOCK_SEQPACKET_CLOEXEC = 5 | 0o2000000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_PEEK = 2;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** linux/sockios.h. */
const SIOCINQ = 0x541b;
const SIOCOUTQ = 0x5411;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SOCK_CLOEXEC = 0o2000000;
const SIGINT = 2;
const SIGABRT = 6;
const SIGTERM = 15;
/** The address family and "daemon.sock", without a NUL: no other name of that length leads to a socket of a cache. */
export const DAEMON_ADDRESS_BYTES = 2 + "daemon.sock".length;

const isDirectory: ArgumentTest = { arg: 0, not: AT_FDCWD };
const hasEmptyPath = (arg: 2 | 3): ArgumentTest => ({
  arg,
  mask: AT_EMPTY_PATH,
  is: AT_EMPTY_PATH,
});
const isOneOf = (arg: ArgumentTest["arg"], values: readonly number[]) =>
  values.map((is) => [{ arg, is }]);

const F_DUPFD_CLOEXEC = 1030;
const F_ADD_SEALS = 1033;
const F_GETFL = 3;
const F_SETFL = 4;

/** Calls of a path and no directory: libraries make them, and go on without what they looked for. */
function pathCalls(calls: readonly (readonly [name: string, number: number])[]): Call[] {
  const why = "never: time zone, locale, a crash's libraries; there are no paths";
  return calls.map(([name, number]) => ({ name, number, why, when: [], refusal: Errno.ENOENT }));
}

/**
 * With arguments first: the rest the kernel knows by heart (its bitmap of calls that are always allowed). Of entries of one call the first
 * that is needed counts.
 */
export const CALLS: readonly Call[] = [
  {
    name: "openat",
    number: 257,
    why: "an FD of a tree that can be written, opened anew through the kept FD of /proc/self/fd",
    when: [[isDirectory]],
    refusal: Errno.ENOENT,
    needs: ["writes"],
  },
  {
    name: "openat",
    number: 257,
    why: "a blob below its folder's FD, to be donated",
    when: [[isDirectory, { arg: 2, mask: O_ANY_WRITE, is: 0 }]],
    refusal: Errno.ENOENT,
  },
  {
    name: "sendmsg",
    number: 46,
    why: "replies, donated FDs, what the stub keeps, asks to the daemon",
    when: [[{ arg: 2, is: MSG_NOSIGNAL | MSG_DONTWAIT }]],
  },
  {
    name: "recvmsg",
    number: 47,
    why: "requests, answers of the daemon, the stub's word to leave",
    when: isOneOf(2, [
      MSG_CMSG_CLOEXEC,
      MSG_CMSG_CLOEXEC | MSG_DONTWAIT,
      MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_PEEK,
    ]),
  },
  {
    name: "ioctl",
    number: 16,
    why: "what a client hasn't read yet: was its reply sent before a server died",
    when: isOneOf(1, [SIOCINQ, SIOCOUTQ]),
    needs: ["channels"],
  },
  {
    name: "newfstatat",
    number: 262,
    why: "fstat(3): is the blob what it should be",
    when: [[isDirectory, hasEmptyPath(3)]],
    refusal: Errno.ENOENT,
  },
  {
    name: "mmap",
    number: 9,
    why: "V8's heap and code; windows of channels. Code is never mapped from a file",
    when: [
      [{ arg: 2, mask: PROT_EXEC, is: 0 }],
      [{ arg: 3, mask: MAP_ANONYMOUS, is: MAP_ANONYMOUS }],
    ],
  },
  {
    name: "fcntl",
    number: 72,
    why: "sockets that don't block; channel memory that can't shrink",
    when: isOneOf(1, [F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_ADD_SEALS]),
    needs: ["channels"],
  },
  {
    name: "fcntl",
    number: 72,
    why: "sockets that don't block; FDs of its own",
    when: isOneOf(1, [F_GETFL, F_SETFL, F_DUPFD_CLOEXEC]),
  },
  {
    name: "socketpair",
    number: 53,
    why: "a channel's socket for FDs",
    when: [
      [
        { arg: 0, is: AF_UNIX },
        { arg: 1, is: SOCK_SEQPACKET_CLOEXEC },
      ],
    ],
    needs: ["channels"],
  },
  {
    name: "socket",
    number: 41,
    why: "Connect and BindAt of the host's sockets",
    when: [[{ arg: 0, is: AF_UNIX }]],
    needs: ["sockets"],
  },
  {
    name: "connect",
    number: 42,
    why: "Connect; a path in a tree, or the daemon's",
    needs: ["sockets"],
  },
  { name: "bind", number: 49, why: "BindAt", needs: ["sockets"] },
  { name: "listen", number: 50, why: "Listen", needs: ["sockets"] },
  { name: "accept4", number: 288, why: "Accept", needs: ["sockets"] },
  {
    name: "accept4",
    number: 288,
    why: "clients of a 9P server",
    when: [[{ arg: 3, is: SOCK_CLOEXEC }]],
    needs: ["clients"],
  },
  { name: "getpeername", number: 52, why: "whether they may", needs: ["clients"] },
  {
    name: "getsockopt",
    number: 55,
    why: "the user of a client by unix socket",
    when: [
      [
        { arg: 1, is: SOL_SOCKET },
        { arg: 2, is: SO_PEERCRED },
      ],
    ],
    needs: ["clients"],
  },
  { name: "fchdir", number: 81, why: "to the folder of a socket", needs: ["sockets"] },
  {
    name: "socket",
    number: 41,
    why: "to the daemon, anew after its restart",
    when: [
      [
        { arg: 0, is: AF_UNIX },
        { arg: 1, is: SOCK_STREAM_NONBLOCK },
      ],
    ],
    needs: ["daemon"],
  },
  {
    name: "connect",
    number: 42,
    why: "to daemon.sock, by an address of just that length",
    when: [[{ arg: 2, is: DAEMON_ADDRESS_BYTES }]],
    needs: ["daemon"],
  },
  {
    name: "fchdir",
    number: 81,
    why: "to the folder of a socket, of several caches",
    needs: ["daemon"],
  },

  { name: "futex", number: 202, why: "wakes clients; V8's own locks" },
  { name: "futex_waitv", number: 449, why: "the wait for all channels", needs: ["channels"] },
  { name: "epoll_wait", number: 232, why: "the wait for sockets" },
  { name: "epoll_pwait", number: 281, why: "the same, of libuv" },
  {
    name: "epoll_create1",
    number: 291,
    why: "a journal's memory of what was read, of a sandbox that comes later",
    needs: ["launches"],
  },
  { name: "epoll_ctl", number: 233, why: "sockets that are watched" },
  { name: "read", number: 0, why: "a byte of the stub's, V8's random numbers" },
  { name: "write", number: 1, why: "the log, libuv's wake-ups, messages of a crash" },
  { name: "pread64", number: 17, why: "PRead of what wasn't donated" },
  { name: "close", number: 3, why: "all that was opened" },
  { name: "fstat", number: 5, why: "as newfstatat, in older C libraries" },
  { name: "lseek", number: 8, why: "places in a directory" },
  { name: "memfd_create", number: 319, why: "channel memory", needs: ["channels"] },
  {
    name: "ftruncate",
    number: 77,
    why: "the size of channel memory; truncate",
    needs: ["channels", "writes"],
  },
  { name: "brk", number: 12, why: "the C heap" },
  { name: "munmap", number: 11, why: "memory given back" },
  { name: "mremap", number: 25, why: "large blocks of the C heap that grow" },
  { name: "mprotect", number: 10, why: "V8 makes pages of compiled code runnable" },
  { name: "madvise", number: 28, why: "V8 and malloc give pages back" },
  { name: "clock_gettime", number: 228, why: "deadlines, where the vDSO has no clock" },
  { name: "gettimeofday", number: 96, why: "the same" },
  { name: "clock_nanosleep", number: 230, why: "V8's locks" },
  { name: "nanosleep", number: 35, why: "the same" },
  { name: "getrandom", number: 318, why: "V8's and malloc's seeds" },
  { name: "sched_yield", number: 24, why: "V8's locks" },
  { name: "sched_getaffinity", number: 204, why: "V8 and libuv count processors" },
  { name: "sched_getparam", number: 143, why: "V8 asks for its threads' turns, in Node.js 26" },
  { name: "sched_getscheduler", number: 145, why: "the same" },
  { name: "getcpu", number: 309, why: "malloc, V8" },
  { name: "membarrier", number: 324, why: "V8's barriers between threads" },
  { name: "getrusage", number: 98, why: "the log's last line" },
  { name: "getpid", number: 39, why: "abort(3)" },
  { name: "gettid", number: 186, why: "abort(3)" },
  { name: "rt_sigprocmask", number: 14, why: "abort(3), the end of a thread" },
  { name: "rt_sigaction", number: 13, why: "abort(3)" },
  { name: "rt_sigreturn", number: 15, why: "the end of a signal's handler" },
  { name: "sigaltstack", number: 131, why: "the end of a thread" },
  {
    name: "tgkill",
    number: 234,
    why: "abort(3); the end by a signal, which Node.js raises again",
    when: [SIGABRT, SIGINT, SIGTERM].map((is) => [
      { arg: 0, is: "self" },
      { arg: 2, is },
    ]),
  },
  ...pathCalls([
    ["open", 2],
    ["stat", 4],
    ["lstat", 6],
    ["access", 21],
    ["readlink", 89],
  ]),
  { name: "restart_syscall", number: 219, why: "a sleep that was interrupted" },
  { name: "exit", number: 60, why: "the end of a thread" },
  { name: "exit_group", number: 231, why: "the end" },

  {
    name: "openat2",
    number: 437,
    why: "one component below a directory's FD, with nothing followed",
    when: [[isDirectory]],
    needs: ["host"],
  },
  {
    name: "statx",
    number: 332,
    why: "attributes of a held FD",
    when: [[isDirectory, hasEmptyPath(2)]],
    needs: ["host"],
  },
  { name: "getdents64", number: 217, why: "names of a directory", needs: ["host"] },
  {
    name: "readlinkat",
    number: 267,
    why: "a symlink's text",
    when: [[isDirectory]],
    needs: ["host"],
  },
  { name: "fstatfs", number: 138, why: "StatFS", needs: ["host"] },
  { name: "fgetxattr", number: 193, why: "FGetXattr", needs: ["host"] },
  { name: "flistxattr", number: 196, why: "FListXattr", needs: ["host"] },
  { name: "fsync", number: 74, why: "FSync", needs: ["host"] },

  { name: "pwrite64", number: 18, why: "PWrite of what wasn't donated", needs: ["writes"] },
  { name: "mkdirat", number: 258, why: "MkdirAt", when: [[isDirectory]], needs: ["writes"] },
  {
    name: "symlinkat",
    number: 266,
    why: "SymlinkAt",
    when: [[{ arg: 1, not: AT_FDCWD }]],
    needs: ["writes"],
  },
  { name: "unlinkat", number: 263, why: "UnlinkAt", when: [[isDirectory]], needs: ["writes"] },
  {
    name: "name_to_handle_at",
    number: 303,
    why: "what a successor finds an inode by",
    when: [[{ arg: 4, is: AT_EMPTY_PATH }]],
    needs: ["host"],
  },
  {
    name: "mknodat",
    number: 259,
    why: "a whiteout; a FIFO or socket that keeps a device of a tmpfs",
    when: [
      [isDirectory, { arg: 2, is: S_IFCHR }, { arg: 3, is: 0 }],
      [isDirectory, { arg: 2, is: S_IFIFO }],
      [isDirectory, { arg: 2, is: S_IFSOCK }],
    ],
    needs: ["devices"],
  },
  {
    name: "mknodat",
    number: 259,
    why: "a whiteout: a character device 0:0",
    when: [[isDirectory, { arg: 2, is: S_IFCHR }, { arg: 3, is: 0 }]],
    needs: ["writes"],
  },
  {
    name: "linkat",
    number: 265,
    why: "LinkAt, through the kept FD of /proc/self/fd",
    when: [[isDirectory, { arg: 2, not: AT_FDCWD }, { arg: 4, is: AT_SYMLINK_FOLLOW }]],
    needs: ["writes"],
  },
  {
    name: "renameat2",
    number: 316,
    why: "RenameAt",
    when: [[isDirectory, { arg: 2, not: AT_FDCWD }]],
    needs: ["writes"],
  },
  { name: "fchmodat", number: 268, why: "SetStat", when: [[isDirectory]], needs: ["writes"] },
  {
    name: "fchownat",
    number: 260,
    why: "SetStat, the owner of what is made",
    when: [[isDirectory, { arg: 4, is: AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW }]],
    needs: ["writes"],
  },
  {
    name: "utimensat",
    number: 280,
    why: "SetStat",
    when: [[isDirectory, { arg: 3, is: AT_EMPTY_PATH }]],
    needs: ["writes"],
  },
  {
    name: "fallocate",
    number: 285,
    why: "FAllocate, any mode that the file system has",
    needs: ["writes"],
  },
  { name: "fsetxattr", number: 190, why: "FSetXattr", needs: ["writes"] },
  { name: "fremovexattr", number: 199, why: "FRemoveXattr", needs: ["writes"] },
];
