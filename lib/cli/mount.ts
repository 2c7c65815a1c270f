// burrow mount: a view as a directory of this host, to look into without a sandbox. This process prepares the view, mounts, keeps the
// daemon and cleans up; another answers the kernel (lib/gofer/fuse-main.ts) and ends with the mount or with this one; a third takes the
// mount away when this one is killed (mount-guard.ts). Control plane.

import { spawn } from "node:child_process";
import { closeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { BurrowError, explain } from "../base/error.ts";
import type { FuseConfig } from "../gofer/fuse-config.ts";
import { mountedAt } from "../sys/mounted.ts";
import { type ChildServer, startServer } from "./child-server.ts";
import { addCommonOptions, type Context, collect, contextOf } from "./context.ts";
import { EXPLAIN_HELP, EXPLAIN_OPTION } from "./explain-mount.ts";
import { onInterrupt } from "./interrupt.ts";
import { keepDaemon } from "./keep-daemon.ts";
import type { ClaimedUpper } from "./kept-upper.ts";
import { guard } from "./mount-guard.ts";
import {
  attach,
  clear,
  detach,
  isBurrows,
  mountpointOf,
  refuseHiding,
  sweep,
  tune,
} from "./mountpoint.ts";
import { print } from "./output.ts";
import { checkQuery, prepare } from "./prepare.ts";
import { type QueryOptions, upperOf } from "./query-settings.ts";
import { type Run, type Watch, withRun } from "./runs.ts";
import { importView, knownMount, type Uppers } from "./view-mounts.ts";

interface MountOptions {
  env?: string;
  stage?: string[];
  writable?: string | true;
  upper?: string;
  allowOther?: boolean;
  background?: boolean;
  tenant?: string;
  quiet?: boolean;
  json?: boolean;
  explain?: boolean;
}

const EXAMPLES = `
VIEW is a snapshot's digest (a base, an environment), a directory, tar or image to import, or the id
of a bundle's mounts. It is read-only; --writable keeps changes in memory, up to 256M or SIZE, and
they are gone when it is unmounted; --upper keeps them in a folder, for the next mount or run over
the same view, or burrow layer keep. Only who mounts may look in, unless --allow-other. SIGINT,
SIGTERM and SIGHUP unmount it, and so does burrow umount. What a killed one left at MOUNTPOINT is
taken away.

Examples:
  burrow mount sha256:… /mnt
  burrow mount --background --env environment.yml rootfs.tar /mnt && ls /mnt/opt/env; burrow umount /mnt
  burrow mount --writable 1G sha256:… /mnt
  burrow mount --upper changes sha256:… /mnt`;

const UMOUNT_EXAMPLES = `
Examples:
  burrow umount /mnt
  burrow umount --lazy /mnt`;

export function addMount(program: Command): void {
  addCommonOptions(program.command("mount"))
    .description("mount a view as a directory of this host, by FUSE")
    .argument("<view>", "what to look into")
    .argument("<mountpoint>", "a directory")
    .option("--env <ENV>", "with a conda environment at its prefix, as for burrow run")
    .option("--stage <NAME=SOURCE>", "with a stage at /stage/NAME; repeatable", collect)
    .option("--writable [SIZE]", "let it be written to: changes are kept in memory (256M)")
    .option("--upper <DIR>", "as --writable, with the changes kept in a folder, as burrow run does")
    .option("--allow-other", "let other users look in, as far as the files' modes do")
    .option("-d, --background", "return once it is mounted")
    .option(EXPLAIN_OPTION, EXPLAIN_HELP)
    .option("--tenant <NAME>", "whose stages they are ($BURROW_TENANT)")
    .option("--quiet", "no progress")
    .addHelpText("after", EXAMPLES)
    .action(async (view: string, mountpoint: string, options: MountOptions) => {
      const context = contextOf(options);
      const path = mountpointOf(mountpoint);
      const { state, cache, store } = context;
      const folders = [store.startsWith("/") ? [store] : [], options.upper ?? []].flat();
      refuseHiding(path, [state, cache, ...folders, process.execPath, PROGRAM]);
      await clear(path);
      process.exitCode =
        options.background === true && !isBackground()
          ? await inBackground()
          : await withRun(context, (run, watch) => mount(context, run, watch, view, path, options));
    });
  program
    .command("umount")
    .description("unmount what burrow mount has mounted")
    .argument("<mountpoint>", "where")
    .option("--lazy", "even though files are open there: they can be read until they are closed")
    .option("--json", "results on stdout and errors on stderr as JSON")
    .addHelpText("after", UMOUNT_EXAMPLES)
    .action(async (text: string, { lazy, json }: { lazy?: boolean; json?: boolean }) => {
      await umount(text, lazy === true, json === true);
    });
}

async function umount(text: string, isLazy: boolean, isJson: boolean): Promise<void> {
  const path = mountpointOf(text);
  if (!isBurrows(path))
    throw new BurrowError(
      "BURROW_USAGE",
      `burrow has nothing mounted at ${path}; findmnt -t fuse.burrow lists its mounts`,
    );
  try {
    await detach(path, isLazy);
  } catch (cause) {
    const isBusy = /busy/.test(String(cause));
    const advice = `: end who uses it (fuser -vm ${path} says who), or say --lazy`;
    throw new BurrowError("BURROW_IO", `can't unmount ${path}${isBusy ? advice : ""}`, { cause });
  }
  print(isJson, { unmounted: path }, `${path} is unmounted`);
}

/** What a server is to serve, and the upper that was claimed for it. */
interface MountSource {
  readonly source: string;
  readonly kept?: ClaimedUpper | undefined;
}

/** The mount's source, in mounts that are the run's. */
async function sourceOf(
  context: Context,
  id: string,
  view: string,
  options: MountOptions,
): Promise<MountSource> {
  const { env, stage, writable, upper } = options;
  if (writable !== undefined && upper !== undefined)
    throw new BurrowError("BURROW_USAGE", "--writable and --upper: changes go to one of them");
  if ((env ?? stage) !== undefined) {
    const query: QueryOptions = { ...options, base: view, tmpSize: "4K" };
    await checkQuery(context, query);
    const { mounts, kept } = await prepare(context, id, query);
    return { source: mounts.root, kept };
  }
  const known = await knownMount(context, view);
  const wanted = upper === undefined ? "--writable" : "--upper";
  if (known !== undefined && (writable ?? upper) !== undefined)
    throw new BurrowError("BURROW_USAGE", `${wanted}: ${view} is a bundle's; name its snapshot`);
  if (known !== undefined) return { source: known.root };
  const uppers: Uppers = {
    tmp: { sizeBytes: 4096, inodes: 1024 },
    ...(writable === undefined ? {} : { root: upperOf(writable) }),
    ...(upper === undefined ? {} : { folder: upper }),
  };
  const { root, kept } = await importView(context, id, view, uppers, options);
  return { source: root, kept };
}

const PROGRAM = fileURLToPath(new URL("../../fuse.cjs", import.meta.url));
/** What a server has to leave when its command is ended; one that hangs never would. */
const LEAVE_MS = 5_000;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

async function mount(
  context: Context,
  run: Run,
  watch: Watch,
  view: string,
  mountpoint: string,
  options: MountOptions,
): Promise<number> {
  const isReadOnly = (options.writable ?? options.upper) === undefined;
  const { source, kept } = await sourceOf(context, run.id, view, options);
  let server: ChildServer | undefined;
  let own: string | undefined;
  let stopGuarding = () => {};
  let isEnding = false;
  const end = () => {
    if (isEnding) return;
    isEnding = true;
    // Busy: who has files open there gets ENOTCONN when the server ends. What others have mounted over it is theirs.
    const isOnTop = own !== undefined && mountedAt(mountpoint)?.device === own;
    const detached = isOnTop ? detach(mountpoint, false) : Promise.resolve();
    detached
      .catch(() => detach(mountpoint, true).catch(() => {}))
      .finally(() => {
        server?.leader.destroy();
        setTimeout(() => server?.child.kill("SIGKILL"), LEAVE_MS).unref();
      });
  };
  for (const signal of SIGNALS) process.on(signal, end);
  watch.stop();
  const stopKeeping = keepDaemon(context);
  try {
    const device = await attach(mountpoint, {
      isReadOnly,
      allowsOthers: options.allowOther === true,
    });
    own = mountedAt(mountpoint)?.device;
    stopGuarding = guard(mountpoint, own ?? "");
    const config: FuseConfig = { state: context.state, source, isReadOnly };
    // With the lock: the upper is in use until the server, too, has ended.
    server = startServer(PROGRAM, config, kept === undefined ? [device] : [device, kept.lockFd]);
    closeSync(device);
    if (isEnding) server.leader.destroy();
    return await answer(
      server,
      () => isEnding,
      () => announce(options, view, mountpoint, server!),
    );
  } finally {
    stopKeeping();
    // The next signal ends what may hang below; what it leaves of the mount the guard takes away.
    watch.start();
    for (const signal of SIGNALS) process.off(signal, end);
    // Of a server that was killed, or never began; not the mount that someone has made there since.
    await sweep(mountpoint).catch(() => {});
    stopGuarding();
    kept?.[Symbol.dispose]();
  }
}

async function announce(
  { json }: MountOptions,
  view: string,
  mountpoint: string,
  { child }: ChildServer,
): Promise<void> {
  await tune(mountpoint);
  const said = { mountpoint, view, pid: process.pid, server: child.pid };
  print(
    json === true,
    said,
    `${view} is mounted at ${mountpoint}; end it: burrow umount ${mountpoint}`,
  );
}

/** Waits until the mount is gone: the exit code. */
async function answer(
  { ended, firstWord }: ChildServer,
  isEnding: () => boolean,
  onReady: () => Promise<void>,
): Promise<number> {
  const said = await firstWord;
  if (said === "\n" && !isEnding()) await onReady();
  const code = await ended;
  if (isEnding() || code === 0) return 0;
  const why = said === "\n" ? "it ended before the mount did" : said || "it ended";
  throw new BurrowError("BURROW_START", `the FUSE server failed: ${why}`);
}

/** Set for the command in the background. */
const IS_BACKGROUND = "BURROW_MOUNT_IS_BACKGROUND";

/** Whether this is that command; what it starts is not. */
function isBackground(): boolean {
  const is = process.env[IS_BACKGROUND] !== undefined;
  delete process.env[IS_BACKGROUND];
  return is;
}

/**
 * The same command in a session of its own: waits until it says that it has mounted, and passes on what it says, or its exit code when
 * it doesn't come to that.
 */
async function inBackground(): Promise<number> {
  // The same words, since -d may be a part of one.
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, [IS_BACKGROUND]: "1" },
  });
  child.stderr.on("data", (bytes: Buffer) => process.stderr.write(bytes));
  const stop = onInterrupt(() => child.kill("SIGTERM"));
  try {
    return await new Promise<number>((resolve, reject) => {
      child.once("error", (error) => reject(new Error(explain(error))));
      child.once("close", (code) => resolve(code ?? 1));
      child.stdout.once("data", (bytes: Buffer) => {
        process.stdout.write(bytes);
        resolve(0);
      });
    });
  } finally {
    stop();
    child.stdout.destroy();
    child.stderr.destroy();
    child.unref();
  }
}
