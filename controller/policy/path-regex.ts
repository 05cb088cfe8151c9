import { unreachable } from "../api/errors.ts";
import { parsePattern, PatternError, type CharacterSet, type PatternNode } from "./path-regex-parse.ts";

/** `states`: how many places a match can be in at once; the work for a path is at most its length times this. */
export type PathRegex =
  | { ok: true; states: number; matches: (path: string) => boolean }
  | { ok: false; /** Continues "the pattern …". */ reason: string };

const STATES_MAX = 2000;

/**
 * Compiles a pattern for whole paths, as if between `^(?:` and `)$` with the flag `s`. JavaScript's own engine backtracks:
 * the agent chooses the path, and could stop the guard with one. This one walks all possibilities at once (Thompson, Pike), in
 * time linear in the path.
 */
export function compilePathRegex(source: string): PathRegex {
  try {
    const program: Instruction[] = [];
    emit(parsePattern(source), program);
    add(program, { op: "match" });
    return { ok: true, states: program.length, matches: (path) => run(program, path) };
  } catch (error) {
    if (error instanceof PatternError) return { ok: false, reason: error.message };
    throw error;
  }
}

/** All but jumps and matches go on at the next instruction. */
type Instruction =
  | { op: "set"; set: CharacterSet }
  | { op: "start" }
  | { op: "end" }
  | { op: "split"; other: number }
  | { op: "jump"; to: number }
  | { op: "match" };

/** Every node becomes at least one instruction, so that the bound on their number bounds the work of compiling, too. */
function emit(node: PatternNode, program: Instruction[]): void {
  switch (node.type) {
    case "set":
    case "start":
    case "end":
      add(program, node.type === "set" ? { op: "set", set: node.set } : { op: node.type });
      return;
    case "sequence":
      if (node.items.length === 0) add(program, { op: "jump", to: program.length + 1 });
      for (const item of node.items) emit(item, program);
      return;
    case "choice":
      return emitChoice(node.options, program);
    case "repeat":
      return emitRepeat(node, program);
    default:
      return unreachable(node);
  }
}

function emitChoice(options: readonly PatternNode[], program: Instruction[]): void {
  const exits = options.map((option, index) => {
    const split = index < options.length - 1 ? add(program, { op: "split", other: 0 }) : undefined;
    emit(option, program);
    const exit = add(program, { op: "jump", to: 0 });
    if (split !== undefined) split.other = program.length;
    return exit;
  });
  for (const exit of exits) exit.to = program.length;
}

function emitRepeat(node: Extract<PatternNode, { type: "repeat" }>, program: Instruction[]): void {
  add(program, { op: "jump", to: program.length + 1 });
  for (let count = 0; count < node.min; count += 1) emit(node.item, program);
  if (node.max === undefined) {
    const begin = program.length;
    const split = add(program, { op: "split", other: 0 });
    emit(node.item, program);
    add(program, { op: "jump", to: begin });
    split.other = program.length;
    return;
  }
  const splits = Array.from({ length: node.max - node.min }, () => {
    const split = add(program, { op: "split", other: 0 });
    emit(node.item, program);
    return split;
  });
  for (const split of splits) split.other = program.length;
}

function add<I extends Instruction>(program: Instruction[], instruction: I): I {
  if (program.length >= STATES_MAX) {
    throw new PatternError(`needs more than ${STATES_MAX} states: repeat less, or write several paths`);
  }
  program.push(instruction);
  return instruction;
}

/** The instructions that a match is at; `stamps` holds for each the position where it was reached last, plus one. */
interface Threads {
  readonly program: readonly Instruction[];
  readonly stamps: Uint32Array;
  readonly length: number;
}

function run(program: readonly Instruction[], path: string): boolean {
  const threads: Threads = { program, stamps: new Uint32Array(program.length), length: path.length };
  let here = reach(threads, [0], 0);
  for (let position = 0; position < path.length && here.length > 0; position += 1) {
    const code = path.charCodeAt(position);
    const entered: number[] = [];
    for (const at of here) {
      const instruction = program[at];
      if (instruction?.op === "set" && instruction.set[code] === 1) entered.push(at + 1);
    }
    here = reach(threads, entered, position + 1);
  }
  return here.some((at) => program[at]?.op === "match");
}

/** The sets and matches that are reached from these instructions without reading a character. */
function reach(threads: Threads, from: number[], position: number): number[] {
  const { program, stamps, length } = threads;
  const found: number[] = [];
  const open = from;
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    const instruction = program[at];
    if (instruction === undefined || stamps[at] === position + 1) continue;
    stamps[at] = position + 1;
    if (instruction.op === "set" || instruction.op === "match") found.push(at);
    if (instruction.op === "jump") open.push(instruction.to);
    if (instruction.op === "split") open.push(at + 1, instruction.other);
    if (instruction.op === "start" && position === 0) open.push(at + 1);
    if (instruction.op === "end" && position === length) open.push(at + 1);
  }
  return found;
}
