// Attr: the attributes of an inode, kept in the layout in which LISAFS sends them (Statx, 144 bytes; lisafs-wire section 3.1), so
// that a reply is one copy. While the code is not optimized yet, which is most of a sandbox's start, twenty stores through
// objects and a DataView cost more than the lookup itself. Little-endian hosts only. Any plane.

export const STATX_BYTES = 144;
/** STATX_BASIC_STATS: all but btime, as stock revisions before 2025 send. */
const STATX_MASK = 0x7ff;

/** Position in words (u32) of each field; the two-word ones are u64 or i64, low word first. LISAFS: statx.go Statx. */
export const StatxWord = {
  mask: 0,
  blockSize: 1,
  nlink: 4,
  uid: 5,
  gid: 6,
  mode: 7,
  ino: 8,
  size: 10,
  blocks: 12,
  atimeSec: 16,
  atimeNs: 18,
  ctimeSec: 24,
  ctimeNs: 26,
  mtimeSec: 28,
  mtimeNs: 30,
  rdevMajor: 32,
  rdevMinor: 33,
  devMajor: 34,
  devMinor: 35,
} as const;

const TWO_32 = 0x1_0000_0000;
const W = StatxWord;

/** One object is reused for all calls: copy what you keep. */
export class Attr {
  readonly words = new Uint32Array(STATX_BYTES / 4);
  readonly bytes = new Uint8Array(this.words.buffer);

  constructor() {
    this.words[W.mask] = STATX_MASK;
    this.words[W.blockSize] = 4096;
  }

  /** Stores a safe integer of either sign as two words. */
  #setLong(at: number, value: number): void {
    this.words[at] = value >>> 0;
    this.words[at + 1] = value >= 0 && value < TWO_32 ? 0 : Math.floor(value / TWO_32);
  }

  #long(at: number): number {
    return this.words[at + 1]! * TWO_32 + this.words[at]!;
  }

  #signedLong(at: number): number {
    return (this.words[at + 1]! | 0) * TWO_32 + this.words[at]!;
  }

  get ino(): number {
    return this.#long(W.ino);
  }
  set ino(value: number) {
    this.#setLong(W.ino, value);
  }
  /** st_size, bytes. */
  get size(): number {
    return this.#long(W.size);
  }
  set size(value: number) {
    this.#setLong(W.size, value);
  }
  /** Units of 512 bytes. */
  get blocks(): number {
    return this.#long(W.blocks);
  }
  set blocks(value: number) {
    this.#setLong(W.blocks, value);
  }
  get blockSize(): number {
    return this.words[W.blockSize]!;
  }
  set blockSize(value: number) {
    this.words[W.blockSize] = value;
  }
  /** Type and permissions. On the wire a u16; the upper half is zero. */
  get mode(): number {
    return this.words[W.mode]!;
  }
  set mode(value: number) {
    this.words[W.mode] = value & 0xffff;
  }
  get nlink(): number {
    return this.words[W.nlink]!;
  }
  set nlink(value: number) {
    this.words[W.nlink] = value;
  }
  get uid(): number {
    return this.words[W.uid]!;
  }
  set uid(value: number) {
    this.words[W.uid] = value;
  }
  get gid(): number {
    return this.words[W.gid]!;
  }
  set gid(value: number) {
    this.words[W.gid] = value;
  }
  get rdevMajor(): number {
    return this.words[W.rdevMajor]!;
  }
  set rdevMajor(value: number) {
    this.words[W.rdevMajor] = value;
  }
  get rdevMinor(): number {
    return this.words[W.rdevMinor]!;
  }
  set rdevMinor(value: number) {
    this.words[W.rdevMinor] = value;
  }
  get devMajor(): number {
    return this.words[W.devMajor]!;
  }
  set devMajor(value: number) {
    this.words[W.devMajor] = value;
  }
  get devMinor(): number {
    return this.words[W.devMinor]!;
  }
  set devMinor(value: number) {
    this.words[W.devMinor] = value;
  }
  get atimeSec(): number {
    return this.#signedLong(W.atimeSec);
  }
  set atimeSec(value: number) {
    this.#setLong(W.atimeSec, value);
  }
  get atimeNs(): number {
    return this.words[W.atimeNs]!;
  }
  set atimeNs(value: number) {
    this.words[W.atimeNs] = value;
  }
  get mtimeSec(): number {
    return this.#signedLong(W.mtimeSec);
  }
  set mtimeSec(value: number) {
    this.#setLong(W.mtimeSec, value);
  }
  get mtimeNs(): number {
    return this.words[W.mtimeNs]!;
  }
  set mtimeNs(value: number) {
    this.words[W.mtimeNs] = value;
  }
  get ctimeSec(): number {
    return this.#signedLong(W.ctimeSec);
  }
  set ctimeSec(value: number) {
    this.#setLong(W.ctimeSec, value);
  }
  get ctimeNs(): number {
    return this.words[W.ctimeNs]!;
  }
  set ctimeNs(value: number) {
    this.words[W.ctimeNs] = value;
  }
}
