// Origins by https whose certificate can't be believed (pitfalls D12): the error says why and what to do, a mirror is asked in its place,
// nothing is taken from it, and a new certificate is enough.

import fs from "node:fs";
import { type Test, test } from "tap";
import { Authority, noOpenssl, type Shown, TlsFront } from "../suite/certificates.ts";
import { noise } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";

const FILES = { a: noise(5_000, 1), b: noise(6_000, 2) };
const OPTIONS = { skip: noOpenssl, timeout: 120_000 };
const PAST = ["20200101000000Z", "20210101000000Z"] as const;
const NOW = ["20200101000000Z", "20490101000000Z"] as const;
const FUTURE = ["20480101000000Z", "20490101000000Z"] as const;

/** Shown certificates that aren't believed, and what is said of each. */
function bad(authority: Authority): [string, Shown, RegExp][] {
  return [
    [
      "expired",
      authority.make("IP:127.0.0.1", ...PAST),
      /\(CERT_HAS_EXPIRED\): its certificate has expired: have it renewed/,
    ],
    [
      "not yet valid",
      authority.make("IP:127.0.0.1", ...FUTURE),
      /\(CERT_NOT_YET_VALID\): .* clock wrong/,
    ],
    [
      "another's",
      authority.make("DNS:other.example", ...NOW),
      /\(ERR_TLS_CERT_ALTNAME_INVALID\): its certificate is another name's/,
    ],
    [
      "of nobody",
      authority.make("IP:127.0.0.1", ...NOW, false),
      /\((DEPTH_ZERO_)?SELF_SIGNED_CERT[A-Z_]*\): .* NODE_EXTRA_CA_CERTS=FILE/,
    ],
  ];
}

/** Has daemons that are started from here on know an authority. */
function believe(t: Test, path: string): void {
  const before = process.env["NODE_EXTRA_CA_CERTS"];
  process.env["NODE_EXTRA_CA_CERTS"] = path;
  t.teardown(() => {
    if (before === undefined) delete process.env["NODE_EXTRA_CA_CERTS"];
    else process.env["NODE_EXTRA_CA_CERTS"] = before;
  });
}

test(
  "a certificate that can't be believed is EIO at once, named, until it can be",
  OPTIONS,
  async (t) => {
    const { node, server, published } = await scene(t, FILES);
    const authority = new Authority(t);
    const good = authority.make("IP:127.0.0.1", ...NOW);
    believe(t, authority.path);
    const cases = bad(authority);
    const front = await TlsFront.start(t, server.url, cases[0]![1]);
    const mountId = node.mount(front.url, published.digest);
    await node.start();
    const client = await node.connect(mountId);
    for (const [what, shown, message] of cases) {
      front.show(shown);
      const before = node.output.length;
      t.not((await client.askBlob(0, published.row("a"))).errno, 0, what);
      t.match(node.output.slice(before), message, what);
      t.match(node.output.slice(before), front.url, what);
    }
    t.equal(server.requests.length, 0, "nothing was asked of it");
    const { requests } = (await node.settled()).origins[front.url]!;
    // For the index and the locator at once.
    t.equal(requests, 2 * cases.length, "each once: the same certificate comes with the next try");
    front.show(good);
    t.equal((await client.askBlob(0, published.row("a"))).errno, 0, "without a restart");
  },
);

test("an authority that isn't known, and a server without TLS", OPTIONS, async (t) => {
  const { node, server, published } = await scene(t, FILES);
  const authority = new Authority(t);
  const front = await TlsFront.start(t, server.url, authority.make("IP:127.0.0.1", ...NOW));
  const plain = server.url.replace("http:", "https:");
  await node.start();
  for (const [origin, message] of [
    [front.url, /\(UNABLE_TO_[A-Z_]*\): .* NODE_EXTRA_CA_CERTS=FILE, for the daemon, too/],
    [plain, /\((EPROTO|ERR_SSL_[A-Z_]*)\): no TLS is spoken there: is it http:/],
  ] as const) {
    const client = await node.connect(node.mount(origin, published.digest));
    t.not((await client.askBlob(0, published.row("a"))).errno, 0, origin);
    t.match(node.output, message);
    client.close();
  }
});

test("a mirror is asked in the place of one whose certificate has expired", OPTIONS, async (t) => {
  const { node, server, published } = await scene(t, FILES);
  const authority = new Authority(t);
  believe(t, authority.path);
  const front = await TlsFront.start(t, server.url, authority.make("IP:127.0.0.1", ...PAST));
  const origins = `${node.root}/origins.json`;
  const plan = { [front.url]: { mirrors: [server.url] } };
  fs.writeFileSync(origins, JSON.stringify({ format: 1, origins: plan }));
  await node.start({ origins });
  const client = await node.connect(node.mount(front.url, published.digest));
  for (const name of ["a", "b"])
    t.equal((await client.askBlob(0, published.row(name))).errno, 0, name);
  t.match((await node.settled()).origins[front.url]!.places, [
    { name: front.url, state: "resting", why: /certificate has expired/ },
    { name: server.url, state: "up", transient: 0 },
  ]);
});
