// Candidate: a stub that asks for a shared server, and whether it may have one: who opts in by tenant, sees the node's files as we do, and
// has nothing but Burrow's own mounts. A shared server can't be in many mount namespaces at once, so what is passed through from the host
// goes to a server of the sandbox's own. docs/design/0025-shared-server.md. Control plane.

import { readFileSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { checkTenant } from "../store/object-pin.ts";
import { upperInodes } from "../tree/overlay.ts";
import type { UpperOptions } from "../tree/upper.ts";
import { parseGoferArguments } from "./argv.ts";
import { parseSpec, type ServedMount, servedMounts } from "./bundle.ts";
import { readExplanation } from "./explained.ts";
import { hardenMode } from "./harden.ts";
import { DEFAULT_STATE, mountIdOf, readMount } from "./mount.ts";
import { missDeadlineMs } from "./serve.ts";
import { numbersOf, type StubFacts } from "./start.ts";
import type { Needed } from "./tally.ts";
import type { DescribedMount } from "./trees.ts";

interface CandidateMount extends DescribedMount {
  readonly destination: string;
  /** The tmpfs that it wants. */
  readonly upper: UpperOptions | undefined;
}

export interface Candidate {
  readonly tenant: string;
  readonly settings: StubFacts["settings"];
  readonly missDeadlineMs: number;
  readonly spec: string;
  readonly mounts: readonly CandidateMount[];
  readonly needs: Needed;
}

/** Throws Error with the reason unless the stub of this directory of /proc may be served by a shared server of this cache. */
export function candidateOf(
  { settings, words }: StubFacts,
  proc: string,
  cache: string,
): Candidate {
  if (settings["BURROW_SHARED"] !== "1") throw new Error("it doesn't ask for it");
  const tenant = checkTenant(settings["BURROW_TENANT"] ?? "");
  if (hardenMode(settings["BURROW_HARDEN"]) !== "on") throw new Error("it is to be hardened less");
  if (settings["BURROW_TRACE"] !== undefined) throw new Error("its requests are traced");
  const state = settings["BURROW_STATE"] || DEFAULT_STATE;
  const isSame = (path: string) => numbersOf(`${proc}/root${path}`) === numbersOf(path);
  if (!isSame("/") || !isSame(join(state, "mounts")) || !isSame(cache))
    throw new Error("it sees other files");
  const args = parseGoferArguments(words);
  if (args.isDirect) throw new Error("it works on its mounts itself");
  if (!isAbsolute(args.bundle)) throw new Error("its bundle is somewhere");
  const spec = readFileSync(`${proc}/fd/${specFd(words)}`, "utf8");
  const served = servedMounts(parseSpec(spec), args);
  const mounts = served.map((mount) => describe(mount, state, cache));
  const views = mounts.filter(({ mount }) => mount.kind === "view").length;
  const uppers = mounts.filter(({ upper }) => upper !== undefined).length;
  const needs = { connections: mounts.length, views, uppers };
  const deadline = missDeadlineMs(settings["BURROW_MISS_DEADLINE_MS"]);
  return { tenant, settings, missDeadlineMs: deadline, spec, mounts, needs };
}

function specFd(words: readonly string[]): number {
  const word = words.find((each) => /^--?spec-fd=\d+$/.test(each));
  if (word === undefined) throw new Error("it has no --spec-fd");
  return Number(word.slice(word.indexOf("=") + 1));
}

/** Throws for what isn't of Burrow's making alone. */
function describe(served: ServedMount, state: string, cache: string): CandidateMount {
  const { destination, source, isReadOnly } = served;
  const id = mountIdOf(state, source);
  if (id === undefined) throw new Error("it passes a directory of the host through");
  const mount = readMount(state, id);
  if (mount.kind === "upper") return { id, mount, isReadOnly, destination, upper: mount };
  if (numbersOf(mount.cache) !== numbersOf(cache))
    throw new Error("its files are in another cache");
  const explained = readExplanation(state, id);
  const { upper } = mount;
  if (upper === undefined || isReadOnly)
    return { id, mount, explained, isReadOnly, destination, upper: undefined };
  if ("directory" in upper) throw new Error("its changes are kept in a directory");
  const options = { ...upper, inodes: upperInodes(upper.inodes), mode: 0o700 };
  return { id, mount, explained, isReadOnly, destination, upper: options };
}
