// What a folder with all below it takes of its disk, as du(1) counts it. Test support.

import fs from "node:fs";

/**
 * 512 bytes for each block of each file and folder; what goes meanwhile is passed over, and what has a second name, or gets another
 * meanwhile, is counted once.
 */
export function diskBytes(path: string, seen = new Set<number>()): number {
  const stat = fs.lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined || seen.has(stat.ino)) return 0;
  seen.add(stat.ino);
  let bytes = stat.blocks * 512;
  if (!stat.isDirectory()) return bytes;
  for (const name of namesIn(path)) bytes += diskBytes(`${path}/${name}`, seen);
  return bytes;
}

function namesIn(path: string): string[] {
  try {
    return fs.readdirSync(path);
  } catch {
    return [];
  }
}
