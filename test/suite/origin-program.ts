// An origin in a process of its own, for tests whose own thread waits for a gofer: prints its URL and serves until it is killed.

import { OriginServer } from "./origin-server.ts";

const server = await OriginServer.start(process.argv[2]!);
process.stdout.write(`${server.url}\n`);
