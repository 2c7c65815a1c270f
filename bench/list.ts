// Every bench by name, with what it measures and the yardsticks that it is for; docs/benchmarks.md has the last figures beside the bars.
// Loaded when it is run: a broken one spoils nothing else.

import type { Bench } from "./run.ts";

export interface Listed {
  readonly what: string;
  readonly yardsticks: readonly string[];
  load(): Promise<{ bench: Bench }>;
}

export const BENCHES: Readonly<Record<string, Listed>> = {
  "hot-start": {
    what: "import numpy, pandas in a sandbox, all in memory, beside stock runsc",
    yardsticks: ["hot start"],
    load: () => import("./replay/hot-start.ts"),
  },
  "warm-start": {
    what: "the same with nothing in the page cache, all files on this node's disk",
    yardsticks: ["warm start"],
    load: () => import("./replay/warm-start.ts"),
  },
  "cold-start": {
    what: "the same on an empty node at 0, 5, 20 ms, beside local disk and fetch, unpack, run",
    yardsticks: ["cold start", "fetch whole", "requests a start", "fetched bytes"],
    load: () => import("./replay/cold-start.ts"),
  },
  "learned-starts": {
    what: "cold starts by what was learned: by touch, by package, and with packs laid out by it",
    yardsticks: ["requests a start", "fetched bytes", "prefetch"],
    load: () => import("./replay/learned-starts.ts"),
  },
  "loop-delay": {
    what: "how late the daemon's loop is while three sandboxes start cold: computing, or without a CPU",
    yardsticks: ["the daemon's loop"],
    load: () => import("./replay/loop-delay.ts"),
  },
  many: {
    what: "20 and 100 sandboxes of one environment at once: time, memory, pages, what was fetched",
    yardsticks: ["file pages of N", "100 sandboxes", "memory a sandbox"],
    load: () => import("./replay/many.ts"),
  },
  "gofer-start": {
    what: "exec of a gofer to its mounts, beside stock's",
    yardsticks: ["gofer start"],
    load: () => import("./replay/gofer-start.ts"),
  },
  "gofer-memory": {
    what: "PSS of idle gofers, beside stock's",
    yardsticks: ["memory a sandbox"],
    load: () => import("./replay/gofer-memory.ts"),
  },
  flood: {
    what: "calls of a sandbox beside another's flood, on one server and on two",
    yardsticks: [],
    load: () => import("./rpc/flood.ts"),
  },
  names: {
    what: "readdir of 40,000, missing names in 50,000 and in 100, a donated file read in order",
    yardsticks: ["readdir of 40,000", "missing name", "sequential, donated"],
    load: () => import("./rpc/names.ts"),
  },
  pread: {
    what: "a large file that isn't donated: cold and hot, beside diod",
    yardsticks: ["sequential, PRead"],
    load: () => import("./rpc/pread.ts"),
  },
  "pread-cold": {
    what: "the same, read for the first time over a link of 1 Gbit/s, beside a plain GET",
    yardsticks: ["sequential, PRead"],
    load: () => import("./rpc/pread-cold.ts"),
  },
  tmpfs: {
    what: "files made and removed, a stream, beside stock's gofer on a tmpfs",
    yardsticks: ["tmpfs"],
    load: () => import("./rpc/tmpfs.ts"),
  },
  merge: {
    what: "a snapshot of 300 packages made, and opened",
    yardsticks: ["environment ready", "index size"],
    load: () => import("./micro/merge.ts"),
  },
  dedup: {
    what: "what a second version of a package adds to a store",
    yardsticks: ["dedup"],
    load: () => import("./micro/dedup.ts"),
  },
  ingest: {
    what: "layers of archives and directories, beside tar, unzip and sha256sum",
    yardsticks: ["ingest"],
    load: () => import("./micro/ingest.ts"),
  },
  wait: {
    what: "a round trip to the gofer's one wait, by kind of communicator",
    yardsticks: [],
    load: () => import("./micro/wait.ts"),
  },
  requests: {
    what: "a request by kind, p50 and p99, beside stock's gofer with the same client",
    yardsticks: ["RPC p50, p99"],
    load: () => import("./rpc/requests.ts"),
  },
  touches: {
    what: "noting what is read first, beside the open of a file that is here",
    yardsticks: [],
    load: () => import("./micro/touches.ts"),
  },
  worker: {
    what: "what a second JavaScript thread costs",
    yardsticks: [],
    load: () => import("./micro/worker.ts"),
  },
  lazy: {
    what: "large files by PRead and from the lazy mount",
    yardsticks: ["fetched bytes"],
    load: () => import("./replay/lazy.ts"),
  },
  "origin-requests": {
    what: "requests of 1, 10 and 100 clients on one cold environment",
    yardsticks: ["requests a start", "100 sandboxes"],
    load: () => import("./replay/origin-requests.ts"),
  },
  demand: {
    what: "what demand bears from prefetching",
    yardsticks: [],
    load: () => import("./rpc/demand.ts"),
  },
  "big-cache": {
    what: "a daemon's start over 5 million files",
    yardsticks: ["a daemon over 5 million files"],
    load: () => import("./replay/big-cache.ts"),
  },
  "sentry-memory": {
    what: "what a sentry holds of a file that isn't donated; small dcaches",
    yardsticks: [],
    load: () => import("./replay/sentry-memory.ts"),
  },
  "cli-start": {
    what: "burrow --version, beside node -e ''",
    yardsticks: [],
    load: () => import("./replay/cli-start.ts"),
  },
  ninep: {
    what: "9P reads, writes, stats, listings, beside diod",
    yardsticks: [],
    load: () => import("./rpc/ninep.ts"),
  },
  fuse: {
    what: "a file by our FUSE session and by fuse-native",
    yardsticks: [],
    load: () => import("./micro/fuse.ts"),
  },
  mount: {
    what: "a mounted view by burrow mount and by fuse-native",
    yardsticks: [],
    load: () => import("./micro/mount.ts"),
  },
};
