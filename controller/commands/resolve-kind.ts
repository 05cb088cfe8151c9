import { DECLARED_KINDS, type KindName } from "../api/kinds.ts";
import { nearest, oneOf } from "../api/words.ts";
import { CommandError, EXIT } from "./exit.ts";

const EVENT_NAMES: readonly string[] = ["event", "events", "ev"];

/** A kind by any of its names: `bottles`, `bottle`, `bt`, `Bottle`. */
export function resolveKind(text: string): KindName {
  const word = text.toLowerCase();
  if (EVENT_NAMES.includes(word)) return "Event";
  const facts = DECLARED_KINDS.find((each) => [each.plural, each.singular, ...each.shortNames].includes(word));
  if (facts !== undefined) return facts.kind;
  const plurals = [...DECLARED_KINDS.map((each) => each.plural), "events"];
  const known = [...plurals, ...DECLARED_KINDS.flatMap((each) => [each.singular, ...each.shortNames]), ...EVENT_NAMES];
  const meant = nearest(word, known);
  const hint = meant === undefined ? `write ${oneOf(plurals)}` : `did you mean "${meant}"?`;
  throw new CommandError(EXIT.usage, `unknown kind "${text}": ${hint}`);
}

/** How a kind is written before a name: `bottle/fix-login`. */
export function singularOf(kind: KindName): string {
  return DECLARED_KINDS.find((facts) => facts.kind === kind)?.singular ?? kind.toLowerCase();
}

/** `bottle fix-login` or `bottle/fix-login`. */
export function kindAndNames(words: readonly string[]): { kind: KindName; names: string[] } {
  const [first = "", ...rest] = words;
  const slash = first.indexOf("/");
  if (slash < 0) return { kind: resolveKind(first), names: rest };
  return { kind: resolveKind(first.slice(0, slash)), names: [first.slice(slash + 1), ...rest] };
}
