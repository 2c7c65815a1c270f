// New file systems that are attached nowhere: each is seen by who has an FD of it, ".." of its root is itself, and it goes with its last
// FD. -EPERM without CAP_SYS_ADMIN over the mount namespace. man fsopen(2), fsmount(2). Control plane.

import { hostFs } from "./hostfs.ts";

/** linux/mount.h, MOUNT_ATTR_*. */
const Attribute = { readOnly: 1, noSuid: 2, noDev: 4, noExec: 8 } as const;
/** Of whatever a sandbox sees; not noexec: it may map code from there. */
const BARE = Attribute.noSuid | Attribute.noDev;

type Options = Readonly<Record<string, string | number | true>>;

/** "key=value" or, of `true`, "key", each NUL-terminated. */
function textOf(options: Options): Buffer {
  const words = Object.entries(options).map(([key, value]) =>
    value === true ? key : `${key}=${value}`,
  );
  return Buffer.from(words.map((word) => `${word}\0`).join(""), "latin1");
}

function tmpfsOptions(sizeBytes: number, inodes: number, mode: number): Buffer {
  return textOf({
    source: "burrow",
    size: sizeBytes,
    nr_inodes: inodes,
    mode: (mode & 0o7777).toString(8),
  });
}

/** The FD of an empty tmpfs, which is the caller's, or -errno. */
export function newTmpfs(sizeBytes: number, inodes: number, mode: number): number {
  return hostFs.newMount("tmpfs", tmpfsOptions(sizeBytes, inodes, mode), BARE, -1);
}

/** Gives a tmpfs that newTmpfs made another size: 0 or -errno. */
export function resizeTmpfs(fd: number, sizeBytes: number, inodes: number, mode: number): number {
  return hostFs.newMount("", tmpfsOptions(sizeBytes, inodes, mode), 0, fd);
}

/** The FD of an empty directory of its own, in which nothing can be made, or -errno. */
export function newEmptyRoot(): number {
  const attributes = BARE | Attribute.readOnly | Attribute.noExec;
  return hostFs.newMount("tmpfs", textOf({ nr_inodes: 1, mode: "555" }), attributes, -1);
}

/**
 * The FD of a read-only file system that whoever has `device`, an FD of /dev/fuse, answers for, or -errno. Read-only as a whole, so that
 * the kernel doesn't ask for times of access again. default_permissions: the kernel judges modes by itself. man mount.fuse3(8).
 */
export function newFuse(device: number): number {
  const options = textOf({
    source: "burrow",
    subtype: "burrow",
    fd: device,
    rootmode: "40000",
    user_id: 0,
    group_id: 0,
    allow_other: true,
    default_permissions: true,
    ro: true,
  });
  return hostFs.newMount("fuse", options, BARE | Attribute.readOnly, -1);
}
