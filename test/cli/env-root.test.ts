// Owns: proof that an environment's root says what a launch needs of it, and that one of somebody else's making is believed as far as it
// makes sense. Plane: control.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { readRoot, rootOfCompiled, rootOfPrefix } from "../../lib/cli/env-root.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";

const DIGEST = "1".repeat(64) as Digest;
const LAYER = "2".repeat(64) as Digest;

function indexOf(root: ReturnType<typeof rootOfPrefix>): Index {
  return new Index(writeIndex(IndexKind.snapshot, [root]));
}

/** An index whose root has these attributes, bytes as latin1. */
function marked(xattrs: Record<string, string>): Index {
  return indexOf({ ...rootOfPrefix("/x"), xattrs: new Map(Object.entries(xattrs)) });
}

test("what a root says", async (t) => {
  const plain = indexOf(rootOfPrefix("/opt/\u00e9"));
  t.same(readRoot(plain, DIGEST), { prefix: "/opt/\u00e9", variables: {} });
  const variables = { B: "two", A: "\u00e9\n=", __proto__x: "" };
  const compiled = indexOf(rootOfCompiled(plain, LAYER, variables));
  t.same(readRoot(compiled, DIGEST), { prefix: "/opt/\u00e9", variables });
  const other = rootOfCompiled(plain, LAYER, { __proto__x: "", A: "\u00e9\n=", B: "two" });
  t.same(other, rootOfCompiled(plain, LAYER, variables), "whatever their order");
  const earlier = { "user.burrow.prefix": "/opt/x", "user.burrow.captured": LAYER };
  t.same(readRoot(marked(earlier), DIGEST), { prefix: "/opt/x", variables: undefined });
});

test("what a root can't say", async (t) => {
  t.throws(() => readRoot(marked({}), DIGEST), { code: "BURROW_USAGE" });
  for (const prefix of ["", "/", "x", "/x/", "/x/../y", "/./x", "//x", "/x\0"])
    t.throws(() => readRoot(marked({ "user.burrow.prefix": prefix }), DIGEST), {
      code: "BURROW_BAD_INDEX",
    });
  for (const text of [
    "",
    "[]",
    "null",
    "{",
    '{"A":1}',
    '{"A B":""}',
    '{"A=":""}',
    '{"A":"\\u0000"}',
  ]) {
    const root = { "user.burrow.prefix": "/x", "user.burrow.variables": text };
    t.throws(() => readRoot(marked(root), DIGEST), { code: "BURROW_BAD_INDEX" }, text);
  }
  const large = { A: "x".repeat(65_536) };
  t.throws(() => rootOfCompiled(indexOf(rootOfPrefix("/x")), LAYER, large), {
    code: "BURROW_CAPTURE",
    message: /variables of \d+ bytes/,
  });
});
