// Device numbers as Linux's protocols send them. Pure; data-plane rules.

/** Linux, include/linux/kdev_t.h, new_encode_dev: 12 bits of major and 20 of minor. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;
}
