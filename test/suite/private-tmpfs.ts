// A tmpfs attached nowhere that several uppers are opened on, one after the other, as successors do. Control plane.

import { HostFd } from "../../lib/sys/host-fd.ts";
import { native } from "../../lib/sys/native.ts";
import { createUpperFd, openUpper, type Upper, type UpperOptions } from "../../lib/tree/upper.ts";
import { must } from "./tree-fixture.ts";

const O_PATH_DIRECTORY = 0o10200000;

/** Why there can be none here; undefined when there can. */
export function noTmpfs(): string | undefined {
  const probe = createUpperFd({ sizeBytes: 4096, inodes: 9, mode: 0o700 });
  if (typeof probe === "number") return `no right to make a tmpfs here (errno ${-probe})`;
  probe[Symbol.dispose]();
  return undefined;
}

export class PrivateTmpfs {
  readonly #mount: HostFd;

  /** Throws where noTmpfs() says why. */
  constructor(options: UpperOptions) {
    const mount = createUpperFd(options);
    if (typeof mount === "number") throw new Error(`tmpfs: errno ${-mount}`);
    this.#mount = mount;
  }

  /** Another upper on it, to be disposed of before it. */
  open(): Upper {
    const path = `/proc/self/fd/${this.#mount.borrow()}`;
    const fd = must(native.openAt(-1, path, O_PATH_DIRECTORY, 0), "the mount");
    const upper = openUpper(new HostFd(fd));
    if (typeof upper === "number") throw new Error(`upper: errno ${-upper}`);
    return upper;
  }

  dispose(): void {
    this.#mount[Symbol.dispose]();
  }
}
