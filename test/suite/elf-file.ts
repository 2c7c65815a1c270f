// ELF files for tests: a shared library that needs others, with nothing in it that could run. elf(5).

interface ElfOf {
  readonly needed: readonly string[];
  readonly runpath?: string;
  /** Of the file in all. */
  readonly bytes: number;
}

const PAGE = 4_096;

export function elf({ needed, runpath, bytes }: ElfOf): Buffer {
  const file = Buffer.alloc(Math.max(bytes, 3 * PAGE));
  const u64 = (at: number, value: number) => file.writeBigUInt64LE(BigInt(value), at);
  file.write("\x7fELF\x02\x01\x01", 0, "latin1");
  file.writeUInt16LE(3, 16);
  file.writeUInt16LE(62, 18);
  u64(32, 64);
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(3, 56);
  const strings = PAGE;
  const data = file.length - PAGE;
  /** Text and tables; what is written, a page behind where it is in the file; the dynamic section in that. */
  const headers = [
    { type: 1, flags: 5, offset: 0, address: 0, length: data },
    { type: 1, flags: 6, offset: data, address: data + PAGE, length: PAGE },
    { type: 2, flags: 6, offset: data, address: data + PAGE, length: 1_024 },
  ];
  for (const [i, { type, flags, offset, address, length }] of headers.entries()) {
    const at = 64 + 56 * i;
    file.writeUInt32LE(type, at);
    file.writeUInt32LE(flags, at + 4);
    u64(at + 8, offset);
    u64(at + 16, address);
    u64(at + 32, length);
    u64(at + 40, length);
  }
  let at = 1;
  const note = (text: string) => {
    const start = at;
    at += file.write(`${text}\0`, strings + at, "latin1");
    return start;
  };
  const dynamics = needed.map((name) => [1, note(name)] as const);
  const more = runpath === undefined ? [] : [[29, note(runpath)] as const];
  for (const [i, [tag, value]] of [
    ...dynamics,
    ...more,
    [5, strings] as const,
    [10, at] as const,
  ].entries()) {
    u64(data + 16 * i, tag);
    u64(data + 16 * i + 8, value);
  }
  return file;
}
