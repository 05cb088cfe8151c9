import { FORM_LENGTH_MIN, formsOf } from "./forms.ts";
import { createSearchIndex, type Needle, type SearchIndex } from "./search.ts";

/** What a bottle must not send, made ready for scans. */
export interface DlpRules {
  /** Secrets, placeholders and shapes of tokens. */
  everything: SearchIndex;
  /** Secrets alone: what a response must not show. */
  secrets: SearchIndex;
  /** Secrets and placeholders in lower case, as they stand in the name of a host. */
  hosts: SearchIndex;
  /** Values too short to be looked for within a text; findings only where a whole value is equal to one. */
  short: ReadonlyMap<string, readonly string[]>;
}

/**
 * Findings are `secret:ID`, `placeholder:ID` and `pattern:ID`, in which ID is the key given here. A placeholder is found only where
 * the whole of it stands. Values of fewer than eight characters are found by `scanText` alone, see there.
 */
export function compileDlp(known: {
  secrets: Readonly<Record<string, string>>;
  placeholders: Readonly<Record<string, string>>;
}): DlpRules {
  const secrets = needlesOf("secret", known.secrets);
  const placeholders = needlesOf("placeholder", known.placeholders);
  return {
    everything: createSearchIndex([...secrets, ...placeholders], true),
    secrets: createSearchIndex(secrets, false),
    hosts: createSearchIndex([...secrets, ...placeholders].flatMap(hostNeedle), false),
    short: new Map(
      [...shortValues("secret", known.secrets), ...shortValues("placeholder", known.placeholders)].map(
        ([value], _, all) => [value, all.filter(([other]) => other === value).map(([, id]) => id)],
      ),
    ),
  };
}

function needlesOf(kind: string, values: Readonly<Record<string, string>>): Needle[] {
  return Object.entries(values).flatMap(([key, value]) =>
    formsOf(value).map((form) => ({ ...form, id: `${kind}:${key}` })),
  );
}

function hostNeedle({ id, bytes }: Needle): Needle[] {
  const text = inHost(bytes.toString());
  return text.length < FORM_LENGTH_MIN ? [] : [{ id, bytes: Buffer.from(text), wrapped: false }];
}

/** Labels hold no other characters, and a name that is cut into labels has dots anywhere. */
export function inHost(value: string): string {
  return value.toLowerCase().replaceAll(/[^a-z0-9_-]/g, "");
}

function shortValues(kind: string, values: Readonly<Record<string, string>>): [value: string, id: string][] {
  return Object.entries(values)
    .map(([key, value]): [string, string] => [value.trim(), `${kind}:${key}`])
    .filter(([value]) => value.length > 0 && value.length < FORM_LENGTH_MIN);
}
