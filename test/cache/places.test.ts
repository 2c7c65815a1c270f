// Places of an origin under a storm of reloads: every read is answered, by places that are open, and each is closed once.

import { test } from "tap";
import { Places } from "../../lib/cache/places.ts";
import type { OpenedOrigin } from "../../lib/store/open.ts";
import { sleep } from "../suite/wait.ts";

test("reads while their places are replaced again and again", async (t) => {
  let opened = 0;
  let closed = 0;
  const faults: string[] = [];
  /** Of which a read takes so long. */
  const place = (ms: number): OpenedOrigin => {
    opened++;
    let isOpen = true;
    const get = async (path: string, { signal }: { readonly signal: AbortSignal }) => {
      for (let left = ms; left > 0 && !signal.aborted; left -= 5) await sleep(5);
      if (!isOpen) faults.push("read when it was closed");
      if (signal.aborted) throw new Error("aborted");
      return path;
    };
    const close = () => {
      if (!isOpen) faults.push("closed twice");
      isOpen = false;
      closed++;
    };
    return { get, close } as unknown as OpenedOrigin;
  };
  const onWarning = ({ message }: Error) => faults.push(message);
  process.on("warning", onWarning);
  t.teardown(() => process.off("warning", onWarning));
  const places = new Places(place(20), 20);
  let isOver = false;
  const reader = async () => {
    let reads = 0;
    do {
      const path = await places.read(undefined, (origin, signal) =>
        (origin.get as unknown as (path: string, of: object) => Promise<string>)("x", { signal }),
      );
      if (path === "x") reads++;
    } while (!isOver);
    return reads;
  };
  const readers = Array.from({ length: 20 }, reader);
  for (let i = 0; i < 100; i++) {
    places.replace(place((i * 7) % 100));
    await sleep(i % 4);
  }
  isOver = true;
  places.replace(place(5));
  t.ok((await Promise.all(readers)).every((reads) => reads > 0));
  places.close();
  t.equal(closed, opened);
  t.same(faults, []);
});
