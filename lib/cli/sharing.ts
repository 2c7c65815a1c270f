// What sandboxes of a tenant share: a server (docs/daemon.md, "Shared servers"), who asked for it and what came of that, and direct mounts
// (docs/directfs.md). Control plane.

import { BurrowError } from "../base/error.ts";
import type { DirectStatus, SharedStatus } from "../cache/client.ts";
import { NO_TENANT } from "../store/object-pin.ts";
import { counted } from "./output.ts";
import { type QueryOptions, tenantOf } from "./query-settings.ts";
import type { Sharing } from "./run-stats.ts";

/** Whose sandboxes this one shares a server with; undefined: it has one of its own. BURROW_USAGE. */
export function sharingTenant(asked: boolean, tenant: string | undefined): string | undefined {
  if (!asked && process.env["BURROW_SHARED"] !== "1") return undefined;
  const named = tenantOf(tenant);
  if (named !== NO_TENANT) return named;
  const what = "--shared: whose sandboxes may share a server? name them by --tenant";
  throw new BurrowError("BURROW_USAGE", what);
}

/** Where no gofer's log has a reason: nobody was there to ask. */
const NOBODY = "the daemon had none to share (burrow daemon start --shared has it share)";

/** What came of it, by the log of the sandbox's gofer. */
export function sharingOf(goferLog: string): Sharing {
  if (/ burrow gofer: serving \d+ mounts?, shared with /.test(goferLog)) return { isShared: true };
  const reason = / burrow gofer: shares no server: (.*)$/m.exec(goferLog)?.[1];
  return { isShared: false, reason: reason ?? NOBODY };
}

/** The same for people. */
export function showSharing({ isShared, reason }: Sharing): string {
  return isShared ? "shared" : `its own: ${reason}`;
}

/** Of a daemon: the row of its servers that are shared, where it has any. */
export function sharedRows(shared: SharedStatus | null | undefined): string[][] {
  if (shared === null || shared === undefined) return [];
  const { servers, sandboxes, placed, refused } = shared;
  const now = `${counted(sandboxes, "sandbox", "sandboxes")} on ${counted(servers, "server")}`;
  return [["shared", `${now}; ${placed} placed, ${refused} turned away`]];
}

/** runsc's flags for a sandbox that is to work on its view itself, or none: refused with what it can't have then. BURROW_USAGE. */
export function directFlags(
  asked: boolean,
  { writable, upper, bind = [], explain }: QueryOptions,
  isShared: boolean,
): string[] {
  if (!asked) return [];
  const given = {
    "--writable": writable,
    "--upper": upper,
    "--explain": explain,
    "--shared": isShared,
    "--bind": bind[0],
  };
  const [found] = Object.entries(given).find(([, value]) => value) ?? [];
  if (found === undefined) return ["--directfs=true"];
  const what = `--directfs and ${found}: only read-only views and /tmp are given to a sandbox itself`;
  throw new BurrowError("BURROW_USAGE", `${what}; leave one of them out`);
}

/** The row of its direct mounts, where any was asked for. */
export function directRows(direct: DirectStatus | null | undefined): string[][] {
  if (direct === null || direct === undefined) return [];
  const { views, most, users, made, shared, refused } = direct;
  const now = `${counted(users, "sandbox", "sandboxes")} on ${views} of ${most} mounts`;
  return [["directfs", `${now}; ${made} made, ${shared} found there, ${refused} refused`]];
}
