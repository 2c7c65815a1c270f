// Where burrow serve listens and whom it lets in: addresses as people write them, sockets of each kind, and what the kernel says of the
// other end.

import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, lstatSync, openSync, readdirSync, rmSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { test } from "tap";
import {
  openListener,
  parseAllowed,
  parseListen,
  removeSocketFile,
} from "../../lib/cli/listen-address.ts";
import { refusalOf } from "../../lib/gofer/ninep-access.ts";
import { addressOf } from "../../lib/sys/address.ts";
import { native } from "../../lib/sys/native.ts";
import { temporary } from "../suite/served.ts";
import { until } from "../suite/wait.ts";

const NOBODY = parseAllowed([]);
const canTrace =
  process.getuid?.() === 0 && spawnSync("strace", ["-V"]).status === 0
    ? false
    : "needs root and strace";

test("addresses are read as they are written", (t) => {
  t.strictSame(parseListen("tcp:localhost:5640"), { kind: "tcp", host: "127.0.0.1", port: 5640 });
  t.strictSame(parseListen("tcp:[::1]:1"), { kind: "tcp", host: "::1", port: 1 });
  t.strictSame(parseListen("vsock:2:564"), { kind: "vsock", cid: 2, port: 564 });
  t.strictSame(parseListen("vsock:any:564"), { kind: "vsock", cid: 2 ** 32 - 1, port: 564 });
  t.strictSame(parseListen("unix:/a:b"), { kind: "unix", path: "/a:b" });
  t.strictSame(parseListen("fd:3"), { kind: "fd", fd: 3 });
  for (const bad of ["", "unix:", "fd:2", "fd:x", "tcp:1", "tcp:h:1", "tcp:1.2.3.4:", "vsock:x:1"])
    t.throws(() => parseListen(bad), { code: "BURROW_USAGE" }, bad);
  t.strictSame(parseAllowed(["uid:7", "cid:3", "ip:10.0.0.1", "ip:fd00::1:2"]), {
    users: [7],
    cids: [3],
    addresses: ["10.0.0.1", "fd00:0:0:0:0:0:1:2"],
  });
  t.end();
});

for (const host of ["127.0.0.1", "::1"]) {
  test(`TCP at ${host} lets this machine in`, async (t) => {
    let opened: ReturnType<typeof openListener>;
    try {
      opened = openListener({ kind: "tcp", host, port: 0 }, NOBODY);
    } catch (error) {
      t.match(error, { code: "BURROW_IO" }, "no such address here");
      return;
    }
    const { fd, shown, isListening } = opened;
    t.ok(isListening);
    const port = Number(/:(\d+)$/.exec(shown)![1]);
    const client = net.connect(port, host);
    let peer = -1;
    await until(() => {
      peer = native.acceptPeer(fd);
      return peer >= 0;
    });
    t.equal(refusalOf(peer, NOBODY), undefined);
    const address = addressOf(peer, true);
    t.match(address, { kind: "ip", port: client.localPort });
    client.destroy();
    native.closeFd(peer);
    native.closeFd(fd);
  });
}

test("by a unix socket the user counts", (t) => {
  const path = join(temporary(t), "s");
  const { fd } = openListener({ kind: "unix", path }, NOBODY);
  const client = native.connectUnix(path);
  const peer = native.acceptPeer(fd);
  t.equal(refusalOf(peer, NOBODY), undefined, "this one");
  for (const one of [client, peer, fd]) native.closeFd(one);
  t.end();
});

