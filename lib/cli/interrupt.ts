// Interrupts: what must not stay behind when a signal ends a command half way. Control plane.

import { constants } from "node:os";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const cleanups = new Set<() => void>();

function end(signal: NodeJS.Signals): void {
  for (const cleanup of cleanups) {
    try {
      cleanup();
    } catch {} // the others have their turn
  }
  process.exit(128 + constants.signals[signal]);
}

/** Has `cleanup` run before a signal ends the process; until the returned function is called. */
export function onInterrupt(cleanup: () => void): () => void {
  if (cleanups.size === 0) for (const signal of SIGNALS) process.on(signal, end);
  cleanups.add(cleanup);
  return () => {
    if (!cleanups.delete(cleanup) || cleanups.size > 0) return;
    for (const signal of SIGNALS) process.off(signal, end);
  };
}

/** Has no signal end the process by itself, where one who listens comes after another; until the returned function is called. */
export function holdSignals(): () => void {
  const hear = () => {};
  for (const signal of SIGNALS) process.on(signal, hear);
  return () => {
    for (const signal of SIGNALS) process.off(signal, hear);
  };
}
