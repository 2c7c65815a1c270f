// The name by which the daemon's socket is bound and connected to. The kernel takes 107 bytes and Node cuts off what is longer,
// which would be a socket of another name, in another folder: a long one is reached through an FD of its folder. Control plane.

import fs from "node:fs";
import { DAEMON_SOCKET, socketPath } from "./layout.ts";

const NAME_MAX_BYTES = 107;

export interface SocketName {
  readonly name: string;
  /** The name isn't valid after this. May be called again. */
  close(): void;
}

/** The name of a cache's socket. Throws the error of opening the cache's folder when it must be opened. */
export function openSocketName(cache: string): SocketName {
  const name = socketPath(cache);
  if (Buffer.byteLength(name) <= NAME_MAX_BYTES) return { name, close: () => {} };
  const folder = fs.openSync(cache, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  let isOpen = true;
  return {
    name: `/proc/self/fd/${folder}/${DAEMON_SOCKET}`,
    close: () => {
      if (isOpen) fs.closeSync(folder);
      isOpen = false;
    },
  };
}
