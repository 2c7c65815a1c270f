// What the commands and the daemon itself make of a daemon's socket.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "tap";
import { isDaemonUp } from "../../lib/cache/client.ts";
import { temporary } from "../suite/served.ts";

/** Listens, has as many wait as may, and takes them once it is told to. */
const FULL = `import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
waiting = []
while True:
    waiting.append(socket.socket(socket.AF_UNIX))
    waiting[-1].setblocking(False)
    try:
        waiting[-1].connect(sys.argv[1])
    except BlockingIOError:
        break
print("full", flush=True)
sys.stdin.readline()
while True:
    waiting.append(listener.accept()[0])`;

test("who connects where as many wait as may waits as well", async (t) => {
  const cache = temporary(t);
  const busy = spawn("python3", ["-c", FULL, `${cache}/daemon.sock`], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  t.teardown(() => busy.kill("SIGKILL"));
  await once(busy.stdout, "data");
  const isUp = isDaemonUp(cache).catch((error) => error);
  busy.stdin.write("\n");
  t.equal(await isUp, true);
});
