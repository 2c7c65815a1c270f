// What is seen of Python's modules beside what Python itself says of them: text beside `ast`, byte code beside `dis`, for much of its library.

import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import { test } from "tap";
import { importsOfCode } from "../../lib/preload/python-code.ts";
import { importsOfText, type PythonImport } from "../../lib/preload/python-text.ts";

/** For many files of the library a line of JSON: path, imports by ast, byte code, imports by dis. */
const PROGRAM = `
import ast, base64, dis, importlib.util, json, marshal, os, sysconfig
def walk(body, out):
    for n in body:
        if isinstance(n, ast.Import): out += [[0, a.name, []] for a in n.names]
        elif isinstance(n, ast.ImportFrom): out.append([n.level, n.module or "", [a.name for a in n.names]])
        elif isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)): pass
        elif isinstance(n, ast.If) and ast.unparse(n.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"): walk(n.orelse, out)
        else:
            for f in ("body", "orelse", "handlers", "finalbody", "cases"): walk(getattr(n, f, None) or [], out)
def code(co):
    out, consts = [], []
    for i in dis.get_instructions(co):
        if i.opname == "LOAD_CONST": consts.append(i.argval)
        if i.opname == "IMPORT_NAME": out.append([consts[-2], i.argval, list(consts[-1] or [])])
    return out
class Run(ast.NodeTransformer):
    def visit_If(self, n):
        self.generic_visit(n)
        if ast.unparse(n.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"): n.body = [ast.Pass()]
        return n
root = sysconfig.get_path("stdlib")
for folder in [root, *(os.path.join(root, each) for each in ("asyncio", "concurrent", "email", "importlib", "json", "unittest"))]:
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not name.endswith(".py"): continue
        try:
            text = open(path, encoding="utf8").read()
            tree, co = ast.parse(text), compile(text, path, "exec", dont_inherit=True)
        except Exception: continue
        out = []
        walk(tree.body, out)
        pyc = importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(co)
        run = compile(ast.fix_missing_locations(Run().visit(tree)), path, "exec", dont_inherit=True)
        print(json.dumps([path, out, base64.b64encode(pyc).decode(), code(run)]))
`;

type Row = [string, unknown[], string, unknown[]];

function listed(found: readonly PythonImport[]): unknown[] {
  return found.map(({ level, module, names }) => [level, module, names]);
}

/** In no order, and without "*", which is no name of text's. */
function shown(imports: readonly unknown[]): string[] {
  return imports.map((each) => JSON.stringify(each).replace(/"\*"/, "")).sort();
}

const hasPython = spawnSync("python3", ["-c", "import ast; ast.unparse"]).status === 0;

test("text and byte code of Python's library", {
  skip: hasPython ? false : "no python3 of 3.9 or later",
}, async (t) => {
  const words = ["-W", "ignore", "-c", PROGRAM];
  const out = execFileSync("python3", words, { encoding: "utf8", maxBuffer: 1 << 30 });
  const rows = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Row);
  t.ok(rows.length > 100, `${rows.length} files`);
  const wrong: string[] = [];
  let known = 0;
  for (const [path, byAst, code, byDis] of rows) {
    const text = fs.readFileSync(path, "utf8");
    if (shown(listed(importsOfText(text))).join() !== shown(byAst).join()) wrong.push(path);
    const found = importsOfCode(Buffer.from(code, "base64"));
    if (found === undefined) continue;
    known++;
    if (JSON.stringify(listed(found)) !== JSON.stringify(byDis)) wrong.push(`${path}, its code`);
  }
  t.same(wrong, []);
  t.comment(`${known} of them with byte code of a version that is known`);
});
