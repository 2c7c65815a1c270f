// What burrow doctor says of hardening, beside a live server's. Plane: control.

import { test } from "tap";
import { hardening } from "../../lib/cli/hardening.ts";
import { Capability } from "../../lib/gofer/harden.ts";
import { checkHardened } from "../suite/hardened.ts";
import { stat } from "../suite/lisafs-calls.ts";
import { serveUpper } from "../suite/served.ts";

test("the capabilities that are told of are those that a server with a /tmp keeps", {
  skip: process.getuid?.() === 0 ? false : "needs root: capabilities and mounts",
}, (t) => {
  const told = /capabilities: none, with a \/tmp ([^;]+)/.exec(hardening().detail)?.[1] ?? "";
  const numbers = told.split(", ").map((name) => Capability[name as keyof typeof Capability]);
  const { gofer, client } = serveUpper(t);
  stat(client, client.rootFd);
  checkHardened(t, gofer.pid, numbers);
  t.end();
});
