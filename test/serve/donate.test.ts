// What a sandbox is handed as a file: whole, verified, never to be written, whatever befalls the cache meanwhile: eviction,
// damage, a daemon killed between two blocks (pitfalls B1, B3, B11, C1, F1, F8). A real daemon over a directory store, a real
// gofer, and this process in the sentry's place. BURROW_LONG=1: 10^6 opens; BURROW_SEED repeats a run.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES, DONATE_MAX_BYTES } from "../../lib/base/limits.ts";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { exited, type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { close, contentOf, errnoOf, open, read, stat, walkTo } from "../suite/lisafs-calls.ts";
import { isLong } from "../suite/long.ts";
import { noUpper, type Served, serveMount } from "../suite/served.ts";
import { blockUntil } from "../suite/wait.ts";

const OPENS = isLong ? 1_000_000 : 250;
const seed = Number(process.env["BURROW_SEED"] ?? Date.now() % 0x7fff_ffff);

interface Scene extends Pick<Served, "client" | "gofer"> {
  readonly node: TestNode;
  readonly files: Files;
  /** Where a file's blob is, when it is in the cache. */
  blobPath(name: string): string;
}

async function scene(t: Test, files: Files, config = {}): Promise<Scene> {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, files);
  await node.start(config);
  const served = await serveMount(t, node, node.mount(node.store, published.digest));
  const blobPath = (name: string) => node.blobPath(published.refs.get(name)!.digest);
  return { node, files, blobPath, ...served };
}

/** Opens a file and reads all of it as a sentry would: from the donated FD, or by PRead. */
function readWhole(
  { client, files }: Scene,
  name: string,
): { isRight: boolean; isDonated: boolean } {
  const wanted = files[name]!;
  const { fd, hostFd } = open(client, walkTo(client, name));
  const isDonated = hostFd >= 0;
  let isRight = true;
  if (isDonated) isRight = contentOf(hostFd).equals(wanted);
  for (let at = 0; !isDonated && at < wanted.length; at += 1 << 20) {
    const count = Math.min(1 << 20, wanted.length - at);
    isRight &&= read(client, fd, at, count).equals(wanted.subarray(at, at + count));
  }
  client.takeBack([hostFd].filter((each) => each >= 0));
  close(client, fd);
  return { isRight, isDonated };
}

/** Damage to a file of the cache that leaves its name: by kind. */
const DAMAGES: readonly ((path: string, other: string) => void)[] = [
  (path) => {
    const bytes = fs.readFileSync(path);
    bytes[bytes.length >> 1]! ^= 4;
    fs.chmodSync(path, 0o644);
    fs.writeFileSync(path, bytes);
  },
  (path) => fs.truncateSync(path, 100),
  (path) => fs.truncateSync(path, fs.statSync(path).size + 4096),
  (path, other) => fs.renameSync(other, path),
  (path) => fs.utimesSync(path, 1, 1),
  (path) => fs.chmodSync(path, 0o644),
];

test("damaged files of the cache are healed before they are donated", async (t) => {
  const names = DAMAGES.flatMap((_, i) => [`damaged${i}`, `other${i}`]);
  const at = await scene(t, Object.fromEntries(names.map((name, i) => [name, noise(9000 + i, i)])));
  for (const name of names) t.ok(readWhole(at, name).isRight);
  await at.node.settled();
  for (const [i, damage] of DAMAGES.entries()) {
    damage(at.blobPath(`damaged${i}`), at.blobPath(`other${i}`));
  }
  for (const name of names) t.same(readWhole(at, name), { isRight: true, isDonated: true }, name);
  const { fetch } = await at.node.settled();
  t.equal(fetch["dropped"], 4, "flipped, cut, lengthened, swapped: counted");
  t.equal(fetch["resealed"], 2, "touched, made writable: right all the same");
  for (const name of names) t.equal(fs.statSync(at.blobPath(name)).mode & 0o7777, 0o444, name);
});

