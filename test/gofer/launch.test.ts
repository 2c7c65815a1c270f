// The launch contract of a gofer: argv as each revision of runsc gives it, the mounts JSON, FDs it waits for and FDs it drops,
// its exit, and that FDs 0 to 2 stay untouched. docs/protocol/launch.md.

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import { native } from "../../lib/sys/native.ts";
import { type GoferOptions, GoferProcess, pair } from "../suite/gofer-process.ts";
import { stat, walk } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { startGofer, type Teardown, temporary } from "../suite/served.ts";
import { blockUntil, sleepMs } from "../suite/wait.ts";

const SOCK_STREAM = 1;
const Role = {
  syncChroot: 4,
  syncNvproxy: 5,
  rpc: 6,
  devIo: 7,
  log: 8,
  syncSentryExit: 10,
} as const;

/** argv after the gofer's own name. FD numbers are the stub's and mean nothing here. */
const ARGV: Record<string, (bundle: string) => string[]> = {
  "release-20221219": (bundle) => [
    "--root=/run/runsc",
    "--network=none",
    "--log-fd=3",
    "--debug-log-fd=4",
    "gofer",
    "--bundle",
    bundle,
    "--spec-fd=5",
    "--mounts-fd=6",
    "--io-fds=7",
    "--io-fds=8",
    "--sync-userns-fd=9",
  ],
  "release-20240729": (bundle) => [
    "--directfs=false",
    "--root=/run/runsc",
    "--overlay2=none",
    "gofer",
    "--bundle",
    bundle,
    "--gofer-mount-confs=lisafs:none,lisafs:none",
    "--spec-fd=5",
    "--mounts-fd=6",
    "--io-fds=7",
    "--io-fds=8",
    "--dev-io-fd=-1",
    "--sync-userns-fd=9",
    "--sync-nvproxy-fd=10",
  ],
  "HEAD of 2026-08": (bundle) => [
    "--some-flag-of-tomorrow=yes",
    "--directfs=false",
    "gofer",
    "--bundle",
    bundle,
    "--gofer-mount-confs=lisafs:none,lisafs:none:size=0",
    "--uid=0",
    "--gid=0",
    "--spec-fd=5",
    "--mounts-fd=6",
    "--rpc-fd=7",
    "--pin-ring-fd=8",
    "--sync-sentry-exit-fd=9",
    "--sync-chroot-fd=10",
    "--io-fds=11",
    "--io-fds=12",
  ],
};

/** A gofer that the test stops itself. */
function start(t: Teardown, options: GoferOptions): GoferProcess {
  const gofer = GoferProcess.start(options);
  t.teardown(async () => {
    await gofer.stop();
  });
  return gofer;
}

for (const [revision, argv] of Object.entries(ARGV)) {
  test(`a gofer as ${revision} starts it serves each mount and exits 0`, async (t) => {
    const [root, data] = [temporary(t), temporary(t)];
    writeFileSync(join(data, "f"), "");
    const gofer = start(t, {
      mounts: [
        { destination: "/", source: root, isReadOnly: true },
        { destination: "/data", source: data },
      ],
      argv: argv(root),
    });
    const [one, two] = [0, 1].map((i) => LisafsClient.mount(gofer.takeSocket(i), 2));
    t.equal(walk(one!, one!.rootFd, "f").status, 1);
    t.equal(walk(two!, two!.rootFd, "f").status, 0);
    one!.close();
    for (let i = 0; i < 20; i++) stat(two!, two!.rootFd);
    t.ok(gofer.isAlive, "one connection is left");
    two!.close();
    t.equal(await gofer.exit, 0);
    t.equal(gofer.output, "", "nothing on FDs 0 to 2");
  });
}

test("sources are resolved in the bundle of --bundle, in both spellings", async (t) => {
  const bundle = temporary(t);
  mkdirSync(join(bundle, "rootfs"));
  writeFileSync(join(bundle, "rootfs/f"), "");
  for (const words of [["--bundle", bundle], [`--bundle=${bundle}`], [`-bundle=${bundle}`]]) {
    const mounts = [{ destination: "/", source: "rootfs", isReadOnly: true }];
    const gofer = start(t, { mounts, argv: ["gofer", ...words] });
    const client = LisafsClient.mount(gofer.takeSocket(0));
    t.equal(walk(client, client.rootFd, "f").status, 0, words.join(" "));
    client.close();
    t.equal(await gofer.exit, 0);
  }
});

