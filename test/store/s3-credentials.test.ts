// Credentials that expire again and again while many read: reads wait for new ones, which are asked for once and not by each of them
// (pitfall D1).

import fs from "node:fs";
import { test } from "tap";
import { Budget } from "../../lib/store/budget.ts";
import { openOrigin } from "../../lib/store/open.ts";
import { service, setEnvironment } from "../suite/s3-server.ts";

const READERS = 20;
const ROUNDS = 3;

test("twenty readers, keys that expire three times: three new ones are asked for", async (t) => {
  const server = await service(t);
  const content = Buffer.alloc(100_000, "some content ");
  fs.writeFileSync(`${server.root}/box/x`, content);
  const folder = t.testdir({});
  // Gives the key in a file, slowly, and notes that it was asked.
  const program = `${folder}/give-credentials`;
  const script = `#!/bin/sh
echo asked >> ${folder}/asked
sleep 0.2
printf '{"Version":1,"AccessKeyId":"%s","SecretAccessKey":"SECRET"}' "$(cat ${folder}/key)"
`;
  fs.writeFileSync(program, script, { mode: 0o755 });
  fs.writeFileSync(`${folder}/config`, `[profile p]\ncredential_process = ${program}\n`);
  setEnvironment(t, {
    AWS_CONFIG_FILE: `${folder}/config`,
    AWS_SHARED_CREDENTIALS_FILE: `${folder}/none`,
    AWS_ACCESS_KEY_ID: "",
    AWS_SECRET_ACCESS_KEY: "",
  });
  const asked = () => fs.readFileSync(`${folder}/asked`, "latin1").split("\n").length - 1;
  const renew = (round: number) => {
    for (const keys of server.keys.values()) keys.isExpired = true;
    server.keys.set(`KEY${round}`, { secret: "SECRET" });
    fs.writeFileSync(`${folder}/key`, `KEY${round}`);
  };
  const budget = new Budget({ share: 0.1, perSecond: 100, most: READERS });
  const backend = openOrigin(`${server.address("box")}&profile=p`, { tries: 8, budget });
  t.teardown(() => backend.close());
  renew(0);
  let read = 0;
  let goal = READERS;
  let isOver = false;
  const reader = async (i: number) => {
    while (!isOver) {
      const range = { offset: 100 * i, length: 500 };
      const got = await backend.get("x", { range });
      if (!got.equals(content.subarray(range.offset, range.offset + 500))) t.fail("wrong bytes");
      read++;
      if (read < goal) continue;
      // Each had its turn: the keys expire under those that are on their way.
      const round = asked();
      if (round > ROUNDS) isOver = true;
      else renew(round);
      goal = read + 3 * READERS;
    }
  };
  await Promise.all(Array.from({ length: READERS }, (_, i) => reader(i)));
  t.equal(asked(), ROUNDS + 1, "the first, and one for each that expired");
  const refused = server.files.requests.length - read;
  t.ok(refused <= READERS * ROUNDS, `${refused} refused: one a reader for each that expired`);
});
