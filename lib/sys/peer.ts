// Unix sockets that Node holds, where it has no call of its own: who is at the other end, and sending files. Control plane.

import type { Socket } from "node:net";
import { Errno } from "../base/errno.ts";
import { SocketOption } from "./address.ts";
import { native } from "./native.ts";

/** How often a full socket is tried again, and how long. */
const RETRY_MS = 10;
const RETRIES_MAX = 1_000;

/** The user id of the process that connected, as the kernel saw it then; -errno when it can't be told. man unix(7), SO_PEERCRED. */
export function peerUser(socket: Socket): number {
  return native.socketOption(fdOf(socket), SocketOption.peerUser);
}

/** Its pid in this process's namespace, 0 of one that has none there; -errno. */
export function peerProcess(socket: Socket): number {
  return native.socketOption(fdOf(socket), SocketOption.peerUser, 1);
}

/**
 * Sends bytes, fewer than the kernel takes or leaves at once (32 KiB), with a file: behind all that was written before, and the FD is closed
 * then. A peer that takes nothing for 10 s is disconnected.
 */
export function sendWithFile(socket: Socket, bytes: Uint8Array, fd: number): void {
  let tries = 0;
  const send = (): void => {
    // Between the parts of what Node still has to write there is no place for it.
    if (!socket.destroyed && socket.writableLength > 0) {
      socket.write(NOTHING, send);
      return;
    }
    const sent = socket.destroyed
      ? -Errno.EPIPE
      : native.sendMessage(fdOf(socket), bytes, Int32Array.of(fd), 1);
    if (sent === -Errno.EAGAIN && ++tries < RETRIES_MAX) {
      setTimeout(send, RETRY_MS);
      return;
    }
    native.closeFd(fd);
    if (sent !== bytes.length) socket.destroy();
  };
  send();
}

/** Closes the file of an answer that nobody awaits; -1: it has none. */
export function closeSent(fd: number): void {
  if (fd >= 0) native.closeFd(fd);
}

const NOTHING = new Uint8Array(0);

function fdOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } };
  return handle?.fd ?? -1;
}