test("a mount under an overlay in the sandbox is read-only, one without lisafs is not served", async (t) => {
  const directory = temporary(t);
  const gofer = start(t, {
    mounts: [
      { destination: "/", source: directory },
      { destination: "/scratch", source: directory },
      { destination: "/data", source: directory },
    ],
    socketCount: 2,
    argv: [
      "--directfs=false",
      "gofer",
      "--gofer-mount-confs=lisafs:self,none:memory,lisafs:none",
      "--bundle",
      directory,
    ],
  });
  const clients = [0, 1].map((i) => LisafsClient.mount(gofer.takeSocket(i)));
  for (const client of clients) t.equal(stat(client, client.rootFd).mode & 0o170000, 0o040000);
  t.equal((JSON.parse(gofer.mountsJson) as unknown[]).length, 2, "the JSON has all of the spec's");
  for (const client of clients) client.close();
  t.equal(await gofer.exit, 0);
});

test("the mounts JSON is the spec's, with destinations resolved inside the root", async (t) => {
  const root = temporary(t);
  mkdirSync(join(root, "real/deep"), { recursive: true });
  symlinkSync("/real", join(root, "link"));
  symlinkSync("../../../link", join(root, "real/up"));
  symlinkSync("loop", join(root, "loop"));
  const proc = { destination: "/link/proc", type: "proc", source: "proc", options: ["nosuid"] };
  const gofer = start(t, {
    mounts: [
      { destination: "/", source: root, isReadOnly: true },
      { destination: "/link/deep/new", source: root, isReadOnly: true },
      { destination: "/real/up/./x//y/../z", source: root },
      { destination: "/loop/x", source: root },
      { destination: "/../../etc", source: root },
    ],
    spec: (spec) => {
      (spec["mounts"] as unknown[]).splice(1, 0, proc);
    },
  });
  const mounts = JSON.parse(gofer.mountsJson) as { destination: string }[];
  t.strictSame(
    mounts.map(({ destination }) => destination),
    ["/real/deep/new", "/link/proc", "/real/x/z", "/loop/x", "/etc"],
  );
  t.strictSame(mounts[1], proc, "what is no gofer mount is passed verbatim");
  t.strictSame(mounts[0], { ...mounts[0], source: root, type: "bind", options: ["ro"] });
  t.equal(await gofer.stop(), 0);
});

test("destinations stay as they are where the root isn't ours to serve", async (t) => {
  const data = temporary(t);
  symlinkSync("/elsewhere", join(data, "link"));
  const gofer = start(t, {
    mounts: [
      { destination: "/", source: temporary(t) },
      { destination: "/link/x", source: data },
    ],
    socketCount: 1,
    argv: [
      "--directfs=false",
      "gofer",
      "--gofer-mount-confs=erofs:memory,lisafs:none",
      "--bundle",
      data,
    ],
  });
  t.match(JSON.parse(gofer.mountsJson), [{ destination: "/link/x" }]);
  t.equal(await gofer.stop(), 0);
});

test("an empty list of mounts is []", async (t) => {
  const root = temporary(t);
  const mounts = [{ destination: "/", source: root }];
  for (const value of [[], null, undefined]) {
    const gofer = start(t, { mounts, spec: (spec) => Object.assign(spec, { mounts: value }) });
    t.equal(gofer.mountsJson, "[]", String(value));
    t.equal(await gofer.stop(), 0);
  }
});

for (const [name, role] of [
  ["sync-chroot-fd", Role.syncChroot],
  ["sync-nvproxy-fd", Role.syncNvproxy],
] as const) {
  test(`nothing is done before ${name} ends`, async (t) => {
    const root = temporary(t);
    const [ours, theirs] = pair(SOCK_STREAM);
    const gofer = GoferProcess.start({
      mounts: [{ destination: "/", source: root }],
      extraFds: [{ role, fd: theirs }],
      isLate: true,
    });
    sleepMs(700);
    t.ok(gofer.isAlive);
    native.setNonblock(gofer.mountsFd);
    t.equal(native.readFd(gofer.mountsFd, new Uint8Array(1)), -11, "no mounts yet");
    native.closeFd(ours);
    blockUntil(() => gofer.readMounts() !== "");
    t.equal(gofer.mountsJson, "[]");
    t.equal(await gofer.stop(), 0);
    t.equal(gofer.output, "");
  });
}

