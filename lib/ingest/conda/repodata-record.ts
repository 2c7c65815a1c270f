// One record of repodata, checked field by field: what a channel says of an archive before anyone has seen it. Pure. Control plane.

import { ARCHIVE_BYTES_MAX } from "../../base/limits.ts";
import { ARCHIVE_SUFFIX } from "./dist.ts";
import { badRepodata, objectOf, type RecordSlice, type RepodataIndex } from "./repodata-scan.ts";

export interface RepodataRecord {
  readonly fileName: string;
  readonly name: string;
  readonly version: string;
  readonly build: string;
  readonly depends: readonly string[];
  readonly md5?: string;
  readonly sha256?: string;
  /** Bytes of the archive. */
  readonly size?: number;
  /** The record as the solver gets it: known fields of known types. */
  readonly json: Readonly<Record<string, unknown>>;
}

const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;
/** A version or build: no dash, which divides an archive's name, and nothing that a URL would have to escape. */
const PART = /^[A-Za-z0-9_.!+~]+$/;
const HEX = { md5: /^[0-9a-f]{32}$/i, sha256: /^[0-9a-f]{64}$/i } as const;
/** Dependencies of one record, and the length of one: meta packages name some 500. */
const LIST_MAX = 10_000;
const DEPENDENCY_MAX_CHARS = 4096;

/** Reads a record. BURROW_BAD_REPODATA for one that contradicts its archive's name or its place, or makes no sense. */
export function readRecord(
  index: RepodataIndex,
  slice: RecordSlice,
  subdir: string,
): RepodataRecord {
  const { fileName } = slice;
  const refuse = (why: string): never => {
    throw badRepodata(index.where, why, fileName);
  };
  const raw = objectOf(index.bytes, slice.start, slice.end, index.where, fileName);
  const text = (key: string, pattern: RegExp): string => {
    const value = raw[key];
    return typeof value === "string" && pattern.test(value) ? value : refuse(`its ${key} is none`);
  };
  const name = text("name", NAME);
  const version = text("version", PART);
  const build = text("build", PART);
  const stem = fileName.replace(ARCHIVE_SUFFIX, "");
  if (stem !== `${name}-${version}-${build}`) {
    refuse(`it says that it is ${name}-${version}-${build}, which its file's name denies`);
  }
  if (raw["subdir"] !== undefined && raw["subdir"] !== subdir) {
    refuse(`it stands in ${subdir} and says "${String(raw["subdir"]).slice(0, 40)}"`);
  }
  const depends = listOf(raw["depends"], "depends", refuse);
  const constrains = listOf(raw["constrains"], "constrains", refuse);
  const checked = {
    ...hash(raw, "md5", refuse),
    ...hash(raw, "sha256", refuse),
    ...sizeOf(raw["size"], refuse),
  };
  const buildNumber = raw["build_number"] ?? 0;
  if (!Number.isSafeInteger(buildNumber) || (buildNumber as number) < 0) {
    refuse("its build_number is none");
  }
  const json = {
    name,
    version,
    build,
    build_number: buildNumber,
    subdir,
    depends,
    constrains,
    ...checked,
    ...optionalFields(raw),
  };
  return { fileName, name: name.toLowerCase(), version, build, depends, ...checked, json };
}

/** Fields that weigh in a solve and can be left out when they are of another type. */
function optionalFields(raw: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  const { track_features: features, timestamp, noarch } = raw;
  const isList = Array.isArray(features) && features.every((one) => typeof one === "string");
  if (typeof features === "string" || isList) fields["track_features"] = features;
  if (Number.isSafeInteger(timestamp) && (timestamp as number) >= 0)
    fields["timestamp"] = timestamp;
  if (noarch === "python" || noarch === "generic") fields["noarch"] = noarch;
  return fields;
}

function listOf(value: unknown, key: string, refuse: (why: string) => never): readonly string[] {
  if (value === undefined || value === null) return [];
  const isFine =
    Array.isArray(value) &&
    value.length <= LIST_MAX &&
    value.every((one) => typeof one === "string" && one.length <= DEPENDENCY_MAX_CHARS);
  return isFine ? (value as string[]) : refuse(`its ${key} is no list of texts`);
}

function hash(
  raw: Readonly<Record<string, unknown>>,
  kind: "md5" | "sha256",
  refuse: (why: string) => never,
): { md5?: string; sha256?: string } {
  const value = raw[kind];
  if (value === undefined || value === null) return {};
  if (typeof value !== "string" || !HEX[kind].test(value)) return refuse(`its ${kind} is none`);
  return { [kind]: value.toLowerCase() };
}

function sizeOf(value: unknown, refuse: (why: string) => never): { size?: number } {
  if (value === undefined || value === null) return {};
  const isFine = Number.isSafeInteger(value) && (value as number) > 0;
  if (!isFine || (value as number) > ARCHIVE_BYTES_MAX) {
    refuse(`its size is absurd: ${String(value).slice(0, 40)}`);
  }
  return { size: value as number };
}
