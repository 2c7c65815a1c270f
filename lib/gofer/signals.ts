// Signals of a server that a command has beside itself. Control plane.

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Leaves a terminal's signals, and those of a service manager, to the command, which they reach as well and which ends this process in its
 * order, by the leader. Node.js' own answer to them is a signal to itself, which a hardened server may not send.
 */
export function leaveSignals(): void {
  for (const signal of SIGNALS) process.on(signal, () => {});
}
