// Owns: where a tar inside a package ends, and content that is no file's: what readers of archives differ in. Plane: control.

import t from "tap";
import { readCondaArchive } from "../../../lib/ingest/conda/archive.ts";
import {
  bz2,
  failureOf,
  fileOf,
  imported,
  infoOf,
  type Member,
  type Spec,
  tarOf,
  zipOf,
  zst,
} from "./packages.ts";

const BLOCK = 512;
const a: Member = { name: "lib/a", content: "a" };
const spec: Spec = { files: [a] };

async function zipped(pkg: Buffer, of: Spec = spec): Promise<Buffer> {
  return zipOf([
    { name: "info-a.tar.zst", content: zst(await tarOf(infoOf(of))) },
    { name: "pkg-a.tar.zst", content: zst(pkg) },
  ]);
}

async function namesOf(bytes: Buffer): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of readCondaArchive(fileOf(bytes))) names.push(name);
  return names;
}

/** Writes a size into the tar header at `at`, and the checksum that fits. POSIX pax "ustar Interchange Format". */
function claim(tar: Buffer, at: number, size: number): void {
  tar.write(`${size.toString(8).padStart(11, "0")}\0`, at + 124, "latin1");
  tar.fill(" ", at + 148, at + 156);
  const sum = tar.subarray(at, at + BLOCK).reduce((total, byte) => total + byte, 0);
  tar.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148, "latin1");
}

t.test("a tar without its end mark is cut, though all that is listed is there", async (t) => {
  const tar = await tarOf([a]);
  const end = 2 * BLOCK;
  t.match(
    await failureOf(imported(await zipped(tar.subarray(0, end)))),
    /^BURROW_BAD_ARCHIVE\nits tar is cut: its end mark is missing\narchive: demo-1.0-h0_0.conda$/,
  );
  const info = await tarOf([...infoOf(spec), a]);
  const cut = info.subarray(0, info.length - 2 * BLOCK);
  t.match(await failureOf(imported(bz2(cut))), /^BURROW_BAD_ARCHIVE\nits tar is cut/);
  const zeros = { name: "lib/a", content: Buffer.alloc(4 * BLOCK) };
  const noMark = (await tarOf([zeros])).subarray(0, 5 * BLOCK);
  t.match(
    await failureOf(imported(await zipped(noMark, { files: [zeros] }))),
    /^BURROW_BAD_ARCHIVE\nits tar is cut/,
    "zeros of a file are no end mark",
  );
  const one = Buffer.concat([tar.subarray(0, end), Buffer.alloc(BLOCK)]);
  t.equal(await failureOf(imported(await zipped(one))), "no error", "one block will do");
  const padded = Buffer.concat([tar, Buffer.alloc(20 * BLOCK)]);
  t.equal(await failureOf(imported(await zipped(padded))), "no error", "and so will many");
  const empty = Buffer.alloc(2 * BLOCK);
  t.equal(await failureOf(imported(await zipped(empty, {}))), "no error", "a tar of nothing");
});

t.test("content of what is no file is refused: it would hide an entry", async (t) => {
  const hidden = (await tarOf([{ name: "hidden" }])).subarray(0, BLOCK);
  for (const type of ["link", "symlink", "directory"] as const) {
    const link = { name: "lib/b", type, ...(type === "directory" ? {} : { target: "lib/a" }) };
    const tar = (await tarOf([a, link])).subarray(0, 3 * BLOCK);
    claim(tar, 2 * BLOCK, BLOCK);
    const pkg = Buffer.concat([tar, hidden, Buffer.alloc(2 * BLOCK)]);
    t.match(
      await failureOf(imported(await zipped(pkg))),
      new RegExp(`^BURROW_BAD_ARCHIVE\nit is a ${type} and claims 512 bytes.*entry: lib/b`, "s"),
      type,
    );
  }
});

t.test("names as archived, but for ./ at their start", async (t) => {
  const files = ["./lib/a", ".//./lib/b", "lib/./c"].map((name) => ({ name, content: "" }));
  t.same(await namesOf(bz2(await tarOf(files))), ["lib/a", "lib/b", "lib/./c"]);
});
