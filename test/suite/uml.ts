// A boot of a user-mode Linux (fixtures/uml.sh) whose root is this machine's own, read-only, and whose init is a script of
// test/suite. Test support.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { exited } from "./daemon-node.ts";

export const ROOT = path.resolve(import.meta.dirname, "../../..");

export interface UmlBoot {
  /** Where fixtures/uml.sh put it. */
  readonly uml: string;
  /** The test's own: it gets uml/ and console, what was said so far. */
  readonly folder: string;
  readonly memory: string;
  /** More words of the kernel's command line. */
  readonly words?: readonly string[];
  /** A file of assignments, which the script reads. */
  readonly given: string;
  /** In test/suite. */
  readonly script: string;
  readonly maxMs: number;
}

/** Boots until it halts, or is ended after `maxMs`: all that it said. */
export async function bootUml(boot: UmlBoot): Promise<string> {
  const { uml, folder, memory, words = [], given, script, maxMs } = boot;
  const line = [
    ...[`mem=${memory}`, "rootfstype=hostfs", "rootflags=/", "ro", "init=/bin/bash", "quiet"],
    ...["con=null", "con0=null,fd:1", ...words, `uml_dir=${folder}/uml/`, `burrow=${given}`],
    ...["--", path.join(ROOT, "test/suite", script)],
  ];
  // One that is of another Debian has a libc of its own.
  const libraries = fs.existsSync(`${uml}/lib64`)
    ? { LD_LIBRARY_PATH: `${uml}/usr/lib/x86_64-linux-gnu` }
    : {};
  const memoryFolder = fs.existsSync("/dev/shm") ? "/dev/shm" : folder;
  const child = spawn(`${uml}/usr/bin/linux.uml`, line, {
    stdio: ["ignore", "pipe", "pipe"],
    cwd: uml,
    env: { ...process.env, ...libraries, TMPDIR: memoryFolder },
    // Its guests' processes are processes of the host, of the same group.
    detached: true,
  });
  let output = "";
  const note = (bytes: Buffer) => {
    output += bytes.toString();
    // For whoever waits and looks.
    fs.appendFileSync(path.join(folder, "console"), bytes);
  };
  child.stdout.on("data", note);
  child.stderr.on("data", note);
  const end = () => process.kill(-child.pid!, "SIGKILL");
  process.once("exit", end);
  const timer = setTimeout(() => {
    note(Buffer.from(`\nIt was ended: it took more than ${maxMs} ms.\n`));
    end();
  }, maxMs);
  await exited(child);
  clearTimeout(timer);
  process.off("exit", end);
  return output;
}
