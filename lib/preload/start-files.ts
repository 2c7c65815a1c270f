// Start files: what each start of an environment's Python reads a line of, out of many packages: an environment has it once more, together.
// docs/design/0041-even-ranges.md. Control plane.

import type { Digest } from "../base/digest.ts";
import { Index } from "../layer/index.ts";
import { PythonPath } from "./python-path.ts";
import { ViewFiles } from "./view-files.ts";

/** Of one: most have a line. */
const FILE_MAX_BYTES = 4_096;
/** Of all together: as many as site reads of one directory. */
const FILES_MAX = 64;

/** The `.pth` files of a snapshot that is a Python's prefix. */
export function startFiles(indexBytes: Uint8Array): Digest[] {
  const index = new Index(indexBytes);
  const files = new ViewFiles([{ at: "/", index }]);
  const paths = PythonPath.minorsAt(files, "").flatMap(
    (minor) => PythonPath.at(files, "", minor).configuration,
  );
  const found = paths.map((path) => files.file(path));
  const small = found.flatMap((file) =>
    file !== undefined && file.size > 0 && file.size <= FILE_MAX_BYTES ? [file.row] : [],
  );
  return [...new Set(small.map((row) => index.blobDigest(row)))].slice(0, FILES_MAX);
}
