// Files that are made to cost the daemon, whose one loop all sandboxes of a node wait for: what foresight makes of them is bounded, and
// the loop turns meanwhile.

import { test } from "tap";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { type Bringer, foresee } from "../../lib/preload/foresee.ts";
import { importsOfCode } from "../../lib/preload/python-code.ts";
import { importsOfText, type PythonImport } from "../../lib/preload/python-text.ts";
import type { Start } from "../../lib/preload/start.ts";
import { type ViewFile, ViewFiles } from "../../lib/preload/view-files.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { LoopShare } from "../../lib/store/loop-share.ts";
import { elf } from "../suite/elf-file.ts";

const KIB = 1024;
const charsOf = (found: readonly PythonImport[]) =>
  found.reduce((sum, { module, names }) => sum + module.length + names.join().length, 0);

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
/** A marshalled object with its length before it. */
function marshal(type: string, bytes: Buffer, count = bytes.length): Buffer {
  return Buffer.concat([Buffer.from(type), u32(count), bytes]);
}

/** Byte code of 3.8 that imports over and over, by constants and names of these bytes. */
function importing(consts: Buffer, names: Buffer, times: number): Buffer {
  const code = Buffer.alloc(4 + 2 * times, Buffer.from([108, 0]));
  code.set([100, 0, 100, 1]);
  const header = Buffer.alloc(16);
  header.writeUInt16LE(3413);
  header.set([0x0d, 0x0a], 2);
  const head = Buffer.concat([Buffer.from("c"), Buffer.alloc(24)]);
  return Buffer.concat([
    header,
    head,
    marshal("s", code),
    marshal("(", consts, 2),
    marshal("(", names, 1),
    Buffer.alloc(64, "N"),
  ]);
}

test("byte code that imports one long list again and again", async (t) => {
  const many = 64 * KIB;
  const list = marshal("(", Buffer.alloc(2 * many, "z\0"), many);
  const zero = marshal("i", Buffer.alloc(0), 0);
  const short = Buffer.from("z\x01a");
  const lists = importing(Buffer.concat([zero, list]), short, 100_000);
  t.ok(lists.length < 512 * KIB);
  const found = importsOfCode(lists) ?? [];
  t.ok(found.reduce((sum, { names }) => sum + names.length, 0) <= 2 * many);

  const none = Buffer.from("N");
  const long = marshal("a", Buffer.alloc(200 * KIB, "m"));
  const modules = importing(Buffer.concat([zero, none]), long, 100_000);
  t.ok(charsOf(importsOfCode(modules) ?? []) <= 512 * KIB);
});

test("text that is all blanks, names or strings", async (t) => {
  const each = {
    blanks: "a ".repeat(256 * KIB),
    strings: "''\"\" ".repeat(100 * KIB),
    names: `from a import ${"a,".repeat(256 * KIB)}`,
    dots: `import ${"a.".repeat(7 * KIB)}a\n`.repeat(36),
  };
  for (const [name, text] of Object.entries(each))
    t.ok(charsOf(importsOfText(text)) <= 512 * KIB, name);
});

const common = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };

/** A view's files that count how many are looked for, in all and between two turns of the loop, and in directories that are listed. */
class CountedFiles extends ViewFiles {
  looked = 0;
  listed = 0;
  turns = 0;
  keyChars = 0;
  readonly #contents: ReadonlyMap<string, Buffer>;

  constructor(contents: Readonly<Record<string, Buffer | string>>) {
    const bytesOf = (content: Buffer | string) => Buffer.from(content);
    const entries = Object.entries(contents).map(([path, content]): LayerEntry => {
      const bytes = bytesOf(content);
      const blob = { digest: digestOf(Buffer.from(path)), size: bytes.length, blocks: [] };
      return { ...common, type: "file", path, blob };
    });
    super([{ at: "/", index: new Index(writeIndex(IndexKind.snapshot, entries)) }]);
    const all = Object.entries(contents).map(([path, of]) => [`/${path}`, bytesOf(of)] as const);
    this.#contents = new Map(all);
  }

  override file(path: string): ViewFile | undefined {
    this.looked++;
    this.keyChars += path.length;
    return super.file(path);
  }

  override names(path: string): readonly string[] {
    const names = super.names(path);
    this.listed += names.length;
    this.keyChars += path.length;
    return names;
  }

  async foresee(start: Partial<Start>): Promise<void> {
    const turned = () => {
      this.turns++;
      timer = setImmediate(turned);
    };
    let timer = setImmediate(turned);
    const bringer: Bringer = {
      read: async ({ path }, { offset, end }) => this.#contents.get(path)?.subarray(offset, end),
      bring: () => undefined,
    };
    const all = { program: "/p", path: [], cwd: "/", imports: [], ...start };
    await foresee(all, this, bringer, new LoopShare(5));
    clearImmediate(timer);
  }
}

test("libraries that are looked for in thousands of directories", async (t) => {
  const needed = Array.from({ length: 50 }, (_, i) => `${i}`);
  const runpath = Array.from({ length: 1000 }, (_, i) => i).join(":");
  const program = elf({ needed, runpath, bytes: 64 * KIB });
  const files = new CountedFiles({ p: program });
  await files.foresee({});
  t.ok(files.looked < 10_000, `${files.looked}`);
});

test("a PATH of a thousand directories, each thousands deep", async (t) => {
  const files = new CountedFiles({ [`${"a/".repeat(100)}b`]: "x" });
  const path = Array.from({ length: 1024 }, (_, i) => `${"/a/..".repeat(800)}/${i}`);
  await files.foresee({ program: "nothing", path });
  t.equal(files.looked, 1024);
  t.ok(files.turns > 0, "the loop turned");
});

const LIB = "usr/lib/python3.11";
const PYTHON = { "usr/bin/python3": elf({ needed: [], bytes: 64 * KIB }), [`${LIB}/os.py`]: "" };

test("modules with names of thousands of parts", async (t) => {
  const script = `import ${"a.".repeat(7 * KIB)}a\n`.repeat(30);
  const files = new CountedFiles({ ...PYTHON, s: script });
  await files.foresee({ program: "/usr/bin/python3", script: "/s" });
  t.ok(files.keyChars < 1e6, `${files.keyChars}`);
});

test("directories of many names", async (t) => {
  const names = Array.from({ length: 17_000 }, (_, i) => [`d/${i}`, ""] as const);
  const files = new CountedFiles(Object.fromEntries(names));
  t.equal(files.names("/d").length, 16_384);
  for (let i = 1; i < 20; i++) files.names(`/d${"/.".repeat(i)}`);
  t.equal(files.listed, 131_072);
});

test("many side by side have no more of a turn than one", async (t) => {
  const share = new LoopShare(5);
  let turns = 0;
  const turned = () => {
    turns++;
    timer = setImmediate(turned);
  };
  let timer = setImmediate(turned);
  const parts = Array.from({ length: 50 }, async () => {
    await share.run(() => {
      for (const end = performance.now() + 2; performance.now() < end; );
    });
  });
  await Promise.all(parts);
  clearImmediate(timer);
  t.ok(turns >= 10, `${turns}`);
});
