// Traces made up for tests: of as many events as they want, with the names that they want. Tests only.

import type { TraceContent, TraceFile, TraceRpc } from "../../lib/cli/trace-file.ts";

/** A start of so many requests over some files, some of which waited, with fetches and what came ahead of them. */
export function madeTrace(requests: number, paths: readonly string[]): TraceContent {
  const files = paths.map((path, id): TraceFile => {
    return { kind: "file", id, path, isDirectory: false, bytes: 10_000 + id, package: id % 2 };
  });
  const rpcs = Array.from({ length: requests }, (_, i): TraceRpc => {
    const file = i % files.length;
    const name = ["Walk", "OpenAt", "PRead"][i % 3]!;
    const count = name === "PRead" ? 4096 : 1;
    return { kind: "rpc", ms: 10 + i / 10, us: 50, name, mount: 0, file, errno: 0, page: 0, count };
  });
  const last = files.length - 1;
  return {
    head: {
      kind: "trace",
      format: 1,
      command: ["python3", "-c", "import </script><script>alert(1)</script>"],
      startedAt: "2026-11-22T08:00:00.000Z",
      exitCode: 0,
      dropped: 0,
      notes: [],
    },
    packages: [
      { kind: "package", id: 0, title: "numpy-1.24.2", files: 100, bytes: 1_000_000 },
      { kind: "package", id: 1, title: "<img src=x onerror=alert(2)>", files: 50, bytes: 500_000 },
      { kind: "package", id: 2, title: "idle-1.0", files: 7, bytes: 700 },
    ],
    files,
    marks: [
      { kind: "mark", ms: 0, name: "burrow run" },
      { kind: "mark", ms: 5, name: "runsc" },
      { kind: "mark", ms: 12 + requests / 10, name: "end" },
    ],
    rpcs,
    misses: [
      { kind: "miss", ms: 11, us: 3_000, file: 0, errno: 0, block: -1 },
      { kind: "miss", ms: 12, us: 4_000, file: last, errno: 0, block: 2 },
      { kind: "miss", ms: 20, us: 1_000, file: -1, errno: 5, block: -1 },
    ],
    fetches: [
      {
        kind: "fetch",
        ms: 11.5,
        us: 2_000,
        origin: "https://store.example/<b>",
        path: "packs/ab/abcd",
        offset: 100,
        bytes: 300_000,
        isDemand: true,
      },
      {
        kind: "fetch",
        ms: 14,
        us: 900,
        origin: "https://store.example/<b>",
        path: "packs/ab/abcd",
        offset: 400_100,
        bytes: -1,
        isDemand: false,
      },
    ],
    prefetches: [
      { kind: "prefetch", ms: 13, file: 0, block: 0, bytes: 10_000, isUsed: true },
      { kind: "prefetch", ms: 13.1, file: last, block: 1, bytes: 5_000, isUsed: false },
    ],
  };
}
