// Direct mounts under attack and accident: servers that can't live, what earlier ones left, names that look like theirs.

import fs from "node:fs";
import t from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { DirectMounts } from "../../lib/daemon/direct-mounts.ts";
import { DirectNotes, directId } from "../../lib/daemon/direct-notes.ts";
import type { DescribedView } from "../../lib/daemon/sources.ts";
import { native } from "../../lib/sys/native.ts";
import { noise } from "../suite/daemon-node.ts";
import type { Scene } from "../suite/daemon-scene.ts";
import { directGofer, directSandbox, directServers, prepared } from "../suite/direct-scene.ts";
import { noFuse } from "../suite/fuse.ts";
import { playDaemon } from "../suite/played-daemon.ts";
import { until } from "../suite/wait.ts";

const FILES = { small: noise(10_000, 1), last: noise(20_000, 3) };

/** `at` tells views of one snapshot from each other. */
function viewOf({ published, server }: Scene, tenant = "", at = "/"): DescribedView {
  return {
    snapshots: [{ snapshot: published.digest, origin: server.url }],
    places: [at],
    command: "",
    isProfiled: false,
    tenant,
  };
}

t.test(
  "who has a mount that nobody can serve gets an error, and the next a new one",
  { skip: noFuse },
  async (t) => {
    const { node, mountId } = await prepared(t, FILES);
    const folder = `${node.root}/bin`;
    fs.mkdirSync(folder);
    const path = process.env["PATH"] ?? "/usr/bin:/bin";
    // In the way of each server's start.
    const unshare = `#!/bin/sh\n[ -e ${folder}/broken ] && exit 1\nPATH=${path} exec unshare "$@"\n`;
    fs.writeFileSync(`${folder}/unshare`, unshare, { mode: 0o755 });
    await node.start({}, ["env", `PATH=${folder}:${path}`]);
    const first = directSandbox(t, node, mountId);
    t.ok((await fs.promises.readFile(`${first.root}/small`)).equals(FILES.small));
    fs.writeFileSync(`${folder}/broken`, "");
    for (const pid of directServers(node.state)) process.kill(pid, "SIGKILL");
    let outcome = "";
    fs.promises.readFile(`${first.root}/last`).then(
      () => (outcome = "bytes"),
      (error: NodeJS.ErrnoException) => (outcome = String(error.code)),
    );
    await until(() => outcome !== "");
    t.match(outcome, /^(ENOTCONN|ECONNABORTED)$/, "it doesn't wait for ever");
    t.match(node.output, /direct mount lost/);

    fs.rmSync(`${folder}/broken`);
    const second = directSandbox(t, node, mountId);
    t.ok((await fs.promises.readFile(`${second.root}/last`)).equals(FILES.last));
  },
);

t.test(
  "what an earlier daemon left is not removed from under a new server",
  { skip: noFuse },
  async (t) => {
    const scene = await prepared(t, FILES);
    const { cache, state } = scene.node;
    const logged: string[] = [];
    const log = (what: string, why: object) => void logged.push(`${what} ${JSON.stringify(why)}`);
    const take = async (mounts: DirectMounts) => {
      const use = await mounts.use(viewOf(scene));
      if (typeof use === "number") return use;
      native.closeFd(use.hostFd);
      use.release();
      return 0;
    };
    const earlier = new DirectMounts({ cache, state, most: 2, log });
    t.equal(await take(earlier), 0, logged.join("\n"));
    earlier.stop();
    t.ok(await until(() => directServers(state).length === 0));
    const left = () => fs.readdirSync(`${state}/mounts`).filter((id) => id.startsWith("direct-"));
    t.equal(left().length, 1, "nobody was there to remove it");

    const next = new DirectMounts({ cache, state, most: 2, log });
    t.teardown(() => next.stop());
    const [, failed] = await Promise.all([next.start(), take(next)]);
    t.equal(failed, 0, logged.join("\n"));
    t.equal(left().length, 1);
  },
);

t.test("one tenant leaves a place for the next", { skip: noFuse }, async (t) => {
  const scene = await prepared(t, FILES);
  const { cache, state } = scene.node;
  const logged: string[] = [];
  const log = (what: string, why: object) => void logged.push(`${what} ${JSON.stringify(why)}`);
  const mounts = new DirectMounts({ cache, state, most: 2, log });
  t.teardown(() => mounts.stop());
  t.equal(mounts.figures, undefined, "nobody has asked");
  const take = async (tenant: string, at = "/") => {
    const use = await mounts.use(viewOf(scene, tenant, at));
    if (typeof use !== "number") native.closeFd(use.hostFd);
    return use;
  };
  const [first, again, other] = await Promise.all([take("a"), take("a"), take("a", "/other")]);
  if (typeof first === "number" || typeof again === "number") return t.fail(logged.join("\n"));
  t.equal(other, Errno.EDQUOT, "its second view");
  t.match(logged, [/no direct mount .*"a".*share of 2/]);
  first.release();
  const next = await take("b");
  if (typeof next === "number") return t.fail(logged.join("\n"));
  t.equal(await take("c"), Errno.ENFILE);
  t.match(logged[1], /all 2 are in use/);
  again.release();
  again.release();
  t.equal(await take("b", "/other"), Errno.EDQUOT, "another's, unused, doesn't count for it");
  const back = await take("a");
  t.type(back, "object");
  t.same(mounts.figures, {
    most: 2,
    views: 2,
    users: 2,
    made: 2,
    shared: 2,
    refused: 3,
    restarts: 0,
  });
});

t.test("who gets none is told why", async (t) => {
  const { node, mountId } = await prepared(t, FILES);
  const errnos: number[] = [Errno.EDQUOT, Errno.ENFILE];
  const server = await playDaemon(node.root, () => errnos.shift()!);
  t.teardown(() => server.close());
  const [tenant, all] = [directGofer(t, node, mountId), directGofer(t, node, mountId)];
  const logs = () => `${tenant.log}${all.log}`;
  await until(() => /EDQUOT/.test(logs()) && /ENFILE/.test(logs()));
  t.match(logs(), /its tenant's sandboxes have their share of this node's direct mounts in use/);
  t.match(logs(), /all direct mounts of this node are in use/);
});

t.test("a mount stays while any server of it lives, and what only looks like one", async (t) => {
  const scene = await prepared(t, FILES);
  const { node } = scene;
  const notes = new DirectNotes(node);
  const nobody = () => false;
  const id = directId(node.cache, "a view");
  const path = `${node.state}/mounts/${id}`;
  const owners = () => fs.readFileSync(`${path}/server`, "latin1").split("\n").length;
  await notes.describe(id, viewOf(scene));
  notes.claim(id, process.pid);
  t.ok(await until(() => fs.existsSync(`${path}/server`) && owners() > 1));
  // Of another daemon's server, which has ended.
  const ended = fs.readFileSync(`${path}/server`, "latin1").replace(/-\d+\n$/, "-1\n");
  fs.appendFileSync(`${path}/server`, ended);
  fs.cpSync(path, `${node.state}/mounts/direct-numpy`, { recursive: true });
  fs.rmSync(`${node.state}/mounts/direct-numpy/server`);
  await notes.sweep(nobody);
  t.ok(fs.existsSync(path), "an earlier one lives");
  t.ok(fs.existsSync(`${node.state}/mounts/direct-numpy`), "a bundle's");
  fs.writeFileSync(`${path}/server`, ended);
  await notes.sweep(nobody);
  t.notOk(fs.existsSync(path));
});
