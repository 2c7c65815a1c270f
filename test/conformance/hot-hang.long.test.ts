// Owns: a server that hangs, rather than dies, is replaced when it is asked for (design/0016): within 5 s and a start. Plane: control.
import * as fs from "node:fs";
import t from "tap";
import { findStubs, upgradeStub } from "../../lib/cli/stubs.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { makeView } from "../suite/view-cache.ts";
import { until } from "../suite/wait.ts";
import { GOFER, HotStub, hotDirectory } from "./hot.ts";
import { STUB } from "./runsc.ts";

const missing = [STUB, GOFER].find((file) => !fs.existsSync(file));

t.test(
  "an upgrade replaces a server that hangs, and answers what it had",
  {
    skip: missing !== undefined && `${missing} isn't built`,
  },
  async (t) => {
    const directory = hotDirectory(t);
    const source = makeView(directory, { hello: "world" });
    const hot = new HotStub(t, directory, [{ source, isReadOnly: true }]);
    hot.start();
    const client = hot.mount(t);
    t.ok(await until(() => findStubs(directory)[0]?.served === 1));
    process.kill(hot.servers()[0]!, "SIGSTOP");
    const answer = client.callBeside(Mid.FStat, { fd: client.rootFd });
    t.equal(await upgradeStub(findStubs(directory)[0]!, 60_000), "upgraded");
    t.equal((await answer).errno, 0);
    t.notMatch(hot.log, /died/, "none of the deaths that are allowed");
  },
);
