// The recorded frames of test/golden/. Tests only.

import { readFileSync } from "node:fs";

export interface Vector {
  readonly name: string;
  readonly mid: number;
  readonly dir: "req" | "resp" | "struct";
  readonly bytes: Buffer;
}

interface RawVector {
  readonly Name: string;
  readonly MID: number;
  readonly Dir: Vector["dir"];
  readonly Hex: string;
}

/** What gVisor's own marshallers made of requests and replies (release-20221219.0; unchanged since). */
export function readVectors(): Vector[] {
  const url = new URL("../../../test/golden/lisafs-vectors.json", import.meta.url);
  return (JSON.parse(readFileSync(url, "utf8")) as RawVector[]).map(({ Name, MID, Dir, Hex }) => ({
    name: Name,
    mid: MID,
    dir: Dir,
    bytes: Buffer.from(Hex, "hex"),
  }));
}
