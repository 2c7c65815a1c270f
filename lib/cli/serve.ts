// burrow serve: views over 9P2000.L, for virtual machines and other clients. This process prepares the views, keeps the daemon and
// removes what it made; another answers the clients (lib/gofer/ninep-main.ts) and ends with this one. Control plane.

import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { BurrowError } from "../base/error.ts";
import type { NinepConfig } from "../gofer/ninep-config.ts";
import { native } from "../sys/native.ts";
import { startServer } from "./child-server.ts";
import { addCommonOptions, type Context, collect, contextOf } from "./context.ts";
import { EXPLAIN_HELP, EXPLAIN_OPTION } from "./explain-mount.ts";
import { onInterrupt } from "./interrupt.ts";
import { keepDaemon } from "./keep-daemon.ts";
import {
  checkReach,
  type ListenAddress,
  openListener,
  parseAllowed,
  parseListen,
  removeSocketFile,
  type ServedSocket,
} from "./listen-address.ts";
import { print } from "./output.ts";
import { checkQuery, prepare } from "./prepare.ts";
import { inodesFor, parseSize } from "./query.ts";
import { type QueryOptions, upperOf } from "./query-settings.ts";
import { type Run, type Watch, withRun } from "./runs.ts";
import { importView, knownMount } from "./view-mounts.ts";

interface ServeOptions {
  listen: string[];
  allow?: string[];
  writable?: boolean;
  base?: string;
  env?: string;
  stage?: string[];
  tmpSize: string;
  tenant?: string;
  explain?: boolean;
  quiet?: boolean;
  json?: boolean;
}

type View = NinepConfig["views"][number];

/** The name of the scratch space of --writable. */
const SCRATCH = "tmp";
const ROOT = "root";

const EXAMPLES = `
A client picks a view by its aname; "" and "/" are the first. A view without NAME= has the last name
of its SOURCE. --base, with --env and --stage as for burrow run, is the view "root".

--writable has changes to each view kept in memory, up to 256M, and adds an empty view, "tmp", of
--tmp-size; all are gone with the server. Mounts of a bundle stay as they are.

What may connect: by unix:, root and this user; by tcp:, this machine; by vsock:, this machine's own
CID; and whom --allow names. Nobody else: 9P has no passwords. Whoever may connect acts as any user
of its own choice, as a virtual machine's kernel must.

--explain shows in each view that is made here where it comes from (docs/explain.md); mounts of a
bundle show it if the bundle was made so.

SIGTERM and SIGINT end it. It logs JSON lines to stderr.

Examples:
  burrow serve tools=sha256:… data=rootfs.tar --listen unix:/run/burrow/9p.sock
  burrow serve --base sha256:… --env environment.yml --writable --listen tcp:127.0.0.1:5640
  mount -t 9p -o trans=unix,version=9p2000.L,aname=tools,cache=loose /run/burrow/9p.sock /mnt
  mount -t 9p -o trans=tcp,port=5640,version=9p2000.L,aname=tmp,cache=none,access=any 127.0.0.1 /mnt`;

export function addServe(program: Command): void {
  addCommonOptions(program.command("serve"))
    .description("serve views to virtual machines and other clients over 9P2000.L")
    .argument(
      "[view...]",
      "[NAME=]SOURCE: a snapshot's digest, a directory, tar or image to import, or the id of a bundle's mounts",
    )
    .requiredOption(
      "--listen <ADDRESS>",
      "unix:PATH, tcp:HOST:PORT, vsock:CID:PORT or fd:N; repeatable",
      collect,
    )
    .option("--allow <WHO>", "let in uid:N, ip:ADDRESS or cid:N, too; repeatable", collect)
    .option("--base <BASE>", "a view of a root file system, as for burrow run")
    .option("--env <ENV>", "with a conda environment")
    .option("--stage <NAME=SOURCE>", "with a stage at /stage/NAME; repeatable", collect)
    .option("--writable", "let views be written to, and serve an empty one, too")
    .option("--tmp-size <SIZE>", "quota of the empty view, e.g. 64M", "256M")
    .option("--tenant <NAME>", "whose stages they are ($BURROW_TENANT)")
    .option(EXPLAIN_OPTION, EXPLAIN_HELP)
    .option("--quiet", "no progress")
    .addHelpText("after", EXAMPLES)
    .action(async (views: string[], options: ServeOptions) => {
      const context = contextOf(options);
      process.exitCode = await withRun(context, (run, watch) =>
        serve(context, run, watch, views, options),
      );
    });
}

