// What a start had to wait for is fetched ahead of the next one: in few requests, in the order of use; and whatever is wrong with what was
// learned, or with the origin, costs time alone (pitfalls D7 to D10).

import fs from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Test, test } from "tap";
import { showDigest } from "../../lib/base/digest.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { Asker } from "../../lib/cache/asker.ts";
import { cachePath } from "../../lib/cache/layout.ts";
import { LOCAL_TOUCH } from "../../lib/cache/touches.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import type { ProfileFigures } from "../../lib/daemon/profiles.ts";
import { IDLE_MAX } from "../../lib/preload/profile.ts";
import { exited, type Files, noise } from "../suite/daemon-node.ts";
import { type Scene, scene } from "../suite/daemon-scene.ts";
import { until } from "../suite/wait.ts";

const KIB = 1024;
/** Forty files that are used, two at a time 600 KiB from the next ones; and blocks of a large one. */
const SPREAD: Files = Object.fromEntries([
  ...Array.from({ length: 20 }, (_, i) => [
    [`used${2 * i}`, noise(100 * KIB + i, 3 * i + 1)],
    [`used${2 * i + 1}`, noise(100 * KIB + i, 3 * i + 2)],
    [`between${i}`, noise(600 * KIB, 3 * i + 3)],
  ]).flat(),
  ["large", noise(20 * BLOCK_BYTES, 99)],
]);
const USED = Array.from({ length: 40 }, (_, i) => `used${39 - i}`);
const CONFIG: Partial<DaemonConfig> = { background: false, profiles: true };

/** Mounts of the snapshot by commands, each of which is known to use files of its own. */
function commandMounts({ node, server, published }: Scene, count: number): string[] {
  const each = USED.length / count;
  const commands = Array.from({ length: count }, (_, i) => {
    const asks = USED.slice(each * i, each * (i + 1)).flatMap((name) => [
      published.row(name),
      0,
      0,
    ]);
    return { command: i.toString(16).padStart(32, "0"), asks };
  });
  const file = cachePath(node.cache, "profiles", published.digest);
  fs.mkdirSync(dirname(file), { recursive: true });
  const snapshot = showDigest(published.digest);
  fs.writeFileSync(file, JSON.stringify({ format: 1, snapshot, commands }));
  return commands.map(({ command }) => {
    const id = node.mount(server.url, published.digest);
    const description = `${node.state}/mounts/${id}/mount.json`;
    const mount = JSON.parse(fs.readFileSync(description, "utf8")) as object;
    fs.writeFileSync(description, JSON.stringify({ ...mount, command }));
    return id;
  });
}

interface Profiled extends Scene {
  profile: string;
  /** As a start of a sandbox: asks for files one after the other, and tells that it read them. */
  use(names?: readonly string[]): Promise<void>;
  figures(): Promise<ProfileFigures>;
  /** Ends the daemon, empties the cache but for its profiles, and starts another one. */
  forget(config?: Partial<DaemonConfig>): Promise<void>;
}

async function profiled(t: Test, config = CONFIG): Promise<Profiled> {
  const at = await scene(t, SPREAD);
  const { node, published, mountId } = at;
  let daemon = await node.start(config);
  const figures = async () =>
    ((await node.status()) as unknown as { profiles: ProfileFigures }).profiles;
  const use = async (names: readonly string[] = USED) => {
    const client = await node.connect(mountId);
    for (const name of names) {
      const row = published.row(name);
      const { errno } = await (name === "large"
        ? client.askBlocks(0, row, 8, 4)
        : client.askBlob(0, row));
      t.equal(errno, 0, name);
    }
    const touchOf = (name: string) => (name === "large" ? [8, 4] : [0, 0]);
    client.tell(...names.map((name, i) => [0, published.row(name), ...touchOf(name), i]));
    client.end();
  };
  const forget = async (next = config) => {
    daemon.kill("SIGTERM");
    await exited(daemon);
    for (const folder of ["blobs", "locators", "indexes", "partial"])
      fs.rmSync(`${node.cache}/${folder}`, { recursive: true, force: true });
    daemon = await node.start(next);
  };
  const profile = cachePath(node.cache, "profiles", published.digest);
  return { ...at, profile, use, figures, forget };
}

