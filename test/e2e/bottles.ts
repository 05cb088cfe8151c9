import { stringify } from "yaml";
import type { Bottle, BottleSpec } from "../../controller/api/bottle.ts";
import { conditionOf, type Condition, type ConditionType } from "../../controller/api/conditions.ts";
import { API_VERSION } from "../../controller/api/meta.ts";
import type { BackendType } from "../../controller/api/template.ts";

/** An agent whose prompt is a shell script: what a turn does stands in the turn. */
export const SHELL_AGENT = { provider: { type: "Custom", custom: { command: ["sh", "-c"] } } } as const;

export const BACKENDS: readonly BackendType[] = ["Docker", "Bubblewrap"];

export type SpecDraft = Omit<Partial<BottleSpec>, "turns">;

/** A bottle whose turns run these scripts; their ids count from 1. */
export function bottleManifest(name: string, scripts: readonly string[], spec: SpecDraft = {}): object {
  const turns = scripts.map((prompt, index) => ({ id: String(index + 1), prompt }));
  const agent = spec.agentRef === undefined ? { agent: SHELL_AGENT } : {};
  return { apiVersion: API_VERSION, kind: "Bottle", metadata: { name }, spec: { ...agent, ...spec, turns } };
}

export function bottleYaml(name: string, scripts: readonly string[], spec: SpecDraft = {}): string {
  return stringify(bottleManifest(name, scripts, spec));
}

/** A script that works until a file appears in its workspace: the test decides when a turn ends. */
export function untilFile(file: string): string {
  return `trap 'exit 9' TERM; while [ ! -e ${file} ]; do sleep 0.2; done`;
}

export function condition(bottle: Bottle, type: ConditionType): Condition | undefined {
  return conditionOf(bottle.status?.conditions, type);
}

function isCurrent(bottle: Bottle): boolean {
  return bottle.status?.observedGeneration === bottle.metadata.generation;
}

export function isFrozen(bottle: Bottle): boolean {
  return isCurrent(bottle) && condition(bottle, "Frozen")?.status === "True";
}

export function outcomeOf(bottle: Bottle | undefined, turn: string): string | undefined {
  return bottle?.status?.turns?.find((each) => each.id === turn)?.outcome;
}

/** The turn has ended and nothing but the disk is left. */
export function restsAfter(turn: string): (bottle: Bottle) => boolean {
  return (bottle) => {
    const status = bottle.status?.turns?.find((each) => each.id === turn);
    return status?.state === "Ended" && isFrozen(bottle);
  };
}

export function runsTurn(turn: string): (bottle: Bottle) => boolean {
  return (bottle) => bottle.status?.turns?.some((each) => each.id === turn && each.state === "Running") === true;
}
