// FuseDoor: a mount of the state directory served to the kernel by FUSE, at a folder of the test's own. The server is a process of its
// own, as burrow mount starts it, so that a test may look in with the calls that block. Tests and benches only.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ChildServer, startServer } from "../../lib/cli/child-server.ts";
import { mountDevice } from "../../lib/daemon/fuse-mount.ts";
import type { FuseConfig } from "../../lib/gofer/fuse-config.ts";
import { mountedAt } from "../../lib/sys/mounted.ts";
import { writeMount } from "./gofer-process.ts";
import { type Teardown, temporary } from "./served.ts";
import { type Files, makeView } from "./view-cache.ts";

const PROGRAM = fileURLToPath(new URL("../../fuse.cjs", import.meta.url));
const OPTIONS = "nosuid,nodev,default_permissions,allow_other,rootmode=40000,user_id=0,group_id=0";

export interface DoorSource {
  /** BURROW_STATE, and a mount of it. */
  readonly state: string;
  readonly source: string;
  readonly isReadOnly?: boolean;
  /** As the daemon serves sandboxes: the kernel opens files by itself. */
  readonly isDirect?: boolean;
}

export class FuseDoor {
  readonly folder: string;
  readonly server: ChildServer;

  private constructor(folder: string, server: ChildServer) {
    this.folder = folder;
    this.server = server;
  }

  /** One that can be used; closed when the test ends, which must be by the server's own, with 0. */
  static async open(t: Teardown, { state, source, isReadOnly = true, isDirect }: DoorSource) {
    const folder = fs.mkdtempSync(join(tmpdir(), "burrow-fuse-"));
    const device = fs.openSync("/dev/fuse", "r+");
    await mountDevice(device, folder, "fuse.burrow", `${isReadOnly ? "ro" : "rw"},${OPTIONS}`);
    const direct = isDirect === true ? ({ direct: "first" } as const) : {};
    const config: FuseConfig = { state, source, isReadOnly, ...direct };
    const door = new FuseDoor(folder, startServer(PROGRAM, config, [device]));
    fs.closeSync(device);
    t.teardown(() => door.close());
    const said = await door.server.firstWord;
    if (said !== "\n") throw new Error(`not served: ${said}`);
    return door;
  }

  /** A view of files, of which those in `missing` are not in the cache and nobody brings them. */
  static openView(t: Teardown, files: Files, missing: readonly string[] = []): Promise<FuseDoor> {
    const state = temporary(t);
    return FuseDoor.open(t, { state, source: makeView(state, files, missing) });
  }

  /** The same, writable, with an upper. */
  static openOverlay(t: Teardown, files: Files, missing: readonly string[] = []) {
    const state = temporary(t);
    const path = join(makeView(state, files, missing), "mount.json");
    const view = JSON.parse(fs.readFileSync(path, "utf8")) as Record<string, unknown>;
    const upper = { sizeBytes: 64 * 1024 * 1024, inodes: 10_000 };
    const source = writeMount(state, "overlay", { ...view, upper });
    return FuseDoor.open(t, { state, source, isReadOnly: false });
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Ends the server by a signal, as a crash does. */
  async kill(): Promise<void> {
    this.server.child.kill("SIGKILL");
    await this.server.ended;
  }

  async close(): Promise<void> {
    const { child, leader, ended } = this.server;
    const wasKilled = child.signalCode !== null;
    while (mountedAt(this.folder) !== undefined)
      spawnSync("umount", wasKilled ? ["-l", this.folder] : ["-f", this.folder]);
    leader.destroy();
    const code = await ended;
    fs.rmdirSync(this.folder);
    if (code !== 0 && !wasKilled) throw new Error(`the FUSE server ended with ${code}`);
  }
}
