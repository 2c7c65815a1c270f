// The daemon as a process of its own, for tests: its configuration is the JSON in the first argument, its log lines go to
// standard output.

import { type DaemonConfig, daemonConfig } from "../../lib/daemon/config.ts";
import { runDaemon } from "../../lib/daemon/supervisor.ts";

const given = JSON.parse(process.argv[2] ?? "{}") as Partial<DaemonConfig>;
const code = await runDaemon(daemonConfig(given), (event, facts) => {
  process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`);
});
process.exit(code);
