// The journal of a connection: a change is made once, whichever request a successor comes to first. Control plane.

import t from "tap";
import { ConnectionJournal, Replay } from "../../lib/serve/lisafs/journal.ts";
import { native } from "../../lib/sys/native.ts";
import type { Tree } from "../../lib/tree/tree.ts";
import { pair } from "../suite/gofer-process.ts";

const SOCK_STREAM = 1;
const tree = { journalBytes: 0 } as Tree;

t.test("a successor that begins another change first still knows the one before", (t) => {
  const [socket, peer] = pair(SOCK_STREAM);
  const first = ConnectionJournal.create(socket, tree) as ConnectionJournal;
  const again = (from: ConnectionJournal) =>
    ConnectionJournal.open(
      native.dupFd(from.memoryFd),
      native.dupFd(from.socket.watchFd),
      tree,
    ) as ConnectionJournal;
  t.equal(first.begin(11), Replay.fresh);
  first.finish();
  const second = again(first);
  t.equal(second.begin(22), Replay.fresh);
  t.equal(second.begin(11), Replay.done, "made by the first");
  const third = again(second);
  t.equal(third.begin(33), Replay.fresh);
  third.finish();
  t.equal(third.begin(22), Replay.unknown, "begun by the second, which died");
  third.finish();
  t.equal(third.begin(22), Replay.done);
  t.equal(third.begin(11), Replay.done);
  for (const fd of [socket, peer]) native.closeFd(fd);
  t.end();
});