async function isKept(at: Profiled): Promise<boolean> {
  const { learned, unsaved } = await at.figures();
  return learned > 0 && unsaved === 0;
}

/** After a first start, whose profile is kept. */
async function learned(t: Test): Promise<Profiled> {
  const at = await profiled(t);
  await at.use([...USED, "large"]);
  t.ok(await until(() => isKept(at)), "it is kept");
  return at;
}

/** Waits until all was fetched that is, ahead of the first start of a daemon. */
async function ahead(at: Profiled): Promise<void> {
  await until(async () => (await at.figures()).ended === 1);
  await at.node.settled();
}

test("the second start of a snapshot finds what the first one waited for", async (t) => {
  const at = await learned(t);
  const first = at.server.count("packs");
  t.ok(first >= 20, `${first} requests`);
  await at.forget();
  at.server.requests.length = 0;
  Asker.announce(at.node.cache, at.mountId);
  const isHere = (name: string) =>
    fs.existsSync(at.node.blobPath(at.published.refs.get(name)!.digest));
  t.ok(await until(() => USED.every(isHere)), "nobody asked");
  await ahead(at);
  const { fetch } = await at.node.status();
  t.equal(fetch["blocks"], 4, "of the large one what was asked for");
  t.match(await at.figures(), { starts: 1, failedAsks: 0, hits: 0 });
  at.server.requests.length = 0;
  await at.use([...USED, "large"]);
  t.equal(at.server.count("packs"), 0, "and all that it asks for is here");
});

test("what lies close together comes by one request, in the order of its use", async (t) => {
  const at = await profiled(t);
  const near = Object.keys(SPREAD).filter((name) => name !== "large");
  await at.use(near.reverse());
  t.ok(await until(() => isKept(at)));
  await at.forget();
  at.server.requests.length = 0;
  const client = await at.node.connect(at.mountId);
  await ahead(at);
  const { requests, bytes } = await at.figures();
  t.ok(requests < 8, `${requests} requests for ${bytes} bytes`);
  const sent = at.server.countOnce("packs");
  t.ok(sent <= requests, `${sent} sent: nothing else was asked for`);
  client.close();
});

test("a start learns on; commands have lists of their own", async (t) => {
  const at = await learned(t);
  const sizeOf = () => fs.statSync(at.profile).size;
  const before = sizeOf();
  await at.use(["between3"]);
  t.ok(await until(() => sizeOf() > before), "what was new is added");
  const text = fs.readFileSync(at.profile, "utf8");
  t.match(JSON.parse(text), { format: 2, snapshot: showDigest(at.published.digest) });
  const key = "0123456789abcdef0123456789abcdef";
  const description = `${at.node.state}/mounts/${at.mountId}/mount.json`;
  const mount = JSON.parse(fs.readFileSync(description, "utf8")) as object;
  fs.writeFileSync(description, JSON.stringify({ ...mount, command: key }));
  await at.forget();
  await at.use(["between5"]);
  t.ok(await until(() => fs.readFileSync(at.profile, "utf8").includes(key)), "by its key");
  await at.forget();
  const client = await at.node.connect(at.mountId);
  await ahead(at);
  t.equal((await at.figures()).asks, 1, "who has one of its own is given no other's");
  client.close();
});

const KEY = "0123456789abcdef0123456789abcdef";

/** Has the mount's starts be those of a command. */
function nameCommand({ node, mountId }: Scene): void {
  const description = `${node.state}/mounts/${mountId}/mount.json`;
  const mount = JSON.parse(fs.readFileSync(description, "utf8")) as object;
  fs.writeFileSync(description, JSON.stringify({ ...mount, command: KEY }));
}

