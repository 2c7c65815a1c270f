// What a gofer tells its stub: copies of every channel's FDs before the client knows the channel, and the end of a connection.
// docs/protocol/adopt.md, section 2.

import { test } from "tap";
import { native } from "../../lib/sys/native.ts";
import type { GoferProcess } from "../suite/gofer-process.ts";
import { stat } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { startGofer, temporary } from "../suite/served.ts";

const KEEP = 2;
const DROP = 3;
const SERVING = 7;
const Role = { memory: 16, fdSocket: 17, fdPeer: 19, journal: 20, reads: 21 } as const;
const MSG_DONTWAIT = 0x40;

interface Message {
  readonly type: number;
  /** [role, index, sub] of each FD. */
  readonly records: [number, number, number][];
  readonly fds: number[];
  readonly body: Buffer;
}

/** The messages that stand in the stub's socket. */
function messages(gofer: GoferProcess): Message[] {
  const found: Message[] = [];
  const bytes = Buffer.alloc(65_536);
  const fds = new Int32Array(201);
  for (;;) {
    const got = native.receiveMessage(gofer.stubFd, bytes, fds, MSG_DONTWAIT);
    if (got <= 0) return found;
    const count = bytes.readUInt16LE(6);
    const records = Array.from({ length: count }, (_, i): [number, number, number] => {
      const at = 16 + 16 * i;
      return [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4), bytes.readUInt32LE(at + 8)];
    });
    found.push({
      type: bytes.readUInt16LE(4),
      records,
      fds: [...fds.subarray(1, 1 + fds[0]!)],
      body: Buffer.from(bytes.subarray(16 + 16 * count, got)),
    });
  }
}

test("each channel's FDs are kept, by connection and channel, and a connection's end is told", (t) => {
  const source = temporary(t);
  const mounts = ["/", "/a"].map((destination) => ({ destination, source }));
  const gofer = startGofer(t, mounts);
  const [one, two] = [0, 1].map((i) => LisafsClient.mount(gofer.takeSocket(i)));
  t.teardown(() => {
    one!.close();
    two!.close();
  });
  const first = messages(gofer);
  t.strictSame(
    first.map(({ type, records }) => [type, records]),
    [
      ...[0, 1].map((index) => [
        KEEP,
        [
          [Role.journal, index, 0],
          [Role.reads, index, 0],
        ],
      ]),
      [SERVING, []],
    ],
    "journals before anything is served",
  );
  for (const { fds } of first) for (const fd of fds) native.closeFd(fd);
  for (const [index, client] of [one!, two!].entries()) {
    for (const sub of [0, 1]) {
      client.openChannel();
      const kept = messages(gofer);
      t.equal(kept.length, 1, "sent before the client was answered");
      t.equal(kept[0]!.type, KEEP);
      t.strictSame(kept[0]!.records, [
        [Role.memory, index, 0],
        [Role.fdSocket, index, sub],
        [Role.fdPeer, index, sub],
      ]);
      t.equal(kept[0]!.fds.length, 3);
      for (const fd of kept[0]!.fds) native.closeFd(fd);
    }
  }
  two!.close();
  for (let i = 0; i < 50; i++) stat(one!, one!.rootFd);
  const dropped = messages(gofer);
  t.equal(dropped.length, 1);
  t.equal(dropped[0]!.type, DROP);
  t.equal(dropped[0]!.body.readUInt32LE(0), 1, "the second mount's");
  t.end();
});

test("a stub that reads nothing does not stop a gofer", (t) => {
  const source = temporary(t);
  const mounts = Array.from({ length: 50 }, (_, i) => ({ destination: `/${i}`, source }));
  const gofer = startGofer(t, mounts);
  for (let i = 0; i < mounts.length; i++) {
    const client = LisafsClient.mount(gofer.takeSocket(i), 2);
    t.teardown(() => client.close());
    t.equal(stat(client, client.rootFd).mode & 0o170000, 0o040000);
  }
  t.end();
});
