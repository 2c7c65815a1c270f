// Small files that stand for much: what foresight holds of all of them together is bounded, in the daemon and in what makes a layer.

import v8 from "node:v8";
import vm from "node:vm";
import { test } from "tap";
import { FORESEEN_ALL_IMPORTS_MAX, FORESEEN_ALL_NEEDS_MAX } from "../../lib/base/limits.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import type { FileRange } from "../../lib/preload/elf-start.ts";
import { type Bringer, foresee } from "../../lib/preload/foresee.ts";
import type { Start } from "../../lib/preload/start.ts";
import { ViewFiles } from "../../lib/preload/view-files.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { LoopShare } from "../../lib/store/loop-share.ts";
import { elf } from "../suite/elf-file.ts";

const MIB = 1024 * 1024;
const common = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };

/** Each with a digest of its path. */
function filesOf(contents: ReadonlyMap<string, Buffer>): ViewFiles {
  const entries = [...contents].map(([path, { length: size }]): LayerEntry => {
    const blob = { digest: digestOf(Buffer.from(path)), size, blocks: [] };
    return { ...common, type: "file", path, blob };
  });
  return new ViewFiles([{ at: "/", index: new Index(writeIndex(IndexKind.snapshot, entries)) }]);
}

async function foreseeIn(
  files: ViewFiles,
  start: Partial<Start>,
  read: (path: string, range: FileRange) => Buffer | undefined,
): Promise<void> {
  const bringer: Bringer = {
    read: async ({ path }, range) => read(path.slice(1), range),
    bring: () => undefined,
  };
  const all = { program: "/p", path: [], cwd: "/", imports: [], ...start };
  await foresee(all, files, bringer, new LoopShare(5));
}

/** A library that needs so many others, by names that begin amid one of 4 KiB. */
function needy(count: number): Buffer {
  const file = elf({ needed: [], bytes: 48 * 1024 });
  const [strings, dynamics] = [4_096, 16_384];
  const u64 = (at: number, value: number) => file.writeBigUInt64LE(BigInt(value), at);
  u64(64 + 2 * 56 + 8, dynamics);
  u64(64 + 2 * 56 + 32, 16 * (count + 2));
  file.fill("a", strings, strings + 4_000);
  for (let i = 0; i < count; i++) u64(dynamics + 16 * i, 1);
  for (let i = 0; i < count; i++) u64(dynamics + 16 * i + 8, i);
  u64(dynamics + 16 * count, 5);
  u64(dynamics + 16 * count + 8, strings);
  return file;
}

test("libraries that are linked with a thousand others each", async (t) => {
  const count = 40;
  const names = Array.from({ length: count }, (_, i) => `${i}`);
  const library = needy(1_000);
  const contents = new Map(names.map((name) => [`lib/${name}`, library]));
  contents.set("p", elf({ needed: names, bytes: 64 * 1024 }));
  let reads = 0;
  let bytes = 0;
  await foreseeIn(filesOf(contents), {}, (path, { offset, end }) => {
    const got = contents.get(path)!.subarray(offset, end);
    reads++;
    bytes += got.length;
    return got;
  });
  t.ok(reads < FORESEEN_ALL_NEEDS_MAX + 10 * count, `${reads} reads`);
  t.ok(bytes < 16 * MIB, `${bytes} bytes`);
});

test("libraries in a long chain hold no content of each other", async (t) => {
  v8.setFlagsFromString("--expose-gc");
  const collect: () => void = vm.runInNewContext("gc");
  const count = 50;
  const next = (i: number) => elf({ needed: [`${i}`], bytes: 16 * 1024 });
  const contents = new Map([["p", next(0)]]);
  for (let i = 0; i < count; i++) contents.set(`lib/${i}`, next(i + 1));
  let seen = 0;
  let heldBytes = 0;
  await foreseeIn(filesOf(contents), {}, (path, { offset, end }) => {
    const all = Buffer.alloc(MIB);
    contents.get(path)!.copy(all);
    if (path === `lib/${count - 1}`) {
      collect();
      heldBytes = process.memoryUsage().arrayBuffers;
    }
    seen++;
    return all.subarray(offset, end);
  });
  t.ok(seen > count);
  t.ok(heldBytes > 0 && heldBytes < 20 * MIB, `${heldBytes} bytes`);
});

test("modules that import one long list each", async (t) => {
  const lib = "usr/lib/python3.11";
  const list = `from x import ${"a,".repeat(8_000)}\n`;
  const contents = new Map<string, Buffer>([[`${lib}/os.py`, Buffer.alloc(0)]]);
  contents.set("usr/bin/python3", elf({ needed: [], bytes: 64 * 1024 }));
  contents.set("s", Buffer.from("import m0"));
  for (let i = 0; i < 100; i++)
    contents.set(`${lib}/m${i}.py`, Buffer.from(`import m${i + 1}\n${list}`));
  let names = 0;
  const start = { program: "/usr/bin/python3", script: "/s" };
  await foreseeIn(filesOf(contents), start, (path, { offset, end }) => {
    if (path.includes("/m")) names += 8_001;
    return contents.get(path)!.subarray(offset, end);
  });
  t.ok(names > FORESEEN_ALL_IMPORTS_MAX / 2, `${names} names`);
  t.ok(names <= FORESEEN_ALL_IMPORTS_MAX + 3 * 8_001, `${names} names`);
});
