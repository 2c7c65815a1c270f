// Places of direct mounts: who may have one, and which gives way, so that no tenant can hold what the others need. A mount in use can't be
// taken from its sandboxes, so the bound is at the door. Pure. Control plane.

import { Errno } from "../base/errno.ts";

/** A mount there is: whose, and how many sandboxes have it. */
export interface DirectPlace {
  readonly tenant: string;
  readonly users: number;
}

/**
 * 0 when a tenant's sandbox may have a mount that none has yet: while more of the `most` are free than its tenant has in use. So one by
 * itself comes to half of them, two that take turns to a third each, and the last place is for a tenant that has none. Else ENFILE: all
 * are in use, or EDQUOT: its tenant has its share.
 */
export function refusalOf(places: Iterable<DirectPlace>, tenant: string, most: number): number {
  let free = most;
  let held = 0;
  for (const place of places) {
    if (place.users === 0) continue;
    free--;
    if (place.tenant === tenant) held++;
  }
  if (free <= 0) return Errno.ENFILE;
  return held < free ? 0 : Errno.EDQUOT;
}

/**
 * Of the mounts that no sandbox has, the first of a tenant that has as many mounts as any that has such: who goes through many views
 * forgets its own. Undefined when all are in use.
 */
export function givesWay<P extends DirectPlace>(places: Iterable<P>): P | undefined {
  const held = new Map<string, number>();
  const idle: P[] = [];
  for (const place of places) {
    held.set(place.tenant, (held.get(place.tenant) ?? 0) + 1);
    if (place.users === 0) idle.push(place);
  }
  const most = Math.max(0, ...idle.map(({ tenant }) => held.get(tenant)!));
  return idle.find(({ tenant }) => held.get(tenant) === most);
}
