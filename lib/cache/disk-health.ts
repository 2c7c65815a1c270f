// DiskHealth: whether the cache's disk takes writes. One that fails is demoted: it is read from, but nothing more is written to it until
// a write that is tried now and then succeeds. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { dirname } from "node:path";
import { BurrowError } from "../base/error.ts";
import type { Log } from "./counters.ts";
import { flush, STALL_MS } from "./flush.ts";

export class DiskHealth {
  /** How often it was demoted. */
  demotions = 0;
  readonly #folder: string;
  readonly #log: Log;
  #isDemoted = false;
  #isProbing = false;

  /** Tries its writes in `folder`. */
  constructor(folder: string, log: Log) {
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
    // An origin may be a directory, too.
    if (!String(error.context["path"]).startsWith(`${dirname(this.#folder)}/`)) return false;
    if (!this.#isDemoted) {
      this.#isDemoted = true;
      this.demotions++;
      this.#log("disk demoted", { folder: this.#folder, errno: error.errno });
    }
    return true;
  }

  /** Called about once a second: promotes a demoted disk that takes a write again. Never rejects. */
  async probe(): Promise<void> {
    if (!this.#isDemoted || this.#isProbing) return;
    this.#isProbing = true;
    const path = `${this.#folder}/probe.${process.pid}.${randomBytes(4).toString("hex")}`;
    try {
      const fd = fs.openSync(path, "wx");
      try {
        fs.writeSync(fd, "x");
        await flush(fd, STALL_MS);
      } finally {
        fs.closeSync(fd);
        fs.unlinkSync(path);
      }
      this.#isDemoted = false;
      this.#log("disk promoted", { folder: this.#folder });
    } catch {
      // Still so.
    } finally {
      this.#isProbing = false;
    }
  }
}
