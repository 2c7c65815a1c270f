// Owns: what the tests of docs/integrations share: the clients, unpacked by fixtures/clients.sh, a node with a volume and a stage for
// their containers, and the runtime script as those pages have it. Services run in namespaces of their own, in folders of the node's,
// and are ended by pid. Plane: control.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Test } from "tap";
import { busybox, type Node, type Outcome } from "../cli/cli.ts";
import { exitOf, findRevisions, ROOT } from "../conformance/runsc.ts";
import { NULL_NETNS, unmountNullNetns } from "../suite/null-netns.ts";
import { until } from "../suite/wait.ts";

const { found, reasons } = findRevisions();

function findClients(): string {
  const cache = process.env["BURROW_TEST_CACHE"] ?? path.join(os.tmpdir(), "burrow-test-cache");
  const script = path.join(ROOT, "fixtures/clients.sh");
  const { stdout, stderr } = spawnSync("bash", [script, cache], { encoding: "utf8" });
  return stdout.trim() || `no clients: ${stderr.trim()}`;
}

const clients = found.length === 0 ? reasons.join("; ") : findClients();
/** Why there can be no such tests here; false when there can. */
export const skip = clients.startsWith("/") ? false : clients;
export const PYTHON_MODULES = path.join(clients, "python");
const programs = path.join(clients, "root/usr");

/** A node for containers: a root of the host's, a volume, and a stage that annotations may name. */
export class Site {
  readonly node: Node;
  /** A directory of the host with busybox in it. */
  readonly root: string;
  /** Source of a volume: the same, out of the store. */
  readonly volume: string;
  readonly stage: string;
  /** The script that clients are told of. */
  readonly runtime: string;
  readonly env: NodeJS.ProcessEnv;

  private constructor(node: Node) {
    this.node = node;
    this.root = node.path("base");
    this.volume = path.join(node.state, "mounts/volume");
    this.stage = path.dirname(node.file("stages/orders/a", "of a stage\n"));
    const settings = {
      ...node.env,
      BURROW_ANNOTATION_STAGES: node.path("stages"),
      BURROW_NODE: process.execPath,
    };
    const lines = Object.entries(settings).map(([name, value]) => `export ${name}='${value}'`);
    const exec = `exec ${ROOT}/bin/burrow-oci --network=none --ignore-cgroups "$@"`;
    this.runtime = node.file("runtime", `#!/bin/sh\n${lines.join("\n")}\n${exec}\n`, 0o755);
    this.env = {
      ...node.env,
      PATH: `${programs}/bin:${programs}/sbin:${process.env["PATH"]}`,
      LD_LIBRARY_PATH: `${programs}/lib/x86_64-linux-gnu`,
    };
  }

  static async open(t: Test): Promise<Site> {
    const { node, base } = await busybox(t, found.at(-1)!.path);
    // The daemon is up before any container: one that a container's start brought up would be of its cgroup.
    const made = await node.run(["bundle", "--base", base, "--id", "volume", "b", "--", "true"]);
    t.equal(made.code, 0, made.stderr);
    const site = new Site(node);
    t.teardown(() => site.#unmountNullNetns());
    return site;
  }

  /** A long-lived service in network and mount namespaces of its own, until the test ends. */
  service(t: Test, words: readonly string[], log: string): ChildProcess {
    const fd = fs.openSync(this.node.path(log), "a");
    const child = spawn("unshare", ["-m", "-n", ...words], {
      env: this.env,
      stdio: ["ignore", fd, fd],
    });
    fs.closeSync(fd);
    t.teardown(async () => {
      child.kill("SIGTERM");
      await exitOf(child);
      await until(() => this.leftovers().length === 0);
    });
    return child;
  }

  async run(words: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
    const child = spawn(words[0]!, words.slice(1), {
      env: { ...this.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: 120_000,
    });
    const texts = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const)
      child[name].on("data", (chunk) => {
        texts[name] += chunk;
      });
    return { code: await exitOf(child), ...texts };
  }

  /** Processes and mounts of this node's but Burrow's own, and those that runsc leaves wherever it is used. */
  leftovers(): string[] {
    const mounts = this.#mounts().filter((line) => !line.includes(`/${NULL_NETNS} `));
    return [...this.node.processes(), ...mounts];
  }

  #mounts(): string[] {
    const lines = fs.readFileSync("/proc/self/mountinfo", "utf8").split("\n");
    return lines.filter((line) => line.includes(this.node.dir));
  }

  /** Takes away what runsc leaves in each --root that a client has made for it. */
  #unmountNullNetns(): void {
    for (const line of this.#mounts()) {
      const point = line.split(" ")[4]!;
      if (path.basename(point) === NULL_NETNS) unmountNullNetns(path.dirname(point));
    }
  }
}

/** What is told of every client: its words up to the command, with a volume or annotations in them. */
export interface Client {
  readonly name: string;
  /** A container with the volume at /opt/env. */
  volume(site: Site): string[];
  /** One with annotations; undefined where this client has none. */
  annotated?(site: Site, annotations: readonly string[]): string[];
}

/** A container sees what it is to see, its exit code comes out, and what can't be is refused with a reason that its user reads. */
export async function provesClient(t: Test, site: Site, client: Client): Promise<void> {
  const shell = (script: string) => ["/bin/sh", "-c", script];
  const plain = await site.run([
    ...client.volume(site),
    ...shell("cat /opt/env/etc/greeting; touch /opt/env/x; exit 6"),
  ]);
  t.equal(plain.code, 6, plain.stderr);
  t.match(plain.stdout, /^hello\r?\n/);
  t.match(plain.stderr + plain.stdout, /Read-only file system/);
  if (client.annotated === undefined) return;
  const stage = `dev.burrow.stage.orders=${site.stage}`;
  const words = client.annotated(site, [stage, "dev.burrow.scratch.tmp=/tmp=1M"]);
  const script = "cat /stage/orders/a; echo scratch >/tmp/a && cat /tmp/a; exit 5";
  const ran = await site.run([...words, ...shell(script)]);
  t.equal(ran.code, 5, ran.stderr);
  t.equal(ran.stdout.replaceAll("\r", ""), "of a stage\nscratch\n");
  const hostile = client.annotated(site, ["dev.burrow.stage.etc=/etc"]);
  const refused = await site.run([...hostile, ...shell("exit 0")]);
  t.not(refused.code, 0);
  t.match(refused.stderr, /annotation dev.burrow.stage.etc: \/etc is not allowed/);
}
