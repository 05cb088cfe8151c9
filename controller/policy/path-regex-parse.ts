import { codePoint } from "./text.ts";

/** Which of the 128 ASCII characters belong to a class; 1 = yes. Paths hold no others. */
export type CharacterSet = Uint8Array;

export type PatternNode =
  | { type: "set"; set: CharacterSet }
  | { type: "start" }
  | { type: "end" }
  | { type: "sequence"; items: readonly PatternNode[] }
  | { type: "choice"; options: readonly PatternNode[] }
  /** `max` absent: without bound. */
  | { type: "repeat"; item: PatternNode; min: number; max?: number };

/** Why a pattern is refused, and what to write instead. */
export class PatternError extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = "PatternError";
  }
}

interface Input {
  readonly source: string;
  at: number;
  depth: number;
}

const PATTERN_LENGTH_MAX = 1024;
const DEPTH_MAX = 50;
const REPEAT_MAX = 100;
const ASCII_SIZE = 128;
/** What must be escaped to stand for itself. */
const SPECIAL = "\\^$.*+?()[]{}|";
const DIGITS = /[0-9]/;
const WORD = /[A-Za-z0-9_]/;

/**
 * Reads the plain subset of JavaScript's regular expressions: literals, escapes, `.`, classes, groups, `|`, `* + ? {m,n}` and
 * their lazy forms (which change nothing where the whole text must match), `^` and `$`. Whatever it accepts means the same in
 * JavaScript. Throws PatternError on all else: what is not understood must not be guessed.
 */
export function parsePattern(source: string): PatternNode {
  if (source.length > PATTERN_LENGTH_MAX) throw new PatternError(`is longer than ${PATTERN_LENGTH_MAX} characters`);
  const foreign = /[^\x20-\x7e]/.exec(source)?.[0];
  if (foreign !== undefined) {
    throw new PatternError(`holds ${codePoint(foreign)}: a path is ASCII, write other characters percent-encoded`);
  }
  const input: Input = { source, at: 0, depth: 0 };
  const node = choice(input);
  if (input.at < source.length)
    throw new PatternError("closes a group that was not opened: write \\) for the character");
  return node;
}

function choice(input: Input): PatternNode {
  if (input.depth > DEPTH_MAX) throw new PatternError(`nests groups more than ${DEPTH_MAX} deep`);
  const options = [sequence(input)];
  while (skip(input, "|")) options.push(sequence(input));
  const [only] = options;
  return options.length === 1 && only !== undefined ? only : { type: "choice", options };
}

function sequence(input: Input): PatternNode {
  const items: PatternNode[] = [];
  while (!["", "|", ")"].includes(peek(input))) items.push(repeated(input));
  return { type: "sequence", items };
}

function repeated(input: Input): PatternNode {
  const item = atom(input);
  const range = quantifier(input);
  if (range === undefined) return item;
  if (item.type === "start" || item.type === "end") throw new PatternError("repeats ^ or $, which match nothing");
  skip(input, "?");
  if ("*+?{".includes(peek(input) || " ")) throw new PatternError("repeats a repetition: put it into a group");
  return { type: "repeat", item, ...range };
}

function quantifier(input: Input): { min: number; max?: number } | undefined {
  if (skip(input, "*")) return { min: 0 };
  if (skip(input, "+")) return { min: 1 };
  if (skip(input, "?")) return { min: 0, max: 1 };
  if (peek(input) !== "{") return undefined;
  const match = /^\{([0-9]{1,3})(,([0-9]{1,3})?)?\}/.exec(input.source.slice(input.at));
  if (match === null)
    throw new PatternError("holds a { that begins no {m}, {m,} or {m,n}: write \\{ for the character");
  input.at += match[0].length;
  const min = Number(match[1]);
  const max = match[2] === undefined ? min : match[3] === undefined ? undefined : Number(match[3]);
  if (Math.max(min, max ?? 0) > REPEAT_MAX) throw new PatternError(`repeats more than ${REPEAT_MAX} times`);
  if (max !== undefined && max < min)
    throw new PatternError(`repeats from ${min} to ${max}: the larger number comes last`);
  return max === undefined ? { min } : { min, max };
}

