// A client that holds all it can of one mount, or of all but one: the others are served as before. Control plane.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { errnoOf, openPath, walkTo } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { startGofer, temporary } from "../suite/served.ts";

/** Of the process; node itself takes about 30. */
const OPEN_FILES = 512;
const MOUNTS = 3;

t.test("a mount whose FDs are all taken leaves the others theirs", async (t) => {
  const directory = temporary(t);
  const mounts = Array.from({ length: MOUNTS }, (_, i) => {
    const source = join(directory, `m${i}`);
    mkdirSync(source);
    for (let k = 0; k < OPEN_FILES; k++) writeFileSync(join(source, `f${k}`), "x");
    return { destination: i === 0 ? "/" : `/mnt/${i}`, source, isReadOnly: true };
  });
  const gofer = startGofer(t, mounts, {}, { openFiles: OPEN_FILES });
  const clients = mounts.map((_, i) => LisafsClient.mount(gofer.takeSocket(i), 1));
  t.teardown(() => {
    for (const client of clients) client.close();
  });
  const [last, ...greedy] = [...clients].reverse();
  for (const client of greedy) {
    let taken = 0;
    const names = (k: number) => ({ fd: client.rootFd, names: [`f${k}`], nameCount: 1 });
    let errno = 0;
    while (errno === 0 && taken < OPEN_FILES) {
      errno = errnoOf(client, Mid.Walk, names(taken));
      if (errno === 0) taken++;
    }
    t.equal(errno, Errno.EMFILE, `after ${taken} files`);
    // A quarter is for all else; a third of the rest, less the root.
    t.equal(taken, OPEN_FILES / 4 - 1);
  }
  for (let k = 0; k < 50; k++) walkTo(last!, `f${k}`);
  t.doesNotThrow(() => openPath(last!, "f50"));
});
