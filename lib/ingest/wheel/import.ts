// One wheel to the entries of its layer, below the prefix it is for: what `pip install --no-deps --no-compile --prefix` makes of it,
// every file held against RECORD. A wheel is hostile until shown otherwise; nothing of it runs. Control plane.

import { basename } from "node:path";
import type { ZipFile } from "yauzl";
import type { BlobRef } from "../../base/blob.ts";
import { BurrowError } from "../../base/error.ts";
import { nameOf } from "../../base/name.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import type { BlobSink } from "../../store/blob-sink.ts";
import { badArchive, badPackage } from "../conda/errors.ts";
import { type PythonTarget, pythonTarget } from "../conda/noarch.ts";
import { openArchive } from "../conda/verify.ts";
import { EntryTree, plainPath, Refusal } from "../entry-tree.ts";
import { addContent } from "../sink.ts";
import { openMember, openZip } from "../zip.ts";
import { type Member, type MemberLimits, readMembers } from "./members.ts";
import { hashOf, parseRecord, type RecordRow, RowCheck, recordText } from "./record.ts";
import {
  type EntryPoints,
  entryPointScripts,
  fixedScript,
  isWrapper,
  parseEntryPoints,
} from "./scripts.ts";
import { checkTags, normalName, type WheelName, wheelName } from "./tags.ts";

export interface WheelOptions {
  readonly sink: BlobSink;
  /** Absolute path of the environment, as programs in a sandbox see it. */
  readonly prefix: string;
  /** Version of its Python, "3.11" or longer. */
  readonly pythonVersion: string;
  /** What shebangs name; PREFIX/bin/pythonX.Y when missing. */
  readonly executable?: string;
  /** Latin1 path below the prefix where that Python looks for packages, when it isn't lib/pythonX.Y/site-packages. */
  readonly sitePackages?: string;
  /** The wheel's name when the file has another: its tags are read from it. */
  readonly name?: string;
  /** Lower bounds than usual. */
  readonly limits?: MemberLimits;
}

export interface ImportedWheel {
  /** Relative to the prefix, sorted by nothing; directories come of themselves. */
  readonly entries: LayerEntry[];
  readonly project: string;
  readonly version: string;
}

const METADATA_MAX_BYTES = 32 * 1024 * 1024;
const SCRIPT_MAX_BYTES = 64 * 1024 * 1024;
const SIGNATURES = ["RECORD.jws", "RECORD.p7s"];
const FILE_MODE = 0o644;
const PROGRAM_MODE = 0o755;

/**
 * Imports the wheel in the file `path`. Throws BURROW_BAD_ARCHIVE (no sound zip), BURROW_BAD_PACKAGE (not what its RECORD or name
 * says), BURROW_UNSUPPORTED (for another Python or platform, or a newer format), BURROW_USAGE and what the sink throws. What it
 * put into the sink before is harmless there.
 */
export async function importWheel(path: string, options: WheelOptions): Promise<ImportedWheel> {
  const fileName = options.name ?? basename(path);
  const python = pythonTarget(options.pythonVersion, options.sitePackages);
  const name = wheelName(fileName);
  checkTags(fileName, name, python);
  await using file = await openArchive(path, fileName);
  const zip = await openZip(`/proc/self/fd/${file.fd}`, fileName);
  try {
    const members = await readMembers(zip, fileName, options.limits);
    const importer = new Importer(zip, members, fileName, name, python, options);
    return { entries: await importer.run(), project: name.project, version: name.version };
  } finally {
    zip.close();
  }
}

class Importer {
  readonly #zip: ZipFile;
  readonly #members: ReadonlyMap<string, Member>;
  readonly #wheel: string;
  readonly #name: WheelName;
  readonly #python: PythonTarget;
  readonly #options: WheelOptions;
  readonly #executable: string;
  readonly #info: string;
  readonly #tree = new EntryTree();
  /** By their path in the wheel's RECORD: the rows of the installed one. */
  readonly #rows = new Map<string, RecordRow>();
  /** Rows of files that were made here. */
  readonly #generated: RecordRow[] = [];
  #time = 0;

  constructor(
    zip: ZipFile,
    members: ReadonlyMap<string, Member>,
    wheel: string,
    name: WheelName,
    python: PythonTarget,
    options: WheelOptions,
  ) {
    this.#zip = zip;
    this.#members = members;
    this.#wheel = wheel;
    this.#name = name;
    this.#python = python;
    this.#options = options;
    this.#executable = options.executable ?? `${options.prefix}/bin/python${python.version}`;
    this.#info = this.#findInfo();
  }