async function serve(
  context: Context,
  run: Run,
  watch: Watch,
  texts: readonly string[],
  options: ServeOptions,
): Promise<number> {
  const access = parseAllowed(options.allow ?? []);
  const addresses = options.listen.map(parseListen);
  for (const address of addresses) checkReach(address, access);
  checkOnce(addresses);
  const sockets: ServedSocket[] = [];
  const clean = () => {
    for (const socket of sockets) removeSocketFile(socket);
  };
  const stopWatching = onInterrupt(clean);
  try {
    const views = await viewsOf(context, run.id, texts, options);
    for (const address of addresses) sockets.push(openListener(address, access));
    const listens = sockets.map(({ isListening }) => isListening);
    const config: NinepConfig = { state: context.state, views, listens, access };
    const stopKeeping = keepDaemon(context);
    try {
      const onWatching = () => {
        stopWatching(); // answer() listens by now: between two listeners a signal would be lost
        watch.stop();
      };
      return await answer(config, sockets, options.json === true, onWatching);
    } finally {
      stopKeeping();
    }
  } finally {
    stopWatching();
    clean();
  }
}

/** BURROW_USAGE for an FD that is named twice: it would be closed twice, and be another's the second time. */
function checkOnce(addresses: readonly ListenAddress[]): void {
  const fds = addresses.flatMap((address) => (address.kind === "fd" ? [address.fd] : []));
  const twice = fds.find((fd, i) => fds.indexOf(fd) !== i);
  if (twice !== undefined)
    throw new BurrowError("BURROW_USAGE", `--listen: FD ${twice} stands there twice`);
}

/** The views by name. Mounts that are made for them are the run's, which removes them. */
async function viewsOf(
  context: Context,
  id: string,
  texts: readonly string[],
  options: ServeOptions,
): Promise<View[]> {
  const { base, tmpSize } = options;
  if (base === undefined && texts.length === 0)
    throw new BurrowError("BURROW_USAGE", "name a view, [NAME=]SOURCE, or say --base");
  if (base === undefined && (options.env ?? options.stage) !== undefined)
    throw new BurrowError("BURROW_USAGE", "--env and --stage go with --base");
  const sizeBytes = parseSize(tmpSize, "--tmp-size");
  const upper = { sizeBytes, inodes: inodesFor(sizeBytes) };
  const pairs = texts.map(pairOf);
  const names = [...(base === undefined ? [] : [ROOT]), ...pairs.map(([name]) => name)];
  if (options.writable === true) names.push(SCRATCH);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new BurrowError(
      "BURROW_USAGE",
      `there are two views of the name ${twice}: call one something else, NAME=SOURCE`,
    );
  const views: View[] = [];
  let scratch: string | undefined;
  if (base !== undefined) {
    const { writable, ...rest } = options;
    const query: QueryOptions = { ...rest, base, ...(writable === true ? { writable } : {}) };
    await checkQuery(context, query);
    const { mounts } = await prepare(context, `${id}-0`, query);
    views.push({ name: ROOT, source: mounts.root, isReadOnly: writable !== true });
    scratch = mounts.tmp;
  }
  for (const [i, [name, source]] of pairs.entries()) {
    const known = await knownMount(context, source);
    const made = `${id}-${i + 1}`;
    const isWritable = known === undefined && options.writable === true;
    const uppers = { tmp: upper, ...(isWritable ? { root: upperOf(true) } : {}) };
    const mounts = known ?? (await importView(context, made, source, uppers, options));
    views.push({ name, source: mounts.root, isReadOnly: !isWritable });
    scratch ??= mounts.tmp;
  }
  if (options.writable === true) views.push({ name: SCRATCH, source: scratch!, isReadOnly: false });
  return views;
}

/** NAME=SOURCE, or a source whose name is the last of its path. BURROW_USAGE. */
function pairOf(text: string): [name: string, source: string] {
  const at = text.indexOf("=");
  const name = at < 0 ? basename(text) : text.slice(0, at);
  const source = text.slice(at + 1);
  const isName = name !== "" && name !== "." && name !== ".." && !/[/\0]/.test(name);
  if (isName && source !== "") return [name, source];
  throw new BurrowError("BURROW_USAGE", `"${text}" has no name for clients; say NAME=SOURCE`);
}

const PROGRAM = fileURLToPath(new URL("../../ninep.cjs", import.meta.url));
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Has the server answer until a signal comes or it ends by itself: the exit code. */
async function answer(
  config: NinepConfig,
  sockets: readonly ServedSocket[],
  isJson: boolean,
  onWatching: () => void,
): Promise<number> {
  const fds = sockets.map(({ fd }) => fd);
  const { child, leader, ended, firstWord } = startServer(PROGRAM, config, fds);
  for (const fd of fds) native.closeFd(fd);
  let isEnding = false;
  const end = () => {
    isEnding = true;
    leader.destroy();
  };
  for (const signal of SIGNALS) process.on(signal, end);
  onWatching();
  try {
    const said = await firstWord;
    if (said !== "\n") {
      await ended;
      if (isEnding) return 0;
      throw new BurrowError(
        "BURROW_START",
        `the 9P server can't be started: ${said || "it ended"}`,
      );
    }
    const listening = sockets.map(({ shown }) => shown);
    const views = config.views.map(({ name }) => name);
    print(
      isJson,
      { listening, views, pid: process.pid, server: child.pid },
      `serving ${views.join(", ")} at ${listening.join(", ")}`,
    );
    const code = await ended;
    return isEnding ? 0 : code;
  } finally {
    for (const signal of SIGNALS) process.off(signal, end);
  }
}
