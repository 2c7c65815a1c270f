// Whether something can be mounted by FUSE here. Tests only.

import fs from "node:fs";

/** Why it can't be, or false. */
export const noFuse: string | false = whyNot();

function whyNot(): string | false {
  if (process.getuid?.() !== 0) return "only root can mount";
  try {
    fs.closeSync(fs.openSync("/dev/fuse", "r+"));
    return false;
  } catch {
    return "no /dev/fuse";
  }
}