  async run(): Promise<LayerEntry[]> {
    await this.#checkFormat();
    const record = `${this.#info}/RECORD`;
    const rows = parseRecord((await this.#whole(record)).toString("utf8"), this.#wheel, record);
    this.#checkListed(rows, record);
    const points = await this.#entryPoints();
    for (const row of rows) this.#rows.set(row.path, row);
    // All paths are judged before the first byte is stored.
    const places = new Map([...this.#members.keys()].map((name) => [name, this.#place(name)]));
    for (const member of this.#members.values()) {
      await this.#install(member, places.get(member.name)!, points);
    }
    for (const script of entryPointScripts(points, this.#executable, this.#python.version)) {
      await this.#generate(`bin/${nameOf(script.name)}`, script.content, PROGRAM_MODE);
    }
    const info = `${this.#python.sitePackages}/${nameOf(this.#info)}`;
    await this.#generate(`${info}/INSTALLER`, Buffer.from("burrow\n"), FILE_MODE);
    const installed = recordText([...this.#rows.values(), ...this.#generated]);
    await this.#put(`${info}/RECORD`, FILE_MODE, Buffer.from(installed));
    return [...this.#tree.entries()];
  }

  /** The one .dist-info, which must be that of the file's name. */
  #findInfo(): string {
    const tops = new Set([...this.#members.keys()].map((name) => name.split("/", 1)[0]!));
    const infos = [...tops].filter((top) => top.endsWith(".dist-info"));
    if (infos.length !== 1) {
      throw badPackage(this.#wheel, `it has ${infos.length} .dist-info directories, not one`);
    }
    const [info] = infos as [string];
    const project = info.slice(0, -".dist-info".length).replace(/-[^-]*$/, "");
    if (normalName(project) === normalName(this.#name.project)) return info;
    throw badPackage(this.#wheel, "its .dist-info is another project's", info);
  }

  async #checkFormat(): Promise<void> {
    const file = `${this.#info}/WHEEL`;
    const text = (await this.#whole(file)).toString("utf8");
    this.#time = timeOf(this.#members.get(file)!);
    const version = /^Wheel-Version:\s*(\d+)\.(\d+)\s*$/im.exec(text);
    if (version === null) throw badPackage(this.#wheel, "it has no Wheel-Version", file);
    if (version[1] === "1") return;
    throw new BurrowError("BURROW_UNSUPPORTED", `wheel format ${version[1]}.${version[2]}, not 1`, {
      context: { package: this.#wheel },
    });
  }

  /** Every file must be in RECORD and the other way round; RECORD itself and its signatures need no hash. */
  #checkListed(rows: readonly RecordRow[], record: string): void {
    const listed = new Map(rows.map((row) => [row.path, row]));
    const exempt = new Set([record, ...SIGNATURES.map((name) => `${this.#info}/${name}`)]);
    for (const name of this.#members.keys()) {
      if (exempt.has(name)) continue;
      const row = listed.get(name);
      if (row === undefined) throw badPackage(this.#wheel, "it is not in RECORD", name);
      new RowCheck(row, this.#wheel);
    }
    for (const { path } of rows) {
      if (this.#members.has(path) || exempt.has(path)) continue;
      throw badPackage(this.#wheel, "it is in RECORD and not in the wheel", path);
    }
  }

  async #entryPoints(): Promise<EntryPoints> {
    const file = `${this.#info}/entry_points.txt`;
    if (!this.#members.has(file)) return new Map();
    return parseEntryPoints((await this.#whole(file)).toString("utf8"), this.#wheel, file);
  }

  /** Where a member goes: a latin1 path below the prefix. PEP 427 "The .data directory". */
  #place(name: string): string {
    const [top, scheme, ...rest] = name.split("/") as [string, ...string[]];
    if (!top.endsWith(".data")) return this.#plain(`${this.#python.sitePackages}/${nameOf(name)}`);
    const { project } = this.#name;
    const headers = `include/python${this.#python.version}/${nameOf(project.replaceAll("_", "-"))}`;
    const schemes = new Map([
      ["purelib", `${this.#python.sitePackages}/`],
      ["platlib", `${this.#python.sitePackages}/`],
      ["scripts", "bin/"],
      ["headers", `${headers}/`],
      ["data", ""],
    ]);
    const base = schemes.get(scheme ?? "");
    if (base === undefined || rest.length === 0) {
      throw badPackage(this.#wheel, "its .data directory has no such scheme", name);
    }
    return this.#plain(`${base}${nameOf(rest.join("/"))}`);
  }

  #plain(text: string): string {
    const path = plainPath(text);
    if (path instanceof Refusal) throw badArchive(this.#wheel, path.why, text);
    return path;
  }

  async #install(member: Member, path: string, points: EntryPoints): Promise<void> {
    const { name } = member;
    const row = this.#rows.get(name);
    if (name === `${this.#info}/RECORD`) return; // written last
    const mode = member.isExecutable ? PROGRAM_MODE : FILE_MODE;
    if (/^[^/]+\.data\/scripts\//.test(name)) {
      if (isWrapper(name.slice(name.lastIndexOf("/") + 1), points)) return;
      const content = await this.#whole(name, SCRIPT_MAX_BYTES);
      const fixed = fixedScript(content, this.#executable);
      await this.#put(path, mode, fixed ?? content, member);
      this.#rows.set(name, fixed === undefined ? this.#moved(row!, path) : this.#made(path, fixed));
      return;
    }
    const { uncompressedSize: size } = member.entry;
    const bytes = await openMember(this.#zip, member.entry, this.#wheel);
    // Signatures are in no RECORD that they sign.
    const check = row === undefined || row.hash === "" ? undefined : new RowCheck(row, this.#wheel);
    const checked = check === undefined ? bytes : check.through(bytes);
    const blob = await addContent(this.#options.sink, checked, size, (actual) =>
      badArchive(this.#wheel, `its size is ${size} bytes and ${actual} in fact`, nameOf(name)),
    );
    this.#add({ type: "file", path, mode, ...this.#attributes(timeOf(member)), blob });
    this.#rows.set(name, this.#moved(row ?? { path: name, hash: "", size: "" }, path));
  }

  /** The row of a file whose content is the wheel's, at its place. */
  #moved(row: RecordRow, path: string): RecordRow {
    return { ...row, path: this.#relative(path) };
  }

  #made(path: string, content: Buffer): RecordRow {
    return { path: this.#relative(path), hash: hashOf(content), size: String(content.length) };
  }

  /** A path below the prefix as installed RECORDs have it: from site-packages. */
  #relative(path: string): string {
    const from = this.#python.sitePackages.split("/");
    const to = path.split("/");
    let same = 0;
    while (same < from.length && from[same] === to[same]) same++;
    const names = [...from.slice(same).map(() => ".."), ...to.slice(same)];
    return Buffer.from(names.join("/"), "latin1").toString("utf8");
  }

  async #generate(path: string, content: Buffer, mode: number): Promise<void> {
    await this.#put(path, mode, content);
    this.#generated.push(this.#made(path, content));
  }

  async #put(path: string, mode: number, content: Buffer, member?: Member): Promise<void> {
    const blob: BlobRef = await this.#options.sink.addBytes(content);
    const time = member === undefined ? this.#time : timeOf(member);
    this.#add({ type: "file", path, mode, ...this.#attributes(time), blob });
  }

  #attributes(mtimeSec: number) {
    return { uid: 0, gid: 0, mtimeSec, mtimeNs: 0 };
  }

  #add(entry: LayerEntry): void {
    const refusal = this.#tree.add(entry);
    if (refusal !== undefined) throw badArchive(this.#wheel, refusal.why, entry.path);
  }

  /** A member's bytes in memory, checked against its row once the rows are known. */
  async #whole(name: string, maxBytes = METADATA_MAX_BYTES): Promise<Buffer> {
    const member = this.#members.get(name);
    if (member === undefined) throw badPackage(this.#wheel, "it is missing", name);
    const { entry } = member;
    if (entry.uncompressedSize > maxBytes) {
      throw badArchive(this.#wheel, `it is over ${maxBytes} bytes`, nameOf(name));
    }
    const parts: Uint8Array[] = [];
    for await (const chunk of await openMember(this.#zip, entry, this.#wheel)) {
      parts.push(chunk as Buffer);
    }
    const bytes = Buffer.concat(parts);
    const row = this.#rows.get(name);
    if (row === undefined || row.hash === "") return bytes;
    const check = new RowCheck(row, this.#wheel);
    check.update(bytes);
    check.finish();
    return bytes;
  }
}

/** A member's time, seconds since 1970: a zip's is local and here taken for UTC, so that it's the same on every machine. */
function timeOf({ entry }: Member): number {
  const ms = entry.getLastModDate({ timezone: "UTC", forceDosFormat: true }).getTime();
  return Number.isFinite(ms) ? Math.floor(ms / 1000) : 0;
}
