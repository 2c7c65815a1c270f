// Filter: a table of calls as a program of classic BPF for seccomp(2). man seccomp(2), "Filters"; linux, seccomp_filter.rst. Pure.
// Control plane.

import type { ArgumentTest, Call, Need } from "./calls.ts";

/** What becomes of a call that isn't in the table. */
export const Verdict = {
  kill: 0x80000000,
  log: 0x7ffc0000,
  errno: 0x00050000,
  allow: 0x7fff0000,
} as const;

/** Codes of struct sock_filter that are used here: linux/bpf_common.h. */
export const Op = { load: 0x20, jumpEqual: 0x15, jumpAtLeast: 0x35, and: 0x54, end: 0x06 } as const;
/** struct seccomp_data: s32 nr, u32 arch, u64 instruction pointer, u64 arguments. */
export const SeccompData = { number: 0, arch: 4, args: 16, bytes: 64 } as const;
export const INSTRUCTION_BYTES = 8;
export const AUDIT_ARCH_X86_64 = 0xc000003e;
/** Calls of the x32 interface have this bit: another table. */
const X32_BIT = 0x40000000;

/** Room for all entries that there are: a program is made while a sandbox starts, in code that runs cold, so nothing is built twice. */
const WORDS_MAX = 2048;

/** The instructions of a program as they are made: two words each, as struct sock_filter has them. */
class Program {
  readonly #words = new Uint32Array(WORDS_MAX);
  #count = 0;

  add(code: number, jt: number, jf: number, k: number): void {
    this.#words[this.#count++] = code | (jt << 16) | (jf << 24);
    this.#words[this.#count++] = k;
  }

  end(verdict: number): void {
    this.add(Op.end, 0, 0, verdict);
  }

  load(offset: number): void {
    this.add(Op.load, 0, 0, offset);
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer, 0, 4 * this.#count);
  }
}

/** Instructions of a test, of a list of them that ends in a verdict, and of several such. */
const lengthOfTest = ({ mask }: ArgumentTest): number => (mask === undefined ? 2 : 3);

function lengthOfTests(tests: readonly ArgumentTest[]): number {
  let length = 1;
  for (const test of tests) length += lengthOfTest(test);
  return length;
}

/** "Allow" when all tests hold, else it goes on behind itself. */
function addTests(program: Program, tests: readonly ArgumentTest[], pid: number): void {
  let rest = lengthOfTests(tests);
  for (const test of tests) {
    rest -= lengthOfTest(test);
    program.load(SeccompData.args + 8 * test.arg);
    if (test.mask !== undefined) program.add(Op.and, 0, 0, test.mask);
    if (test.not !== undefined) program.add(Op.jumpEqual, rest, 0, test.not);
    else program.add(Op.jumpEqual, 0, rest, test.is === "self" ? pid : test.is!);
  }
  program.end(Verdict.allow);
}

/** An entry: the number is loaded, and is still when it is another call's. */
function addCall(program: Program, call: Call, otherwise: number, pid: number): void {
  const { number, when } = call;
  let length = 1;
  for (const tests of when ?? []) length += lengthOfTests(tests);
  program.add(Op.jumpEqual, 0, length, number);
  if (when === undefined) {
    program.end(Verdict.allow);
    return;
  }
  for (const tests of when) addTests(program, tests, pid);
  program.end(call.refusal === undefined ? otherwise : Verdict.errno | call.refusal);
}

/** Whether a gofer with these needs has an entry of the table. */
export function isNeeded({ needs }: Call, has: ReadonlySet<Need>): boolean {
  if (needs === undefined) return true;
  for (const need of needs) if (has.has(need)) return true;
  return false;
}

/**
 * The program for seccomp(2), of the entries that are needed: `otherwise` is the verdict on what none allows; of entries of one call, one
 * behind the other, the first that is needed counts. `pid` is the process's own.
 */
export function filterProgram(
  calls: readonly Call[],
  needs: ReadonlySet<Need>,
  otherwise: number,
  pid: number,
): Uint8Array {
  const program = new Program();
  program.load(SeccompData.arch);
  program.add(Op.jumpEqual, 1, 0, AUDIT_ARCH_X86_64);
  program.end(Verdict.kill);
  program.load(SeccompData.number);
  program.add(Op.jumpAtLeast, 0, 1, X32_BIT);
  program.end(Verdict.kill);
  let last = -1;
  for (const call of calls) {
    if (call.number === last || !isNeeded(call, needs)) continue;
    addCall(program, call, otherwise, pid);
    last = call.number;
  }
  program.end(otherwise);
  return program.bytes;
}
