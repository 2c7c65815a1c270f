// LayerEntry: what a source of files (directory, tar, conda package, stage) says of one path, and what
// the writer and the merge work on. Control plane.

import type { BlobRef } from "../base/blob.ts";

interface Common {
  /** Path below the layer's root: latin1 Names joined by "/", no leading slash; "" is the root directory. */
  readonly path: string;
  /** Permission bits incl. setuid, setgid, sticky (0o7777); the type is in `type`. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNs: number;
  /** Extended attributes by latin1 name, latin1 value. */
  readonly xattrs?: ReadonlyMap<string, string>;
}

export type LayerEntry =
  | (Common & {
      readonly type: "file";
      readonly blob: BlobRef;
      /** Paths with the same non-empty link group are hard links of one inode. */
      readonly linkGroup?: string;
    })
  | (Common & {
      readonly type: "directory";
      readonly opaque?: boolean;
      /** Nobody said anything of it: it is there for what is in it, and over a directory it changes nothing. */
      readonly implied?: boolean;
    })
  | (Common & { readonly type: "symlink"; readonly target: string })
  | (Common & { readonly type: "fifo" })
  | (Common & { readonly type: "whiteout" });
