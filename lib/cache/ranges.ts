// Whether a disk has what sync_file_range says it has: asked once of each cache. docs/design/0037. Control plane.

import fs from "node:fs";
import { basename } from "node:path";

/** Of ext2 and ext3, too. linux, include/uapi/linux/magic.h */
const EXT4 = 0xef53;
const XFS = 0x58465342;

/**
 * Whether what is read of a file below `root` is what was written once `sync_file_range` has waited for it. On XFS, and on ext3 and ext4 by
 * their journal: where a file's blocks lie is noted there before their writing ends. Without a journal that stands in buffers of the disk
 * that only fsync writes and checks. False of all else, and where it can't be known. Throws nothing.
 */
export function holdsRanges(root: string): boolean {
  try {
    const { type } = fs.statfsSync(root);
    return type === XFS || (type === EXT4 && hasJournal(fs.statSync(root).dev));
  } catch {
    return false;
  }
}

/**
 * Of a file system that Linux's ext4 serves: without a journal it has no mode of data, and what ext2's own driver serves has no folder
 * here. Of data=journal the pages go to the journal, and to their place later. linux, fs/ext4/super.c _ext4_show_options()
 */
function hasJournal(device: number): boolean {
  const [major, minor] = [majorOf(device), minorOf(device)];
  const name = basename(fs.readlinkSync(`/sys/dev/block/${major}:${minor}`));
  const options = fs.readFileSync(`/proc/fs/ext4/${name}/options`, "latin1");
  return /^data=(ordered|writeback)$/m.test(options);
}

/** glibc, gnu_dev_major() and gnu_dev_minor(); the kernel's own have 12 and 20 bits. */
const majorOf = (device: number) => (device >>> 8) & 0xfff;
const minorOf = (device: number) => (device & 0xff) | ((device >>> 12) & 0xfff00);
