// Owns: placeholders replaced as conda replaces them: C strings in place, text of any length, five encodings, shebangs.
// Plane: control. Random ones with a printed seed.

import fc from "fast-check";
import t from "tap";
import { BurrowError } from "../../../lib/base/error.ts";
import { type FileMode, replacePlaceholder } from "../../../lib/ingest/conda/prefix.ts";
import { PLACEHOLDER } from "./packages.ts";

const OLD = "/old/placeholder";
const context = { package: "demo-1.0-0.conda", file: "bin/x" };

function patched(
  content: Buffer | string,
  mode: FileMode,
  prefix: string,
  text: string = OLD,
): string {
  const bytes = Buffer.from(content as string, "latin1");
  return replacePlaceholder(bytes, { text, mode }, prefix, context).toString("latin1");
}

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`seed ${seed}`);
const runs = { seed, numRuns: 500 };

t.test("a C string without room is refused, naming package and file", async (t) => {
  try {
    patched(`x${OLD}/lib\0`, "binary", `${OLD}-and-more`);
    t.fail("it was not refused");
  } catch (error) {
    t.ok(error instanceof BurrowError);
    t.match(error, { code: "BURROW_PREFIX_TOO_LONG", context });
  }
  t.equal(patched("nothing here\0", "binary", `${OLD}-and-more`), "nothing here\0", "no matter");
});

t.test("each C string is padded at its own end", async (t) => {
  const before = `\0${OLD}/lib:${OLD}/bin\0after\0-R${OLD}\0${OLD}${OLD}/x\0end`;
  const after = patched(before, "binary", "/e");
  const pad = (count: number) => "\0".repeat(count * (OLD.length - 2));
  t.equal(after, `\0/e/lib:/e/bin${pad(2)}\0after\0-R/e${pad(1)}\0/e/e/x${pad(2)}\0end`);
  t.equal(after.length, before.length);
});

t.test("bytes that no NUL ends stay, as with conda", async (t) => {
  t.equal(patched(`a\0${OLD}/x`, "binary", "/e"), `a\0${OLD}/x`);
  t.equal(patched("", "binary", "/e"), "");
});

t.test("the same length, whatever the bytes", async () => {
  const piece = fc.oneof(
    fc.constantFrom(OLD, OLD, "\0", "/lib", OLD.slice(0, -1), "\xff"),
    fc.string({ maxLength: 5 }),
  );
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 30 }),
      fc.integer({ min: 0, max: OLD.length }),
      (parts, size) => {
        const before = Buffer.from(`${parts.join("")}`, "latin1").toString("latin1");
        const prefix = `/${"p".repeat(Math.max(0, size - 1))}`;
        const after = patched(before, "binary", prefix);
        // By the book: conda's expression, on strings.
        const expected = before.replace(new RegExp(`${OLD}[^\0]*\0`, "gs"), (found) => {
          const text = found.replaceAll(OLD, prefix);
          return text + "\0".repeat(found.length - text.length);
        });
        return after.length === before.length && after === expected;
      },
    ),
    runs,
  );
});

t.test("text is replaced everywhere, to any length", async () => {
  const piece = fc.oneof(fc.constantFrom(OLD, "\n", "/lib", "\0"), fc.string({ maxLength: 5 }));
  const prefix = fc
    .string({ minLength: 1, maxLength: 40 })
    .map((text) => `/${text.replace(/[^a-z]/g, "x")}`);
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), prefix, (parts, to) => {
      const before = Buffer.from(`x${parts.join("")}`, "latin1").toString("latin1");
      return patched(before, "text", to) === before.replaceAll(OLD, to);
    }),
    runs,
  );
});

t.test("UTF-16 and UTF-32 too", async (t) => {
  const wide = (text: string, unit: 2 | 4, isBig: boolean) => {
    const bytes = Buffer.alloc(unit * text.length);
    for (let i = 0; i < text.length; i++) {
      bytes[unit * i + (isBig ? unit - 1 : 0)] = text.charCodeAt(i);
    }
    return bytes.toString("latin1");
  };
  for (const unit of [2, 4] as const) {
    for (const isBig of [false, true]) {
      const name = `${unit} bytes, ${isBig ? "big" : "little"} endian`;
      const text = (prefix: string) => `a b ${prefix}/lib`;
      const padding = "\0".repeat(OLD.length - 2);
      t.equal(
        patched(wide(`${text(OLD)}\0next`, unit, isBig), "binary", "/e"),
        wide(`${text("/e")}${padding}\0next`, unit, isBig),
        name,
      );
      t.equal(
        patched(wide(text(OLD), unit, isBig), "text", "/e"),
        wide(text("/e"), unit, isBig),
        name,
      );
    }
  }
});

t.test("a shebang that a kernel would cut finds its program on the PATH", async (t) => {
  const rest = `\nimport sys # ${OLD}\n`;
  const script = `#!${OLD}/bin/python3.11 -E${rest}`;
  t.equal(patched(script, "text", "/e"), `#!/e/bin/python3.11 -E\nimport sys # /e\n`, "short");
  const long = `/${"x".repeat(130)}`;
  t.equal(
    patched(script, "text", long),
    `#!/usr/bin/env python3.11 -E\nimport sys # ${long}\n`,
    "too long",
  );
  t.equal(
    patched(script, "text", "/my env"),
    "#!/usr/bin/env python3.11 -E\nimport sys # /my env\n",
    "a blank in the prefix",
  );
  const exact = `/${"x".repeat(127 - "#!/bin/sh".length - 1)}`;
  t.equal(patched(`#!${OLD}/bin/sh\n`, "text", exact), `#!${exact}/bin/sh\n`, "127 bytes are fine");
  t.equal(patched(`#!${OLD}/bin/sh\n`, "text", `${exact}x`), "#!/usr/bin/env sh\n", "128 are not");
  t.equal(
    patched(`#!${OLD}/bin/sh -e\r\nx\r\n`, "text", long),
    "#!/usr/bin/env sh -e\r\nx\r\n",
    "a carriage return at its end, as with conda",
  );
  t.equal(patched(`echo ${OLD}\n`, "text", long), `echo ${long}\n`, "no shebang");
});

t.test("placeholders of real packages are long", async (t) => {
  const before = `RPATH\0${PLACEHOLDER}/lib\0`;
  t.equal(
    patched(before, "binary", "/opt/env", PLACEHOLDER),
    `RPATH\0/opt/env/lib${"\0".repeat(PLACEHOLDER.length - 8)}\0`,
  );
});