/** Rows that a command is known to read. */
function rowsOf(at: Profiled): number[] {
  const file = JSON.parse(fs.readFileSync(at.profile, "utf8")) as {
    commands: { command?: string; asks: number[] }[];
  };
  const own = file.commands.find(({ command }) => command === KEY);
  return own?.asks.filter((_, i) => i % 4 === 0) ?? [];
}

test("a start teaches what it read, in its order, and not what it had fetched", async (t) => {
  const at = await profiled(t);
  nameCommand(at);
  const row = (name: string) => at.published.row(name);
  const client = await at.node.connect(at.mountId);
  for (const name of ["used1", "used2", "between0"]) await client.askBlob(0, row(name));
  await client.askBlocks(0, row("large"), 8, 2);
  const nothing = [0xffff, 0, 0, 2];
  const names = ["large", "used2", "used30", "used1"];
  client.tell(...names.map((name, i) => [0, row(name), 0, 0, i]), [0, ...nothing]);
  client.end();
  t.ok(await until(() => fs.existsSync(at.profile) && rowsOf(at).length > 0));
  t.same(rowsOf(at), names.map(row), "used30 was here, between0 wasn't read, and 65,535 is no row");
  const { commands } = JSON.parse(fs.readFileSync(at.profile, "utf8"));
  t.same(commands.at(-1).asks.slice(0, 4), [row("large"), 8, 2, 0], "the blocks it asked for");

  const start = async () => {
    const { learned } = await at.figures();
    const again = await at.node.connect(at.mountId);
    again.tell(...["large", "used2", "used1"].map((name, i) => [0, row(name), 0, 0, i]));
    again.end();
    t.ok(await until(async () => (await at.figures()).learned > learned));
  };
  for (let i = 0; i <= IDLE_MAX; i++) {
    t.ok(rowsOf(at).includes(row("used30")));
    await start();
  }
  t.same(rowsOf(at), ["large", "used2", "used1"].map(row), "what it no longer reads has left");
});

test("a start that finds all on its node teaches no large file whole", async (t) => {
  const at = await profiled(t);
  nameCommand(at);
  const row = (name: string) => at.published.row(name);
  const warm = await at.node.connect(at.mountId);
  for (const name of ["large", "used1", "used2"])
    t.equal((await warm.askBlob(0, row(name))).errno, 0);
  warm.close();
  t.ok(await until(() => isKept(at)), "who tells nothing teaches what it asked for");
  const hot = async (isLocal: boolean) => {
    const client = await at.node.connect(at.mountId);
    const flags = isLocal ? LOCAL_TOUCH : 0;
    client.tell(...["large", "used1"].map((name, i) => [flags, row(name), 0, 0, i]));
    client.end();
  };
  fs.rmSync(at.profile); // as burrow profile rm
  await hot(true);
  t.ok(await until(() => fs.existsSync(at.profile) && rowsOf(at).includes(row("used1"))));
  t.notOk(rowsOf(at).includes(row("large")), "nobody knows what of it is needed");
  const file = JSON.parse(fs.readFileSync(at.profile, "utf8"));
  for (const { asks } of file.commands) asks.push(row("large"), 8, 4, 0);
  fs.writeFileSync(at.profile, JSON.stringify(file));
  const before = await at.figures();
  for (let i = 0; i <= IDLE_MAX + 1; i++) await hot(true);
  t.ok(await until(async () => (await at.figures()).unsaved === 0));
  t.ok(before.learned > 0 && rowsOf(at).includes(row("large")), "what is known of it stays");
});

