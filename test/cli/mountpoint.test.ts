// Where a view may be mounted: nowhere that hides what its server reads. Nothing is mounted here. Plane: control.

import fs from "node:fs";
import { test } from "tap";
import { refuseHiding } from "../../lib/cli/mountpoint.ts";

test("a view hides neither this host nor what its server reads", async (t) => {
  const root = fs.realpathSync(t.testdir({ var: { cache: {} }, mnt: {} }));
  fs.symlinkSync("var", `${root}/link`);
  const places = [`${root}/link/cache`, `${root}/var/state/not/yet`];
  const refused = (path: string) => {
    try {
      refuseHiding(path, places);
    } catch (error) {
      return String(error);
    }
    return "";
  };
  t.match(refused("/"), /would hide all of this host/);
  t.match(refused(root), /would hide .*\/var\/cache, which burrow needs/);
  t.match(refused(`${root}/var`), /cache/);
  t.match(refused(`${root}/var/cache`), /cache/);
  t.match(refused(`${root}/var/state`), /state\/not\/yet/);
  for (const free of [`${root}/mnt`, `${root}/var/cache/blobs`, `${root}/va`, `${root}/var/cach`])
    t.equal(refused(free), "", free);
});
