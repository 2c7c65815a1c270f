// A standby that has not rehearsed, and is for a broker alone: what a test needs of one, at a tenth of the price.
// `node plain-standby.js PATH`; prints "+" when it listens. Tests only.

import { writeSync } from "node:fs";
import { receiveMessage, Type } from "../../lib/gofer/adopt.ts";
import { readShare } from "../../lib/gofer/plan.ts";
import { serveShared } from "../../lib/gofer/shared.ts";
import { own } from "../../lib/gofer/start.ts";
import { native } from "../../lib/sys/native.ts";
import { addSocket, armSocket, createWait, dropSocket, nextEvent } from "../../lib/sys/wait.ts";

createWait();
const listener = native.listenPackets(process.argv[2]!, 0);
const slot = addSocket(listener);
writeSync(1, "+");
for (;;) {
  nextEvent(-1, 0, -1);
  const peer = native.acceptPeer(listener);
  armSocket(slot, false);
  const message = peer < 0 ? undefined : receiveMessage(peer);
  if (message?.type === Type.share) {
    dropSocket(slot);
    native.closeFd(listener);
    const share = readShare(message.body, message.fds, own);
    native.exitNow(share === undefined ? 1 : serveShared(peer, share));
  }
  // A stub's START.
  for (const { fd } of message?.fds ?? []) native.closeFd(fd);
  if (peer >= 0) native.closeFd(peer);
}
