// GoldenTree: the Tree contract over constants: the values of the recorded replies, whatever is asked. Its root is a file when
// it is opened for writing, a directory when walked. Tests only.

import type {
  Attr,
  DirentSink,
  Ino,
  OpenResult,
  SetAttrRequest,
  StatFs,
  WritableTree,
} from "../../lib/tree/tree.ts";

export const LINK_NAME = "ab";
const LINK_INO = 7;
const S_IFLNK = 0o120000;

/** The recorded mode: permission bits and a type of no kind. */
const RECORDED_MODE = 0x5152;

function fill(out: Uint8Array, text: string): number {
  out.set(Buffer.from(text, "latin1"));
  return text.length;
}

export class GoldenTree implements WritableTree {
  readonly isReadOnly = false;
  readonly isStateless = false;
  readonly rootIno = 1 as Ino;
  /** What the next getattr says of the root. */
  mode = RECORDED_MODE;
  #isListed = false;

  lookup(_dir: Ino, name: string): number {
    return name === LINK_NAME ? LINK_INO : 8;
  }
  acquire(): number {
    return 0;
  }
  release(): void {}

  getattr(ino: Ino, out: Attr): number {
    out.words.fill(0, 1);
    out.ino = ino;
    out.mode = ino === LINK_INO ? S_IFLNK : this.mode;
    out.blockSize = 0x05060708;
    out.nlink = 0x21222324;
    out.uid = 0x31323334;
    out.gid = 0x41424344;
    out.atimeSec = 0xa01;
    out.atimeNs = 0xa02;
    out.ctimeSec = 0xc01;
    out.ctimeNs = 0xc02;
    out.mtimeSec = 0xd01;
    out.mtimeNs = 0xd02;
    out.rdevMajor = 0xe1;
    out.rdevMinor = 0xe2;
    out.devMajor = 0xf1;
    out.devMinor = 0xf2;
    return 0;
  }

  fgetattr(ino: Ino, _handle: number, out: Attr): number {
    return this.getattr(ino, out);
  }
  readlink(_ino: Ino, out: Uint8Array): number {
    return fill(out, "/t");
  }
  opendir(): number {
    return 0;
  }

  /** Three dentries at first, then the recorded one. */
  readdir(_ino: Ino, _handle: number, cookie: number, sink: DirentSink): number {
    const name = "n";
    if (!this.#isListed) {
      this.#isListed = true;
      return 3;
    }
    return sink(1, 2, 8, name) ? cookie + 1 : cookie;
  }
  closedir(): void {}

  open(_ino: Ino, _flags: number, out: OpenResult): number {
    out.handle = 0;
    out.hostFd = -1;
    return 0;
  }
  read(_ino: Ino, _handle: number, _offset: number, out: Uint8Array): number {
    return fill(out, "xyz");
  }
  close(): void {}

  statfs(_ino: Ino, out: StatFs): number {
    out.blockSize = 2;
    out.blocks = 3;
    out.blocksFree = 4;
    out.blocksAvailable = 5;
    out.files = 6;
    out.filesFree = 7;
    out.nameLength = 8;
    return 0;
  }
  getxattr(_ino: Ino, _name: string, out: Uint8Array): number {
    return fill(out, "v");
  }
  listxattr(_ino: Ino, out: Uint8Array): number {
    return fill(out, "user.a\0user.b\0");
  }

  setattr(_ino: Ino, _handle: number, request: SetAttrRequest): number {
    request.failureMask = 0x200;
    request.failureErrno = 22;
    return 0;
  }
  write(_ino: Ino, _handle: number, _offset: number, bytes: Uint8Array): number {
    return bytes.length;
  }
  create(_dir: Ino, _name: string, _request: unknown, flags: number, out: OpenResult): number {
    return this.open(8 as Ino, flags, out) < 0 ? -1 : 8;
  }
  mkdir(): number {
    return 8;
  }
  symlink(): number {
    return 8;
  }
  mknod(): number {
    return 8;
  }
  link(): number {
    return 8;
  }
  fsync(): number {
    return 0;
  }
  fsyncdir(): number {
    return 0;
  }
  allocate(): number {
    return 0;
  }
  unlink(): number {
    return 0;
  }
  rename(): number {
    return 0;
  }
  setxattr(): number {
    return 0;
  }
  removexattr(): number {
    return 0;
  }
  dispose(): void {}
}
