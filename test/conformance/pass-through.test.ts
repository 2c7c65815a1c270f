// Owns: host directories that a bundle passes through read-write: the same script in a sandbox over runsc's own gofer and over
// ours gives the same output and leaves the same tree. On every runsc that is here. Plane: control.
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import t, { type Test as Subtest } from "tap";
import { Bench, findRevisions, hostGofer, type Revision, stockGofer } from "./runsc.ts";

t.setTimeout(300_000);
const { found, reasons } = findRevisions();
for (const reason of reasons) t.comment(`not tested: ${reason}`);
if (found.length === 0) t.pass("skipped: no runsc to test with", { skip: reasons.join("; ") });

/** What a shell does in a directory. Ends with what it sees of it. */
const SCRIPT = `
b() { busybox "$@" 2>&1; echo "$1: $?"; }
cd /mnt/data
b cat existing; echo more >> existing; b cat existing
echo new > new; b wc -c new; b chmod 640 new; b stat -c '%a %u:%g %s %h' new
b mkdir -p a/b/c; b mkdir a; b rmdir a; b touch a/b/c/f; b mv a/b z; b ls z/c; b mv z/c/f z/c/f
b ln new hard; b stat -c %h new; b ln -s new soft; b readlink soft; b cat soft; b rm new; b cat soft
b cat hard; b cp hard copy; b truncate -s 100000 copy; b stat -c '%s' copy; b truncate -s 3 copy; b cat copy; echo
b dd if=/dev/zero of=big bs=64k count=20 conv=fsync; b sha1sum big; b dd if=/dev/zero of=big bs=1 count=1 seek=5000000
b stat -c '%s %b' big; b mv existing sub/existing; b mv sub/existing nodir/x; b mv hard z; b ls -1 z sub
b rm sub; b rm -r sub; b rmdir z; b chown 12:34 copy; b stat -c '%u:%g' copy; b chmod 6755 copy; b chown 1:1 copy
b stat -c '%a' copy; b touch -d '2001-02-03 04:05:06' copy; b stat -c '%Y' copy; b mkfifo fifo; b mknod dev c 1 3
b cat single; echo replaced > single; b cat /mnt/one; echo by > /mnt/one; b cat /mnt/one; b rm /mnt/one
echo one > first; ln first second; echo longer >> first; b cat second; echo last >> second; b cat first
b chmod 600 first; b stat -c '%a %s %h' second; b rm first; b stat -c %h second
b cat /mnt/new/deep/one; b ls -1 /mnt/new /mnt/new/deep; b mv /mnt/one /mnt/two; b ls -1 /mnt; exec 5> open; b rm open; echo unlinked >&5; b ls -1
`;

/** Every path beneath a directory, with all that both must have made of it. */
function treeOf(directory: string): string[] {
  const names = fs.readdirSync(directory, { recursive: true, encoding: "utf8" }).sort();
  return names.map((name) => {
    const file = path.join(directory, name);
    const stat = fs.lstatSync(file);
    const content = stat.isFile()
      ? createHash("sha256").update(fs.readFileSync(file)).digest("hex").slice(0, 12)
      : stat.isSymbolicLink()
        ? fs.readlinkSync(file)
        : "";
    const size = stat.isDirectory() ? "" : `${stat.size} bytes`;
    return `${name} ${stat.mode.toString(8)} ${stat.uid}:${stat.gid} ${stat.nlink} ${size} ${content}`;
  });
}

async function runOver(
  t: Subtest,
  gofer: typeof hostGofer,
  revision: Revision,
): Promise<{ out: string[]; tree: string[] }> {
  const bench = new Bench(gofer, revision, "ptrace");
  t.teardown(() => bench.close());
  const data = path.join(bench.dir, "data");
  fs.mkdirSync(path.join(data, "sub"), { recursive: true });
  fs.writeFileSync(path.join(data, "existing"), "was here\n");
  fs.writeFileSync(path.join(data, "single"), "one file\n");
  const bundle = bench.bundle(SCRIPT, (spec) => {
    spec.mounts.push(
      { destination: "/mnt/data", type: "bind", source: data, options: ["rbind", "rw"] },
      { destination: "/mnt/one", type: "bind", source: path.join(data, "single") },
      { destination: "/mnt/new/deep/one", type: "bind", source: path.join(data, "single") },
    );
  });
  // With no flag of how it is accessed: each gofer as its user has it.
  const run = await bench.outcomeOf([...bench.argv(), "run", "-bundle", bundle, bench.id("a")]);
  t.equal(run.code, 0, run.stderr);
  t.same(await bench.leftovers(), []);
  return { out: run.stdout.split("\n"), tree: treeOf(data) };
}

for (const revision of found) {
  t.test(
    `${revision.name}: a shell's work in a directory is as over runsc's own gofer`,
    async (t) => {
      const stock = await runOver(t, stockGofer, revision);
      const ours = await runOver(t, hostGofer, revision);
      t.match(ours.tree.join("\n"), /^z\/c\/f /m, "it wrote to the host");
      t.same(ours.out, stock.out);
      t.match(ours.out.join("\n"), /^one\nlonger\nlast\ncat: 0$/m, "two names are one file");
      t.same(ours.tree, stock.tree);
    },
  );
}
