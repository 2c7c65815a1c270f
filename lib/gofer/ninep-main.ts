// burrow's 9P server: the process that answers 9P clients, on sockets that it is given by `burrow serve`, until that is gone. It opens
// its trees, says so with one byte, and has no other business with who started it. Logs to stderr. Control plane; its loop is not.

import { errnoName } from "../base/errno.ts";
import { BurrowError, explain } from "../base/error.ts";
import { MISS_DEADLINE_MS, NINEP_HELLO_MS } from "../base/limits.ts";
import { nameOf } from "../base/name.ts";
import { LockTable } from "../serve/ninep/lock-table.ts";
import type { ServedView } from "../serve/ninep/view.ts";
import { native } from "../sys/native.ts";
import { createWait } from "../sys/wait.ts";
import { NO_SPECIAL_FILES } from "../tree/host-special.ts";
import { harden } from "./harden.ts";
import { LogBudget } from "./log-budget.ts";
import { refusalOf } from "./ninep-access.ts";
import { FIRST_SERVED_FD, LEADER_FD, type NinepConfig } from "./ninep-config.ts";
import { NinepLoop } from "./ninep-loop.ts";
import { leaveSignals } from "./signals.ts";
import { type OpenedTree, openTree, shareFds } from "./trees.ts";

const STDERR = 2;
const OPEN_FILES = 1_048_576;
/** Where the limit can't be told: what every process may have. man getrlimit(2); Linux, include/linux/fs.h INR_OPEN_CUR. */
const FD_LIMIT_MIN = 1_024;

const budget = new LogBudget(performance.now());

/** One JSON line, as the daemon logs; most are of what clients do. */
function log(line: string): void {
  const omitted = budget.take(performance.now());
  if (omitted < 0) return;
  const more = omitted > 0 ? { omitted } : {};
  const fields = { time: new Date().toISOString(), event: "9p", message: line, ...more };
  const text = JSON.stringify(fields);
  native.writeFd(STDERR, Buffer.from(`${text}\n`));
}

/** A view as it is served, and what it was opened as. */
interface OpenedView {
  readonly view: ServedView;
  readonly opened: OpenedTree;
}

function openViews({ views, state }: NinepConfig): OpenedView[] {
  return views.map(({ name, source, isReadOnly: asked }) => {
    const mount = { destination: name, source, isReadOnly: asked };
    const opened = openTree(mount, state, NO_SPECIAL_FILES);
    const { tree, isReadOnly, mailbox } = opened;
    const view = { name: nameOf(name), tree, isReadOnly, mailbox, locks: new LockTable() };
    return { view, opened };
  });
}

function serve(config: NinepConfig): void {
  leaveSignals();
  createWait(true);
  process.umask(0);
  const views = openViews(config);
  const fdLimit = native.setNoFile(OPEN_FILES);
  const trees = views.map(({ opened }) => opened);
  if (fdLimit > 0)
    shareFds(
      trees.map(({ tree }) => tree),
      fdLimit,
    );
  const { access, listens } = config;
  const loop = new NinepLoop({
    views: views.map(({ view }) => view),
    log,
    missDeadlineMs: MISS_DEADLINE_MS,
    helloMs: NINEP_HELLO_MS,
    fdLimit: fdLimit > 0 ? fdLimit : FD_LIMIT_MIN,
    refusalOf: (fd) => refusalOf(fd, access),
  });
  for (const [i, isListening] of listens.entries()) {
    const fd = FIRST_SERVED_FD + i;
    const failed = isListening ? loop.listen(fd) : loop.add(fd);
    if (failed < 0) throw new BurrowError("BURROW_IO", `can't serve: ${errnoName(failed)}`);
  }
  native.setNonblock(LEADER_FD);
  harden(trees, listens.includes(true) ? ["clients"] : [], process.env["BURROW_HARDEN"], log);
  native.writeFd(LEADER_FD, Buffer.from("\n"));
  if (listens.includes(true)) loop.endWith(LEADER_FD);
  loop.run();
}

try {
  serve(JSON.parse(process.argv[2] ?? "") as NinepConfig);
  native.exitNow(0);
} catch (error) {
  native.writeFd(LEADER_FD, Buffer.from(explain(error)));
  native.exitNow(1);
}
