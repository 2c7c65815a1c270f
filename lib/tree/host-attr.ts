// A host inode's attributes, from statx(2)'s words to a front end's. Data plane.

import { S_IFMT } from "../base/file-types.ts";
import { StatField } from "../sys/hostfs.ts";
import { showNumber } from "./host-devices.ts";
import type { HostNode } from "./host-nodes.ts";
import type { Attr } from "./tree.ts";

/** `stat` as hostFs.statNode leaves it; the inode number and device are those that the tree calls the node by. */
export function fillAttr(stat: Float64Array, node: HostNode, out: Attr): void {
  out.ino = node.hostIno;
  out.devMajor = 0;
  out.devMinor = node.devMinor;
  out.mode = (stat[StatField.mode]! & ~S_IFMT) | node.type;
  out.nlink = stat[StatField.nlink]!;
  out.uid = stat[StatField.uid]!;
  out.gid = stat[StatField.gid]!;
  out.rdevMajor = stat[StatField.rdevMajor]!;
  out.rdevMinor = stat[StatField.rdevMinor]!;
  out.size = stat[StatField.size]!;
  out.blocks = stat[StatField.blocks]!;
  out.blockSize = stat[StatField.blockSize]!;
  out.atimeSec = stat[StatField.atimeSec]!;
  out.atimeNs = stat[StatField.atimeNs]!;
  out.mtimeSec = stat[StatField.mtimeSec]!;
  out.mtimeNs = stat[StatField.mtimeNs]!;
  out.ctimeSec = stat[StatField.ctimeSec]!;
  out.ctimeNs = stat[StatField.ctimeNs]!;
  if (out.mode !== stat[StatField.mode]!) showNumber(out);
}
