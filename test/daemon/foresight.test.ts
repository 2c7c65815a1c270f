// A start that nobody has learned is foreseen by its files, fetched ahead of it in few requests, and taught to the next; who has all that
// it needs is left alone, and whatever is wrong costs time alone.

import fs from "node:fs";
import { type Test, test } from "tap";
import { Asker } from "../../lib/cache/asker.ts";
import { cachePath } from "../../lib/cache/layout.ts";
import type { AheadFigures } from "../../lib/daemon/ahead.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { exited, type Files, noise } from "../suite/daemon-node.ts";
import { type Scene, scene } from "../suite/daemon-scene.ts";
import { elf } from "../suite/elf-file.ts";
import { until } from "../suite/wait.ts";

const LIB = "lib/python3.11";
/** Modules that import one another in a row, far from each other in their packs; and what nobody wants. */
const CHAIN = 12;
const BIG = elf({ needed: [], bytes: 7 << 20 });
noise(6 << 20, 77).copy(BIG, 64 * 1024);
const FILES: Files = {
  "bin/python3": elf({ needed: ["libbig.so"], runpath: "$ORIGIN/../lib", bytes: 30_000 }),
  "lib/libbig.so": BIG,
  [`${LIB}/os.py`]: Buffer.from("import unwanted"),
  [`${LIB}/encodings/__init__.py`]: Buffer.from(""),
  ...Object.fromEntries(
    Array.from({ length: CHAIN }, (_, i) => [
      [
        `${LIB}/m${i}.py`,
        Buffer.from(`import m${i + 1}\n# ${noise(20_000, i + 1).toString("hex")}`),
      ],
      [`${LIB}/unwanted${i}.py`, noise(300_000, 100 + i)],
    ]).flat(),
  ),
};
const WANTED = Object.keys(FILES).filter((path) => !/unwanted|os\.py|libbig/.test(path));
const START = { program: "/bin/python3", path: [], cwd: "/", imports: ["m0"] };
const COMMAND = "a".repeat(32);
const CONFIG: Partial<DaemonConfig> = { background: false, foresight: true };

interface Foreseen extends Scene {
  figures(): Promise<AheadFigures>;
  isHere(path: string): boolean;
  /** Ends the daemon, which forgets what it looked at, and starts another one. */
  restart(): Promise<void>;
}

async function foreseen(t: Test, config = CONFIG, start: unknown = START): Promise<Foreseen> {
  const at = await scene(t, FILES);
  const path = `${at.node.state}/mounts/${at.mountId}/mount.json`;
  const mount = JSON.parse(fs.readFileSync(path, "utf8")) as object;
  fs.writeFileSync(path, JSON.stringify({ ...mount, command: COMMAND, start }));
  let daemon = await at.node.start(config);
  return {
    ...at,
    figures: async () =>
      ((await at.node.status()) as unknown as { foresight: AheadFigures }).foresight,
    restart: async () => {
      daemon.kill("SIGTERM");
      await exited(daemon);
      daemon = await at.node.start(config);
    },
    isHere: (name) => fs.existsSync(at.node.blobPath(at.published.refs.get(name)!.digest)),
  };
}

async function isDone(at: Foreseen): Promise<boolean> {
  return (await at.figures()).ended === 1;
}

/** What a profile's file has of the command: four numbers each (docs/format/profile.md). */
function asksOf(profile: string): number[] {
  const { commands } = JSON.parse(fs.readFileSync(profile, "utf8")) as {
    commands: { command?: string; asks: number[] }[];
  };
  return commands.find(({ command }) => command === COMMAND)?.asks ?? [];
}

