// Owns: programs that tests start as users start them. tap's runner puts a module loader of its own, with a thread of its own, into
// every Node.js process that a test starts, for coverage that nobody asks for: 0.15 s of CPU for each, more than burrow
// --version takes. .taprc imports this file into each test file's process, after the runner's. Plane: any.

const HOOKS = Symbol.for("process-on-spawn@*:singletonId");

// process-on-spawn 1.1.0: one state a process, with what is called at each start of a child.
const state = (globalThis as Record<symbol, unknown>)[HOOKS] as
  | { listeners: unknown[] }
  | undefined;
if (state !== undefined) state.listeners = [];
delete process.env["NODE_OPTIONS"];
