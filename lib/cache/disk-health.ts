// DiskHealth: whether the cache's disk takes writes. One that fails is demoted: it is read from, but nothing more is written to it until
// a write that is tried now and then succeeds. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { dirname } from "node:path";
import { isShortage } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { Calls } from "../sys/calls.ts";
import type { Log } from "./counters.ts";
import type { Disk } from "./disk.ts";

const PROBE_FLAGS = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL;

export class DiskHealth {
  /** How often it was demoted. */
  demotions = 0;
  readonly #disk: Disk;
  readonly #folder: string;
  readonly #log: Log;
  #isDemoted = false;
  #isProbing = false;

  /** Tries its writes in `folder`. */
  constructor(disk: Disk, folder: string, log: Log) {
    this.#disk = disk;
    this.#folder = folder;
    this.#log = log;
  }

  get isDemoted(): boolean {
    return this.#isDemoted;
  }

  /**
   * Whether an error is the disk's: no space, or it fails. One that fails is demoted; a full one is asked again each time, which costs
   * little, and something may have gone meanwhile.
   */
  blame(error: unknown): boolean {
    if (!(error instanceof BurrowError)) return false;
    if (error.code === "BURROW_NO_SPACE") return true;
    if (error.code !== "BURROW_IO" || error.errno === undefined) return false;
    if (isShortage(error.errno)) return false;
    // An origin may be a directory, too.
    if (!String(error.context["path"]).startsWith(`${dirname(this.#folder)}/`)) return false;
    if (!this.#isDemoted) {
      this.#isDemoted = true;
      this.demotions++;
      this.#log("disk demoted", { folder: this.#folder, errno: error.errno });
    }
    return true;
  }

  /**
   * Called about once a second: promotes a demoted disk that takes a write again, and of which nothing that was asked hangs any more.
   * Never rejects.
   */
  async probe(): Promise<void> {
    if (!this.#isDemoted || this.#isProbing || this.#disk.hanging > 0) return;
    this.#isProbing = true;
    const path = `${this.#folder}/probe.${process.pid}.${randomBytes(4).toString("hex")}`;
    try {
      const calls = new Calls();
      const fd = { at: calls.open(path, PROBE_FLAGS, 0o600) };
      calls.pwrite(fd, Buffer.from("x"), 0);
      calls.fsync(fd);
      calls.always(() => calls.close(fd));
      calls.unlink(path);
      calls.ifFailed(() => calls.unlink(path));
      await this.#disk.calls("write", calls, "the disk takes no writes", path, { isProbe: true });
      this.#disk.recovered();
      this.#isDemoted = false;
      this.#log("disk promoted", { folder: this.#folder });
    } catch {
      // Still so.
    } finally {
      this.#isProbing = false;
    }
  }
}