test("a unix socket has its name once it listens: who waits for the file may connect", {
  skip: canTrace,
}, async (t) => {
  const folder = temporary(t);
  const module = new URL("../../lib/cli/listen-address.js", import.meta.url);
  const program = `import { openListener, parseAllowed } from ${JSON.stringify(module.href)};
    openListener({ kind: "unix", path: ${JSON.stringify(join(folder, "s"))} }, parseAllowed([]));
    process.stdin.resume();`;
  const slow = ["-f", "-o", "/dev/null", "-e", "trace=listen"];
  const delay = ["-e", "inject=listen:delay_enter=500000"];
  const words = [process.execPath, "--input-type=module", "-e", program];
  const server = spawn("strace", [...slow, ...delay, ...words], {
    stdio: ["pipe", "inherit", "inherit"],
  });
  const ended = new Promise((resolve) => server.once("close", resolve));
  t.teardown(async () => {
    server.stdin.end();
    await ended;
  });
  t.ok(await until(() => existsSync(join(folder, "s"))));
  const client = native.connectUnix(join(folder, "s"));
  t.ok(client >= 0, `${client}`);
  native.closeFd(client);
  t.ok(await until(() => readdirSync(folder).length === 1), "and no other");
});

test("a unix socket is its owner's, and for all where others may come; a path as long as may be", (t) => {
  const folder = temporary(t);
  for (const [name, access, mode] of [
    ["s", NOBODY, 0o600],
    ["s".repeat(106 - folder.length), NOBODY, 0o600],
    ["o", parseAllowed(["uid:7"]), 0o666],
  ] as const) {
    const path = join(folder, name);
    const socket = openListener({ kind: "unix", path }, access);
    t.equal(lstatSync(path).mode & 0o777, mode);
    t.throws(() => openListener({ kind: "unix", path }, access), { code: "BURROW_BUSY" });
    removeSocketFile(socket);
    native.closeFd(socket.fd);
  }
  t.strictSame(readdirSync(folder), [], "nothing is left");
  const gone = { code: "BURROW_IO", message: /no such folder/ };
  const far = "d".repeat(100 - folder.length);
  for (const path of [join(folder, "none/s"), join(folder, far, "s")])
    t.throws(() => openListener({ kind: "unix", path }, NOBODY), gone);
  t.end();
});

test("an FD that this process has is served as what it is", (t) => {
  const ends = new Int32Array(2);
  native.socketPair(1, ends);
  const pair = openListener({ kind: "fd", fd: ends[0]! }, NOBODY);
  t.equal(pair.isListening, false, "connected: a client");
  const path = join(temporary(t), "s");
  const { fd } = openListener({ kind: "unix", path }, NOBODY);
  t.equal(openListener({ kind: "fd", fd }, NOBODY).isListening, true);
  for (const one of [ends[0]!, ends[1]!, fd]) native.closeFd(one);
  t.end();
});

test("an FD that 9P can't be served on is refused: the server would ask it for clients without end", (t) => {
  const refuse = (fd: number, message: RegExp) =>
    t.throws(() => openListener({ kind: "fd", fd }, NOBODY), { code: "BURROW_USAGE", message });
  refuse(999_999, /not open/);
  const file = openSync("/dev/null", "r");
  refuse(file, /no socket/);
  closeSync(file);
  for (const type of [2, 5]) {
    const ends = new Int32Array(2);
    native.socketPair(type, ends);
    refuse(ends[0]!, /no stream/);
    for (const fd of ends) native.closeFd(fd);
  }
  const path = join(temporary(t), "s");
  const own = openListener({ kind: "unix", path }, NOBODY);
  rmSync(path);
  const next = openListener({ kind: "unix", path }, NOBODY);
  removeSocketFile(own);
  t.ok(existsSync(path), "another server's file stays");
  removeSocketFile(next);
  t.notOk(existsSync(path));
  for (const { fd } of [own, next]) native.closeFd(fd);
  t.end();
});

test("vsock is listened at where the kernel has it, else refused with why", (t) => {
  try {
    const { fd, shown } = openListener({ kind: "vsock", cid: 2 ** 32 - 1, port: 56_400 }, NOBODY);
    t.match(shown, /^vsock:any:56400/);
    t.match(addressOf(fd, false), { kind: "vsock", port: 56_400 });
    native.closeFd(fd);
  } catch (error) {
    t.match(error, { code: "BURROW_IO", message: /no such sockets|no such address|ENODEV/ });
  }
  t.end();
});
