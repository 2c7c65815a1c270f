// The time that work takes of a CPU, whatever else a loaded machine does meanwhile. Test support.

/** Milliseconds of this process, its helper threads and the kernel on its behalf, while `work` runs. */
export function cpuMs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