test(`whatever happens to the cache, ${OPENS} opens see right bytes, seed ${seed}`, {
  timeout: 7_200_000,
}, async (t) => {
  const small = Array.from({ length: 20 }, (_, i) => [`s${i}`, noise(3000 + 997 * i, i + 1)]);
  const middle = [1, 2, 3].map((i) => [`m${i}`, noise(i * BLOCK_BYTES * 5 + i, 50 + i)]);
  const large = [1, 2].map((i) => [`l${i}`, noise(DONATE_MAX_BYTES + i * BLOCK_BYTES, 60 + i)]);
  // The limit is less than all of them: the daemon evicts by itself, too.
  const config = { limitBytes: 12 << 20 };
  const at = await scene(t, Object.fromEntries([...small, ...middle, ...large]), config);
  const names = Object.keys(at.files);
  let state = seed;
  const pick = (count: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const events = { evicted: 0, damaged: 0, killed: 0 };
  let daemon = await at.node.start(config);
  let donated = 0;
  // On until each came: what is there to be damaged depends on how far the daemon is.
  const isLacking = () => Object.values(events).includes(0);
  for (let i = 0; i < OPENS || (isLacking() && i < 8 * OPENS); i++) {
    const name = names[pick(names.length)]!;
    const { isRight, isDonated } = readWhole(at, name);
    if (!isRight) return t.fail(`${name}, open ${i}`);
    if (isDonated) donated++;
    const victim = at.blobPath(names[pick(names.length)]!);
    if (pick(OPENS / 16) === 0) {
      // Whatever the daemon is at: large files are most likely between two blocks.
      daemon.kill("SIGKILL");
      await exited(daemon);
      daemon = at.node.spawn({ cache: at.node.cache, state: at.node.state, ...config });
      events.killed++;
    } else if (pick(12) === 0) {
      fs.rmSync(victim, { force: true });
      events.evicted++;
    } else if (pick(40) === 0 && fs.existsSync(victim)) {
      const other = at.blobPath(names[pick(names.length)]!);
      if (!fs.existsSync(other) || other === victim) continue;
      DAMAGES[pick(DAMAGES.length)]!(victim, other);
      events.damaged++;
    }
  }
  t.ok(donated > OPENS / 2, `${donated} of them donated`);
  for (const [what, count] of Object.entries(events)) t.ok(count > 0, `${what}: ${count} times`);
});

test("a donated file can't be written, by whatever way a sandbox's user has", {
  skip: noUpper,
}, async (t) => {
  const files = { "lib.so": noise(20_000, 7), empty: Buffer.alloc(0) };
  const at = await scene(t, files);
  fs.chmodSync(at.node.root, 0o755);
  // One inode stands for the file in every environment and sandbox of the node.
  const { fd, hostFd } = open(at.client, walkTo(at.client, "lib.so"));
  const bytes = Buffer.from("x");
  t.equal(native.pwriteFd(hostFd, bytes, 0), -Errno.EBADF, "the FD is O_RDONLY");
  t.equal(native.writeFd(hostFd, bytes), -Errno.EBADF);
  const mapped = native.map(hostFd, 0, 4096, true);
  t.equal(mapped, -Errno.EACCES, "no shared, writable mapping");
  t.equal(errnoOf(at.client, Mid.PWrite, { fd }, bytes), Errno.EROFS);
  const script = `
    import errno, os
    def refused(name, call):
      try: call()
      except OSError as error: print(name, errno.errorcode[error.errno])
      else: print(name, "done")
    again = "/proc/self/fd/3"
    refused("reopen", lambda: os.open(again, os.O_RDWR))
    refused("truncate by path", lambda: os.open(again, os.O_WRONLY | os.O_TRUNC))
    refused("truncate", lambda: os.ftruncate(3, 0))
    refused("chmod", lambda: os.fchmod(3, 0o666))
    refused("utimes", lambda: os.utime(3, ns=(1, 1)))
    refused("link", lambda: os.link(again, "/tmp/burrow-linked-blob", follow_symlinks=True))
    refused("setxattr", lambda: os.setxattr(3, "user.a", b"b"))
    refused("remove", lambda: os.unlink(os.readlink(again)))`;
  const { stdout, stderr } = spawnSync("python3", ["-c", script.replace(/^ {4}/gm, "")], {
    stdio: ["ignore", "pipe", "pipe", hostFd],
    uid: 65_534,
    gid: 65_534,
    encoding: "utf8",
  });
  const answers = Object.fromEntries(
    stdout
      .trim()
      .split("\n")
      .map((line) => [line.slice(0, line.lastIndexOf(" ")), line.slice(line.lastIndexOf(" ") + 1)]),
  );
  const wanted = {
    reopen: "EACCES",
    "truncate by path": "EACCES",
    truncate: "EINVAL",
    chmod: "EPERM",
    utimes: "EPERM",
    setxattr: /^(EACCES|EPERM|EBADF)$/,
    remove: "ENOENT", // its name leads nowhere: the gofer had it of a mount that is attached nowhere
  };
  t.match(answers, wanted, stderr);
  t.not(answers["link"], "done", "no second name");
  t.ok(contentOf(hostFd).equals(files["lib.so"]), "it is what it was");
  t.equal(stat(at.client, walkTo(at.client, "lib.so")).mode & 0o777, 0o644, "whatever it shows");
  at.client.takeBack([hostFd]);
  const empty = open(at.client, walkTo(at.client, "empty"));
  t.equal(native.pwriteFd(empty.hostFd, bytes, 0), -Errno.EBADF, "nor the empty one");
  at.client.takeBack([empty.hostFd]);
});

test("a large file opened before it was here reads on by its first open, then without the daemon", async (t) => {
  const large = noise(DONATE_MAX_BYTES + 3 * BLOCK_BYTES + 5, 9);
  const at = await scene(t, { large, small: noise(5000, 3) });
  const { client, node } = at;
  const control = walkTo(client, "large");
  const first = open(client, control);
  t.equal(first.hostFd, -1, "too large to wait for");
  t.ok(read(client, first.fd, 0, 100).equals(large.subarray(0, 100)));
  await node.settled();
  t.ok(fs.existsSync(at.blobPath("large")), "the rest followed");
  const before = await node.status();
  // A sentry asks only once: its handle must be as good as a second one.
  const all = () => {
    const parts: Buffer[] = [];
    for (let i = 0; i < large.length; i += 1 << 20) {
      parts.push(read(client, first.fd, i, Math.min(1 << 20, large.length - i)));
    }
    return Buffer.concat(parts);
  };
  t.ok(all().equals(large));
  t.ok(all().equals(large));
  const asked = (await node.status()).fetch["asks"]! - before.fetch["asks"]!;
  t.equal(asked, 0, "the daemon isn't asked for what is here");
  fs.unlinkSync(at.blobPath("large"));
  t.ok(all().equals(large), "evicted, it is read on from the FD that the gofer has");
  t.equal((await node.status()).fetch["asks"], before.fetch["asks"]);
  const fds = at.gofer.fdCount;
  close(client, first.fd);
  t.equal(at.gofer.fdCount, fds - 1, "closed, it is let go");
  t.same(readWhole(at, "large"), { isRight: true, isDonated: false });
  await node.settled();
  t.same(readWhole(at, "large"), { isRight: true, isDonated: true }, "here before its first open");
});

test("a large file that was donated is read by PRead also once it is evicted", async (t) => {
  const large = noise(DONATE_MAX_BYTES + 3 * BLOCK_BYTES + 5, 9);
  const at = await scene(t, { large });
  const { client, node } = at;
  readWhole(at, "large");
  await node.settled();
  const before = at.gofer.fdCount;
  const { fd, hostFd } = open(client, walkTo(client, "large"));
  t.ok(hostFd >= 0, "whole, so donated");
  client.takeBack([hostFd]);
  t.equal(at.gofer.fdCount, before, "the gofer keeps no FD of it");
  fs.unlinkSync(at.blobPath("large"));
  const last = large.length - 1000;
  t.ok(read(client, fd, last, 2000).equals(large.subarray(last)), "the end, past its end");
  t.ok(read(client, fd, 3, BLOCK_BYTES).equals(large.subarray(3, 3 + BLOCK_BYTES)));
  await node.settled();
  fs.rmSync(at.blobPath("large"), { force: true });
  t.ok(read(client, fd, last, 1000).equals(large.subarray(last)), "and once more");
  close(client, fd);
  t.equal(at.gofer.fdCount, before, "closed, it is let go");
});

test("a mapping of a donated file stays right while its name is evicted, replaced and healed", async (t) => {
  const content = noise(3 * BLOCK_BYTES, 21);
  const at = await scene(t, { lib: content, other: noise(3 * BLOCK_BYTES, 22) });
  t.ok(readWhole(at, "other").isRight);
  const { hostFd } = open(at.client, walkTo(at.client, "lib"));
  const mapped = native.map(hostFd, 0, content.length, false);
  if (typeof mapped === "number") throw new Error(`map: ${mapped}`);
  const shows = () => Buffer.from(mapped).equals(content);
  t.ok(shows());
  const path = at.blobPath("lib");
  const evictions: Record<string, () => void> = {
    evicted: () => fs.unlinkSync(path),
    replaced: () => fs.renameSync(at.blobPath("other"), path),
    touched: () => fs.utimesSync(path, 1, 1),
    "made suspect": () => fs.renameSync(path, path.replace("/blobs/", "/suspect/")),
  };
  for (const [name, happen] of Object.entries(evictions)) {
    if (name === "made suspect") fs.mkdirSync(path.replace("/blobs/", "/suspect/").slice(0, -65));
    happen();
    t.ok(shows(), name);
    t.ok(readWhole(at, "lib").isRight, `${name}, and opened anew`);
    t.ok(shows(), `${name}, and healed`);
  }
  t.match((await at.node.settled()).fetch, { dropped: 1, resealed: 2 });
  native.unmap(mapped);
  at.client.takeBack([hostFd]);
});

test("the daemon's own eviction leaves a mapping alone", async (t) => {
  const content = noise(3 * BLOCK_BYTES, 31);
  const others = Array.from({ length: 8 }, (_, i) => [`other${i}`, noise(BLOCK_BYTES, 32 + i)]);
  const files = { lib: content, ...Object.fromEntries(others) };
  const at = await scene(t, files, { limitBytes: 6 * BLOCK_BYTES });
  const { hostFd } = open(at.client, walkTo(at.client, "lib"));
  const mapped = native.map(hostFd, 0, content.length, false);
  if (typeof mapped === "number") throw new Error(`map: ${mapped}`);
  at.client.takeBack([hostFd]);
  for (let i = 0; i < 24; i++) t.ok(readWhole(at, `other${i % 8}`).isRight);
  t.ok(fs.existsSync(at.blobPath("lib")), "the others made place for each other");
  t.ok(Buffer.from(mapped).equals(content));
  native.unmap(mapped);
  let i = 0;
  const isGone = blockUntil(() => {
    t.ok(readWhole(at, `other${i++ % 8}`).isRight);
    return !fs.existsSync(at.blobPath("lib"));
  });
  t.ok(isGone, "evicted by its limit");
  t.ok(readWhole(at, "lib").isRight, "and it comes again");
});
