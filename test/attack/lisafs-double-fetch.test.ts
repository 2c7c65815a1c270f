// Attack: the client rewrites a request in shared memory while the server reads it, so that a length or a name that was checked
// is another when it is used. LISAFS's README warns of it. Rule: no crash, no bug of ours logged, others unaffected, nothing leaks.

import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { startFlipper } from "../suite/flipper.ts";
import { writeMount } from "../suite/gofer-process.ts";
import { close, inodeAt, must, open, stat } from "../suite/lisafs-calls.ts";
import { CHANNEL_START, LisafsClient, WINDOW_HEADER } from "../suite/lisafs-client.ts";
import { isLong } from "../suite/long.ts";
import { isSanitized, startGofer, temporary } from "../suite/served.ts";
import { blockUntil } from "../suite/wait.ts";

const SECONDS = isLong ? 30 : 2;
const WINDOW = 2 * 1024 * 1024;
const NONE = 0xffff_ffff;
const own = { uid: NONE, gid: NONE };
const MSG_DONTWAIT = 0x40;

/** All that a server could read twice. */
const EVERYTHING = [
  [4, 8],
  [WINDOW_HEADER, CHANNEL_START],
  [CHANNEL_START, CHANNEL_START + 400],
] as const;
/** The second and third FDID of a Walk's reply: behind the request that it overwrites. */
const REPLIED_FDIDS = [
  [CHANNEL_START + 3 + 152, CHANNEL_START + 3 + 160],
  [CHANNEL_START + 3 + 304, CHANNEL_START + 3 + 312],
] as const;

type Message = readonly [number, Partial<Request>, Uint8Array?];

function everyRequest(root: number, file: number): Message[] {
  const names = ["d", "d", "d", "f", "x"];
  return [
    [Mid.Walk, { fd: root, names, nameCount: names.length }],
    [Mid.WalkStat, { fd: root, names: ["", ...names], nameCount: 6 }],
    [Mid.PRead, { fd: file, count: 100_000 }],
    [Mid.PWrite, { fd: file }, Buffer.alloc(50_000, 1)],
    [Mid.Getdents64, { fd: file, count: -65_536 }],
    [Mid.FSetXattr, { fd: root, name: "user.a", otherName: "v".repeat(2000) }],
    [Mid.SymlinkAt, { fd: root, ...own, name: "s", otherName: "t".repeat(100) }],
    [Mid.MkdirAt, { fd: root, ...own, name: "m", mode: 0o755 }],
    [Mid.RenameAt, { fd: root, otherFd: root, name: "m", otherName: "n" }],
    [Mid.FSync, { fds: [file, file], fdCount: 2 }],
  ];
}

/** A Walk that fails at a file in the middle, after three control FDs were minted. */
function failingWalk(root: number): Message[] {
  const names = ["d", "d", "d", "f", "x"];
  return [[Mid.Walk, { fd: root, names, nameCount: names.length }]];
}

/** Two uppers of one gofer: of the client that attacks, and of one that must not notice. */
function serve(t: Parameters<typeof startGofer>[0]) {
  const state = temporary(t);
  const upper = { kind: "upper", sizeBytes: 16 << 20, inodes: 4096, mode: 0o755 };
  const mounts = ["/", "/mnt"].map((destination, i) => ({
    destination,
    source: writeMount(state, `upper${i}`, upper),
  }));
  const gofer = startGofer(t, mounts, { BURROW_STATE: state });
  const good = LisafsClient.mount(gofer.takeSocket(1), 1);
  const idle = gofer.fdCount;
  const bad = LisafsClient.mount(gofer.takeSocket(0), 1);
  t.teardown(() => {
    bad.close();
    good.close();
  });
  const held = [bad.rootFd];
  for (let i = 0; i < 3; i++) {
    const made = must(bad, Mid.MkdirAt, { fd: held.at(-1)!, ...own, name: "d", mode: 0o755 });
    held.push(inodeAt(made.payload, 0).fd);
  }
  const file = must(bad, Mid.MknodAt, { fd: held.at(-1)!, ...own, name: "f", mode: 0o100644 });
  const control = inodeAt(file.payload, 0).fd;
  const opened = open(bad, control, 2);
  native.closeFd(opened.hostFd);
  // What a walk finds is held by nothing else, so an FDID that is forgotten holds an FD.
  close(bad, control, ...held.slice(1));
  return { gofer, good, bad, idle, file: opened.fd };
}

/** Calls with `messages` in turn while `ranges` are rewritten, for some seconds: how many there were. */
async function attack(
  bad: LisafsClient,
  good: LisafsClient,
  messages: readonly Message[],
  ranges: readonly (readonly [number, number])[],
): Promise<number> {
  const channel = bad.channels[0]!;
  const fds = new Int32Array(8);
  const byte = new Uint8Array(1);
  let calls = 0;
  const endFlipper = startFlipper(channel.memoryFd, 0, WINDOW, ranges);
  for (const end = performance.now() + SECONDS * 1000; performance.now() < end; ) {
    const [mid, fields, data] = messages[calls++ % messages.length]!;
    const cursor = new Cursor(channel.buffer).seek(CHANNEL_START, WINDOW);
    encodeRequest(mid, Object.assign(new Request(), fields), cursor, data);
    channel.view.setUint16(WINDOW_HEADER, mid, true);
    const got = native.channelCall(channel.window, cursor.offset - WINDOW_HEADER, 5000);
    if (got === -Errno.ETIMEDOUT) throw new Error(`call ${calls} was not answered`);
    while (native.receiveMessage(channel.socketFd, byte, fds, MSG_DONTWAIT) >= 0 && fds[0] === 1) {
      native.closeFd(fds[1]!);
    }
    if (calls % 1000 === 0) stat(good, good.rootFd);
  }
  await endFlipper();
  return calls;
}

test("rewriting a request in shared memory while it is read breaks nothing", async (t) => {
  const { gofer, good, bad, idle, file } = serve(t);
  const rss = gofer.rssBytes;
  const calls = await attack(bad, good, everyRequest(bad.rootFd, file), EVERYTHING);
  t.ok(calls > 1000, `${calls} calls`);
  t.ok(gofer.isAlive);
  t.ok(gofer.rssBytes - rss < 32 * 1024 * 1024 || isSanitized, "RSS is flat");
  bad.close();
  t.ok(
    blockUntil(() => gofer.fdCount < idle),
    "everything of the connection is given back",
  );
  t.equal(stat(good, good.rootFd).mode & 0o777, 0o755);
});

test("rewriting the FDIDs of a reply does not make the server forget what it minted", async (t) => {
  const { gofer, good, bad } = serve(t);
  const before = gofer.fdCount;
  const calls = await attack(bad, good, failingWalk(bad.rootFd), REPLIED_FDIDS);
  t.equal(gofer.fdCount, before, `${calls} walks that failed hold no FD`);
});
