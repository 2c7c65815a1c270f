// Bpf: runs a filter for seccomp(2) as the kernel does, over the part of classic BPF that filters are made of here. man seccomp(2);
// linux, seccomp_filter.rst. Tests only.

import { AUDIT_ARCH_X86_64, INSTRUCTION_BYTES, Op, SeccompData } from "../../lib/gofer/filter.ts";

export interface SystemCall {
  readonly number: number;
  readonly args?: readonly number[];
  readonly arch?: number;
}

function dataOf({ number, args = [], arch = AUDIT_ARCH_X86_64 }: SystemCall): Buffer {
  const data = Buffer.alloc(SeccompData.bytes);
  data.writeUInt32LE(number >>> 0, SeccompData.number);
  data.writeUInt32LE(arch >>> 0, SeccompData.arch);
  for (const [i, arg] of args.entries()) {
    data.writeBigUInt64LE(BigInt.asUintN(64, BigInt(arg)), SeccompData.args + 8 * i);
  }
  return data;
}

/** The verdict of a program on a call. Throws for what the kernel would refuse: an unknown code, a jump or a load out of bounds. */
export function verdictOf(program: Uint8Array, call: SystemCall): number {
  const code = Buffer.from(program.buffer, program.byteOffset, program.byteLength);
  const data = dataOf(call);
  let a = 0;
  for (let at = 0; at + INSTRUCTION_BYTES <= code.length; at += INSTRUCTION_BYTES) {
    const op = code.readUInt16LE(at);
    const k = code.readUInt32LE(at + 4);
    const jump = (isTrue: boolean) => code.readUInt8(at + (isTrue ? 2 : 3)) * INSTRUCTION_BYTES;
    if (op === Op.end) return k;
    if (op === Op.load) {
      if (k % 4 !== 0) throw new Error(`a load at ${k}`);
      a = data.readUInt32LE(k);
    } else if (op === Op.and) a = (a & k) >>> 0;
    else if (op === Op.jumpEqual) at += jump(a === k);
    else if (op === Op.jumpAtLeast) at += jump(a >= k);
    else throw new Error(`code ${op} at ${at}`);
  }
  throw new Error("it goes over its end");
}
