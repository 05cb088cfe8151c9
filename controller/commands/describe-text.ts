import { stringify } from "yaml";
import type { EventResource } from "../api/event.ts";
import { ANNOTATIONS } from "../api/meta.ts";
import { secretSizes } from "../api/secret.ts";
import type { EgressCounters } from "../ports/audit.ts";
import type { Declared } from "../sources/apply.ts";
import { formatAge, formatDuration } from "./duration.ts";
import { lastDeniedText } from "./egress-text.ts";
import { plainText } from "./io.ts";
import { renderTable } from "./table.ts";

/** Where kubectl keeps the whole object as it was applied, values of a Secret included. */
const LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration";
/** Lines of a prompt that are shown; the whole of it is in `get -o yaml`. */
const PROMPT_LENGTH_SHOWN = 120;

/** What is known of a bottle's egress. */
export interface EgressFacts {
  counters: EgressCounters;
  /** Rules of the merged policy, or why there is none and all egress is closed. */
  rules: number | string;
}

/** An object and what happened to it, for people. */
export function describeText(
  object: Declared,
  { events, egress }: { events: readonly EventResource[]; egress?: EgressFacts },
  nowMs: number,
): string {
  const { metadata } = object;
  const { [ANNOTATIONS.rejectedUpdate]: rejected, [LAST_APPLIED]: _, ...annotations } = metadata.annotations ?? {};
  const head = renderHead([
    ["Name", metadata.name],
    ["Namespace", metadata.namespace],
    ["Kind", object.kind],
    ["UID", metadata.uid],
    ["Generation", String(metadata.generation)],
    ["Created", `${metadata.creationTimestamp} (${formatAge(metadata.creationTimestamp, nowMs)} ago)`],
    ["Deleted", metadata.deletionTimestamp ?? ""],
    ["Labels", pairs(metadata.labels)],
    ["Annotations", pairs(annotations)],
    ["Rejected update", rejected ?? ""],
  ]);
  const parts = [head, object.kind === "Secret" ? secretPart(object) : section("Spec", yamlOf(shortSpec(object)))];
  if (object.kind === "Bottle") parts.push(...bottleParts(object, nowMs));
  if (egress !== undefined) parts.push(egressPart(egress, nowMs));
  parts.push(section("Events", eventTable(events, nowMs)));
  return parts.join("\n");
}

function renderHead(rows: readonly [string, string][]): string {
  const shown = rows.filter(([, value]) => value !== "");
  const width = Math.max(...shown.map(([name]) => name.length)) + 1;
  return shown.map(([name, value]) => `${`${name}:`.padEnd(width)}  ${plainText(value)}`).join("\n");
}

function pairs(map: Readonly<Record<string, string>> | undefined): string {
  return Object.entries(map ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .join(", ");
}

function section(title: string, body: string): string {
  if (body === "") return `${title}:  <none>`;
  const indented = body.split("\n").map((line) => (line === "" ? line : `  ${line}`));
  return [`${title}:`, ...indented].join("\n");
}

function yamlOf(value: unknown): string {
  const lines = stringify(value, { lineWidth: 0 }).trimEnd().split("\n");
  return lines
    .map((line) => line.replace(/^( *)(.*)$/, (_, indent: string, rest: string) => indent + plainText(rest)))
    .join("\n");
}

/** Keys and sizes, as kubectl shows them: a value belongs on no screen. */
function secretPart(secret: Extract<Declared, { kind: "Secret" }>): string {
  const head = renderHead([
    ["Type", secret.type],
    ["Immutable", secret.immutable === true ? "true" : ""],
  ]);
  const sizes = secretSizes(secret).map(([key, bytes]) => `${plainText(key)}:  ${bytes} bytes`);
  return `${head}\n${section("Data", sizes.join("\n"))}`;
}

/** Turns have a table of their own. */
function shortSpec(object: Exclude<Declared, { kind: "Secret" }>): object {
  if (object.kind !== "Bottle") return object.spec;
  const { turns: _turns, ...rest } = object.spec;
  return rest;
}

function bottleParts(bottle: Extract<Declared, { kind: "Bottle" }>, nowMs: number): string[] {
  const { status } = bottle;
  const conditions = (status?.conditions ?? []).map((each) => {
    const age = formatAge(each.lastTransitionTime, nowMs);
    return [each.type, each.status, each.reason, age, plainText(each.message)];
  });
  const turns = (bottle.spec.turns ?? []).map((turn) => {
    const seen = status?.turns?.find((each) => each.id === turn.id);
    const exit = seen?.exitCode === undefined ? "" : String(seen.exitCode);
    const attempts = String(seen?.attempts ?? 0);
    return [
      turn.id,
      seen?.state ?? "Pending",
      seen?.outcome ?? "",
      exit,
      attempts,
      tookOf(seen, nowMs),
      shortPrompt(turn.prompt),
    ];
  });
  // Counters have a section of their own, from where they are newest.
  const { conditions: _conditions, turns: _turns, egress: _egress, ...rest } = status ?? {};
  return [
    section("Status", status === undefined ? "" : yamlOf(rest)),
    section("Conditions", tableOf(conditions, ["Type", "Status", "Reason", "Age", "Message"])),
    section("Turns", tableOf(turns, ["Id", "State", "Outcome", "Exit", "Attempts", "Took", "Prompt"])),
  ];
}

function egressPart({ counters, rules }: EgressFacts, nowMs: number): string {
  const { allowed, denied, dlpBlocked } = counters;
  const rows: [string, string][] = [
    ["Rules", typeof rules === "number" ? String(rules) : `closed: ${rules}`],
    ["Allowed", String(allowed)],
    ["Denied", String(denied)],
    ["DLP blocked", String(dlpBlocked)],
    ["Last denied", lastDeniedText(counters, nowMs) ?? "<none>"],
  ];
  return section("Egress", renderHead(rows));
}

function tableOf(rows: readonly (readonly string[])[], headers: readonly string[]): string {
  return rows.length === 0 ? "" : renderTable(rows, headers);
}

function tookOf(turn: { startTime?: string; completionTime?: string } | undefined, nowMs: number): string {
  if (turn?.startTime === undefined) return "";
  const endMs = turn.completionTime === undefined ? nowMs : Date.parse(turn.completionTime);
  return formatDuration(endMs - Date.parse(turn.startTime));
}

function shortPrompt(prompt: string): string {
  const line = plainText(prompt.slice(0, PROMPT_LENGTH_SHOWN + 1)).trim();
  return line.length > PROMPT_LENGTH_SHOWN ? `${line.slice(0, PROMPT_LENGTH_SHOWN)}…` : line;
}

function eventTable(events: readonly EventResource[], nowMs: number): string {
  const rows = [...events]
    .sort((a, b) => a.lastTimestamp.localeCompare(b.lastTimestamp))
    .map((event) => {
      const age = formatAge(event.lastTimestamp, nowMs);
      const since = event.count > 1 ? `${age} (x${event.count} over ${formatAge(event.firstTimestamp, nowMs)})` : age;
      return [event.type, event.reason, since, event.source.component, plainText(event.message)];
    });
  return tableOf(rows, ["Type", "Reason", "Age", "From", "Message"]);
}
