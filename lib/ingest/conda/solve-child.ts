// The solver's own process: reads a SolveTask as JSON from stdin, writes a SolveReply to stdout. The library is WebAssembly that
// asks for repodata by fetch(), never gives memory back, and ends its process where it panics: none of it reaches the command.
// It has no network: its fetch() knows the task's repodata and nothing else. Control plane.

import { text } from "node:stream/consumers";
import type { SolveReply, SolveTask } from "./solve.ts";

/** A host that can't exist (RFC 6761). */
const CHANNEL = "https://channel.invalid/";
/** How the library's texts begin when it understood all and found nothing that fits. It gives no other sign. */
const UNSOLVABLE = /^Cannot solve the request because of:\s*/;

async function main(): Promise<void> {
  const task = JSON.parse(await text(process.stdin)) as SolveTask;
  serve(task);
  const reply = await solve(task);
  process.stdout.write(JSON.stringify(reply));
}

/** Puts the task's repodata where the library looks for it: only as plain JSON, for each subdir. */
function serve({ subdirs }: SolveTask): void {
  globalThis.fetch = async (input) => {
    const url = input instanceof Request ? input.url : String(input);
    const subdir = /^https:\/\/channel\.invalid\/([^/]+)\/repodata\.json$/.exec(url)?.[1];
    const records = subdir === undefined ? undefined : subdirs[subdir];
    const body =
      records === undefined
        ? null
        : JSON.stringify({
            info: { subdir },
            packages: pick(records, ".tar.bz2"),
            "packages.conda": pick(records, ".conda"),
            repodata_version: 1,
          });
    const response = new Response(body, { status: body === null ? 404 : 200 });
    // The library reads the URL of an answer, and ends the process when it has none.
    Object.defineProperty(response, "url", { value: url });
    return response;
  };
}

function pick(records: SolveTask["subdirs"][string], suffix: string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(records).filter(([name]) => name.endsWith(suffix)));
}

async function solve({ specs, subdirs }: SolveTask): Promise<SolveReply> {
  const { PackageRecord, simpleSolve } = await import("@conda-org/rattler");
  const platforms = Object.keys(subdirs) as ("linux-64" | "noarch")[];
  try {
    const solved = await simpleSolve([...specs], [CHANNEL], platforms, undefined);
    return {
      kind: "solved",
      packages: solved.map(({ url }) => {
        const [subdir, fileName] = url.slice(CHANNEL.length).split("/");
        return { subdir: subdir!, fileName: decodeURIComponent(fileName!) };
      }),
    };
  } catch (error) {
    const why = String(error).trim();
    if (UNSOLVABLE.test(why)) return { kind: "unsolvable", why: why.replace(UNSOLVABLE, "") };
    for (const [subdir, records] of Object.entries(subdirs)) {
      for (const [fileName, record] of Object.entries(records)) {
        try {
          new PackageRecord(
            record as unknown as ConstructorParameters<typeof PackageRecord>[0],
          ).free();
        } catch (cause) {
          return { kind: "badRecord", subdir, fileName, why: String(cause) };
        }
      }
    }
    return { kind: "badSpec", why };
  }
}

await main();
