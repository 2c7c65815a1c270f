// burrow's FUSE server: the process that answers the kernel for one mount, which `burrow mount` made, until it is unmounted or that is
// gone. Says with one byte that the mount can be used. Logs to stderr. Control plane; its loop is not.

import { errnoName } from "../base/errno.ts";
import { BurrowError, explain } from "../base/error.ts";
import { MISS_DEADLINE_MS } from "../base/limits.ts";
import { native } from "../sys/native.ts";
import { createWait } from "../sys/wait.ts";
import { NO_SPECIAL_FILES } from "../tree/host-special.ts";
import { FUSE_DEVICE_FD, FUSE_LEADER_FD, type FuseConfig } from "./fuse-config.ts";
import { FuseLoop } from "./fuse-loop.ts";
import { harden } from "./harden.ts";
import { leaveSignals } from "./signals.ts";
import { openTree, shareFds } from "./trees.ts";

const STDERR = 2;
const OPEN_FILES = 1_048_576;
/** Who started it is the daemon. */
let isDaemons = false;

/** One JSON line, as the daemon logs; to the daemon itself of what it started. */
function log(line: string): void {
  if (isDaemons) {
    native.writeFd(FUSE_LEADER_FD, Buffer.from(`${line}\n`));
    return;
  }
  const text = JSON.stringify({ time: new Date().toISOString(), event: "fuse", message: line });
  native.writeFd(STDERR, Buffer.from(`${text}\n`));
}

function serve(config: FuseConfig): void {
  const { state, source, isReadOnly, direct } = config;
  isDaemons = direct !== undefined;
  leaveSignals();
  createWait(true);
  process.umask(0);
  const opened = openTree({ destination: "/", source, isReadOnly }, state, NO_SPECIAL_FILES);
  const { tree, mailbox } = opened;
  const fdLimit = native.setNoFile(OPEN_FILES);
  if (fdLimit > 0) shareFds([tree], fdLimit);
  const loop = new FuseLoop(FUSE_DEVICE_FD, {
    tree,
    isReadOnly: opened.isReadOnly,
    mailbox,
    log,
    missDeadlineMs: MISS_DEADLINE_MS,
    isUnopened: isDaemons,
    onReady: () => native.writeFd(FUSE_LEADER_FD, Buffer.from("\n")),
  });
  if (loop.fault < 0)
    throw new BurrowError("BURROW_IO", `can't serve /dev/fuse: ${errnoName(loop.fault)}`);
  native.setNonblock(FUSE_LEADER_FD);
  if (!isDaemons) loop.endWith(FUSE_LEADER_FD);
  harden([opened], [], process.env["BURROW_HARDEN"], log);
  if (direct === "follows") {
    if (!loop.session.resume())
      throw new BurrowError("BURROW_IO", "the kernel can't be told to ask again");
    native.writeFd(FUSE_LEADER_FD, Buffer.from("\n"));
  }
  loop.run();
}

try {
  serve(JSON.parse(process.argv[2] ?? "") as FuseConfig);
  native.exitNow(0);
} catch (error) {
  native.writeFd(FUSE_LEADER_FD, Buffer.from(explain(error)));
  native.exitNow(1);
}
