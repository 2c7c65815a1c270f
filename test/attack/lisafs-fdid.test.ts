// Attack: LISAFS's FDIDs are small numbers, so a client guesses them. Rule: a connection's FDIDs mean nothing on another; what was
// closed stays closed; a table has a limit, and a client at it gets EMFILE while others do not notice.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { close, open, openPath, stat, walkTo } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { isLong } from "../suite/long.ts";
import { serveView, startGofer, temporary } from "../suite/served.ts";

const GUESSES = isLong ? 1_000_000 : 50_000;
const DIRECTORIES_MAX = 8192;

function serveTwo(t: Parameters<typeof startGofer>[0]) {
  const [one, two] = [temporary(t), temporary(t)];
  for (let i = 0; i < 100; i++) writeFileSync(join(one, `secret-${i}`), "secret");
  writeFileSync(join(two, "f"), "content");
  const gofer = startGofer(t, [
    { destination: "/", source: one, isReadOnly: true },
    { destination: "/mnt", source: two, isReadOnly: true },
  ]);
  const clients = [0, 1].map((i) => LisafsClient.mount(gofer.takeSocket(i), 1));
  t.teardown(() => {
    for (const client of clients) client.close();
  });
  return { gofer, victim: clients[0]!, thief: clients[1]! };
}

test("every number but a connection's own FDIDs is EBADF there", (t) => {
  const { victim, thief } = serveTwo(t);
  for (let i = 0; i < 100; i++) openPath(victim, `secret-${i}`);
  const own = new Set([thief.rootFd]);
  let found = 0;
  for (let fd = 0; fd < GUESSES; fd++) {
    const mid = [Mid.FStat, Mid.PRead, Mid.OpenAt][fd % 3]!;
    const { errno, fds } = thief.call(mid, { fd, count: 100 });
    thief.takeBack(fds);
    if (errno !== Errno.EBADF && !own.has(fd)) found++;
  }
  t.equal(found, 0, `of ${GUESSES} numbers`);
  for (const fd of [2 ** 32, 2 ** 52, 2 ** 52 + 1, 2 ** 53 - 1, -1]) {
    t.equal(thief.call(Mid.FStat, { fd }).errno, Errno.EBADF, String(fd));
    t.equal(thief.call(Mid.Close, { fds: [fd] }).errno, 0);
  }
  t.equal(stat(victim, walkTo(victim, "secret-5")).size, 6, "the other's are whole");
  t.end();
});

test("a number of another snapshot or row of a view is a file of the view or EBADF", (t) => {
  const { client, gofer } = serveView(t, { "d/f": "content", "d/g": "more" });
  const mids = [Mid.FStat, Mid.OpenAt, Mid.Walk, Mid.WalkStat, Mid.ReadLinkAt, Mid.FStatFS];
  let known = 0;
  for (const base of [0, 2 ** 32, 2 ** 33, 2 ** 51, 2 ** 52 - 100, 2 ** 52, 2 ** 53 - 101]) {
    for (let i = 0; i < 100; i++) {
      for (const mid of mids) {
        const { errno, fds } = client.call(mid, { fd: base + i, names: ["f"] });
        client.takeBack(fds);
        if (mid === Mid.FStat && errno === 0) known++;
        if (errno === Errno.EREMOTEIO) t.fail(`${base + i}`);
      }
    }
  }
  t.ok(known >= 4 && known <= 12, `${known} inodes: the root, d, f, g and what this test opened`);
  t.ok(gofer.isAlive);
  t.end();
});

test("a client at the limit of open directories gets EMFILE; closing makes room", (t) => {
  const { victim, thief, gofer } = serveTwo(t);
  const fds: number[] = [];
  let errno = 0;
  for (let i = 0; errno === 0 && i < DIRECTORIES_MAX + 10; i++) {
    const reply = thief.call(Mid.OpenAt, { fd: thief.rootFd });
    errno = reply.errno;
    if (errno === 0) fds.push(Number(reply.payload.readBigUInt64LE(0)));
  }
  t.equal(errno, Errno.EMFILE, `after ${fds.length}`);
  t.ok(fds.length <= DIRECTORIES_MAX);
  t.equal(open(victim, victim.rootFd).hostFd, -1, "another connection opens as ever");
  close(thief, ...fds);
  t.equal(thief.call(Mid.OpenAt, { fd: thief.rootFd }).errno, 0);
  t.ok(gofer.fdCount < 100, "and the process holds few FDs");
  t.end();
});
