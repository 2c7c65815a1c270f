// A network of a test file's own: it runs anew in network and mount namespaces with nothing but loopback, a DNS server that answers as it
// is told, and rules that have packets vanish. Test support.

import { execFileSync, spawnSync } from "node:child_process";
import dgram from "node:dgram";
import fs from "node:fs";
import { tmpdir } from "node:os";
import type { Test } from "tap";

const INSIDE = "BURROW_TEST_OWN_NETWORK";
/** An IPv6 address of loopback to which no packet gets through. */
export const BLACK_HOLE = "2001:db8::1";

/** Whether this process is in a network of its own. */
export const isInside = process.env[INSIDE] === "1";

/** Runs this test file in a network of its own, as a test of this one; skipped, with the reason, where there can be none. */
export async function runInside(t: Test): Promise<void> {
  const reason = noNetwork();
  if (reason !== undefined) {
    t.pass(reason, { skip: reason });
    return;
  }
  const folder = fs.mkdtempSync(`${tmpdir()}/burrow-network-`);
  t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }));
  const conf = `${folder}/resolv.conf`;
  fs.writeFileSync(conf, "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n");
  const set = `${SET} && mount --bind ${conf} /etc/resolv.conf`;
  const tried = spawnSync("unshare", [...SPACES, "sh", "-c", set], { encoding: "utf8" });
  if (tried.status !== 0) {
    const why = `no network of its own: ${tried.stderr.trim().split("\n")[0]}`;
    t.pass(why, { skip: why });
    return;
  }
  const script = `${set} && exec "$0" "$@"`;
  const words = [...SPACES, "sh", "-c", script, process.execPath, process.argv[1] ?? ""];
  await t.spawn("unshare", words, { env: { ...process.env, [INSIDE]: "1" }, timeout: 300_000 });
}

const SPACES = ["--net", "--mount"];
const SET = [
  "ip link set lo up",
  // Names are looked up for the families that this machine has addresses of, other than loopback's. man getaddrinfo(3), AI_ADDRCONFIG.
  "ip addr add 10.9.9.9/32 dev lo",
  `ip -6 addr add ${BLACK_HOLE}/128 dev lo nodad`,
  `ip6tables -A INPUT -d ${BLACK_HOLE} -j DROP`,
  "mount --make-rprivate /",
].join(" && ");

function noNetwork(): string | undefined {
  if (process.getuid?.() !== 0) return "namespaces of its own need root";
  const missing = ["unshare", "ip", "iptables", "ip6tables"].find(
    (tool) => spawnSync("which", [tool]).status !== 0,
  );
  return missing === undefined ? undefined : `no ${missing}: apt-get install iptables iproute2`;
}

export interface Addresses {
  readonly v4?: string;
  readonly v6?: string;
}

/** Answers on 127.0.0.1:53 for the names that it has; others don't exist. */
export class DnsServer {
  readonly names = new Map<string, Addresses>();
  /** Takes what it is asked, and says nothing. */
  isSilent = false;
  /** Questions for names so far. */
  asked = 0;
  readonly #socket = dgram.createSocket("udp4");

  static async start(t: Test): Promise<DnsServer> {
    const server = new DnsServer();
    const socket = server.#socket;
    socket.on("message", (bytes, { port, address }) => {
      server.asked++;
      if (!server.isSilent) socket.send(server.#answer(bytes), port, address);
    });
    await new Promise<void>((resolve) => socket.bind(53, "127.0.0.1", resolve));
    t.teardown(() => new Promise<void>((resolve) => socket.close(() => resolve())));
    return server;
  }

  /** RFC 1035, section 4. */
  #answer(query: Buffer): Buffer {
    const labels: string[] = [];
    let at = 12;
    for (; query[at] !== 0; at += query[at]! + 1)
      labels.push(query.toString("latin1", at + 1, at + 1 + query[at]!));
    const question = query.subarray(12, at + 5);
    const type = query.readUInt16BE(at + 1);
    const found = this.names.get(labels.join(".").toLowerCase());
    const text = type === 1 ? found?.v4 : type === 28 ? found?.v6 : undefined;
    const data = text === undefined ? undefined : type === 1 ? packed4(text) : packed6(text);
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    // An answer, recursion wanted and had; 3: no such name.
    head.writeUInt16BE(0x8180 | (found === undefined ? 3 : 0), 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(data === undefined ? 0 : 1, 6);
    if (data === undefined) return Buffer.concat([head, question]);
    const record = Buffer.alloc(12);
    record.writeUInt16BE(0xc00c, 0);
    record.writeUInt16BE(type, 2);
    record.writeUInt16BE(1, 4);
    record.writeUInt16BE(data.length, 10);
    return Buffer.concat([head, question, record, data]);
  }
}

function packed4(text: string): Buffer {
  return Buffer.from(text.split(".").map(Number));
}

function packed6(text: string): Buffer {
  const [left = "", right = ""] = text.split("::");
  const parts = (half: string) => half.split(":").filter((part) => part !== "");
  const zeros = Array<string>(8 - parts(left).length - parts(right).length).fill("0");
  const words = [...parts(left), ...zeros, ...parts(right)].map((part) =>
    Number.parseInt(part, 16),
  );
  const out = Buffer.alloc(16);
  for (const [i, word] of words.entries()) out.writeUInt16BE(word, 2 * i);
  return out;
}

/** Has all packets to a TCP port vanish that match: no RST, no answer. Gives what ends that. */
export function vanish(port: number, ...match: string[]): () => void {
  const rule = ["INPUT", "-p", "tcp", "--dport", String(port), ...match, "-j", "DROP"];
  execFileSync("iptables", ["-A", ...rule]);
  return () => execFileSync("iptables", ["-D", ...rule]);
}

/** The clients' ports of connections to a port of 127.0.0.1 that stand. man proc_net(5), tcp. */
export function clientPorts(port: number): number[] {
  const rows = fs.readFileSync("/proc/net/tcp", "latin1").trim().split("\n").slice(1);
  return rows.flatMap((row) => {
    const [, local = "", remote = "", state] = row.trim().split(/\s+/);
    const portOf = (address: string) => Number.parseInt(address.split(":")[1] ?? "", 16);
    return state === "01" && portOf(remote) === port ? [portOf(local)] : [];
  });
}