function atom(input: Input): PatternNode {
  const character = next(input);
  switch (character) {
    case "(":
      return group(input);
    case "[":
      return { type: "set", set: characterClass(input) };
    case ".":
      return { type: "set", set: setOf(() => true) };
    case "^":
      return { type: "start" };
    case "$":
      return { type: "end" };
    case "\\":
      return { type: "set", set: escaped(input) };
    default:
      if (!SPECIAL.includes(character)) return { type: "set", set: single(character) };
      throw new PatternError(`holds ${character} where it means nothing: write \\${character} for the character`);
  }
}

function group(input: Input): PatternNode {
  if (skip(input, "?") && !skip(input, ":")) {
    throw new PatternError("holds a group with ?: only (?:…) is understood, no lookaround and no names");
  }
  input.depth += 1;
  const node = choice(input);
  input.depth -= 1;
  if (!skip(input, ")")) throw new PatternError("opens a group that is not closed: write \\( for the character");
  return node;
}

function escaped(input: Input): CharacterSet {
  const character = next(input);
  if (character === "d") return setOf((one) => DIGITS.test(one));
  if (character === "D") return setOf((one) => !DIGITS.test(one));
  if (character === "w") return setOf((one) => WORD.test(one));
  if (character === "W") return setOf((one) => !WORD.test(one));
  if (character === "") throw new PatternError("ends in a backslash: write \\\\ for the character");
  if (!WORD.test(character)) return single(character);
  throw new PatternError(`holds \\${character}, which is not understood: only \\d \\D \\w \\W and escaped signs are`);
}

function characterClass(input: Input): CharacterSet {
  const negated = skip(input, "^");
  const set = new Uint8Array(ASCII_SIZE);
  if (peek(input) === "]") throw new PatternError("holds an empty class: write \\] for the character");
  const first = input.at;
  while (!skip(input, "]")) {
    const begin = input.at;
    const member = classMember(input);
    if (input.source[begin] === "-" && begin !== first && peek(input) !== "]") {
      throw new PatternError("holds a - inside a class that begins no range: write \\- for the character");
    }
    const isRange = peek(input) === "-" && input.source[input.at + 1] !== "]" && input.source[begin] !== "-";
    if (isRange) {
      input.at += 1;
      addRange(set, member, classMember(input));
    } else {
      for (const [code, has] of member.entries()) if (has === 1) set[code] = 1;
    }
  }
  return negated ? set.map((has) => 1 - has) : set;
}

function classMember(input: Input): CharacterSet {
  const character = next(input);
  if (character === "") throw new PatternError("opens a class that is not closed: write \\[ for the character");
  return character === "\\" ? escaped(input) : single(character);
}

function addRange(set: CharacterSet, from: CharacterSet, to: CharacterSet): void {
  const sizes = [from, to].map((one) => one.reduce((sum, has) => sum + has, 0));
  if (sizes.some((size) => size !== 1)) throw new PatternError("holds a range that begins or ends with a class");
  const [low, high] = [from.indexOf(1), to.indexOf(1)];
  if (low > high) throw new PatternError("holds a range whose end comes before its beginning");
  set.fill(1, low, high + 1);
}

function single(character: string): CharacterSet {
  const set = new Uint8Array(ASCII_SIZE);
  set[character.charCodeAt(0)] = 1;
  return set;
}

function setOf(has: (character: string) => boolean): CharacterSet {
  return Uint8Array.from({ length: ASCII_SIZE }, (_, code) => (has(String.fromCharCode(code)) ? 1 : 0));
}

/** The next character; empty at the end. */
function peek(input: Input): string {
  return input.source[input.at] ?? "";
}

function next(input: Input): string {
  const character = peek(input);
  input.at += character.length;
  return character;
}

function skip(input: Input, character: string): boolean {
  if (peek(input) !== character) return false;
  input.at += 1;
  return true;
}
