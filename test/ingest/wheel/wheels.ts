// Owns: wheels made for tests, sound and hostile, and what they import to. Plane: control.

import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { importWheel, type WheelOptions } from "../../../lib/ingest/wheel/import.ts";
import { keeper } from "../archives.ts";
import { zipOf } from "../conda/packages.ts";

export interface WheelFile {
  readonly name: string;
  readonly content: Buffer | string;
  readonly isExecutable?: boolean;
  /** Instead of that of a plain file. */
  readonly mode?: number;
}

export interface WheelSpec {
  readonly project?: string;
  readonly version?: string;
  readonly tag?: string;
  readonly files?: readonly WheelFile[];
  readonly entryPoints?: string;
  readonly wheelText?: string;
  /** Changes the rows of RECORD. */
  readonly record?: (rows: string[]) => string[];
}

export const NAME = "demo_pkg-1.0-py3-none-any.whl";
const dir = mkdtempSync(join(tmpdir(), "burrow-wheel-"));
process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
let count = 0;

export function rowOf(name: string, content: Buffer | string): string {
  const bytes = Buffer.from(content);
  const cell = /[",]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
  return `${cell},sha256=${createHash("sha256").update(bytes).digest("base64url")},${bytes.length}`;
}

export function wheelOf(spec: WheelSpec = {}): Buffer {
  const { project = "demo_pkg", version = "1.0", tag = "py3-none-any", files = [] } = spec;
  const info = `${project}-${version}.dist-info`;
  const all: WheelFile[] = [
    ...files,
    {
      name: `${info}/METADATA`,
      content: `Metadata-Version: 2.1\nName: ${project}\nVersion: ${version}\n`,
    },
    {
      name: `${info}/WHEEL`,
      content: spec.wheelText ?? `Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: ${tag}\n`,
    },
  ];
  if (spec.entryPoints !== undefined) {
    all.push({ name: `${info}/entry_points.txt`, content: spec.entryPoints });
  }
  const rows = all
    .filter(({ name }) => !name.endsWith("/"))
    .map(({ name, content }) => rowOf(name, content));
  rows.push(`${info}/RECORD,,`);
  const record = (spec.record?.(rows) ?? rows).map((row) => `${row}\n`).join("");
  all.push({ name: `${info}/RECORD`, content: record });
  return zipOf(
    all.map(({ name, content, isExecutable, mode }) => ({
      name,
      content: Buffer.from(content),
      isDeflated: true,
      mode: mode ?? 0o100000 + (isExecutable === true ? 0o755 : 0o644),
    })),
  );
}

/** A file of these bytes, in a folder of its own. */
export function fileOf(bytes: Buffer, name = NAME): string {
  const path = join(mkdtempSync(join(dir, `${++count}-`)), name);
  writeFileSync(path, bytes);
  return path;
}

export async function imported(path: string, options: Partial<WheelOptions> = {}) {
  const sink = keeper();
  const result = await importWheel(path, {
    sink,
    prefix: "/opt/env",
    pythonVersion: "3.11",
    ...options,
  });
  const files = new Map(
    result.entries.flatMap((entry) =>
      entry.type === "file"
        ? [[entry.path, { mode: entry.mode, content: sink.kept.get(entry.blob.digest)! }] as const]
        : [],
    ),
  );
  return { ...result, files, sink };
}
