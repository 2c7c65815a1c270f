// What a gofer on this machine would give up before it serves: for burrow doctor. Control plane.

import { readFileSync } from "node:fs";
import { errnoName } from "../base/errno.ts";
import { CALLS, type Need } from "../gofer/calls.ts";
import { isNeeded } from "../gofer/filter.ts";
import { Capability, hardenMode, LANDLOCK_VERSION_MIN, WRITERS } from "../gofer/harden.ts";
import { native } from "../sys/native.ts";

/** As far as this kernel and $BURROW_HARDEN go. */
export interface Hardening {
  readonly state: "ok" | "missing" | "limited";
  readonly detail: string;
}

/** How many calls gofers with these needs may make. */
function countOf(...needs: Need[]): number {
  const has = new Set(needs);
  const calls = CALLS.filter((call) => call.when?.length !== 0 && isNeeded(call, has));
  return new Set(calls.map(({ number }) => number)).size;
}

function canKill(): boolean {
  try {
    const actions = readFileSync("/proc/sys/kernel/seccomp/actions_avail", "latin1");
    return actions.split(/\s+/).includes("kill_process");
  } catch {
    return false;
  }
}

/** Nothing is given up to find out. Throws BURROW_USAGE for a BURROW_HARDEN that means nothing. */
export function hardening(): Hardening {
  const mode = hardenMode(process.env["BURROW_HARDEN"]);
  if (mode === "off")
    return { state: "limited", detail: "BURROW_HARDEN=off: servers give up nothing" };
  if (!canKill())
    return { state: "missing", detail: "this kernel has no seccomp filters that kill" };
  const version = native.landlockVersion();
  const hasLandlock = version >= LANDLOCK_VERSION_MIN;
  const names = Object.entries(Capability).filter(([, number]) => WRITERS.includes(number));
  const what = [
    `seccomp: ${countOf("channels", "daemon")} calls over a view, ${countOf("channels", "daemon", "host", "writes", "devices")} with a /tmp`,
    mode === "log" ? "BURROW_HARDEN=log: others are logged and pass" : "others end it",
    `capabilities: none, with a /tmp ${names.map(([name]) => name).join(", ")}`,
    hasLandlock ? `Landlock ${version}` : `no Landlock (${landlockFault(version)})`,
  ];
  return { state: hasLandlock && mode === "on" ? "ok" : "limited", detail: what.join("; ") };
}

function landlockFault(version: number): string {
  return version < 0 ? errnoName(version) : `version ${version}`;
}
