// ServerList: which servers are shared on a node, and by whose stubs, as the broker writes it for people: .servers.json in its folder.
// Control plane.

import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { sharedFolder } from "../cache/layout.ts";

export type ServerList = readonly {
  readonly tenant: string;
  /** 0: it gets ready. */
  readonly pid: number;
  /** Pids of the stubs that it serves. */
  readonly stubs: readonly number[];
}[];

/** The dot keeps it from stubs, which connect to all else in that folder. */
const FILE = ".servers.json";

/** Whole or not at all. Throws what Node does. */
export function writeServers(folder: string, list: ServerList): void {
  writeFileSync(`${folder}/${FILE}.new`, JSON.stringify(list), { mode: 0o600 });
  renameSync(`${folder}/${FILE}.new`, `${folder}/${FILE}`);
}

/** Of a cache; none when no broker runs there, or for who may not look. */
export function readServers(cache: string): ServerList {
  try {
    return JSON.parse(readFileSync(`${sharedFolder(cache)}/${FILE}`, "utf8")) as ServerList;
  } catch {
    return [];
  }
}
