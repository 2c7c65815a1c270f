// LISAFS message ids. LISAFS: pkg/lisafs/message.go; 32 and 33 are known to 2025 and later clients only. Any plane.

export const Mid = {
  Error: 0,
  Mount: 1,
  Channel: 2,
  FStat: 3,
  SetStat: 4,
  Walk: 5,
  WalkStat: 6,
  OpenAt: 7,
  OpenCreateAt: 8,
  Close: 9,
  FSync: 10,
  PWrite: 11,
  PRead: 12,
  MkdirAt: 13,
  MknodAt: 14,
  SymlinkAt: 15,
  LinkAt: 16,
  FStatFS: 17,
  FAllocate: 18,
  ReadLinkAt: 19,
  Flush: 20,
  Connect: 21,
  UnlinkAt: 22,
  RenameAt: 23,
  Getdents64: 24,
  FGetXattr: 25,
  FSetXattr: 26,
  FListXattr: 27,
  FRemoveXattr: 28,
  BindAt: 29,
  Listen: 30,
  Accept: 31,
  ConnectWithCreds: 32,
  RenameAt2: 33,
} as const;
export type Mid = (typeof Mid)[keyof typeof Mid];

export const MID_COUNT = 34;

const NAMES = Object.keys(Mid);

/** The protocol's own name of a message, or "MID n". */
export function midName(mid: number): string {
  return NAMES[mid] ?? `MID ${mid}`;
}
