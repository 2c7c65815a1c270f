// Channels: where repodata and packages lie, as a user names them: a directory, a file, http(s) or s3 URL, or a name below the channel
// alias, as conda has it. Pure but for resolving paths. Control plane.

import { basename, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { BurrowError } from "../../base/error.ts";
import { isS3, parseS3 } from "../../store/s3-place.ts";
import { plainUrl } from "./record.ts";

export interface Channel {
  /** Ends with "/". May hold a password or token. */
  readonly url: string;
  /** The directory of a local channel. */
  readonly path?: string;
  /** As a spec may call it before "::", and as people read it. */
  readonly name: string;
}

/** conda/base/constants.py DEFAULT_CHANNEL_ALIAS. */
export const DEFAULT_CHANNEL_ALIAS = "https://conda.anaconda.org";
/** conda/base/constants.py DEFAULT_CHANNELS_UNIX: what "defaults" means. */
const DEFAULTS = ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"];
const NAME = /^[A-Za-z0-9][\w.-]*(\/(label\/)?[\w.-]+)*$/;

/** How names become channels. */
export interface ChannelSettings {
  /** What stands before a channel's name. */
  readonly alias: string;
  /** Where relative directories start. */
  readonly folder: string;
}

/**
 * The channels that a text means: one, or those of "defaults". A directory starts with "." or "/"; a bare word is a channel's name
 * even where a directory is called so, as with conda. BURROW_USAGE for what is no channel.
 */
export function channelsOf(text: string, settings: ChannelSettings): Channel[] {
  if (text === "nodefaults") return [];
  if (text === "defaults") return DEFAULTS.map((url) => remote(url));
  if (/^https?:\/\//.test(text) && URL.canParse(text)) return [remote(text)];
  if (isS3(text)) return [onS3(text)];
  if (/^[./]/.test(text)) {
    return [local(resolve(settings.folder, text))];
  }
  if (text.startsWith("file://")) {
    try {
      return [local(fileURLToPath(text))];
    } catch (cause) {
      throw new BurrowError("BURROW_USAGE", `the channel ${text} names no local path`, { cause });
    }
  }
  if (NAME.test(text)) return [remote(`${settings.alias.replace(/\/+$/, "")}/${text}`, text)];
  const shown = plainUrl(text);
  throw new BurrowError(
    "BURROW_USAGE",
    `"${shown}" is no channel: give a directory (./channel), a file, http, https or s3 URL, or a name`,
  );
}

function local(path: string): Channel {
  return { url: `${pathToFileURL(path).href}/`, path, name: basename(path) };
}

function onS3(text: string): Channel {
  parseS3(text);
  if (!text.includes("?")) return remote(text);
  const advice = "a channel on S3 takes its settings from the environment: AWS_ENDPOINT_URL_S3, …";
  throw new BurrowError("BURROW_USAGE", `${advice} Leave out what follows "?"`);
}

function remote(text: string, name?: string): Channel {
  const url = new URL(text);
  url.search = "";
  url.hash = "";
  url.pathname = `${url.pathname.replace(/\/+$/, "")}/`;
  return { url: url.href, name: name ?? (basename(url.pathname) || url.host) };
}

/** A channel as errors and progress show it: its directory, or its URL without secrets. */
export function showChannel(channel: Channel): string {
  return channel.path ?? plainUrl(channel.url);
}

/** Whether a spec's "TEXT::" means this channel. */
export function isCalled(channel: Channel, text: string): boolean {
  const bare = text.replace(/\/+$/, "");
  return [channel.name, channel.path, channel.url.slice(0, -1)].includes(bare);
}
