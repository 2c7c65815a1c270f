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
  /** A stream socket, or one of packets. */
  connectUnix(path: string, isPackets?: boolean): number;
  /** A listening socket of packets at a path that nothing has yet; peers past the backlog get EAGAIN. */
  listenPackets(path: string, backlog: number): number;
  /** A listening stream socket at the bytes of a struct sockaddr: lib/sys/address.ts. */
  listenAt(address: Uint8Array): number;
  /** The struct sockaddr of a socket or of its peer into `out`: its bytes. */
  socketAddress(fd: number, ofPeer: boolean, out: Uint8Array): number;
  /** The next peer of a listening socket; -EAGAIN. */
  acceptPeer(fd: number): number;
  /** A number of a socket's: see SocketOption in lib/sys/address.ts. -ENOTSOCK. */
  socketOption(fd: number, option: number, ofProcess?: number): number;
  /** One sendmsg, with up to 200 FDs in one control message; flags MSG_NOSIGNAL. */
  sendMessage(fd: number, bytes: Uint8Array, fds: Int32Array, fdCount: number): number;
  /** One recvmsg: bytes; received FDs (close-on-exec) in fds from 1 on, their count in fds[0]. */
  receiveMessage(fd: number, out: Uint8Array, fds: Int32Array, flags: number): number;
  memfd(name: string, size: number): number;
  /** Of a unix stream socket: bytes that came and weren't read, or (isOutput) more than 0 while the peer hasn't read all that was sent. */
  queuedBytes(fd: number, isOutput: boolean): number;
  /** An FD that remembers that the peer of a unix stream socket has read something: wasRead asks it. */
  watchReads(fd: number): number;
  /** 1 when the peer has read something since the last call, else 0. */
  wasRead(watchFd: number): number;
}

/** native/addon/map.c */
interface MapFunctions {
  map(fd: number, offset: number, length: number, writable: boolean): ArrayBuffer | number;
  /** Unmaps what map gave, and empties every view of it. */
  unmap(buffer: ArrayBufferLike): number;
}

/** native/addon/channel.c: lib/sys/wait.ts says what each means. */
interface ChannelFunctions {
  waitCreate(events: Int32Array, isAlone: boolean): number;
  waitAddChannel(window: Uint8Array, journal: Uint8Array, isResumed: boolean): number;
  waitDropChannel(slot: number, isLeft: boolean): number;
  waitAddSocket(fd: number): number;
  waitArmSocket(slot: number, interest: number): number;
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
  /** So many ns of each period's for the calling thread before any other's, and no more; -EPERM, -EBUSY. */
  askForDeadline(runtimeNs: number, periodNs: number): number;
  /** A thread of this process before all of the normal policy; -EPERM. */
  goFirst(tid: number): number;
  exitNow(code: number): never;
  /** Starts a program of PATH with FDs, three or more, from 0 on: its pid. At most 16 arguments, NUL-terminated, its name first. */
  spawnProgram(args: Uint8Array, fds: Int32Array): number;
  /** Waits until the program has ended: its status, as wait(2) has it. With 0 it doesn't wait: -EAGAIN. */
  waitProgram(pid: number, isPatient: number): number;
}

/** native/addon/harden.c: nothing of it can be taken back. */
interface HardenFunctions {
  /**
   * Each thread of the process, which are all among `tids`, has that root and working directory, is bound by that Landlock ruleset (-1
   * leaves each as it is), has no_new_privs, and keeps no capability but those of the two words of bits. -ESRCH, and nothing is done, when
   * not `count` of these are threads of ours; -1: as many as are.
   */
  giveUp(
    tids: Int32Array,
    rootFd: number,
    directoryFd: number,
    rulesetFd: number,
    keptLow: number,
    keptHigh: number,
    count: number,
  ): number;
  /** A seccomp filter for all threads: struct sock_filter, 8 bytes each. -ESRCH when a thread has another. */
  filterCalls(program: Uint8Array): number;
  /** Soft and hard limit; the hard one never rises. */
  limitResource(resource: number, limit: number): number;
  /** PR_SET_DUMPABLE 0. */
  hideMemory(): number;
  /** A copy of the mount at an O_PATH FD that is attached nowhere: ".." leads out of it nowhere. */
  fenceFd(fd: number): number;
  landlockVersion(): number;
  /** The FD of a ruleset that denies what is handled, but beneath each of the FDs what its rights say. */
  landlockRules(handled: number, fds: Int32Array, rights: Int32Array): number;
  /** A stream socket connected to one in a directory, which becomes the working directory; -1: it is. */
  connectHere(directoryFd: number, name: string): number;
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

/** native/addon/pool.c: what workers do (workers.c). The bytes given are the worker's until the promise resolves; it never rejects. */
interface PoolFunctions {
  /** What spawnProgram gives, by a worker. */
  spawnLater(args: Uint8Array, fds: Int32Array): Promise<number> | number;
  /**
   * Blocks of `bytes` into their places in a file, those whose content is right: (start, stored bytes, codec, content bytes, block) of each,
   * and 32 bytes of digest, which are zeros after it was written.
   */
  keepBlocks(
    fd: number,
    bytes: Uint8Array,
    plan: Uint32Array,
    digests: Uint8Array,
  ): Promise<number> | number;
  /**
   * How many bytes of the file were hashed into `state`, of 256 bytes, which starts anew at offset 0: fewer than `length` at its end, and
   * then it begins with the digest.
   */
  hashPart(fd: number, state: Uint8Array, offset: number, length: number): Promise<number> | number;
}

/** native/addon/calls.c */
interface CallsFunctions {
  /**
   * Has a worker make a chain of system calls, `rows` of `table`, as lib/sys/calls.ts writes them; what each gave stands behind
   * them, and behind that what stat(2) said. Nobody may touch any of it before `done` is called.
   */
  makeCalls(
    rows: number,
    table: Float64Array,
    names: Uint8Array,
    buffers: readonly Uint8Array[],
    done: () => void,
  ): number;
}

export interface Native
  extends FdFunctions,
    MapFunctions,
    ChannelFunctions,
    ProcessFunctions,
    HardenFunctions,
    CodecFunctions,
    HashFunctions,
    PoolFunctions,
    CallsFunctions {}

/** Folder of the built addon, launcher and stub: build/native/ at the project's root. */
export const NATIVE_DIRECTORY = fileURLToPath(new URL("../../../build/native/", import.meta.url));

function load(): Native {
  const path = process.env["BURROW_ADDON"] ?? `${NATIVE_DIRECTORY}burrow.node`;
  return createRequire(import.meta.url)(path) as Native;
}

export const native: Native = load();
