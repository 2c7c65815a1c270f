// A request that is refused since its client has all the FDIDs that it may have leaves no name behind.

import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { CONTROL_FDS_MAX } from "../../lib/base/limits.ts";
import type { Ino } from "../../lib/tree/tree.ts";
import type { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid, midName } from "../../lib/wire/lisafs/mid.ts";
import { fdidIn, hostClient } from "../suite/memory-client.ts";
import { temporary } from "../suite/served.ts";

test("what is refused for want of an FDID is not made", (t) => {
  const directory = temporary(t);
  writeFileSync(join(directory, "file"), "");
  const special = { opensFifos: true, connectsSockets: true, bindsSockets: true };
  const { tree, client } = hostClient(t, directory, { special });
  const { root: fd, connection } = client;
  const { fds } = connection;
  const file = tree.lookup(tree.rootIno, "file" as never) as Ino;
  const otherFd = fds.mintControl(file);
  let last = otherFd;
  for (let count = 2; count < CONTROL_FDS_MAX; count++) {
    tree.acquire(file);
    last = fds.mintControl(file);
  }
  const owner = { uid: process.getuid!(), gid: process.getgid!() };
  const made = { fd, name: "made", mode: 0o100600, ...owner };
  const requests = new Map<number, Partial<Request>>([
    [Mid.MkdirAt, made],
    [Mid.MknodAt, made],
    [Mid.SymlinkAt, { ...made, otherName: "file" }],
    [Mid.LinkAt, { ...made, otherFd }],
    [Mid.OpenCreateAt, { ...made, flags: 2 }],
    [Mid.BindAt, { ...made, sockType: 1 }],
  ]);
  for (const [mid, fields] of requests) {
    t.equal(client.call(mid, fields), Errno.EMFILE, midName(mid));
    t.same(readdirSync(directory), ["file"], "nothing is there");
  }
  fds.close(last);
  t.ok(fdidIn(client.call(Mid.MkdirAt, made)) > 0, "with room again it is made");
  t.end();
});
