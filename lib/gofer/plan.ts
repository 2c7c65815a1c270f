// Plan: what a shared server is told of one sandbox, with the FDs that only the broker can open: a hardened server has no paths. Both ends
// are ours and of one build. docs/protocol/adopt.md, section 9. Control plane.

import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { native } from "../sys/native.ts";
import { type AdoptedFd, Role, sendLaunch, sendShare } from "./adopt.ts";
import type { DescribedMount } from "./trees.ts";

/** A mount of a plan, in the order of the io-fds. */
export interface PlannedMount extends DescribedMount {
  readonly destination: string;
  /** Number of the tmpfs that is its upper; -1: it has none. */
  readonly place: number;
}

export interface Plan {
  /** Of the launch, in this server's life: what GONE names. */
  readonly number: number;
  readonly missDeadlineMs: number;
  /** The bundle's config.json. */
  readonly spec: string;
  readonly mounts: readonly PlannedMount[];
}

/** What goes with a plan. */
export interface LaunchFds {
  readonly stub: number;
  /** -1: none. */
  readonly log: number;
  readonly counters: number;
}

/** What a standby that is to be shared is told. */
export interface Share {
  readonly cache: string;
  readonly tenant: string;
  /** The broker's build: another's plans mean something else. */
  readonly build: string;
  /** Empty tmpfs for the uppers that come, by number. */
  readonly places: readonly number[];
}

/** Sends a plan; all FDs stay the caller's: 0 or -errno. */
export function sendPlan(to: number, plan: Plan, { stub, log, counters }: LaunchFds): number {
  const text = Buffer.from(JSON.stringify(plan));
  const memory = native.memfd("burrow-plan", 0);
  if (memory < 0) return memory;
  let failed = 0;
  for (let rest = text; rest.length > 0 && failed >= 0; ) {
    failed = native.writeFd(memory, rest);
    rest = rest.subarray(Math.max(failed, 0));
  }
  const entry = (role: number, fd: number): AdoptedFd[] =>
    fd < 0 ? [] : [{ role, index: 0, sub: 0, fd }];
  const given = [
    ...entry(Role.stub, stub),
    ...entry(Role.plan, memory),
    ...entry(Role.debugLog, log),
    ...entry(Role.counters, counters),
  ];
  const sent = failed < 0 ? failed : sendLaunch(to, given);
  native.closeFd(memory);
  return sent;
}

/** The plan in a memfd, which stays the caller's. */
export function readPlan(fd: number): Plan {
  return JSON.parse(readText(fd, "a plan")) as Plan;
}

/** Asks a standby to be shared; the FDs stay the caller's: 0 or -errno. */
export function askToShare(to: number, { places, ...share }: Share): number {
  const given = places.map((fd, index) => ({ role: Role.upper, index, sub: 0, fd }));
  return sendShare(to, given, JSON.stringify(share));
}

/** What a SHARE says; undefined for one of another build. The FDs are the caller's. */
export function readShare(
  body: Buffer,
  fds: readonly AdoptedFd[],
  build: string,
): Share | undefined {
  const share = JSON.parse(body.toString("utf8")) as Share;
  if (share.build !== build) return undefined;
  const places = fds.filter(({ role }) => role === Role.upper).map(({ fd }) => fd);
  return { ...share, places };
}

const TEXT_MAX_BYTES = 16 * 1024 * 1024;

/** A file's text from its start: the FD's offset may be shared with others. Throws. */
export function readText(fd: number, what: string): string {
  const parts: Buffer[] = [];
  let offset = 0;
  while (offset < TEXT_MAX_BYTES) {
    const part = Buffer.alloc(64 * 1024);
    const got = native.preadFd(fd, part, offset);
    if (got < 0) throw new BurrowError("BURROW_IO", `can't read ${what}: ${errnoName(got)}`);
    if (got === 0) break;
    parts.push(part.subarray(0, got));
    offset += got;
  }
  return Buffer.concat(parts).toString("utf8");
}
