// fuse-native, the peer of our FUSE servers, made to load as it comes from npm: without libfuse of the system, and without its own
// configure(), which sets set-user-ID bits on scripts.

import { createRequire } from "node:module";
import { constants } from "node:os";
import { join } from "node:path";

/** bits/dlfcn.h; Node names it for no platform. */
const RTLD_NODELETE = 0x1000;

/**
 * fuse-native's prebuilt binary wants libfuse.so.2 and doesn't look beside itself, where it has one. So that one is loaded ahead: it has
 * this SONAME. Node refuses it, since it is no addon, and unloads it, which RTLD_NODELETE prevents.
 */
export function loadFuse() {
  const require = createRequire(import.meta.url);
  const root = join(require.resolve("fuse-native/package.json"), "..");
  const { RTLD_NOW, RTLD_GLOBAL } = constants.dlopen;
  try {
    const flags = RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE;
    process.dlopen({ exports: {} }, join(root, "prebuilds/linux-x64/libfuse.so"), flags);
  } catch {} // "did not self-register"; if it isn't there, the system's is looked for
  return require("fuse-native");
}
