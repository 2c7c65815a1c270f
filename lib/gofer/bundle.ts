// The bundle as the gofer needs it: which of the spec's mounts are served on which io-fd, and the mounts JSON that the sandbox
// waits for. runsc: specutils.IsGoferMount, container.go createGoferProcess, cmd/gofer.go. Control plane.

import { resolve } from "node:path";
import { BurrowError } from "../base/error.ts";
import type { GoferArguments, MountConf } from "./argv.ts";

/** An OCI mount, with whatever other fields the spec has; they are passed on as they came. */
export interface OciMount {
  destination: string;
  type?: string;
  source?: string;
  options?: string[];
  [field: string]: unknown;
}

export interface Spec {
  readonly root: { readonly path: string; readonly readonly?: boolean };
  readonly mounts?: readonly OciMount[] | null;
}

/** One LISAFS connection to serve: the root file system or a bind mount. */
export interface ServedMount {
  readonly destination: string;
  readonly source: string;
  readonly isReadOnly: boolean;
}

export function parseSpec(text: string): Spec {
  let spec: Partial<Spec>;
  try {
    spec = JSON.parse(text) as Partial<Spec>;
  } catch (cause) {
    throw new BurrowError("BURROW_USAGE", "the bundle's config.json is no JSON", { cause });
  }
  if (typeof spec.root?.path !== "string") {
    throw new BurrowError("BURROW_USAGE", "the bundle's config.json has no root.path");
  }
  return spec as Spec;
}

/** specutils.IsGoferMount: a bind mount, by type or option, with a source. */
export function isGoferMount(mount: OciMount): boolean {
  const options = mount.options ?? [];
  const isBind = mount.type === "bind" || options.includes("bind") || options.includes("rbind");
  return isBind && mount.source !== undefined && mount.source !== "";
}

/** An overlay above it means that the sandbox writes there, never here. */
function isServed(conf: MountConf | undefined): boolean {
  return conf === undefined || conf.lower === "lisafs";
}

function hasUpper(conf: MountConf | undefined): boolean {
  return conf !== undefined && conf.upper !== "none" && conf.upper !== "";
}

/** The mounts to serve, in the order of the io-fds: the root file system first, if it is among them. */
export function servedMounts(spec: Spec, args: GoferArguments): ServedMount[] {
  const served: ServedMount[] = [];
  const confs = args.mountConfs;
  const add = (destination: string, source: string, readonly: boolean, conf?: MountConf) => {
    if (!isServed(conf)) return;
    const path = resolve(args.bundle, source);
    served.push({ destination, source: path, isReadOnly: readonly || hasUpper(conf) });
  };
  add("/", spec.root.path, spec.root.readonly === true, confs?.[0]);
  let position = 1;
  for (const mount of spec.mounts ?? []) {
    if (!isGoferMount(mount)) continue;
    const isReadOnly = (mount.options ?? []).includes("ro");
    add(mount.destination, mount.source!, isReadOnly, confs?.[position++]);
  }
  return served;
}

/** Which of the mounts is the root; -1: the sandbox serves it itself, as one in EROFS. */
export function rootAmong(mounts: readonly Pick<ServedMount, "destination">[]): number {
  return mounts.findIndex(({ destination }) => destination === "/");
}

/** How many symlinks a mount's destination may go through. Linux: MAXSYMLINKS is 40. */
const SYMLINKS_MAX = 40;

/**
 * The array for mounts-fd: every mount of the spec in its order, verbatim, but with each served mount's destination resolved
 * inside the root file system. `readlink` gives the target of a path in it, or undefined when it is no symlink.
 */
export function mountsJson(spec: Spec, readlink: (path: string) => string | undefined): string {
  const mounts = (spec.mounts ?? []).map((mount) =>
    isGoferMount(mount)
      ? { ...mount, destination: resolveInRoot(mount.destination, readlink) }
      : mount,
  );
  return JSON.stringify(mounts);
}

/** An absolute, clean path without symlinks; ".." stops at the root. A loop leaves the path as it was. */
export function resolveInRoot(
  destination: string,
  readlink: (path: string) => string | undefined,
): string {
  let rest = destination.split("/");
  const done: string[] = [];
  let followed = 0;
  while (rest.length > 0) {
    const name = rest.shift()!;
    if (name === "" || name === ".") continue;
    if (name === "..") {
      done.pop();
      continue;
    }
    const target = readlink(`/${[...done, name].join("/")}`);
    if (target === undefined) {
      done.push(name);
      continue;
    }
    if (++followed > SYMLINKS_MAX) return destination;
    if (target.startsWith("/")) done.length = 0;
    rest = [...target.split("/"), ...rest];
  }
  return `/${done.join("/")}`;
}
