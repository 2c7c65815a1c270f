// Start: what a standby learns of a stub: all that a child would have inherited, from the stub's own directory of /proc.
// docs/protocol/adopt.md, section 7; man proc(5). Control plane.

import { closeSync, openSync, readFileSync, statfsSync, statSync } from "node:fs";
import { setPriority } from "node:os";
import { fileURLToPath } from "node:url";
import { native } from "../sys/native.ts";
import { type Message, Role, Type } from "./adopt.ts";

/** What a stub was started with. */
export interface StubFacts {
  /** As in Launch. */
  readonly words: readonly string[];
  readonly settings: Readonly<Record<string, string>>;
}

export interface Start extends StubFacts {
  /** Its mount namespace, root and working directory: ours to close. */
  readonly mounts: readonly [namespaceFd: number, rootFd: number, directoryFd: number];
}

const SETTING = /^(BURROW_[A-Z_]+)=(.*)$/s;
const SELF = "/proc/self";
/** linux/magic.h. */
const PROC_SUPER_MAGIC = 0x9fa0;
const GOFER = fileURLToPath(new URL("../../gofer.cjs", import.meta.url));

/** Device and inode: two processes have the same file or namespace. */
export function numbersOf(path: string): string {
  const { dev, ino } = statSync(path, { bigint: true });
  return `${dev}:${ino}`;
}

/** The rows of a user namespace's map: first number inside, the same as we see it (of our own: as its maker does), how many. */
function idsOf(proc: string, map: "uid_map" | "gid_map"): string[][] {
  const rows = readFileSync(`${proc}/${map}`, "latin1").trim().split("\n");
  return rows.map((row) => row.trim().split(/\s+/));
}

/** Whether all users and groups that we have, and no others, have the same numbers there. man user_namespaces(7). */
function hasOurIds(proc: string): boolean {
  return (["uid_map", "gid_map"] as const).every((map) => {
    const same = idsOf(SELF, map).map(([first, , count]) => [first, first, count]);
    return idsOf(proc, map).join() === same.join();
  });
}

/** A process's user namespace. One with our ids passes for ours: runsc makes such a one for gofers of directfs. */
function usersOf(proc: string): string {
  const [users, ours] = [proc, SELF].map((each) => numbersOf(`${each}/ns/user`)) as [
    string,
    string,
  ];
  return users !== ours && hasOurIds(proc) ? ours : users;
}

/** What a stub must share with us to be served: the build, the program that runs it, whose ids, whose view of cgroups. */
function identityOf(proc: string, gofer: string, node: string): string {
  const files = [`${proc}/root${gofer}`, `${proc}/root${node}`, `${proc}/ns/cgroup`];
  return [...files.map(numbersOf), usersOf(proc)].join();
}

/** As it is when we start: a build that comes later is another. */
export const own = identityOf(SELF, GOFER, process.execPath);

/** Where a line of /proc/PID/cgroup, "NUMBER:CONTROLLERS:PATH", leads. man cgroups(7), "/proc files". */
function cgroupFiles(line: string): string[] {
  const [, controllers = "", path = ""] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
  const name = controllers.replace(/^name=/, "");
  const folders = name === "" ? ["", "/unified"] : [`/${name}`];
  return folders.map((folder) => `/sys/fs/cgroup${folder}${path}/cgroup.procs`);
}

/** Enters a cgroup: false when that can't be. */
function join(line: string): boolean {
  return cgroupFiles(line).some((file) => {
    try {
      const fd = openSync(file, "w");
      try {
        return native.writeFd(fd, Buffer.from("0")) > 0; // 0: who writes
      } finally {
        closeSync(fd);
      }
    } catch {
      return false;
    }
  });
}

/** Enters each cgroup of the stub that isn't ours already, so that what we use is the sandbox's. */
function joinCgroups(proc: string): boolean {
  const linesOf = (path: string) => readFileSync(path, "latin1").split("\n").filter(Boolean);
  const ours = new Set(linesOf(`${SELF}/cgroup`));
  return linesOf(`${proc}/cgroup`).every((line) => ours.has(line) || join(line));
}

/** Takes on its nice value, for this thread: who starts sandboxes at another than the daemon's means their servers too. */
function takePriority(proc: string): void {
  const stat = readFileSync(`${proc}/stat`, "latin1");
  // Behind the name, which may hold anything: state is field 3, nice field 19. man proc_pid_stat(5)
  const nice = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]);
  try {
    setPriority(nice);
  } catch {
    // A higher priority than ours needs CAP_SYS_NICE.
  }
}

function stringsOf(path: string): string[] {
  return readFileSync(path, "utf8").split("\0").slice(0, -1);
}

/** The stub whose directory of /proc this is; undefined when it must look elsewhere. Throws when it is gone. */
export function readStub(proc: string): StubFacts | undefined {
  // Files of another file system may say anything: root's are the kernel's word.
  if (statfsSync(proc).type !== PROC_SUPER_MAGIC) return undefined;
  const settings: Record<string, string> = {};
  for (const setting of stringsOf(`${proc}/environ`)) {
    const match = SETTING.exec(setting);
    if (match !== null) settings[match[1]!] = match[2]!;
  }
  const { BURROW_GOFER: gofer = "", BURROW_NODE: node = "" } = settings;
  if (identityOf(proc, gofer, node) !== own) return undefined;
  return { words: stringsOf(`${proc}/cmdline`).slice(1), settings };
}

/** The same, entered: as a child of it would be, but for its mounts. */
function enterStub(proc: string): Start | undefined {
  const facts = readStub(proc);
  if (facts === undefined) return undefined;
  const [namespace, root, directory] = ["ns/mnt", "root", "cwd"].map((name) =>
    openSync(`${proc}/${name}`, "r"),
  ) as [number, number, number];
  if (!joinCgroups(proc)) native.exitNow(1); // it may be in some of them
  takePriority(proc);
  return { ...facts, mounts: [namespace, root, directory] };
}

/** What a START is of; undefined when it is none, or of one that we can't serve. Takes the message's FDs. */
export function startOf(message: Message | undefined): Start | undefined {
  try {
    const proc = message?.fds.find(({ role }) => role === Role.proc);
    if (message?.type !== Type.start || proc === undefined) return undefined;
    return enterStub(procOf(proc.fd));
  } catch {
    return undefined;
  } finally {
    for (const { fd } of message?.fds ?? []) native.closeFd(fd);
  }
}

/** A stub's directory of /proc by the FD that it sent, until that is closed. */
export function procOf(fd: number): string {
  return `${SELF}/fd/${fd}`;
}