test("what others read of a package is fetched when a start comes to it", async (t) => {
  const at = await profiled(t);
  const row = (name: string) => at.published.row(name);
  const layer = (i: number) => `sha256:${i.toString().repeat(64)}`;
  const asksOf = (...names: string[]) => names.flatMap((name) => [row(name), 0, 0, 0]);
  const file = {
    format: 2,
    snapshot: showDigest(at.published.digest),
    commands: [],
    packages: [
      { layer: layer(1), asks: asksOf("used0", "used2", "used4") },
      { layer: layer(2), asks: asksOf("used20", "used22") },
    ],
  };
  const shared = `${at.node.store}/profiles/${at.published.digest.slice(0, 2)}`;
  fs.mkdirSync(shared, { recursive: true });
  fs.writeFileSync(`${shared}/${at.published.digest}`, JSON.stringify(file));
  const isHere = (name: string) =>
    fs.existsSync(at.node.blobPath(at.published.refs.get(name)!.digest));
  await at.use(["used2"]);
  t.ok(await until(() => ["used0", "used2", "used4"].every(isHere)));
  t.match(await at.figures(), { packages: 1, starts: 1 });
  t.notOk(isHere("used20"), "of another package nothing");
  await at.forget();
  const client = await at.node.connect(at.mountId);
  await client.askBlob(0, row("used20"));
  t.ok(await until(() => ["used20", "used22"].every(isHere)), "and is kept by the node");
  client.close();
});

