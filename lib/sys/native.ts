// The typed face of the addon: loads it, and gives each file of native/addon/ an interface. The only
// module that may do so. Every function returns >= 0 or -errno and blocks only where it says so. Any plane.

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

/** native/addon/fd.c */
interface FdFunctions {
  closeFd(fd: number): number;
  dupFd(fd: number): number;
  setNonblock(fd: number): number;
  readFd(fd: number, out: Uint8Array): number;
  writeFd(fd: number, bytes: Uint8Array): number;
  preadFd(fd: number, out: Uint8Array, offset: number): number;
  pwriteFd(fd: number, bytes: Uint8Array, offset: number): number;
  /** out[0..4] = size, mode, mtime seconds, mtime nanoseconds, link count. */
  statFd(fd: number, out: Float64Array): number;
  /** dirFd -1 is the working directory; path is latin1. */
  /** A copy of another process's FD, by its pid and its number there. man pidfd_getfd(2): who may trace it may. */
  takeFd(pid: number, fd: number): number;
  openAt(dirFd: number, path: string, flags: number, mode: number): number;
  /** Opens `ab/<hex>` of the digest at bytes[offset] below dirFd when size (or -1) and seal agree; -ESTALE. */
  openBlob(dirFd: number, bytes: Uint8Array, offset: number, size: number): number;
  /** Sets the mtime; sec < 0 sets the atime to 0 instead. */
  futimens(fd: number, sec: number, nsec: number): number;
  /**
   * A write lease on a file that nobody else has open or mapped: -EAGAIN otherwise. Until it is given back or fd is closed who opens the
   * file waits, or gets EAGAIN with O_NONBLOCK, and this process gets SIGIO.
   */
  leaseFd(fd: number): number;
  unleaseFd(fd: number): number;
  /** Type 0 is a pipe: its reading end first. */
  socketPair(type: number, out: Int32Array): number;
  connectUnix(path: string): number;
  /** A listening socket of packets at a path that nothing has yet. */
  listenPackets(path: string): number;
  /** The next peer of a listening socket; -EAGAIN. */
  acceptPeer(fd: number): number;
  /** The user id of who connected a unix socket. */
  peerUser(fd: number): number;
  /** One sendmsg, with up to 200 FDs in one control message; flags MSG_NOSIGNAL. */
  sendMessage(fd: number, bytes: Uint8Array, fds: Int32Array, fdCount: number): number;
  /** One recvmsg: bytes; received FDs (close-on-exec) in fds from 1 on, their count in fds[0]. */
  receiveMessage(fd: number, out: Uint8Array, fds: Int32Array, flags: number): number;
  memfd(name: string, size: number): number;
}

/** native/addon/map.c */
interface MapFunctions {
  map(fd: number, offset: number, length: number, writable: boolean): ArrayBuffer | number;
  /** Unmaps what map gave, and empties every view of it. */
  unmap(buffer: ArrayBufferLike): number;
}

/** native/addon/channel.c: lib/sys/wait.ts says what each means. */
interface ChannelFunctions {
  waitCreate(events: Int32Array): number;
  waitAddChannel(window: Uint8Array): number;
  waitDropChannel(slot: number): number;
  waitAddSocket(fd: number): number;
  waitArmSocket(slot: number, forOutput: boolean): number;
  waitDropSocket(slot: number): number;
  waitNext(replySlot: number, replyBytes: number, timeoutMs: number): number;
  waitReply(slot: number, bytes: number): number;
  waitRing(): number;
  channelDonate(socketFd: number, fd: number): number;
  channelCall(window: Uint8Array, length: number, timeoutMs: number): number;
}

/** native/addon/process.c */
interface ProcessFunctions {
  setNoNewPrivs(): number;
  setNoFile(limit: number): number;
  /** The calling thread's mount namespace, root and working directory, by FD. */
  enterMounts(namespaceFd: number, rootFd: number, directoryFd: number): number;
  askForShortTurns(): number;
  exitNow(code: number): never;
  /** Starts a program of PATH with three FDs at 0, 1 and 2: its pid. At most 16 arguments, NUL-terminated, its name first. */
  spawnProgram(args: Uint8Array, fds: Int32Array): number;
  /** Waits until the program has ended: its status, as wait(2) has it. */
  waitProgram(pid: number): number;
}

declare const zstdContext: unique symbol;
/** A decompressor of libzstd's: an opaque value. */
export interface ZstdContext {
  readonly [zstdContext]: true;
}

/** native/addon/codec.c */
interface CodecFunctions {
  /** The LZ4 block of bytes, of 1 MiB at most, into `out`: its length, 0 when it doesn't fit; -ENOSYS without liblz4. */
  packLz4(bytes: Uint8Array, out: Uint8Array): number;
  /** A decompressor for windows of so many bits; -ENOSYS without libzstd. */
  openZstd(windowLog: number): ZstdContext | number;
  /**
   * Takes of `bytes` and puts into `out` what it can; `counts` says how much of both. 0 when what was taken ends a frame, 1 when it
   * doesn't; -ERANGE for a window that is too large, -EPROTO for what is no zstd data.
   */
  stepZstd(context: ZstdContext, bytes: Uint8Array, out: Uint8Array, counts: Uint32Array): number;
  /** Gives its memory back; it is of no use then. */
  closeZstd(context: ZstdContext): number;
}

/** native/addon/sha256.c */
interface HashFunctions {
  /**
   * SHA-256 of ranges of the bytes, (start, length) each, into `digests`, 32 bytes each. The longest first is fastest. -ENOSYS where
   * one after the other is as fast.
   */
  hashLanes(bytes: Uint8Array, ranges: Uint32Array, digests: Uint8Array): number;
}

export interface Native
  extends FdFunctions,
    MapFunctions,
    ChannelFunctions,
    ProcessFunctions,
    CodecFunctions,
    HashFunctions {}

/** Folder of the built addon, launcher and stub: build/native/ at the project's root. */
export const NATIVE_DIRECTORY = fileURLToPath(new URL("../../../build/native/", import.meta.url));

function load(): Native {
  const path = process.env["BURROW_ADDON"] ?? `${NATIVE_DIRECTORY}burrow.node`;
  return createRequire(import.meta.url)(path) as Native;
}

export const native: Native = load();
