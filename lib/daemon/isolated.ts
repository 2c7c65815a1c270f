// How the daemon starts the servers that live on without it: without the caller's variables, in namespaces of their own, as runsc starts
// a gofer, and in a process group of their own. Control plane.

/** As many open files as one whom the kernel lets have them may: each inode of a tmpfs that a sandbox knows is one. lib/gofer/serve.ts, OPEN_FILES. */
const OPEN_FILES = "ulimit -n 1048576 2>/dev/null";
/** The caller's NODE_* would be code and settings of others in a server. */
const BARE = 'exec env -i PATH="$PATH" setsid';
/** runsc gives a gofer namespaces of its own; so does this. man unshare(1). */
const ISOLATION = "setpriv --no-new-privs unshare --net --ipc --uts --pid --fork --";

/** The words that start a program so. */
export function isolated(words: readonly string[]): string[] {
  return ["sh", "-c", `cd /; ${OPEN_FILES}; ${BARE} ${ISOLATION} "$@"`, "sh", ...words];
}

/** Ends one by its pid, with all of its process group: unshare's end isn't its child's. */
export function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined && pid > 0) process.kill(-pid, "SIGKILL");
  } catch {
    // It has just ended.
  }
}