const DAMAGE: Record<string, (file: string) => void> = {
  "is cut off": (file) => fs.truncateSync(file, 40),
  "is another snapshot's": (file) =>
    fs.writeFileSync(file, `{"format":1,"snapshot":"sha256:${"0".repeat(64)}","commands":[]}`),
  "names what the snapshot lacks": (file) =>
    fs.writeFileSync(
      file,
      fs.readFileSync(file, "utf8").replace(/"asks":\[\d+/, '"asks":[4294967295'),
    ),
  "is no file": (file) => {
    fs.rmSync(file);
    fs.mkdirSync(file);
  },
};

test("a profile that is wrong costs time alone", async (t) => {
  const at = await learned(t);
  for (const [name, damage] of Object.entries(DAMAGE)) {
    t.ok(await until(async () => (await at.figures()).unsaved === 0));
    damage(at.profile);
    await at.forget();
    await at.use(USED.slice(0, 6));
    t.match(await at.figures(), { failedAsks: 0 }, name);
    const isLearned = () => fs.readFileSync(at.profile, "utf8").endsWith("]}]}\n");
    const kind = () => fs.statSync(at.profile, { throwIfNoEntry: false });
    if (kind()?.isDirectory() === true) continue;
    t.ok(await until(() => kind()?.isFile() === true && isLearned()), "it learns");
  }
});

test("an origin that fails while it is asked ahead leaves no mark", async (t) => {
  const at = await learned(t);
  await at.forget({ ...CONFIG, headerMs: 300, stallMs: 300, deadlineMs: 2_000 });
  at.server.fault = (path) => (path.startsWith("packs/") ? "404" : "none");
  const client = await at.node.connect(at.mountId);
  await ahead(at);
  client.close();
  at.server.fault = () => "none";
  await at.use();
  t.equal((await at.node.status()).fetch["failedAsks"], 0, "nobody was told");
});

test("a node that is new to a snapshot begins with what its store has", async (t) => {
  const at = await learned(t);
  const shared = `${at.node.store}/profiles/${at.published.digest.slice(0, 2)}`;
  fs.mkdirSync(shared, { recursive: true });
  fs.renameSync(at.profile, `${shared}/${at.published.digest}`);
  await at.forget();
  await at.use(["between7"]);
  await ahead(at);
  t.ok((await at.figures()).asks > 10);
  t.ok(await until(() => fs.existsSync(at.profile)), "and keeps it");
  fs.rmSync(at.profile);
  at.server.requests.length = 0;
  await at.use();
  t.same(at.server.requests, [], "who has all asks for nothing");
});

test("--no-profiles: nothing is learned, nothing fetched ahead", async (t) => {
  const at = await learned(t);
  const before = fs.readFileSync(at.profile);
  await at.forget({ ...CONFIG, profiles: false });
  await at.use(["between1"]);
  t.equal(await at.figures(), undefined);
  await at.forget({ ...CONFIG, profiles: false });
  t.same(fs.readFileSync(at.profile), before);
});

test("all starts together leave half of an origin's requests to demand", async (t) => {
  const at = await profiled(t);
  const mounts = commandMounts(at, 4);
  await at.forget();
  at.server.fault = (path) => (path.startsWith("packs/") ? "stall-headers" : "none");
  at.server.requests.length = 0;
  for (const id of mounts) {
    const client = await at.node.connect(id);
    t.teardown(() => client.close());
  }
  t.ok(await until(async () => (await at.figures()).starts === 4 && at.server.count("packs") >= 4));
  await sleep(300); // more may be on their way
  const { queues } = (await at.node.status()) as unknown as Record<string, object>;
  t.match(Object.values(queues!), [{ demand: 4, demandQueued: 0 }]);
  at.server.fault = () => "none";
  const client = await at.node.connect(mounts[0]!);
  t.equal((await client.askBlob(0, at.published.row("between0"))).errno, 0, "has its turn");
  at.server.hangUp();
  client.close();
});

test("a small cache isn't filled with what may be wanted, and none of it is a hit", async (t) => {
  const at = await learned(t);
  const limitBytes = 8 * 1024 * KIB;
  await at.forget({ ...CONFIG, limitBytes });
  const client = await at.node.connect(at.mountId);
  await ahead(at);
  const { asks, hits } = await at.figures();
  t.ok(asks > 0 && asks * 100 * KIB <= limitBytes / 4, `${asks} asks`);
  t.equal(hits, 0);
  client.close();
  await at.use();
  t.equal((await at.node.status()).fetch["failedAsks"], 0);
});

test("packages that all begin with one file share what one start may have", async (t) => {
  const at = await profiled(t, { ...CONFIG, limitBytes: 8 * 1024 * KIB });
  const asksOf = (...names: string[]) => names.flatMap((name) => [at.published.row(name), 0, 0, 0]);
  const packages = Array.from({ length: 8 }, (_, i) => ({
    layer: `sha256:${i.toString().repeat(64)}`,
    asks: asksOf("used0", ...USED.slice(5 * i, 5 * i + 5)),
  }));
  const file = { format: 2, snapshot: showDigest(at.published.digest), commands: [], packages };
  fs.mkdirSync(dirname(at.profile), { recursive: true });
  fs.writeFileSync(at.profile, JSON.stringify(file));
  const client = await at.node.connect(at.mountId);
  await client.askBlob(0, at.published.row("used0"));
  await until(async () => {
    const { packages: begun, starts, ended } = await at.figures();
    return begun === 8 && starts > 0 && starts === ended;
  });
  await at.node.settled();
  const { asks } = await at.figures();
  t.ok(asks > 0 && asks <= 20, `${asks} asks of 100 KiB, of a cache of 8 MiB`);
  client.close();
});

test("what is learned while the store is asked stays", async (t) => {
  const at = await learned(t);
  const shared = `${at.node.store}/profiles/${at.published.digest.slice(0, 2)}`;
  fs.mkdirSync(shared, { recursive: true });
  fs.renameSync(at.profile, `${shared}/${at.published.digest}`);
  const rows = () => {
    const { commands } = JSON.parse(fs.readFileSync(at.profile, "utf8")) as {
      commands: { asks: number[] }[];
    };
    return commands[0]!.asks.filter((_, i) => i % 4 === 0);
  };
  await at.forget();
  at.server.fault = (path) => {
    at.server.delayMs = path.startsWith("profiles/") ? 2_000 : 0;
    return "none";
  };
  await at.use(["between7"]);
  t.ok(await until(() => isKept(at)), "first, mostly");
  t.ok(await until(() => rows().length > 10), "what the store has comes after");
  t.ok(rows().includes(at.published.row("between7")), "and both are kept");
});
