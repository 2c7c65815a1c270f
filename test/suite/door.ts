// Door: a file system as its clients see it, by paths, whatever stands behind: a directory of this machine (a kernel's mount among
// them) or a server that is spoken to. All doors are asked in the same way, so that what they say can be compared. Tests only.

/** Names below the root, latin1, one char a byte; empty: the root. No symlink is followed: one in the middle is ENOTDIR. */
export type Path = readonly string[];

/** What one of several doors knows of a file. */
export interface Facts {
  readonly type: FileType;
  /** Permission bits. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes. */
  readonly size: number;
  readonly mtimeSec: number;
  readonly mtimeNs: number;
  /** Whatever tells two files of this door apart. */
  readonly id: string;
}

export type FileType = "file" | "directory" | "symlink" | "other";

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_TRUNC = 0o1000;

/** An attribute is left as it is when it isn't said. */
export interface Change {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  /** Of both times, whole seconds. */
  readonly timeSec?: number;
}

/** Every call gives a number < 0, -errno, where it is refused. Handles are those of open and create. */
export interface Door {
  readonly name: string;
  stat(path: Path): Facts | number;
  readlink(path: Path): string | number;
  /** Names with what they name, in no order, without "." and "..". */
  list(path: Path): readonly { readonly name: string; readonly type: FileType }[] | number;
  listXattrs(path: Path): readonly string[] | number;
  getXattr(path: Path, name: string): string | number;

  /** flags: access mode and O_TRUNC. Of what is no symlink. */
  open(path: Path, flags: number): number;
  fstat(handle: number): Facts | number;
  read(handle: number, offset: number, bytes: number): Buffer | number;
  close(handle: number): void;

  /** Creates exclusively, and opens. */
  create(path: Path, flags: number, mode: number): number;
  write(handle: number, offset: number, bytes: Uint8Array): number;
  fsync(handle: number): number;
  /** By its handle, where it has one. Of what is no symlink, unless only owner or times change. */
  change(path: Path, change: Change): number;
  truncate(handle: number, size: number): number;
  mkdir(path: Path, mode: number): number;
  symlink(path: Path, target: string): number;
  link(path: Path, newPath: Path): number;
  unlink(path: Path): number;
  rmdir(path: Path): number;
  rename(path: Path, newPath: Path): number;
  /** flags: XATTR_CREATE 1, XATTR_REPLACE 2. */
  setXattr(path: Path, name: string, value: string, flags: number): number;
  removeXattr(path: Path, name: string): number;

  /** Gives back all that is open. */
  dispose(): void;
}

const S_IFMT = 0o170000;

export function fileType(mode: number): FileType {
  const type = mode & S_IFMT;
  if (type === 0o100000) return "file";
  if (type === 0o040000) return "directory";
  return type === 0o120000 ? "symlink" : "other";
}

/** Of DT_*. */
export function direntType(type: number): FileType {
  return fileType(type << 12);
}

/** Where a path's last name is made or removed. Throws for the root. */
export function parentOf(path: Path): { parent: Path; name: string } {
  const name = path.at(-1);
  if (name === undefined) throw new Error("the root has no parent");
  return { parent: path.slice(0, -1), name };
}
