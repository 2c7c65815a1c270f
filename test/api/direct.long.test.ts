// Owns: proof that the API's `isDirect` has sandboxes work on their view themselves, stages too, and says why where they can't. Needs root,
// /dev/fuse and a runsc of 2024 or later. Plane: control.

import { run, view } from "burrow";
import { test } from "tap";
import { busybox } from "../cli/cli.ts";
import { findRevisions } from "../conformance/runsc.ts";
import { noFuse } from "../suite/fuse.ts";

const { found } = findRevisions();

for (const { name, path } of found) {
  test(`${name}: a program's sandbox works on its view itself`, { skip: noFuse }, async (t) => {
    const { node, base } = await busybox(t, path);
    process.env["BURROW_RUNSC"] = path;
    const places = { state: node.state, cache: node.cache, store: node.env["BURROW_STORE"]! };
    node.file("data/orders.csv", "id,price\n1,2\n");
    const sees = await view({ ...places, base, stages: { data: node.path("data") } });
    const words = ["sh", "-c", "cat /etc/greeting /stage/data/orders.csv; echo x >/tmp/own"];
    const asked = await run(sees, words);
    t.match(asked, { exitCode: 0, stdout: "hello\nid,price\n1,2\n" });
    const going = run(sees, words, { isDirect: true });
    if (Number(name) < 2023) {
      const refused = await going.catch((error) => error);
      t.match(refused, { code: "BURROW_START", cause: { message: /directfs/ } });
      return;
    }
    const ran = await going;
    t.match(ran, { exitCode: 0, stdout: asked.stdout });
    t.ok(asked.stats.counters.requests["Walk"], "a gofer is asked for names");
    t.notOk(ran.stats.counters.requests["Walk"], "so it isn't");
    t.match(await node.run(["daemon", "stop"]), { code: 0 });
  });
}
