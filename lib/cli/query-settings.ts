// What a query's words mean (quotas, user, variables, stages, passed directories), checked before anything is read or written. Control plane.

import { existsSync, statSync } from "node:fs";
import { normalize } from "node:path";
import { BurrowError } from "../base/error.ts";
import { NAME_MAX_BYTES } from "../base/limits.ts";
import type { UpperSize } from "../gofer/mount.ts";
import { checkTenant, NO_TENANT } from "../store/object-pin.ts";
import { refuseReadOnly } from "../store/open.ts";
import { asOrigin, type Context } from "./context.ts";
import { isDigestOrFile } from "./digests.ts";
import type { Bind } from "./oci-spec.ts";
import { inodesFor, parseSize } from "./query.ts";
import { isDirectory } from "./stage.ts";

/** What run and bundle take. */
export interface QueryOptions {
  base: string;
  env?: string;
  stage?: string[];
  bind?: string[];
  setEnv?: string[];
  tmpSize: string;
  writable?: string | true;
  upper?: string;
  cwd?: string;
  user?: string;
  memory?: string;
  /** The base may be an environment, for other sandboxes to mount. */
  takesVolume?: boolean;
  tenant?: string;
  explain?: boolean;
  quiet?: boolean;
  json?: boolean;
}

/** The two sides of an option's first "=", which `shape` names for who forgot it. */
function pair(text: string, option: string, shape: string): [string, string] {
  const at = text.indexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new BurrowError("BURROW_USAGE", `${option}: "${text}" is not ${shape}`);
}

/** What the options say of the query, checked before anything is read or written. */
export function settingsOf(options: QueryOptions, { store }: Context) {
  const sizeBytes = parseSize(options.tmpSize, "--tmp-size");
  const memory =
    options.memory === undefined ? {} : { memoryBytes: parseSize(options.memory, "--memory") };
  const { base, env } = options;
  if (env !== undefined && !isDigestOrFile(env) && !existsSync(env)) {
    const what = `--env ${env} is no digest (or 6 and more digits of one) and no lock file here`;
    throw new BurrowError("BURROW_USAGE", what);
  }
  if ([base, env ?? base].some((text) => !isDigestOrFile(text))) refuseReadOnly(store);
  const { cwd } = options;
  if (cwd !== undefined && !cwd.startsWith("/"))
    throw new BurrowError("BURROW_USAGE", `--cwd: ${cwd} is no absolute path`);
  return {
    uppers: { tmp: { sizeBytes, inodes: inodesFor(sizeBytes) }, ...rootUpper(options) },
    given: {
      ...(options.user === undefined ? {} : parseUser(options.user)),
      ...(cwd === undefined ? {} : { cwd }),
    },
    memory,
    variables: Object.fromEntries(
      (options.setEnv ?? []).map((text) => pair(text, "--set-env", "NAME=VALUE")),
    ),
    binds: Object.fromEntries((options.bind ?? []).map((text) => bindOf(text))),
    stages: stagesOf(options.stage ?? []),
    tenant: tenantOf(options.tenant),
  };
}

function rootUpper({ writable, upper }: QueryOptions): { root?: UpperSize } {
  if (writable !== undefined && upper !== undefined)
    throw new BurrowError("BURROW_USAGE", "--writable and --upper: changes go to one of them");
  return writable === undefined ? {} : { root: upperOf(writable) };
}

/** What --writable keeps of changes, in memory. BURROW_USAGE. */
export function upperOf(writable: string | true): UpperSize {
  const sizeBytes = parseSize(writable === true ? "256M" : writable, "--writable");
  return { sizeBytes, inodes: inodesFor(sizeBytes) };
}

/** An empty one is as good as none. */
export function tenantOf(option: string | undefined): string {
  const text = option || process.env["BURROW_TENANT"] || NO_TENANT;
  return text === NO_TENANT ? text : checkTenant(text);
}

/** Stages by name. */
function stagesOf(texts: readonly string[]): Map<string, string> {
  const stages = new Map<string, string>();
  for (const text of texts) {
    const [name, source] = pair(text, "--stage", "NAME=SOURCE");
    const refuse = (why: string) => new BurrowError("BURROW_USAGE", `--stage: ${why}`);
    if (/[/\0]/.test(name) || name === "." || name === "..") throw refuse(`"${name}" is no name`);
    if (Buffer.byteLength(name) > NAME_MAX_BYTES)
      throw refuse(`"${name}" is longer than ${NAME_MAX_BYTES} bytes`);
    if (stages.has(name)) throw refuse(`there are two of the name ${name}`);
    if (source === "") throw refuse(`"${text}" names no source`);
    const origin = asOrigin(source);
    if (origin.startsWith("/") && !existsSync(origin)) throw refuse(`${source} does not exist`);
    if (origin.startsWith("/") && !isDirectory(origin)) throw refuse(`${source} is no directory`);
    stages.set(name, origin);
  }
  return stages;
}

/** Of a source whose own name ends like that, the last ":rw" or ":ro" counts. */
function bindOf(text: string): [string, Bind] {
  const [path, rest] = pair(text, "--bind", "PATH=SOURCE[:rw]");
  const isReadOnly = !rest.endsWith(":rw");
  const source = isReadOnly && !rest.endsWith(":ro") ? rest : rest.slice(0, -3);
  if (!path.startsWith("/"))
    throw new BurrowError("BURROW_USAGE", `--bind: ${path} is no absolute path`);
  // A mount over the root is seen by nobody who started below it.
  if (normalize(path) === "/")
    throw new BurrowError("BURROW_USAGE", `--bind: "${path}" is the root, which --base gives`);
  if (source === "") throw new BurrowError("BURROW_USAGE", `--bind: "${text}" names no source`);
  if (!existsSync(source))
    throw new BurrowError("BURROW_USAGE", `--bind: ${source} does not exist`);
  if (!statSync(source).isDirectory() && !statSync(source).isFile()) {
    throw new BurrowError("BURROW_USAGE", `--bind: ${source} is no directory or file`);
  }
  return [path, { source: asOrigin(source), isReadOnly }];
}

/** 2^32 - 1 is no id: it means "leave it as it is". */
const ID_MAX = 2 ** 32 - 2;

function parseUser(text: string): { uid: number; gid: number } {
  const match = /^(\d{1,10})(?::(\d{1,10}))?$/.exec(text);
  const [uid, gid] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
  if (match && uid <= ID_MAX && gid <= ID_MAX) return { uid, gid };
  throw new BurrowError(
    "BURROW_USAGE",
    `--user: "${text}" is no UID[:GID]: say numbers; root is 0`,
  );
}
