// Owns: the recipes of docs/integrations, each with the client itself. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { until } from "../suite/wait.ts";
import { PYTHON_MODULES, provesClient, Site, skip } from "./clients.ts";

const annotationFlags = (all: readonly string[]) => all.flatMap((one) => ["--annotation", one]);

test("docker", { skip }, async (t) => {
  const site = await Site.open(t);
  const { node } = site;
  const socket = `unix://${node.path("docker.sock")}`;
  const places = ["data", "exec"].map((name) => `--${name}-root=${node.path(`docker-${name}`)}`);
  const alone = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"];
  const own = [`--pidfile=${node.path("docker.pid")}`, "--storage-driver=vfs"];
  const runtime = `--add-runtime=burrow=${site.runtime}`;
  const words = ["dockerd", ...places, ...own, ...alone, runtime, "-H", socket];
  site.service(t, words, "docker.log");
  const docker = ["docker", "-H", socket];
  t.ok(await until(async () => (await site.run([...docker, "version"])).code === 0), "it is up");
  const image = await site.run([
    "sh",
    "-c",
    `tar -C '${site.root}' -c . | ${docker.join(" ")} import - box`,
  ]);
  t.equal(image.code, 0, image.stderr);
  const run = [...docker, "run", "--network=none", "--runtime=burrow"];
  await provesClient(t, site, {
    name: "docker",
    volume: () => [...run, "--rm", "-v", `${site.volume}:/opt/env:ro`, "box"],
  });
  const kept = [...run, "-d", "--name=kept", "-v", `${site.volume}:/opt/env:ro`, "box"];
  t.equal((await site.run([...kept, "sleep", "1000"])).code, 0);
  const executed = await site.run([...docker, "exec", "kept", "cat", "/opt/env/etc/greeting"]);
  t.match(executed, { code: 0, stdout: "hello\n" }, executed.stderr);
  t.equal((await site.run([...docker, "stop", "-t", "1", "kept"])).code, 0);
  t.equal((await site.run([...docker, "rm", "kept"])).code, 0);
});

test("containerd", { skip }, async (t) => {
  const site = await Site.open(t);
  const { node } = site;
  const address = node.path("containerd.sock");
  const config = [
    "version = 2",
    `root = "${node.path("containerd")}"`,
    `state = "${node.path("containerd-state")}"`,
    'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
    `[grpc]\n  address = "${address}"`,
  ];
  const file = node.file("containerd.toml", `${config.join("\n")}\n`);
  site.service(t, ["containerd", "-c", file], "containerd.log");
  const ctr = ["ctr", "-a", address];
  t.ok(await until(async () => (await site.run([...ctr, "version"])).code === 0), "it is up");
  let count = 0;
  const run = [...ctr, "run", "--rm", "--runc-binary", site.runtime, "--rootfs"];
  const mount = `type=bind,src=${site.volume},dst=/opt/env,options=rbind:ro`;
  const id = () => `c${process.pid}-${count++}`;
  await provesClient(t, site, {
    name: "containerd",
    volume: () => [...run, "--mount", mount, site.root, id()],
    annotated: (_, all) => [...run, ...annotationFlags(all), site.root, id()],
  });
});

test("podman", { skip }, async (t) => {
  const site = await Site.open(t);
  const { node } = site;
  const folder = (name: string) => node.path(`podman/${name}`);
  const config = [
    '[containers]\nseccomp_profile = "unconfined"\napparmor_profile = ""',
    '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"',
    `static_dir = "${folder("static")}"\nvolume_path = "${folder("volumes")}"`,
    `conmon_path = ["${path.join(path.dirname(PYTHON_MODULES), "root/usr/bin/conmon")}"]`,
    `[engine.runtimes]\nburrow = ["${site.runtime}"]`,
  ];
  const storage = `[storage]\ndriver = "vfs"\nrunroot = "${folder("run")}"\ngraphroot = "${folder("graph")}"\n`;
  Object.assign(site.env, {
    CONTAINERS_CONF: node.file("podman/containers.conf", `${config.join("\n")}\n`),
    CONTAINERS_STORAGE_CONF: node.file("podman/storage.conf", storage),
  });
  const hadCgroup = fs.existsSync("/sys/fs/cgroup/pids/libpod_parent");
  // It mounts its storage onto itself, so in a mount namespace of its own.
  const podman = ["unshare", "-m", "podman", "--tmpdir", folder("tmp"), "--runtime", "burrow"];
  const run = [...podman, "run", "--rm", "--network=none"];
  t.teardown(() => {
    if (!hadCgroup) removeCgroups("libpod_parent");
  });
  await provesClient(t, site, {
    name: "podman",
    volume: () => [...run, "-v", `${site.volume}:/opt/env:ro`, "--rootfs", site.root],
    annotated: (_, all) => [...run, ...annotationFlags(all), "--rootfs", site.root],
  });
  t.ok(await until(() => site.leftovers().length === 0), site.leftovers().join("\n"));
});

/** podman leaves its parent cgroups, empty. */
function removeCgroups(name: string): void {
  for (const controller of fs.readdirSync("/sys/fs/cgroup")) {
    const top = `/sys/fs/cgroup/${controller}/${name}`;
    for (const folder of [`${top}/conmon`, top]) if (fs.existsSync(folder)) fs.rmdirSync(folder);
  }
}

test("gVisor's Python bindings", { skip }, async (t) => {
  const site = await Site.open(t);
  const program = `
import sys
from gvisor import Mount, Sandbox
with Sandbox(mounts=[Mount.bind("${site.volume}", "/opt/env", readonly=True), Mount.tmpfs("/tmp")]) as box:
    print(box.exec("cat", "/opt/env/etc/greeting")[0], end="")
    print(box.exec("sh", "-c", "touch /opt/env/x 2>&1 || echo kept")[0], end="")
`;
  const ran = await site.run(["python3", "-c", program], {
    RUNSC_PATH: site.runtime,
    PYTHONPATH: PYTHON_MODULES,
  });
  t.equal(ran.code, 0, ran.stderr);
  t.match(ran.stdout, /^hello\n.*Read-only file system\nkept\n$/);
  t.ok(await until(() => site.leftovers().length === 0), site.leftovers().join("\n"));
});
