// burrow annotate: the mounts that a bundle's annotations ask for are made, and written into its config.json, before runsc reads it.
// bin/burrow-oci calls it for containers of docker, podman and containerd. docs/design/0026-annotations.md. Control plane.

import { appendFileSync, lstatSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { ensureIndex, openCache } from "../cache/cache.ts";
import { ensureDaemon } from "../cache/client.ts";
import { isGoferMount, type OciMount, type Spec } from "../gofer/bundle.ts";
import { isMountId, MOUNT_FORMAT } from "../gofer/mount.ts";
import { isObject } from "../ingest/oci/document.ts";
import { checkTenant, NO_TENANT } from "../store/object-pin.ts";
import { hasEnded, ownOwner } from "../sys/owner.ts";
import { type Allowed, type Wanted, wantedOf } from "./annotations.ts";
import { SYSTEM_PATH } from "./command-defaults.ts";
import { addCommonOptions, asOrigin, type Context, contextOf, makeFolders } from "./context.ts";
import { onInterrupt } from "./interrupt.ts";
import { Progress, print, replaceText, shown, writeText } from "./output.ts";
import { resolveEnv } from "./prepare.ts";
import { commandKey, inodesFor, newRunId, parseSize, removeMounts, writeMount } from "./query.ts";
import { noSuchDigest } from "./read-index.ts";
import { importStageIndex } from "./stage.ts";
import { unreadable } from "./text-file.ts";

/** Docker's are some 20 KB. */
const CONFIG_MAX_BYTES = 16 * 1024 * 1024;
const SCRATCH_DEFAULT = "1G";
/** Of scratch at /tmp and anywhere else: as /tmp is. */
const SCRATCH_MODE = 0o1777;

interface AnnotatedSpec extends Spec {
  readonly annotations?: unknown;
  readonly process?: { readonly args?: readonly string[]; readonly env?: readonly string[] };
}

interface Served {
  readonly destination: string;
  readonly source: string;
  readonly isReadOnly: boolean;
}

const HELP = `
DIR is an OCI bundle. Its annotations may be:
  dev.burrow.env=sha256:…                   an environment at its prefix, first in PATH
  dev.burrow.stage.NAME=SOURCE              a stage at /stage/NAME, where BURROW_ANNOTATION_STAGES allows the source
  dev.burrow.mount.NAME=PATH=sha256:…       any snapshot of the store, read-only
  dev.burrow.scratch.NAME=PATH=SIZE         a tmpfs of the sandbox's own; BURROW_ANNOTATION_SCRATCH (1G) is the most in all
Mounts of bundles that are gone are removed by the next call. As an OCI runtime, bin/burrow-oci does
it by itself.

Example:
  burrow annotate /run/bundle && burrow-runsc run --bundle /run/bundle ID`;

export function addAnnotate(program: Command): void {
  addCommonOptions(program.command("annotate"))
    .description("make the mounts that an OCI bundle's annotations ask for")
    .argument("<dir>", "the bundle: a folder with config.json, which is changed")
    .option(
      "--log <FILE>",
      "add a failure to the runtime's log, as JSON: what docker and podman show",
    )
    .addHelpText("after", HELP)
    .action(async (dir: string, options: { json?: boolean; log?: string }) => {
      const context = contextOf(options);
      try {
        const mounts = await annotate(context, resolve(dir));
        const text = mounts.map(({ destination, source }) => `${destination} ${source}`).join("\n");
        print(context.isJson, { mounts }, text === "" ? "nothing to do" : text);
      } catch (error) {
        if (options.log !== undefined) logFailure(options.log, error);
        throw error;
      }
    });
}

/** As runc's log has it, of which container managers show the last line. */
function logFailure(path: string, error: unknown): void {
  const msg = `burrow: ${shown(error instanceof Error ? error.message : String(error))}`;
  const line = { level: "error", msg, time: new Date().toISOString() };
  try {
    appendFileSync(path, `${JSON.stringify(line)}\n`);
  } catch {} // it is on stderr, too
}

/** What an operator allows, from this process's variables. BURROW_USAGE for what is no size or source. */
function allowedHere(): Allowed {
  const words = (process.env["BURROW_ANNOTATION_STAGES"] ?? "").split(/\s+/);
  const scratch = process.env["BURROW_ANNOTATION_SCRATCH"] || SCRATCH_DEFAULT;
  return {
    stages: words.filter((word) => word !== "").map(asOrigin),
    scratchBytes: parseSize(scratch, "BURROW_ANNOTATION_SCRATCH"),
  };
}

async function annotate(context: Context, bundle: string): Promise<readonly Served[]> {
  const { path, spec, mode } = readConfig(bundle);
  const wanted = wantedOf(spec.annotations, allowedHere());
  makeFolders(context.state, join(context.state, "mounts"), notesFolder(context));
  sweep(context);
  const isDone = notes(context).some((note) => note.bundle === bundle && isNamed(note));
  if (wanted.length === 0 || isDone) return [];
  const id = newRunId();
  const note = join(notesFolder(context), `${id}@${ownOwner()}`);
  const clean = () => forget(context, { id, path: note });
  const stopWatching = onInterrupt(clean);
  try {
    writeText(note, bundle, 0o600); // before all that it is to remove
    const { served, variables } = await serve(context, id, wanted, spec);
    checkPlaces(spec, served);
    replaceText(path, JSON.stringify(withMounts(spec, served, variables)), mode);
    return served;
  } catch (error) {
    clean();
    throw error;
  } finally {
    stopWatching();
  }
}

function readConfig(bundle: string): { path: string; spec: AnnotatedSpec; mode: number } {
  const path = join(bundle, "config.json");
  let text: string;
  let mode: number;
  try {
    const facts = lstatSync(path);
    if (!facts.isFile() || facts.size > CONFIG_MAX_BYTES)
      throw new BurrowError(
        "BURROW_USAGE",
        `${path} is no file of at most ${CONFIG_MAX_BYTES} bytes`,
      );
    mode = facts.mode & 0o7777;
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw error instanceof BurrowError ? error : unreadable("file", path, error);
  }
  try {
    const spec: unknown = JSON.parse(text);
    if (isSpec(spec)) return { path, spec, mode };
  } catch {}
  throw new BurrowError("BURROW_USAGE", `${path} is no OCI configuration`);
}

/** Whether what is read of it here is of OCI's types; Go writes null for a list that is empty. */
export function isSpec(spec: unknown): spec is AnnotatedSpec {
  if (!isObject(spec)) return false;
  const { mounts, process: start } = spec;
  const isList = (list: unknown, isOne: (one: unknown) => boolean) =>
    (list ?? undefined) === undefined || (Array.isArray(list) && list.every(isOne));
  const isText = (one: unknown) => typeof one === "string";
  if (!isList(mounts, (one) => isObject(one) && isText(one["destination"]))) return false;
  if ((start ?? undefined) === undefined) return true;
  return isObject(start) && isList(start["args"], isText) && isList(start["env"], isText);
}

/** Writes a mount for each, with the index of its snapshot in the cache. */
async function serve(
  context: Context,
  id: string,
  wanted: readonly Wanted[],
  { process: start }: AnnotatedSpec,
): Promise<{ served: Served[]; variables: Readonly<Record<string, string>> }> {
  const progress = new Progress(true, context.isJson);
  const cache = openCache(context.cache);
  const tenant = process.env["BURROW_TENANT"] || NO_TENANT;
  const command = commandKey(start?.args ?? [], tenant);
  const served: Served[] = [];
  let variables: Readonly<Record<string, string>> = {};
  const add = (destination: string, isReadOnly: boolean, description: object) => {
    const described = { format: MOUNT_FORMAT, ...description };
    const source = writeMount(context.state, `${id}-${served.length}`, described);
    served.push({ destination, source, isReadOnly });
  };
  const addView = (at: string, snapshot: Digest, origin: string) => {
    const base = { snapshot: showDigest(snapshot), origin };
    const key = command === "" ? {} : { command };
    add(at, true, { kind: "view", cache: context.cache, ...key, base, grafts: [] });
  };
  for (const one of wanted) {
    if (one.kind === "scratch") {
      const { at, sizeBytes } = one;
      const inodes = inodesFor(sizeBytes);
      add(at, false, { kind: "upper", sizeBytes, inodes, mode: SCRATCH_MODE });
    } else if (one.kind === "stage") {
      if (tenant !== NO_TENANT) checkTenant(tenant);
      const origin = asOrigin(one.source);
      addView(one.at, await importStageIndex(cache, origin, progress, tenant), origin);
    } else if (one.kind === "env") {
      const env = await resolveEnv(context, cache, showDigest(one.snapshot), progress);
      variables = {
        ...env.variables,
        CONDA_PREFIX: env.at,
        CONDA_DEFAULT_ENV: env.at,
        PATH: `${env.at}/bin`,
      };
      addView(env.at, env.snapshot, env.origin);
    } else {
      try {
        await ensureIndex(cache, context.store, one.snapshot);
      } catch (cause) {
        throw noSuchDigest(cause, one.snapshot, context.store);
      }
      addView(one.at, one.snapshot, context.store);
    }
  }
  await ensureDaemon({ cache: context.cache, state: context.state });
  return { served: served.sort((a, b) => (a.destination < b.destination ? -1 : 1)), variables };
}

/** No annotation hides what the container's maker mounted, or another. */
function checkPlaces(spec: AnnotatedSpec, served: readonly Served[]): void {
  const taken = new Set((spec.mounts ?? []).map(({ destination }) => resolve("/", destination)));
  for (const { destination } of served) {
    if (taken.has(destination))
      throw new BurrowError(
        "BURROW_USAGE",
        `two mounts for ${destination}: annotations add, and hide nothing`,
      );
    taken.add(destination);
  }
}

/** The bundle's own variables win, but for PATH, before which the environment's programs go. */
function withMounts(
  spec: AnnotatedSpec,
  served: readonly Served[],
  { PATH: first, ...variables }: Readonly<Record<string, string>>,
): unknown {
  const mounts: OciMount[] = served.map(({ destination, source, isReadOnly }) => ({
    destination,
    type: "bind",
    source,
    options: ["rbind", isReadOnly ? "ro" : "rw"],
  }));
  const own = spec.process?.env ?? [];
  const nameOf = (text: string) => text.slice(0, text.indexOf("="));
  const names = new Set(own.map(nameOf));
  const added = Object.entries(variables).filter(([name]) => !names.has(name));
  const pathed = own.map((text) =>
    first !== undefined && nameOf(text) === "PATH" ? `PATH=${first}:${text.slice(5)}` : text,
  );
  if (first !== undefined && !names.has("PATH")) pathed.push(`PATH=${first}:${SYSTEM_PATH}`);
  const env = [...pathed, ...added.map(([name, value]) => `${name}=${value}`)];
  return {
    ...spec,
    ...(spec.process === undefined ? {} : { process: { ...spec.process, env } }),
    mounts: [...(spec.mounts ?? []), ...mounts],
  };
}

/** Whose mounts they are: STATE/bundles/ID@OWNER holds the bundle's path; OWNER is the process that wrote it, while it did. */
interface Note {
  readonly id: string;
  readonly owner: string;
  readonly path: string;
  readonly bundle: string;
  /** Sources of its mounts begin so. */
  readonly source: string;
}

function notesFolder({ state }: Context): string {
  return join(state, "bundles");
}

function notes(context: Context): Note[] {
  return readdirSync(notesFolder(context)).flatMap((name) => {
    const [id = "", owner = ""] = name.split("@");
    const path = join(notesFolder(context), name);
    if (!isMountId(id)) return [];
    try {
      const bundle = readFileSync(path, "utf8");
      return [{ id, owner, path, bundle, source: join(context.state, "mounts", `${id}-`) }];
    } catch {
      return []; // another sweep was first
    }
  });
}

/** Whether the bundle is there and has the mounts: its manager may have written it anew, or removed it. */
function isNamed({ bundle, source }: Note): boolean {
  try {
    const { spec } = readConfig(bundle);
    const isOurs = (mount: OciMount) => isGoferMount(mount) && mount.source?.startsWith(source);
    return (spec.mounts ?? []).some(isOurs);
  } catch {
    return false;
  }
}

/** Removes the mounts of bundles that are gone. One whose writer lives may not have named them yet. */
function sweep(context: Context): void {
  for (const note of notes(context))
    if (hasEnded(note.owner) && !isNamed(note)) forget(context, note);
}

function forget(context: Context, { id, path }: Pick<Note, "id" | "path">): void {
  for (const name of readdirSync(join(context.state, "mounts")))
    if (name.startsWith(`${id}-`) || name.startsWith(`.${id}-`))
      removeMounts(context, name.replace(/^\.|\.new$/g, ""));
  rmSync(path, { force: true });
}
