// Linux errno values and the rule for results on the data plane: a function returns a number,
// >= 0 for a result and < 0 for -errno (7 ns; a thrown Error costs 2.9 us). Any plane.

/** Positive errno values of Linux on amd64 and arm64. Source: man errno(3), asm-generic/errno*.h. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EMLINK: 31,
  EPIPE: 32,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENODATA: 61,
  EPROTO: 71,
  EOVERFLOW: 75,
  EPROTOTYPE: 91,
  EOPNOTSUPP: 95,
  ENOBUFS: 105,
  ECONNREFUSED: 111,
  ECONNRESET: 104,
  ETIMEDOUT: 110,
  ESTALE: 116,
  EREMOTEIO: 121,
  EDQUOT: 122,
  ECANCELED: 125,
} as const;

export type ErrnoName = keyof typeof Errno;

/**
 * Not an errno: "the bytes are not on this node yet". Returned by a tree before any side effect; the
 * dispatcher parks the request and runs it again from the start. Outside errno's range (1 to 4095).
 */
export const MISS = -4096;

const SHORTAGES: readonly number[] = [Errno.EMFILE, Errno.ENFILE, Errno.ENOMEM, Errno.EAGAIN];

const NAMES = new Map<number, ErrnoName>(
  (Object.entries(Errno) as [ErrnoName, number][]).map(([name, value]) => [value, name]),
);

/** Whether an errno says that who asks is short of FDs or memory, or met a lease: that passes, and is nothing of the file's or its disk's. */
export function isShortage(errno: number | undefined): boolean {
  return errno !== undefined && SHORTAGES.includes(errno);
}

/** The name of an errno, given with either sign: 2 or -2 is "ENOENT"; "errno 999" when unknown. */
export function errnoName(errno: number): string {
  const value = Math.abs(errno);
  return NAMES.get(value) ?? `errno ${value}`;
}

/** -errno of an error that Node threw for a failed system call; -EIO when it carries none. */
export function fromNode(error: unknown): number {
  if (error instanceof Error && "errno" in error && typeof error.errno === "number") {
    return error.errno < 0 ? error.errno : -error.errno;
  }
  return -Errno.EIO;
}
