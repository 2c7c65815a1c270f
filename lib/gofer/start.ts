// Start: what a stub tells a standby that a child would have inherited. docs/protocol/adopt.md, section 7. Control plane.

import { native } from "../sys/native.ts";
import { type AdoptedFd, receiveMessage, Type } from "./adopt.ts";

/** Numbers by which two processes know that they share something: a file's device and inode, a namespace's inode. */
export interface Identity {
  readonly program: readonly [bigint, bigint];
  readonly node: readonly [bigint, bigint];
  readonly userNamespace: bigint;
  readonly cgroupNamespace: bigint;
}

export interface Start {
  readonly identity: Identity;
  /** As in Launch. */
  readonly words: readonly string[];
  readonly settings: Readonly<Record<string, string>>;
  /** Lines of the stub's /proc/self/cgroup. */
  readonly cgroups: readonly string[];
  /** Its root directory and its cgroups' ways in: ours to close. */
  readonly fds: readonly AdoptedFd[];
}

const COUNTS_AT = 48;
const STRINGS_AT = 64;
const SETTING = /^(BURROW_[A-Z_]+)=(.*)$/s;

/** The strings of a body, in their three parts; undefined when it has another number of them than it says. */
function stringsOf(
  body: Buffer,
): { words: string[]; settings: string[]; cgroups: string[] } | undefined {
  const strings = body.toString("utf8", STRINGS_AT).split("\0");
  const [words, settings, cgroups] = [0, 4, 8].map((at) => body.readUInt32LE(COUNTS_AT + at)) as [
    number,
    number,
    number,
  ];
  // What stands behind the last NUL is empty.
  if (strings.pop() !== "" || strings.length !== words + settings + cgroups) return undefined;
  return {
    words: strings.slice(0, words),
    settings: strings.slice(words, words + settings),
    cgroups: strings.slice(words + settings),
  };
}

/** Reads a START that is there; undefined when it is none, with its FDs closed. Never blocks for one that came whole. */
export function receiveStart(peer: number): Start | undefined {
  const message = receiveMessage(peer);
  if (message === undefined) return undefined;
  const { type, fds, body } = message;
  const strings = type === Type.start && body.length >= STRINGS_AT ? stringsOf(body) : undefined;
  if (strings === undefined) {
    for (const { fd } of fds) native.closeFd(fd);
    return undefined;
  }
  const number = (at: number) => body.readBigUInt64LE(at);
  const identity: Identity = {
    program: [number(0), number(8)],
    node: [number(16), number(24)],
    userNamespace: number(32),
    cgroupNamespace: number(40),
  };
  const settings: Record<string, string> = {};
  for (const setting of strings.settings) {
    const match = SETTING.exec(setting);
    if (match !== null) settings[match[1]!] = match[2]!;
  }
  return { identity, words: strings.words, settings, cgroups: strings.cgroups, fds };
}
