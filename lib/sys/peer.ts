// Who is at the other end of a unix socket that Node holds. Control plane.

import type { Socket } from "node:net";
import { native } from "./native.ts";

/** The user id of the process that connected, as the kernel saw it then; -errno when it can't be told. man unix(7), SO_PEERCRED. */
export function peerUser(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } };
  return native.peerUser(handle?.fd ?? -1);
}
