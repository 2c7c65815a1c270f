// A client takes a lease on a file that was donated to it: the next open for writing would wait for up to 45 s
// (/proc/sys/fs/lease-break-time) and stall everybody that the server serves. It must be refused at once. Control plane.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import t from "tap";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, OpenResult, SetAttr } from "../../lib/tree/tree.ts";
import { createUpper } from "../../lib/tree/upper.ts";
import { refused } from "../suite/tree-behaviour.ts";
import { attrOf, createRequest, finish, must, setattr } from "../suite/tree-fixture.ts";

/** fcntl(3, F_SETLEASE, F_RDLCK), ignore the signal that asks for it back, and hold on. man fcntl(2). */
const CLIENT = `
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(3, 1024, 0)
print("held", flush=True)
sys.stdin.read()
`;

import { LATE_MS } from "../suite/wait.ts";

t.test("a lease on a donated FD makes opens EAGAIN, and none waits", async (t) => {
  const tree = createUpper({ sizeBytes: 1 << 20, inodes: 10, mode: 0o700 });
  if (typeof tree === "number") {
    t.pass(`skipped: no right to make a tmpfs here (errno ${-tree})`, { skip: true });
    return;
  }
  const request = createRequest(0o600);
  const ino = must(tree.mknod(tree.rootIno, "f" as Name, request), "mknod");
  const donated = new OpenResult();
  must(tree.open(ino, O_RDONLY, donated), "open");
  const stdio = ["pipe", "pipe", "inherit", donated.hostFd] as const;
  const child = spawn("python3", ["-c", CLIENT], { stdio: [...stdio] }) as ChildProcess;
  const failed = await Promise.race([
    once(child.stdout!, "data").then(() => undefined),
    once(child, "error").then(([error]) => String(error)),
    once(child, "exit").then(([code]) => `exit ${code}`),
  ]);
  if (failed !== undefined) t.pass(`skipped: no lease could be taken: ${failed}`, { skip: true });
  else {
    const start = performance.now();
    for (const flags of [O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC]) {
      refused(t, tree.open(ino, flags, new OpenResult()), Errno.EAGAIN, `open, flags ${flags}`);
    }
    const change = setattr(tree, ino, SetAttr.size | SetAttr.mode, { size: 7, mode: 0o640 });
    t.equal(change.failureMask, SetAttr.size);
    refused(t, -change.failureErrno, Errno.EAGAIN, "truncate");
    t.equal(attrOf(tree, ino).mode & 0o777, 0o640, "the mode needs no open");
    t.equal(tree.rename(tree.rootIno, "f" as Name, tree.rootIno, "g" as Name, 0), 0);
    t.equal(tree.unlink(tree.rootIno, "g" as Name, false), 0);
    t.ok(performance.now() - start < LATE_MS, "none of it waited");
    child.stdin!.end();
    await once(child, "exit");
    refused(t, tree.open(ino, O_WRONLY, new OpenResult()), Errno.EAGAIN, "our handle is the same");
    finish(tree, ino, donated);
    t.equal(tree.open(ino, O_WRONLY, donated), 0, "and with it the lease goes");
  }
  finish(tree, ino, donated);
  tree.dispose();
});
