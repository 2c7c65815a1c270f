// Decompression: every kind whole, cut, empty and damaged; a child that ends with its stream; a program that is missing.

import { execFileSync } from "node:child_process";
import { readdirSync, readlinkSync } from "node:fs";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { test } from "tap";
import { type Compression, decompressed, kindOf } from "../../lib/ingest/decompress.ts";
import { sleep, until } from "../suite/wait.ts";

const CONTENT = Buffer.from(Array.from({ length: 60_000 }, (_, i) => `${i * 7919} `).join(""));
const PROGRAMS = { zst: "zstd", bz2: "bzip2", xz: "xz" } as const;

/** The content compressed, or undefined when this machine can't. */
function compressed(kind: Compression): Buffer | undefined {
  if (kind === "none") return CONTENT;
  if (kind === "gz") return gzipSync(CONTENT);
  try {
    return execFileSync(PROGRAMS[kind], ["-c"], {
      input: CONTENT,
      maxBuffer: 1 << 28,
      stdio: "pipe",
    });
  } catch {
    return undefined;
  }
}

async function read(source: Readable): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of source) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

function through(bytes: Buffer, kind: Compression): Promise<Buffer> {
  return read(decompressed(Readable.from([bytes], { objectMode: false }), kind, "a.tar"));
}

/** Processes of this one's that run a program. */
function children(program: string): number {
  let count = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const exe = readlinkSync(`/proc/${pid}/exe`);
      if (!exe.endsWith(`/${program}`)) continue;
      const stat = execFileSync("cat", [`/proc/${pid}/stat`], {
        encoding: "latin1",
        stdio: "pipe",
      });
      if (stat.split(") ")[1]!.split(" ")[1] === String(process.pid)) count++;
    } catch {
      // It has ended since.
    }
  }
  return count;
}

for (const kind of ["gz", "zst", "bz2", "xz"] as const) {
  const bytes = compressed(kind);
  const options = bytes === undefined ? { skip: `${kind}: its program is not installed` } : {};
  test(`${kind}: whole, cut, empty, damaged`, options, async (t) => {
    const whole = bytes!;
    t.equal(kindOf(whole), kind);
    t.ok((await through(whole, kind)).equals(CONTENT));
    const twice = await through(Buffer.concat([whole, whole]), kind);
    t.equal(twice.length, 2 * CONTENT.length, "one after the other");
    const bad = { code: "BURROW_BAD_ARCHIVE", context: { archive: "a.tar" } };
    for (const length of [0, 1, 5, 100, whole.length >> 1, whole.length - 1]) {
      await t.rejects(through(whole.subarray(0, length), kind), bad, `cut at ${length}`);
    }
    const flipped = Buffer.from(whole);
    flipped[whole.length >> 1] = flipped[whole.length >> 1]! ^ 0xff;
    await t.rejects(through(flipped, kind), bad, "damaged");
    await t.rejects(through(CONTENT, kind), bad, "something else");
  });

  test(`${kind}: errors of the source, and destruction`, options, async (t) => {
    const failing = new Readable({
      read() {
        this.push(bytes!.subarray(0, 100));
        this.destroy(new Error("the disk is gone"));
      },
    });
    await t.rejects(read(decompressed(failing, kind, "a.tar")), { message: "the disk is gone" });
    const stalled = new Readable({ read() {} });
    const out = decompressed(stalled, kind, "a.tar");
    const reading = read(out).catch(() => "ended");
    await sleep(20);
    out.destroy();
    t.equal(await reading, "ended");
    t.ok(stalled.destroyed, "the source goes with it");
    if (kind === "gz") return;
    t.ok(await until(() => children(PROGRAMS[kind]) === 0), "and the child");
  });
}

test("a program that is missing is named by its package", async (t) => {
  const path = process.env["PATH"];
  process.env["PATH"] = "/nonexistent";
  t.teardown(() => {
    process.env["PATH"] = path;
  });
  for (const [kind, debian] of [
    ["bz2", "bzip2"],
    ["xz", "xz-utils"],
  ] as const) {
    const wanted = { code: "BURROW_UNSUPPORTED", message: new RegExp(`Debian package ${debian}`) };
    await t.rejects(through(Buffer.from("x"), kind), wanted);
  }
});

test("kinds by name and by first bytes", (t) => {
  const names: [string, Compression][] = [
    ["a.tar", "none"],
    ["a.tar.gz", "gz"],
    ["a.TGZ", "gz"],
    ["pkg-numpy.tar.zst", "zst"],
    ["a.tar.bz2", "bz2"],
    ["data.tar.xz", "xz"],
    ["a.txz", "xz"],
    ["gz", "none"],
  ];
  for (const [name, kind] of names) t.equal(kindOf(name), kind, name);
  t.equal(kindOf(Buffer.from("512a4d1800000000", "hex")), "zst", "a skippable frame first");
  t.equal(kindOf(Buffer.alloc(0)), "none");
  t.equal(kindOf(Buffer.from("./file")), "none");
  t.end();
});
