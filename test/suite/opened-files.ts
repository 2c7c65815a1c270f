// Reading a file of a view as a sentry does, through a real gofer. Tests only.

import { close, contentOf, open, read, walkTo } from "./lisafs-calls.ts";
import type { LisafsClient } from "./lisafs-client.ts";

const READ_BYTES = 1 << 20;

/** All of a file of this size, from the donated FD or by PRead. Throws when the gofer says an errno. */
export function readFile(
  client: LisafsClient,
  name: string,
  sizeBytes: number,
): { bytes: Buffer; isDonated: boolean } {
  const { fd, hostFd } = open(client, walkTo(client, name));
  try {
    if (hostFd >= 0) return { bytes: contentOf(hostFd), isDonated: true };
    const parts: Buffer[] = [];
    for (let at = 0; at < sizeBytes; at += READ_BYTES)
      parts.push(Buffer.from(read(client, fd, at, Math.min(READ_BYTES, sizeBytes - at))));
    return { bytes: Buffer.concat(parts), isDonated: false };
  } finally {
    client.takeBack([hostFd].filter((each) => each >= 0));
    close(client, fd);
  }
}
