// A profile of AWS whose credentials a program gives. Test support.

import fs from "node:fs";
import type { Test } from "tap";
import { setEnvironment } from "./s3-server.ts";

/** It gives the key that is in a file, after so many seconds, or fails while there is none, and notes that it was asked: profile "p". */
export function keyFile(t: Test, seconds = 0) {
  const folder = t.testdir({});
  const program = `${folder}/give-credentials`;
  const document = '{"Version":1,"AccessKeyId":"%s","SecretAccessKey":"SECRET"}';
  const script = `#!/bin/sh\necho asked >> ${folder}/asked\nsleep ${seconds}\nkey=$(cat ${folder}/key) || exit 1\nprintf '${document}' "$key"\n`;
  fs.writeFileSync(program, script, { mode: 0o755 });
  fs.writeFileSync(`${folder}/config`, `[profile p]\ncredential_process = ${program}\n`);
  setEnvironment(t, {
    AWS_CONFIG_FILE: `${folder}/config`,
    AWS_SHARED_CREDENTIALS_FILE: `${folder}/none`,
    AWS_ACCESS_KEY_ID: "",
    AWS_SECRET_ACCESS_KEY: "",
  });
  return {
    give: (key: string) => fs.writeFileSync(`${folder}/key`, key),
    take: () => fs.rmSync(`${folder}/key`, { force: true }),
    asked: () => fs.readFileSync(`${folder}/asked`, "latin1").split("\n").length - 1,
  };
}
