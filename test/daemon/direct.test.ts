// Direct mounts: what a sandbox under directfs is given, what it can't reach from there, and what becomes of it when servers die.

import fs from "node:fs";
import t from "tap";
import { ensureIndex, openCache } from "../../lib/cache/cache.ts";
import { noise, publish } from "../suite/daemon-node.ts";
import { directSandbox, directServers, prepared } from "../suite/direct-scene.ts";
import { noFuse } from "../suite/fuse.ts";
import { until } from "../suite/wait.ts";

const FILES = {
  small: noise(10_000, 1),
  large: noise(9_000_000, 2),
  last: noise(20_000, 3),
  empty: Buffer.alloc(0),
};

const codeOf = (action: () => unknown): string => {
  try {
    action();
    return "";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
};

t.test("a sandbox has the view's files, and nothing beside them", { skip: noFuse }, async (t) => {
  const { node, mountId, server } = await prepared(t, FILES);
  t.throws(() => directSandbox(t, node, mountId), /no daemon serves/);
  await node.start();
  const first = directSandbox(t, node, mountId);
  t.same(fs.readdirSync(first.root).sort(), Object.keys(FILES).sort());
  for (const [name, bytes] of Object.entries(FILES).filter(([name]) => name !== "last"))
    t.ok((await fs.promises.readFile(`${first.root}/${name}`)).equals(bytes), name);

  const { dev, ino } = fs.statSync(`${first.root}/.`);
  const up = fs.statSync(`${first.root}/../../../../..`);
  t.same([up.dev, up.ino], [dev, ino], "above the root is the root");
  for (const way of ["../proc/self/root", "../../etc/passwd", "../.."].map(
    (way) => `../${way}/small/..`,
  ))
    t.match(
      codeOf(() => fs.readdirSync(`${first.root}/${way}`)),
      /ENOENT|ENOTDIR/,
      way,
    );
  t.equal(
    codeOf(() => fs.writeFileSync(`${first.root}/new`, "")),
    "EROFS",
  );
  t.equal(
    codeOf(() => fs.writeFileSync(`${first.root}/small`, "")),
    "EROFS",
  );
  t.equal(
    codeOf(() => fs.chmodSync(`${first.root}/small`, 0o777)),
    "EROFS",
  );
  t.equal(
    codeOf(() => fs.unlinkSync(`${first.root}/small`)),
    "EROFS",
  );
  const attached = fs.readFileSync("/proc/self/mountinfo", "latin1");
  t.notMatch(attached, node.state, "it is attached nowhere");

  fs.writeFileSync(`${first.tmp}/own`, noise(30_000));
  t.equal(
    codeOf(() => fs.writeFileSync(`${first.tmp}/more`, noise(60_000))),
    "ENOSPC",
    "a quota",
  );
  const top = fs.statSync(`${first.tmp}/..`);
  t.equal(top.ino, fs.statSync(`${first.tmp}/.`).ino);

  const second = directSandbox(t, node, mountId);
  t.equal(fs.statSync(`${second.root}/.`).dev, dev, "the next sandbox of the view shares it");
  t.not(second.rootFd, first.rootFd);
  t.same(fs.readdirSync(second.tmp), [], "but not its /tmp");
  const { cache } = node;
  const own = JSON.parse(fs.readFileSync(`${node.state}/mounts/${mountId}/mount.json`, "utf8"));
  const copy = (id: string, fields: object) => {
    fs.mkdirSync(`${node.state}/mounts/${id}`);
    fs.writeFileSync(
      `${node.state}/mounts/${id}/mount.json`,
      JSON.stringify({ ...own, ...fields }),
    );
  };
  copy("other", { tenant: "other" });
  copy("written", { upper: { sizeBytes: 65_536, inodes: 16 } });
  t.throws(() => directSandbox(t, node, "written"), /a view that can be written; run it without/);
  const stranger = directSandbox(t, node, "other");
  t.not(fs.statSync(`${stranger.root}/.`).dev, dev, "another tenant doesn't");
  t.equal(directServers(node.state).length, 2);

  const lost = await publish(node.store, { last: noise(20_000, 4) });
  await ensureIndex(openCache(cache), server.url, lost.digest);
  fs.rmSync(`${node.store}/packs`, { recursive: true });
  const poor = directSandbox(t, node, node.mount(server.url, lost.digest));
  await t.rejects(fs.promises.readFile(`${poor.root}/last`), { code: "EIO" }, "never zeros");
});

t.test(
  "a server that is killed is followed by another, and who reads waits",
  { skip: noFuse },
  async (t) => {
    const { node, mountId } = await prepared(t, FILES);
    const daemon = await node.start();
    const sandbox = directSandbox(t, node, mountId);
    // By a thread, here as below: the origin is this very process.
    t.ok((await fs.promises.readFile(`${sandbox.root}/small`)).equals(FILES.small));
    const [victim] = directServers(node.state);
    process.kill(victim!, "SIGKILL");
    t.ok((await fs.promises.readFile(`${sandbox.root}/last`)).equals(FILES.last));
    t.ok(await until(() => directServers(node.state).length === 1));
    t.not(directServers(node.state)[0], victim);

    daemon.kill("SIGTERM");
    await new Promise((resolve) => daemon.once("exit", resolve));
    await node.start();
    t.ok(
      (await fs.promises.readFile(`${sandbox.root}/large`)).equals(FILES.large),
      "a daemon, too",
    );
    sandbox.end();
    t.ok(
      await until(() => directServers(node.state).length === 0),
      "what nobody has any more ends",
    );
  },
);
