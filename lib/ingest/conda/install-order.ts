// The order in which packages are linked: each after what it depends on, otherwise by name, so that the same packages always stack
// in the same order and the same file wins where several write it. Pure. Control plane.

import { dependencyName } from "./match-spec.ts";

export interface Ordered {
  /** Lower case. */
  readonly name: string;
  readonly depends: readonly string[];
}

/**
 * Packages in install order. Dependencies outside the list don't count. In a circle (python needs pip, which needs python) the
 * dependency that closes it is ignored, python's always: conda links it before all that is made of it.
 */
export function installOrder<T extends Ordered>(packages: readonly T[]): T[] {
  const byName = new Map(packages.map((item) => [item.name, item]));
  const order: T[] = [];
  const state = new Map<string, "open" | "done">();
  const names = [...byName.keys()].sort();
  for (const start of [...names.filter((name) => name === "python"), ...names]) {
    // A stack of our own: chains of dependencies are as long as a channel likes.
    const stack: { name: string; next: string[] }[] = [];
    const enter = (name: string) => {
      if (state.has(name)) return;
      state.set(name, "open");
      stack.push({ name, next: namesOf(byName.get(name)!, byName).reverse() });
    };
    enter(start);
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const next = top.next.pop();
      if (next !== undefined) {
        enter(next);
        continue;
      }
      state.set(top.name, "done");
      order.push(byName.get(top.name)!);
      stack.pop();
    }
  }
  return order;
}

/** The names in the list that a package depends on, sorted. */
function namesOf({ name, depends }: Ordered, byName: ReadonlyMap<string, Ordered>): string[] {
  const names = new Set<string>();
  for (const text of depends) {
    const needed = dependencyName(text);
    // pip and setuptools come as dependencies of python and are themselves made for it.
    const isBack =
      name === "python" &&
      needed !== undefined &&
      byName.get(needed)?.depends.some((one) => dependencyName(one) === "python");
    if (needed !== undefined && needed !== name && byName.has(needed) && !isBack) names.add(needed);
  }
  return [...names].sort();
}
