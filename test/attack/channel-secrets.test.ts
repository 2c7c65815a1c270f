// Owns: proof that a channel's password and token go to the channel alone: not to where it redirects, and into nothing that is written or
// said. Plane: control.

import fs from "node:fs";
import http, { type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { type Test, test } from "tap";
import { scene } from "../cli/channel-node.ts";
import type { Node, Outcome } from "../cli/cli.ts";

const PASSWORD = "pass-hunter2";
const TOKEN = "tk-hunter2";
const SECRET = /hunter2|Basic /;

interface Seen {
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

/** A server that notes what it is asked. */
async function serverOf(
  t: Test,
  answer: (url: string) => { status: number; headers?: Record<string, string>; body?: Buffer },
): Promise<{ url: string; host: string; seen: Seen[] }> {
  const seen: Seen[] = [];
  const server = http.createServer((request, response) => {
    seen.push({ url: request.url!, headers: request.headers });
    const { status, headers = {}, body } = answer(request.url!);
    response.writeHead(status, headers).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url: `http://${host}`, host, seen };
}

/** Files of a node whose name or content holds a secret; `where` they lie. */
function leaks(node: Node, ...where: string[]): string[] {
  return where.flatMap((folder) => {
    if (!fs.existsSync(node.path(folder))) return [];
    const names = fs.readdirSync(node.path(folder), { recursive: true, encoding: "utf8" });
    return names.filter((name) => {
      const file = path.join(node.path(folder), name);
      if (SECRET.test(name)) return true;
      return fs.statSync(file).isFile() && SECRET.test(fs.readFileSync(file, "latin1"));
    });
  });
}

async function redirecting(t: Test) {
  const node = await scene(t);
  let isGone = (_url: string) => false;
  const mirror = await serverOf(t, (url) => {
    const file = node.path(`channel${new URL(url, "http://x").pathname}`);
    if (isGone(url) || !fs.existsSync(file)) return { status: 404 };
    return { status: 200, body: fs.readFileSync(file) };
  });
  const channel = await serverOf(t, (url) => {
    const rest = url.replace(`/t/${TOKEN}`, "");
    return { status: 302, headers: { location: `${mirror.url}${rest}` } };
  });
  const refuse = (which: (url: string) => boolean) => {
    isGone = which;
  };
  const url = `http://user:${PASSWORD}@${channel.host}/t/${TOKEN}`;
  return { node, mirror, channel, url, refuse };
}

test("a redirect to another host takes no secret along", async (t) => {
  const { node, mirror, channel, url, refuse } = await redirecting(t);
  const quiet = (outcome: Outcome, code: number, name: string) => {
    t.equal(outcome.code, code, `${name}: ${outcome.stderr}`);
    t.notMatch(outcome.stdout + outcome.stderr, SECRET, name);
  };
  const specs = ["--channel", url, "app"];
  quiet(await node.run(["env", "create", "--lock", "lock.txt", ...specs]), 0, "create");
  t.ok(channel.seen.length > 0);
  for (const { headers } of channel.seen) t.match(headers.authorization, /^Basic /);
  t.ok(mirror.seen.some((one) => one.url.endsWith(".conda")));
  const digest = (await node.run(["env", "ls", "--json"])).stdout;
  t.notMatch(digest, SECRET);
  const { snapshot } = (JSON.parse(digest) as { snapshot: string }[])[0]!;
  quiet(await node.run(["env", "show", "--json", snapshot]), 0, "show");
  t.notMatch(fs.readFileSync(node.path("lock.txt"), "utf8"), SECRET);

  const more = ["--store", node.path("second")];
  quiet(await node.run(["preload", ...more, ...specs]), 0, "preload");
  const json = ["--json", "--store", node.path("third")];
  quiet(await node.run(["preload", ...json, ...specs]), 0, "preload --json");
  const archive = `${url}/linux-64/app-2.0-h0_0.conda?sig=${TOKEN}#sha256:${"0".repeat(64)}`;
  const fourth = ["--store", node.path("fourth")];
  quiet(await node.run(["env", "create", ...fourth, archive]), 1, "another hash");
  refuse((one) => one.includes(".conda"));
  quiet(await node.run(["env", "create", ...fourth, ...specs]), 1, "no archive");
  quiet(await node.run(["env", "create", "--json", ...fourth, ...specs]), 1, "no archive, JSON");
  quiet(await node.run(["preload", ...fourth, ...specs]), 1, "preload without an archive");
  refuse(() => true);
  quiet(await node.run(["env", "create", ...fourth, ...specs]), 1, "no repodata");

  for (const { headers } of mirror.seen) t.notMatch(JSON.stringify(headers), SECRET);
  const written = ["store", "second", "third", "fourth", "cache", "state", "tmp"];
  t.same(leaks(node, ...written), []);
});

test("a redirect that leads to no web server is refused", async (t) => {
  const node = await scene(t);
  for (const location of [
    `file://${node.path("channel")}/linux-64/repodata.json`,
    "data:application/json,%7B%7D",
    "ftp://127.0.0.1/x",
    `http://user:${PASSWORD}@127.0.0.1:1/`,
    "http://[",
  ]) {
    const channel = await serverOf(t, () => ({ status: 302, headers: { location } }));
    const { code, stderr } = await node.run(["env", "create", "--channel", channel.url, "app"]);
    t.equal(code, 1, location);
    t.match(stderr, /\(BURROW_ORIGIN\)\n$/, location);
    t.notMatch(stderr, SECRET);
  }
  const round = await serverOf(t, (url) => ({ status: 302, headers: { location: `${url}x` } }));
  const lost = await node.run(["env", "create", "--channel", round.url, "app"]);
  t.match(lost, { code: 1, stderr: /redirect.*\(BURROW_ORIGIN\)\n$/ });
  t.ok(round.seen.length <= 3 * 2 * 25, `${round.seen.length} requests`);
});
