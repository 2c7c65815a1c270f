// Rules of structure: which folder may import which, what the data plane must not do, and that nothing lies there unused. Plane: any.

import { codeOf, importsOf, matches, type SourceFile } from "./source.ts";

export const isLib = (path: string) => path.startsWith("lib/") && path.endsWith(".ts");

// Layering.

const BELOW = ["base", "sys", "wire", "transport", "store", "cache", "layer", "tree"];
const ROWS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  sys: ["base"],
  wire: ["base"],
  transport: ["base", "sys"],
  store: ["base", "sys"],
  cache: ["base", "sys", "store"],
  layer: ["base", "sys"],
  tree: ["base", "sys", "store", "cache", "layer"],
  serve: ["base", "sys", "wire", "transport", "tree", "cache/mailbox.ts"],
  ingest: ["base", "sys", "store", "layer"],
  preload: ["base", "store", "layer", "ingest"],
  gofer: [...BELOW, "serve", "ingest", "preload"],
  daemon: [...BELOW, "serve", "ingest", "preload", "gofer"],
  cli: [...BELOW, "serve", "ingest", "preload", "gofer", "daemon"],
  api: [...BELOW, "serve", "ingest", "preload", "gofer", "daemon", "cli"],
};
/** Alternatives to each other: none may import another. */
const APART = [
  ["lib/serve/lisafs/", "lib/serve/ninep/", "lib/serve/fuse/"],
  // memory.ts isn't here: it is local.ts over memfs.
  ["lib/store/local.ts", "lib/store/http.ts", "lib/store/s3.ts"],
];

export function checkLayers(source: SourceFile): string[] {
  const own = source.path.split("/")[1]!;
  const row = ROWS[own];
  if (row === undefined) return [`lib/${own}/ has no row in the table of layers`];
  const complaints: string[] = [];
  for (const target of importsOf(source)) {
    if (!target.startsWith("lib/")) {
      if (own === "base") complaints.push(`base imports nothing, but here ${target}`);
      else if (/^(test|bench|fixtures|native)\//.test(target)) {
        complaints.push(`lib imports ${target}`);
      }
      continue;
    }
    const inner = target.slice("lib/".length);
    const isAllowed =
      inner.startsWith(`${own}/`) || row.some((to) => `${inner}/`.startsWith(`${to}/`));
    if (!isAllowed) complaints.push(`${own} may import ${row.join(", ")}, but here ${inner}`);
    for (const group of APART) {
      const from = group.find((one) => source.path.startsWith(one));
      const to = group.find((one) => target.startsWith(one));
      if (from && to && from !== to) complaints.push(`${from} and ${to} are kept apart`);
    }
  }
  return complaints;
}

// The data plane.

export const DATA_PLANE =
  /^lib\/((wire|transport|serve|tree)\/|(layer\/index|cache\/blocks|cache\/mailbox|store\/objects|sys\/wait)\.ts$)/;
const BANS: readonly (readonly [RegExp, string])[] = [
  [/\basync\b|\bawait\b|\bPromise\b/, "async, await or Promise: block, or return MISS"],
  [/\bEventEmitter\b/, "EventEmitter: answers come by return value"],
  [/\bBigInt\b|\b\d+n\b/, "BigInt: two u32 make a number (lib/base/bytes.ts)"],
  [/\bJSON\./, "JSON: bytes at named offsets"],
  [/(^|[=(,:!&|?{};[]|\breturn)\s*\/(?![/*=\s])|\bRegExp\b/, "a RegExp: compare bytes"],
  [/\bconsole\b/, "console: count, or hand a LogLine in"],
  [/\bthrow\b/, "throw: return -errno; assert() is for bugs"],
];

export function checkDataPlane(source: SourceFile): string[] {
  const code = codeOf(source.text);
  const bans = BANS.flatMap(([pattern, why]) => matches(code, pattern, why));
  const packages = importsOf(source).filter((name) => !/^(lib\/|node:|\.\.)/.test(name));
  return [
    ...bans,
    ...packages.map((name) => `imports the package ${name}: none on the data plane`),
  ];
}

export const REACH = /^node:(http|https|http2|net|tls|dgram|dns|child_process|cluster)$/;

// Dead files.

/** Programs; and the client's half of a codec, which tests and benches speak. */
const ENTRIES =
  /^lib\/((gofer|daemon|cli)\/main|api\/burrow|gofer\/(ninep-main|fuse-main|standby|broker|rehearsal-caller)|preload\/worker|wire\/\w+\/encode)\.ts$/;

export function checkDead(files: readonly SourceFile[]): string[] {
  const used = new Set<string>();
  for (const source of files) {
    if (!/^(lib|bench|native)\//.test(source.path)) continue;
    for (const target of importsOf(source)) used.add(target);
    // Programs and workers are named, not imported: new URL("./worker.js", import.meta.url).
    for (const [, name] of source.text.matchAll(/["/]([a-z0-9-]+)\.js["'`]/g)) {
      const folder = source.path.slice(0, source.path.lastIndexOf("/"));
      used.add(`${folder}/${name}.ts`);
    }
  }
  return files
    .filter(({ path }) => isLib(path) && !ENTRIES.test(path) && !used.has(path))
    .map(({ path }) => `${path}: nothing in lib/ or bench/ imports it`);
}

// Dead exports.

/** Values: types are named by who uses what has them. */
const EXPORT = /^export (?:async )?(?:function\*?|const|let|class) ([\w$]+)/gm;

export function checkExports(files: readonly SourceFile[]): string[] {
  const namedIn = new Map<string, number>();
  for (const { path, text } of files) {
    if (!/\.(ts|mjs|js)$/.test(path)) continue;
    for (const word of new Set(text.match(/[A-Za-z_$][\w$]*/g)))
      namedIn.set(word, (namedIn.get(word) ?? 0) + 1);
  }
  return files
    .filter(({ path }) => isLib(path) && !path.startsWith("lib/api/"))
    .flatMap(({ path, text }) =>
      [...text.matchAll(EXPORT)]
        .filter(([, name]) => namedIn.get(name!) === 1)
        .map(([, name]) => `${path}: ${name} is exported, and no other file names it`),
    );
}
