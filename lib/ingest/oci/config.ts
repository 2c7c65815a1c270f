// The config of an image: which layers, for which platform, and what a command is started with. OCI image-spec config.md; docker's
// is the same where it matters. Control plane.

import { posix } from "node:path";
import { type Digest, parseDigest } from "../../base/digest.ts";
import { PATH_MAX_BYTES } from "../../base/limits.ts";
import { badArchive } from "../conda/errors.ts";
import { asObject, isText, type Json, listOf, type Platform, platformOf } from "./document.ts";

/** Docker takes 127; no builder makes more than a few hundred. */
export const LAYERS_MAX = 512;
/** Words of a command, and variables. */
const WORDS_MAX = 4_096;

/** What a container of the image is started with. UTF-8 text. */
export interface ImageDefaults {
  /** Each "NAME=VALUE". */
  readonly env: readonly string[];
  /** Absolute; "" when the image has none. */
  readonly workingDir: string;
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  /** User, uid, user:group, or nothing. */
  readonly user: string;
}

export interface ImageConfig {
  readonly platform: Platform;
  /** sha256 of each layer's plain tar, lowest first. */
  readonly diffIds: readonly Digest[];
  readonly defaults: ImageDefaults;
}

/** Takes a config apart; BURROW_BAD_ARCHIVE for what can't be one. */
export function readConfig(config: Json, archive: string, where: string): ImageConfig {
  const rootfs = asObject(config["rootfs"], archive, `${where}: rootfs`);
  if (rootfs["type"] !== "layers") throw badArchive(archive, "its rootfs is not of layers", where);
  const what = `${where}: rootfs.diff_ids`;
  const diffIds = listOf(rootfs["diff_ids"], isText, LAYERS_MAX, archive, what).map((text) => {
    const digest = text.startsWith("sha256:") ? parseDigest(text) : undefined;
    if (digest === undefined) throw badArchive(archive, "a diff_id is no sha256", where);
    return digest;
  });
  const { config: plain } = config;
  const started = plain === undefined || plain === null ? {} : asObject(plain, archive, where);
  return { platform: platformOf(config), diffIds, defaults: defaultsOf(started, archive, where) };
}

function defaultsOf(config: Json, archive: string, where: string): ImageDefaults {
  const words = (key: string) =>
    listOf(config[key], isText, WORDS_MAX, archive, `${where}: ${key}`);
  const text = (key: string) => {
    const value = config[key] ?? "";
    if (isText(value) && value.length <= PATH_MAX_BYTES) return value;
    throw badArchive(archive, `its ${key} is no text`, where);
  };
  const env = words("Env");
  const odd = env.find((variable) => variable.indexOf("=") < 1);
  if (odd !== undefined) throw badArchive(archive, `"${odd}" of its Env is no NAME=VALUE`, where);
  const workingDir = text("WorkingDir");
  return {
    env,
    workingDir: workingDir === "" ? "" : posix.resolve("/", workingDir),
    entrypoint: words("Entrypoint"),
    cmd: words("Cmd"),
    user: text("User"),
  };
}
