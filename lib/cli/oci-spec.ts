// The OCI bundle of a query: config.json for runsc, docker or containerd, over mounts that Burrow serves. Pure. Control plane.

/** A directory or file of the host. */
export interface Bind {
  readonly source: string;
  readonly isReadOnly: boolean;
}

export interface QuerySpec {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly isTerminal: boolean;
  readonly hostname: string;
  /** Source of the root: <state>/mounts/<id> of a view. */
  readonly root: string;
  /** Source of /tmp: <state>/mounts/<id> of an upper. */
  readonly tmp: string;
  /** What of the host is passed through, by destination. */
  readonly binds: Readonly<Record<string, Bind>>;
  readonly memoryBytes?: number;
  /** Of a view with an upper, or for a runsc that is told to lay its own over the root. */
  readonly isRootWritable?: boolean;
}

/** config.json as an object. The root is read-only: writing goes to /tmp. No capabilities, no new privileges. */
export function ociSpec(query: QuerySpec): unknown {
  const none: string[] = [];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: query.isTerminal,
      user: { uid: query.uid, gid: query.gid },
      args: query.command,
      env: Object.entries(query.env).map(([name, value]) => `${name}=${value}`),
      cwd: query.cwd,
      capabilities: { bounding: none, effective: none, inheritable: none, permitted: none },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 65536, soft: 65536 }],
      noNewPrivileges: true,
    },
    root: { path: query.root, readonly: query.isRootWritable !== true },
    hostname: query.hostname,
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "mode=755", "size=65536k"],
      },
      {
        destination: "/sys",
        type: "sysfs",
        source: "sysfs",
        options: ["nosuid", "noexec", "nodev", "ro"],
      },
      { destination: "/tmp", type: "bind", source: query.tmp, options: ["rbind", "rw"] },
      ...Object.entries(query.binds).map(([destination, { source, isReadOnly }]) => ({
        destination,
        type: "bind",
        source,
        options: ["rbind", isReadOnly ? "ro" : "rw"],
      })),
    ],
    linux: {
      namespaces: [
        { type: "pid" },
        { type: "network" },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
      ],
      ...(query.memoryBytes === undefined
        ? {}
        : { resources: { memory: { limit: query.memoryBytes } } }),
    },
  };
}
