// Owns: @EXPLICIT locks, good and bad: URLs, paths, hashes and the line that is wrong. Plane: control.

import t from "tap";
import { BurrowError, explain } from "../../../lib/base/error.ts";
import { parseExplicit } from "../../../lib/ingest/conda/explicit.ts";

const md5 = "d41d8cd98f00b204e9800998ecf8427e";
const sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

t.test("a bad line is refused with its number, and not shown", async (t) => {
  const cases: [string, RegExp][] = [
    ["https://h/t/secret/c/noarch/a-1-0.zip", /no \.conda or \.tar\.bz2/],
    ["numpy=1.2", /no \.conda or \.tar\.bz2/],
    [`https://h/a-1-0.conda#${md5}0`, /no md5 or sha256/],
    [`https://h/a-1-0.conda#md5:${sha256}`, /no md5 or sha256/],
    [`https://h/a-1-0.conda#sha256:${md5}`, /no md5 or sha256/],
    [`https://h/a-1-0.conda#sha1:${md5}`, /no md5 or sha256/],
    ["https://h/a-1-0.conda#", /no md5 or sha256/],
    ["https://h/a-1-0.conda#secret", /no md5 or sha256/],
    ["https://[/a-1-0.conda", /the URL is none/],
    ["ftp://h/a-1-0.conda", /only http, https, s3 and file/],
    ["file://other-host/a-1-0.conda", /names no local path/],
    [`https://h/${"x".repeat(5000)}.conda`, /too long/],
  ];
  for (const [line, pattern] of cases) {
    try {
      parseExplicit(`# a comment\n@EXPLICIT\n\n${line}\n`, "lock.txt");
      t.fail(line);
    } catch (error) {
      t.ok(error instanceof BurrowError);
      t.match(error, { code: "BURROW_BAD_LOCK", context: { source: "lock.txt", line: 4 } }, line);
      t.match(explain(error), /lock\.txt:4: /, line);
      t.match(explain(error), pattern, line);
      t.notMatch(explain(error), /secret/, line);
    }
  }
  t.throws(() => parseExplicit("https://h/a-1-0.conda\n@EXPLICIT", "l"), /l:1: an @EXPLICIT line/);
  t.throws(() => parseExplicit("# nothing\n", "l"), /l has no @EXPLICIT line/);
});

t.test("URLs, paths and hashes of every spelling", async (t) => {
  const text = [
    "\ufeff# platform: linux-64",
    "@EXPLICIT",
    "https://h/c/linux-64/a-1-0.conda",
    `https://h/c/linux-64/b-1-0.tar.bz2#${md5}`,
    `  http://h/c/noarch/c-1-0.conda#sha256:${sha256.toUpperCase()}  `,
    `file:///srv/my%20channel/d-1-0.conda#${sha256}`,
    `pkgs/e-1-0.conda#md5:${md5}`,
    "",
    "   # indented",
    "/srv/f-1-0.tar.bz2",
  ].join("\r\n");
  t.same(parseExplicit(text, "lock"), [
    { url: "https://h/c/linux-64/a-1-0.conda", line: 3 },
    { url: "https://h/c/linux-64/b-1-0.tar.bz2", line: 4, md5 },
    { url: "http://h/c/noarch/c-1-0.conda", line: 5, sha256 },
    {
      url: "file:///srv/my%20channel/d-1-0.conda",
      path: "/srv/my channel/d-1-0.conda",
      line: 6,
      sha256,
    },
    { url: "pkgs/e-1-0.conda", path: "pkgs/e-1-0.conda", line: 7, md5 },
    { url: "/srv/f-1-0.tar.bz2", path: "/srv/f-1-0.tar.bz2", line: 10 },
  ]);
  t.same(parseExplicit("@EXPLICIT\n", "lock"), [], "none at all");
});