test("FDs that are not served are closed, not held", async (t) => {
  const root = temporary(t);
  const given = [Role.rpc, Role.devIo, 99].map((role) => ({ role, pair: pair(SOCK_STREAM) }));
  const [ours, theirs] = pair(SOCK_STREAM);
  const gofer = start(t, {
    mounts: [{ destination: "/", source: root }],
    extraFds: [
      ...given.map(({ role, pair: [, fd] }) => ({ role, fd })),
      { role: Role.syncSentryExit, fd: theirs },
    ],
  });
  const client = LisafsClient.mount(gofer.takeSocket(0));
  for (const {
    role,
    pair: [fd],
  } of given) {
    native.setNonblock(fd);
    t.equal(native.readFd(fd, new Uint8Array(1)), 0, `role ${role} ended`);
    native.closeFd(fd);
  }
  native.setNonblock(ours);
  t.equal(native.readFd(ours, new Uint8Array(1)), -11, "what runsc may yet write to is held");
  client.close();
  t.equal(await gofer.exit, 0);
  t.equal(native.readFd(ours, new Uint8Array(1)), 0, "to the end");
  native.closeFd(ours);
});

test("a gofer that can't start says why on its log, exits 1 and closes the mounts pipe", async (t) => {
  const root = temporary(t);
  const cases: [string, GoferOptions, RegExp][] = [
    [
      "no source",
      { mounts: [{ destination: "/", source: "/none/such" }] },
      /can't open \/none\/such/,
    ],
    [
      "too many sockets",
      { mounts: [{ destination: "/", source: root }], socketCount: 2 },
      /2 io-fds/,
    ],
    ["no socket", { mounts: [{ destination: "/", source: root }], socketCount: 0 }, /0 io-fds/],
    [
      "65 mounts",
      { mounts: Array.from({ length: 65 }, (_, i) => ({ destination: `/${i}`, source: root })) },
      /can't serve \/64: EMFILE/,
    ],
    [
      "no root in the spec",
      {
        mounts: [{ destination: "/", source: root }],
        spec: (spec) => Object.assign(spec, { root: {} }),
      },
      /no root.path/,
    ],
  ];
  for (const [name, options, why] of cases) {
    const gofer = start(t, options);
    t.equal(await gofer.exit, 1, name);
    t.match(gofer.log, why);
    t.equal(gofer.output, "", "nothing on FDs 0 to 2");
  }
});

test("FDs 0 to 2 are what they were, and no FD of the starter's leaks in", (t) => {
  const gofer = startGofer(t, [{ destination: "/", source: temporary(t) }]);
  const client = LisafsClient.mount(gofer.takeSocket(0), 1);
  t.teardown(() => client.close());
  const links = gofer.fds().map((fd) => {
    try {
      return readlinkSync(`/proc/${gofer.pid}/fd/${fd}`);
    } catch {
      return "";
    }
  });
  t.equal(links.filter((link) => link.includes("config.json")).length <= 1, true);
  t.ok(links.length < 64, `${links.length} FDs`);
  t.end();
});

test("a policy of the scheduler that its starter chose stays", async (t) => {
  const batch = 3; // man sched(7), SCHED_BATCH: takes no rights
  const choose = (flag: string) => spawnSync("chrt", [flag, "-p", "0", String(process.pid)]);
  t.equal(choose("--batch").status, 0);
  t.teardown(() => void choose("--other"));
  const { pid } = startGofer(t, [{ destination: "/", source: temporary(t) }]);
  const line = readFileSync(`/proc/${pid}/stat`, "latin1");
  const policy = line.slice(line.lastIndexOf(")") + 2).split(" ")[38];
  t.equal(Number(policy), batch);
});
