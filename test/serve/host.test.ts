// A real gofer over a host directory: what a client finds, on both pathways. Read-only.

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "tap";
import { native } from "../../lib/sys/native.ts";
import { GoferProcess } from "../suite/gofer-process.ts";
import { contentOf, open, read, walk, walkTo } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";

test("a client mounts, walks, opens and reads on both pathways", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "burrow-tree-"));
  mkdirSync(join(directory, "a/b"), { recursive: true });
  writeFileSync(join(directory, "a/b/file"), "content");
  symlinkSync("b", join(directory, "a/link"));
  const gofer = GoferProcess.start({
    mounts: [{ destination: "/", source: directory, isReadOnly: true }],
  });
  const client = LisafsClient.mount(gofer.takeSocket(0), 2);
  for (const pathway of [client.socket, ...client.channels]) {
    client.pathway = pathway;
    t.equal(walk(client, client.rootFd, "a", "b", "file").inodes.length, 3);
    const opened = open(client, walkTo(client, "a/b/file"));
    t.ok(opened.hostFd >= 0, "a regular file's FD is donated");
    t.equal(contentOf(opened.hostFd).toString(), "content");
    native.closeFd(opened.hostFd);
    t.equal(read(client, opened.fd, 3, 100).toString(), "tent");
  }
  client.close();
  t.equal(await gofer.stop(), 0);
  t.equal(gofer.output, "");
  rmSync(directory, { recursive: true });
});
