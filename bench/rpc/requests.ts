// requests: one request through a channel, by kind, as its client waits for it: our gofer, with a standby's server and with a child's,
// beside stock runsc's own gofer over the same files. One client of ours for all, which asks each in turn; the clock runs from the moment
// the request stands in the window until the answer does, so that what the client is written in is in none of the figures.
//
// Back to back both ends are awake, mostly on one CPU. With 100 us of work between two requests, which is what a sandbox has, the
// server sleeps and has to be woken. Expected: a lookup in a mapped index against one openat, fstat and a new FD of the stock gofer's,
// so less; an open is the same calls in both. Needs root and runsc; fixtures as for hot-start.

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { native } from "../../lib/sys/native.ts";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { close, list, open, openPath, walkTo } from "../../test/suite/lisafs-calls.ts";
import {
  CHANNEL_START,
  type ChannelPathway,
  LisafsClient,
  PAYLOAD_MAX,
  TIMEOUT_MS,
  WINDOW_HEADER,
} from "../../test/suite/lisafs-client.ts";
import { goferModes, SHARED, type StartedGofer, startGofer } from "../replay/gofer-start.ts";
import { median, setUp } from "../replay/setup.ts";
import type { Bench } from "../run.ts";

/** Where the files lie, in the fixtures' root. */
const FOLDER = "usr/lib/python3.11";
const FILES = 150;
const READ_BYTES = 4096;
const ROUNDS = 15;
const CALLS = { "back to back": 450, "100 us apart": 150 } as const;
type Pace = keyof typeof CALLS;
const WORK_MS = 0.1;

/** A gofer's client, and what it has walked to. */
interface Target {
  readonly mode: string;
  readonly gofer: StartedGofer;
  readonly client: LisafsClient;
  readonly folder: number;
  readonly controls: readonly number[];
  readonly opened: number;
}

interface Case {
  readonly what: string;
  readonly mid: number;
  /** The request about the i-th file. */
  fields(target: Target, names: readonly string[], i: number): Partial<Request>;
  /** FDIDs in an answer's payload that are the client's to close. */
  minted?(payload: Buffer): number[];
}

const INODE_BYTES = 152;
/** Control FDs of a Walk's answer: u8 status, u16 count, inodes. */
function walked(payload: Buffer): number[] {
  const at = Array.from({ length: payload.readUInt16LE(1) }, (_, i) => 3 + i * INODE_BYTES);
  return at.map((offset) => Number(payload.readBigUInt64LE(offset)));
}

const CASES: readonly Case[] = [
  {
    what: "Walk, one name",
    mid: Mid.Walk,
    fields: ({ folder: fd }, names, i) => ({ fd, names: [names[i]!] }),
    minted: walked,
  },
  {
    what: "Walk, four names",
    mid: Mid.Walk,
    fields: ({ client }, names, i) => ({
      fd: client.rootFd,
      names: [...FOLDER.split("/"), names[i]!],
    }),
    minted: walked,
  },
  {
    what: "Walk, missing name",
    mid: Mid.Walk,
    fields: ({ folder: fd }, names, i) => ({ fd, names: [`${names[i]}c`] }),
    minted: walked,
  },
  {
    what: "WalkStat, a directory and a name",
    mid: Mid.WalkStat,
    fields: ({ folder: fd }, names, i) => ({ fd, names: ["", names[i]!] }),
  },
  {
    what: "FStat",
    mid: Mid.FStat,
    fields: ({ controls }, _names, i) => ({ fd: controls[i]! }),
  },
  {
    what: "OpenAt, donated",
    mid: Mid.OpenAt,
    fields: ({ controls }, _names, i) => ({ fd: controls[i]!, flags: 0 }),
    minted: (payload) => [Number(payload.readBigUInt64LE(0))],
  },
  {
    what: "PRead, 4 KiB",
    mid: Mid.PRead,
    fields: ({ opened: fd }) => ({ fd, offset: 0, count: READ_BYTES }),
  },
];

/** Files of one page and more, so that all reads are whole, and small enough to be donated. */
function chooseFiles(root: string): string[] {
  const folder = join(root, FOLDER);
  const isFit = (name: string) => {
    const { size } = statSync(join(folder, name));
    return size >= READ_BYTES && size < 1024 * 1024;
  };
  const plain = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile());
  const names = plain.map(({ name }) => name).filter(isFit);
  return names.sort().slice(0, FILES);
}

/** Writes a request into a channel's window: its datagram's bytes. */
function write(channel: ChannelPathway, mid: number, fields: Partial<Request>): number {
  const request = Object.assign(new Request(), fields);
  request.nameCount = fields.names?.length ?? 0;
  const cursor = new Cursor(channel.buffer).seek(CHANNEL_START, CHANNEL_START + PAYLOAD_MAX);
  if (!encodeRequest(mid, request, cursor)) throw new Error(`no room for message ${mid}`);
  channel.view.setUint16(WINDOW_HEADER, mid, true);
  channel.view.setUint16(WINDOW_HEADER + 2, 0, true);
  return cursor.offset - WINDOW_HEADER;
}

