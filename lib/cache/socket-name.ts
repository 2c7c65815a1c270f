// The name by which the daemon's socket is bound and connected to. The kernel takes 107 bytes and Node cuts off what is longer,
// which would be a socket of another name, in another folder: a long one is reached through an FD of its folder. Control plane.

import fs from "node:fs";
import { DAEMON_SOCKET } from "./layout.ts";

const NAME_MAX_BYTES = 107;

export interface SocketName {
  readonly name: string;
  /** The name isn't valid after this. May be called again. */
  close(): void;
}

/** The name of a cache's socket, or of another `file` there. Throws the error of opening the cache's folder when it must be opened. */
export function openSocketName(cache: string, file = DAEMON_SOCKET): SocketName {
  const name = `${cache}/${file}`;
  if (Buffer.byteLength(name) <= NAME_MAX_BYTES) return { name, close: () => {} };
  const folder = fs.openSync(cache, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  let isOpen = true;
  return {
    name: `/proc/self/fd/${folder}/${file}`,
    close: () => {
      if (isOpen) fs.closeSync(folder);
      isOpen = false;
    },
  };
}
