// Owns: a server of a writable view that is relieved (SIGHUP) while its client changes things: what it copied up while its successor
// got ready is there after it, with every byte. Needs root: what a tmpfs keeps. Plane: control.
import * as fs from "node:fs";
import * as path from "node:path";
import t from "tap";
import { native } from "../../lib/sys/native.ts";
import { SetAttr } from "../../lib/tree/tree.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { writeMount } from "../suite/gofer-process.ts";
import type { LisafsClient } from "../suite/lisafs-client.ts";
import { makeView } from "../suite/view-cache.ts";
import { until } from "../suite/wait.ts";
import { HotStub, hotDirectory, noHot } from "./hot.ts";

if (noHot) {
  t.pass("skipped", { skip: noHot });
  process.exit(0);
}

const COUNT = 300;
const nameOf = (i: number) => `f${i}`;
const contentOf = (i: number) => `content of file ${i}`;

function walk(client: LisafsClient, name: string): number {
  const { errno, payload } = client.call(Mid.Walk, { fd: client.rootFd, names: [name] });
  if (errno !== 0) throw new Error(`walk to ${name}: ${errno}`);
  return Number(payload.readBigUInt64LE(3));
}

/** What a new open of a file gives, by the FD that is donated. */
function contentAt(client: LisafsClient, name: string): string {
  const fd = walk(client, name);
  const opened = client.call(Mid.OpenAt, { fd });
  if (opened.errno !== 0) return `errno ${opened.errno}`;
  const bytes = Buffer.alloc(100);
  const got = native.preadFd(opened.fds[0]!, bytes, 0);
  client.takeBack(opened.fds);
  client.call(Mid.Close, { fds: [fd, Number(opened.payload.readBigUInt64LE(0))] });
  return bytes.toString("latin1", 0, Math.max(0, got));
}

for (const kind of ["tmpfs", "folder"]) {
  t.test(`relief over a ${kind} loses nothing that changes meanwhile`, async (t) => {
    const directory = hotDirectory(t);
    const files = Object.fromEntries(
      Array.from({ length: COUNT }, (_, i) => [nameOf(i), contentOf(i)]),
    );
    const root = makeView(directory, files);
    const view = JSON.parse(fs.readFileSync(path.join(root, "mount.json"), "utf8")) as object;
    const kept = path.join(directory, "upper");
    fs.mkdirSync(kept, { mode: 0o700 });
    const upper = kind === "tmpfs" ? { sizeBytes: 1 << 26, inodes: 10_000 } : { directory: kept };
    const source = writeMount(directory, "overlay", { ...view, upper });
    const hot = new HotStub(t, directory, [{ source, isReadOnly: false }]);
    hot.start();
    const client = hot.mount(t);
    const old = hot.servers()[0]!;
    let changed = 0;
    const change = () => {
      const fd = walk(client, nameOf(changed++));
      const set = { fd, mask: SetAttr.mode, mode: 0o100600 };
      if (client.call(Mid.SetStat, set).errno !== 0) throw new Error("not changed");
      client.call(Mid.Close, { fds: [fd] });
    };
    change();
    hot.stub.kill("SIGHUP");
    while (changed < COUNT && hot.servers().includes(old)) change();
    t.ok(await until(() => !hot.servers().includes(old)), hot.log);
    const wrong: string[] = [];
    for (let i = 0; i < changed; i++)
      if (contentAt(client, nameOf(i)) !== contentOf(i)) wrong.push(nameOf(i));
    t.same(wrong.slice(0, 3), [], `${wrong.length} of ${changed} have other bytes; ${hot.log}`);
  });
}
