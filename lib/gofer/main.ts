// burrow gofer: the server that a stub starts as its child: serves the sandbox's FDs until every connection is gone, and exits 0.

import { native } from "../sys/native.ts";
import { runServer } from "./serve.ts";

const stubFd = Number(process.env["BURROW_ADOPT_FD"] ?? 3);
const words = process.argv.slice(2);
native.exitNow(runServer({ stubFd, words, settings: process.env }));