test("what a command will import is here before it asks, in few requests", async (t) => {
  const at = await foreseen(t);
  Asker.announce(at.node.cache, at.mountId);
  t.ok(await until(() => isDone(at)));
  t.same(
    WANTED.filter((path) => !at.isHere(path)),
    [],
  );
  t.notOk(at.isHere(`${LIB}/unwanted1.py`), "and nothing else");
  t.notOk(at.isHere("lib/libbig.so"), "a large library isn't here whole");
  t.match(await at.figures(), { starts: 1, failedAsks: 0 });
  const sent = at.server.countOnce("packs");
  t.ok(sent < CHAIN, `${sent} requests for ${WANTED.length} files`);
  at.server.requests.length = 0;
  const client = await at.node.connect(at.mountId);
  for (const path of WANTED) t.equal((await client.askBlob(0, at.published.row(path))).errno, 0);
  const blocks = await client.askBlocks(0, at.published.row("lib/libbig.so"), 27, 1);
  t.equal(blocks.errno, 0, "what the linker writes to");
  t.equal(at.server.count("packs"), 0);
  client.close();
});

test("of what was foreseen is learned what was read", async (t) => {
  const at = await foreseen(t, { ...CONFIG, profiles: true });
  Asker.announce(at.node.cache, at.mountId);
  t.ok(await until(() => isDone(at)));
  const profile = cachePath(at.node.cache, "profiles", at.published.digest);
  const read = [...WANTED].slice(1);
  const client = await at.node.connect(at.mountId);
  client.tell(...read.map((path, i) => [0, at.published.row(path), 0, 0, i]));
  client.end();
  t.ok(await until(() => fs.existsSync(profile)));
  const rows = asksOf(profile).filter((_, i) => i % 4 === 0);
  t.same(new Set(rows), new Set(read.map((path) => at.published.row(path))));
});

test("large files are completed behind a start, and no later start is taught to wait for that", async (t) => {
  const at = await foreseen(t, { ...CONFIG, profiles: true, background: true });
  Asker.announce(at.node.cache, at.mountId);
  t.ok(await until(() => isDone(at)));
  t.ok(await until(() => at.isHere("lib/libbig.so")), "it is here whole");
  const row = at.published.row("lib/libbig.so");
  const client = await at.node.connect(at.mountId);
  client.tell([0, row, 0, 0, 1]); // as a sandbox that maps it
  client.end();
  const profile = cachePath(at.node.cache, "profiles", at.published.digest);
  t.ok(await until(() => fs.existsSync(profile)));
  const asks = asksOf(profile);
  const counts = asks.flatMap((each, i) => (i % 4 === 0 && each === row ? [asks[i + 2]!] : []));
  t.ok(counts.length > 0 && !counts.includes(0), `of its blocks: ${counts.join(" ")}`);
});

test("who has the first files is left alone until one is missing", async (t) => {
  const at = await foreseen(t);
  const client = await at.node.connect(at.mountId);
  t.ok(await until(() => isDone(at)));
  client.close();
  const { asks, hits } = await at.figures();
  await at.restart();
  Asker.announce(at.node.cache, at.mountId);
  t.ok(await until(async () => (await at.figures()).hits > 0));
  const first = await at.figures();
  t.ok(first.hits < hits + asks, "not all of it is looked at");
  t.match(first, { starts: 0, asks: 0 });
  fs.rmSync(at.node.blobPath(at.published.refs.get(`${LIB}/m9.py`)!.digest));
  const late = await at.node.connect(at.mountId);
  await late.askBlob(0, at.published.row(`${LIB}/unwanted3.py`));
  t.ok(await until(async () => (await at.figures()).ended === 1));
  t.ok(at.isHere(`${LIB}/m9.py`), "then it is");
  late.close();
});

test("a start of lies, an origin without packs, and one that is switched off", async (t) => {
  const at = await foreseen(t, CONFIG, {
    ...START,
    imports: ["m0".repeat(500), "../../m0", "", "."].filter(Boolean),
  });
  Asker.announce(at.node.cache, at.mountId);
  t.ok(await until(() => isDone(at)));
  const off = await foreseen(t, { ...CONFIG, foresight: false });
  const client = await off.node.connect(off.mountId);
  t.equal((await client.askBlob(0, off.published.row(`${LIB}/m3.py`))).errno, 0);
  t.equal(await off.figures(), undefined);
  client.close();
  const lost = await foreseen(t);
  fs.rmSync(`${lost.node.store}/packs`, { recursive: true });
  const asker = await lost.node.connect(lost.mountId);
  t.ok(await until(async () => (await lost.figures()).ended === 1));
  t.match(await lost.figures(), { requests: 0 });
  asker.close();
});
