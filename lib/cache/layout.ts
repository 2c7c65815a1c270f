// Where everything lies in a cache directory: docs/format/cache.md. Pure. Any plane.

import type { Digest } from "../base/digest.ts";

export const CACHE_MARKER = "burrow-cache.json";
export const CACHE_FORMAT = 1;
export const DEFAULT_CACHE = "/var/cache/burrow";
export const DAEMON_SOCKET = "daemon.sock";
export const DAEMON_LOCK = "daemon.lock";
export const BOOT_FILE = "boot";

/** Folders of a cache. blobs, suspect, indexes, locators, images and profiles hold `ab/<64 hex>`; partial and tmp are flat. */
export const CACHE_FOLDERS = [
  "blobs",
  "suspect",
  "indexes",
  "locators",
  "images",
  "profiles",
  "partial",
  "tmp",
] as const;
export type CacheFolder = (typeof CACHE_FOLDERS)[number];

/** "ab" of a digest: the folder between. */
export function shardOf(digest: Digest): string {
  return digest.slice(0, 2);
}

/** Path of an object in one of the sharded folders. */
export function cachePath(root: string, folder: CacheFolder, digest: Digest): string {
  return `${root}/${folder}/${shardOf(digest)}/${digest}`;
}

/** Sockets of the servers that wait for a stub. */
export function standbyFolder(root: string): string {
  return `${root}/standby`;
}

/** Socket of the broker of shared servers: below the standbys', so that who finds these finds it. */
export function sharedFolder(root: string): string {
  return `${standbyFolder(root)}/shared`;
}

/** Where large blobs on their way are seen as files, if the daemon mounts them. */
export function lazyFolder(root: string): string {
  return `${root}/lazy`;
}

/** Who holds that mount while no daemon does, and its files. */
export function lazyStatePath(root: string): string {
  return `${root}/lazy.state`;
}

export function socketPath(root: string): string {
  return `${root}/${DAEMON_SOCKET}`;
}