const fds = new Int32Array(8);
const noBytes = new Uint8Array(1);

/** Closes what was donated with the answer that stands in the window; throws when it isn't an answer to `mid`. */
function takeBack({ view, socketFd }: ChannelPathway, mid: number): number {
  if (view.getUint16(WINDOW_HEADER, true) !== mid) throw new Error(`message ${mid} failed`);
  const count = view.getUint8(WINDOW_HEADER + 2);
  for (let i = 0; i < count; i++) {
    if (native.receiveMessage(socketFd, noBytes, fds, 0) < 0) throw new Error("an FD is missing");
    native.closeFd(fds[1]!);
  }
  return count;
}

function work(forMs: number): void {
  const until = performance.now() + forMs;
  while (performance.now() < until);
}

/** us of each call, ascending. The client works between calls; what answers left is given back between files' rounds. */
function measure(
  target: Target,
  { mid, fields, minted }: Case,
  names: readonly string[],
  pace: Pace,
): Float64Array {
  const channel = target.client.channels[0]!;
  const took = new Float64Array(CALLS[pace]);
  const left: number[] = [];
  for (let i = 0; i < took.length; i++) {
    const bytes = write(channel, mid, fields(target, names, i % names.length));
    if (pace !== "back to back") work(WORK_MS);
    const startedMs = performance.now();
    const got = native.channelCall(channel.window, bytes, TIMEOUT_MS);
    took[i] = (performance.now() - startedMs) * 1000;
    if (got < 0) throw new Error(`no answer: ${got}`);
    takeBack(channel, mid);
    if (minted === undefined) continue;
    left.push(...minted(channel.buffer.subarray(CHANNEL_START, WINDOW_HEADER + got)));
    if (left.length > 100) close(target.client, ...left.splice(0));
  }
  if (left.length > 0) close(target.client, ...left);
  return took.sort();
}

/** Mounts it, finds the files, and reads each once, so that they are here and in the page cache. */
function mounted(mode: string, gofer: StartedGofer, names: readonly string[]): Target {
  const client = LisafsClient.mount(native.dupFd(gofer.io), 1);
  const folder = walkTo(client, FOLDER);
  list(client, open(client, folder).fd);
  const controls = names.map((name) => walkTo(client, name, folder));
  for (const control of controls) {
    const { fd, hostFd } = open(client, control);
    if (hostFd < 0) throw new Error(`${mode}: nothing was donated`);
    native.closeFd(hostFd);
    close(client, fd);
  }
  const opened = openPath(client, `${FOLDER}/${names[0]}`);
  return { mode, gofer, client, folder, controls, opened };
}

interface Figures {
  readonly p50: number[];
  readonly p99: number[];
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const targets: Target[] = [];
  try {
    const names = chooseFiles(join(setup.fixtures, "root"));
    setup.startDaemon();
    for (const { mode, words, config, env } of goferModes(setup)) {
      if (mode === SHARED) continue;
      await setup.standby();
      targets.push(mounted(mode, startGofer(words, config, env), names));
    }
    await setup.standby(); // The next one has rehearsed: nothing of ours is at work.
    for (const each of CASES) {
      for (const pace of Object.keys(CALLS) as Pace[]) {
        const figures = new Map<string, Figures>();
        for (let round = 0; round <= (isQuick ? 1 : ROUNDS); round++) {
          const turn = round % targets.length;
          for (const target of [...targets.slice(turn), ...targets.slice(0, turn)]) {
            const took = measure(target, each, names, pace);
            const { p50, p99 } = figures.get(target.mode) ?? { p50: [], p99: [] };
            figures.set(target.mode, { p50, p99 });
            if (round === 0) continue;
            p50.push(took[took.length >> 1]!);
            p99.push(took[Math.floor(took.length * 0.99)]!);
          }
        }
        report(emit, { request: each.what, pace, runsc: setup.version }, figures);
      }
    }
  } finally {
    for (const { client, gofer } of targets) {
      client.close();
      await gofer.end();
    }
    setup.dispose();
  }
};

/** Medians of the rounds' p50 and p99, and what they are of the stock gofer's. */
function report(
  emit: Parameters<Bench>[0],
  facts: Readonly<Record<string, string>>,
  figures: ReadonlyMap<string, Figures>,
): void {
  const stock = figures.get("stock")!;
  const ratio = (ours: readonly number[], of: readonly number[]) =>
    Number((median(ours) / median(of)).toFixed(2));
  for (const [mode, { p50, p99 }] of figures) {
    emit({
      ...facts,
      mode,
      rounds: p50.length,
      p50Us: Number(median(p50).toFixed(1)),
      p99Us: Number(median(p99).toFixed(1)),
      p50Ratio: ratio(p50, stock.p50),
      p99Ratio: ratio(p99, stock.p99),
    });
  }
}
