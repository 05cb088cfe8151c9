import { createScrubber, type DlpRules, type Scrubber } from "../../../controller/policy/dlp/index.ts";
import type { Admitted } from "./decide.ts";

/** Only a host that was given a credential can show it to the agent. */
function showsCredentials({ matched }: Admitted): boolean {
  return matched.rule.inject.length > 0;
}

/** For the body of an answer; `undefined`: there is nothing to take out of it. */
export function bodyScrubber(admitted: Admitted): Scrubber | undefined {
  return showsCredentials(admitted) ? createScrubber(admitted.settings.dlp) : undefined;
}

/** For names and values of headers. They are looked at all together, and one by one only if there is something to take out. */
export function cleaner(admitted: Admitted): (texts: readonly string[]) => string[] {
  if (!showsCredentials(admitted)) return (texts) => [...texts];
  const { dlp } = admitted.settings;
  return (texts) =>
    scrubbed(dlp, texts.join("\n")) === undefined ? [...texts] : texts.map((text) => scrubbed(dlp, text) ?? text);
}

/** `undefined`: there is nothing to take out. */
function scrubbed(dlp: DlpRules, text: string): string | undefined {
  const scrubber = createScrubber(dlp);
  const parts = [...scrubber.push(Buffer.from(text, "latin1")), ...scrubber.end()];
  return scrubber.hits === 0 ? undefined : Buffer.concat(parts).toString("latin1");
}
