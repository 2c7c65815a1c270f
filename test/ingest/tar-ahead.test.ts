// What a reader of tars hashes ahead: digests that are right or none, whatever headers and records say; and errors in their place,
// behind all that came before them.

import { hash } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "tap";
import { contentsIn } from "../../lib/ingest/tar-block.ts";
import { TarReader } from "../../lib/ingest/tar-reader.ts";
import { hasLanes } from "../../lib/store/lanes.ts";
import { noise } from "../suite/daemon-node.ts";
import { END, gnuLong, pax, tar } from "./archives.ts";

const HOOKS = { onBytes: () => undefined, explain: (cause: unknown) => cause };

/** Of each entry: its name, and whether its digest was known; throws when that is wrong. */
async function read(source: Readable, hooks: ConstructorParameters<typeof TarReader>[1] = HOOKS) {
  const reader = new TarReader(source, hooks);
  const seen: { name: string; isKnown: boolean }[] = [];
  let error: unknown;
  try {
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      const { name, content } = entry;
      const digest = hash("sha256", await content.whole(), "hex");
      if (content.digest !== undefined && content.digest !== digest)
        throw new Error("wrong digest");
      seen.push({ name, isKnown: content.digest !== undefined });
    }
  } catch (cause) {
    error = cause;
  }
  reader.close();
  return { seen, error, reader };
}

const from = (archive: Buffer) => Readable.from([archive], { objectMode: false });
const files = (count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => ({
    name: `file-${from + i}`,
    content: `content ${from + i} `.repeat(i % 50),
  }));

test("files are hashed ahead, but for empty ones", async (t) => {
  const large = { name: "large", content: noise(900_000) };
  const archive = tar(...files(300), large, ...files(300, 300));
  const { seen, error, reader } = await read(from(archive));
  t.equal(error, undefined);
  t.equal(seen.length, 601);
  t.ok(reader.isWhole);
  const known = seen.filter(({ isKnown }) => isKnown).length;
  t.equal(known, hasLanes ? 600 - 12 : 0, "all but the empty ones and one that is far longer");
});

test("a digest is of the content that the records say, or there is none", async (t) => {
  const odd = tar(
    ...files(20),
    // The header says 40 bytes, the records 3: what the header's size spans is another's.
    pax({ size: "3" }),
    { name: "shorter", content: "abc", size: "00000000050" },
    ...files(20, 20),
    gnuLong("long/".repeat(40), "L"),
    { name: "x", content: "behind a long name" },
    { name: "folder/", type: "5", size: "00000000777" },
    { name: "link", type: "2", linkname: "file-1" },
    ...files(20, 40),
  );
  const { seen, error } = await read(from(odd));
  t.equal(error, undefined);
  t.equal(seen.length, 64);
  t.equal(seen.find(({ name }) => name === "shorter")?.isKnown, false);
});

test("an error of the source comes behind all entries before it", async (t) => {
  const archive = tar(...files(50));
  const whole = archive.subarray(0, archive.length - END.length);
  const source = Readable.from(
    (function* () {
      yield whole;
      throw new Error("the disk is gone");
    })(),
    { objectMode: false },
  );
  const { seen, error } = await read(source);
  t.equal(seen.length, 50);
  t.match(error, { message: "the disk is gone" });
  let count = 0;
  const over = await read(Readable.from([whole, END], { objectMode: false }), {
    ...HOOKS,
    onBytes: (bytes) => {
      count += bytes;
      return count > whole.length ? new Error("over") : undefined;
    },
  });
  t.equal(over.seen.length, 50);
  t.match(over.error, { message: "over" });
  const cut = await read(from(archive.subarray(0, whole.length - 600)));
  t.equal(cut.seen.length, 49);
  t.match(cut.error, { message: "it ends too soon" });
});

test("guesses of where contents lie stay inside", (t) => {
  const archive = tar(...files(5));
  for (let length = 0; length <= archive.length; length += 256) {
    const { pieces, end } = contentsIn(archive.subarray(0, length));
    t.ok(end <= length + 511 && pieces.every((one) => one.start + one.length <= length));
  }
  const endless = tar({ name: "x", content: "", size: "77777777777" });
  t.same(contentsIn(endless), { pieces: [], end: 0 });
  const none = tar({ name: "x", content: "", size: "what is it" });
  t.same(contentsIn(none), { pieces: [], end: 0 });
  t.same(contentsIn(Buffer.alloc(0)), { pieces: [], end: 0 });
  t.end();
});
