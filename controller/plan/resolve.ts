import type { Agent, AgentSpec } from "../api/agent.ts";
import type { Bottle } from "../api/bottle.ts";
import { DEFAULT_NAMESPACE, type DraftMeta } from "../api/meta.ts";
import type { BackendType, BottleTemplate, BottleTemplateSpec } from "../api/template.ts";
import { canonicalJson, sha256 } from "./digest.ts";
import type { ResolvedEgress } from "./guard-settings.ts";
import { mergeEgress, mergeFields, type EffectiveEgress } from "./merge-egress.ts";
import { resolveEgress, type SecretFacts } from "./resolve-egress.ts";

/** Templates in one chain of `extendsRef`, the first one included. */
export const TEMPLATE_DEPTH_MAX = 16;
/** A chain that is too deep is followed this far to see whether it is a cycle, which is the better thing to report. */
const CHAIN_WALK_MAX = 1024;

/** The environment of a bottle after every template and the bottle's own limits were merged. */
export interface EffectiveTemplate {
  image?: string;
  /** Sorted by name; each name once. */
  env: { name: string; value: string }[];
  resources: NonNullable<BottleTemplateSpec["resources"]>;
  /** Absent: no template says anything, and nothing leaves. */
  egress?: EffectiveEgress;
  /** Sorted. Absent: every backend. Empty: the templates exclude one another. */
  allowedBackends?: BackendType[];
}

/** The objects a bottle may refer to, all of its own namespace. */
export interface Lookup {
  agent(name: string): Agent | undefined;
  template(name: string): BottleTemplate | undefined;
  secret(name: string): SecretFacts | undefined;
}

export type Resolution =
  | { ok: true; agent: AgentSpec; template: EffectiveTemplate; digest: string; egress: ResolvedEgress }
  | { ok: false; reason: ResolutionFailure; message: string };
export type ResolutionFailure =
  "AgentNotFound" | "TemplateNotFound" | "TemplateCycle" | "TemplateTooDeep" | "SecretNotFound" | "EgressPolicyInvalid";

type Failure = Extract<Resolution, { ok: false }>;
type Chain = { ok: true; templates: BottleTemplate[] } | Failure;

/**
 * The agent and the merged environment of a bottle. For each template of the agent and then of the bottle, in order, its
 * chain of `extendsRef` is merged from the base upwards, and the bottle's own resources come last. A base that several
 * named templates share is merged once, where it is first met: merged again, it would undo what lies between.
 */
export function resolveBottle(bottle: Bottle, lookup: Lookup): Resolution {
  const agent = agentOf(bottle, lookup);
  if ("ok" in agent) return agent;

  const merged = new Set<string>();
  let template: EffectiveTemplate = { env: [], resources: {} };
  for (const { name } of [...(agent.templateRefs ?? []), ...(bottle.spec.templateRefs ?? [])]) {
    const chain = chainOf(name, lookup);
    if (!chain.ok) return chain;
    for (const link of chain.templates) {
      const linkName = link.metadata.name;
      if (linkName !== name && merged.has(linkName)) continue;
      merged.add(linkName);
      template = mergeTemplate(template, link.spec);
    }
  }
  template = mergeTemplate(template, { resources: bottle.spec.resources });
  const { namespace } = bottle.metadata;
  const found = resolveEgress(template.egress, { namespace, secret: (name) => lookup.secret(name) });
  if (!found.ok) return found;
  const digest = `sha256:${sha256(canonicalJson({ agent, template }))}`;
  return { ok: true, agent, template, digest, egress: found.egress };
}

/** `over` wins, field by field; a backend must be allowed by both. */
export function mergeTemplate(base: EffectiveTemplate, over: BottleTemplateSpec): EffectiveTemplate {
  const env = new Map(base.env.map((variable) => [variable.name, variable.value]));
  for (const variable of over.env ?? []) env.set(variable.name, variable.value);

  const merged: EffectiveTemplate = {
    env: [...env].map(([name, value]) => ({ name, value })).sort((a, b) => (a.name < b.name ? -1 : 1)),
    resources: mergeFields(base.resources, over.resources) ?? {},
  };
  const image = over.image ?? base.image;
  if (image !== undefined) merged.image = image;
  const egress = mergeEgress(base.egress, over.egress);
  if (egress !== undefined) merged.egress = egress;
  const allowed = intersect(base.allowedBackends, over.allowedBackends);
  if (allowed !== undefined) merged.allowedBackends = allowed;
  return merged;
}

/** The first cycle of `extendsRef` among these templates, as `["a", "b", "a"]`. Namespaces are apart from one another. */
export function findTemplateCycle(
  templates: Iterable<{ metadata: DraftMeta; spec: BottleTemplateSpec }>,
): string[] | undefined {
  const base = new Map<string, string | undefined>();
  for (const { metadata, spec } of templates) {
    const namespace = metadata.namespace ?? DEFAULT_NAMESPACE;
    base.set(`${namespace}/${metadata.name}`, spec.extendsRef && `${namespace}/${spec.extendsRef.name}`);
  }

  // Every template has at most one base, so a walk that meets its own steps is a cycle and each key is walked once.
  const walked = new Set<string>();
  for (const start of base.keys()) {
    const path = new Set<string>();
    let key: string | undefined = start;
    while (key !== undefined && !walked.has(key)) {
      walked.add(key);
      path.add(key);
      key = base.get(key);
    }
    if (key !== undefined && path.has(key))
      return cycleFrom([...path], key).map((step) => step.slice(step.indexOf("/") + 1));
  }
  return undefined;
}

function agentOf(bottle: Bottle, lookup: Lookup): AgentSpec | Failure {
  const { agent, agentRef } = bottle.spec;
  if (agent !== undefined) return agent;
  const found = agentRef && lookup.agent(agentRef.name);
  if (found !== undefined) return found.spec;
  const message =
    agentRef === undefined
      ? "the bottle names no agent: write agent or agentRef"
      : `Agent "${agentRef.name}" does not exist in namespace "${bottle.metadata.namespace}": create it or correct spec.agentRef.name`;
  return { ok: false, reason: "AgentNotFound", message };
}

/** The template and everything it extends, base first. */
function chainOf(name: string, lookup: Lookup): Chain {
  const names: string[] = [];
  const templates: BottleTemplate[] = [];
  let next: string | undefined = name;
  while (next !== undefined && names.length < CHAIN_WALK_MAX) {
    if (names.includes(next)) {
      const cycle = cycleFrom(names, next).join(" -> ");
      const message = `templates extend one another in a cycle: ${cycle}: remove extendsRef from one of them`;
      return { ok: false, reason: "TemplateCycle", message };
    }
    const template = lookup.template(next);
    if (template === undefined) return notFound(next, names.at(-1));
    names.push(next);
    templates.push(template);
    next = template.spec.extendsRef?.name;
  }
  if (names.length > TEMPLATE_DEPTH_MAX) {
    const message = `BottleTemplate "${name}" extends a chain of more than ${TEMPLATE_DEPTH_MAX} templates: merge some of them into one`;
    return { ok: false, reason: "TemplateTooDeep", message };
  }
  return { ok: true, templates: templates.toReversed() };
}

function notFound(name: string, extendedBy: string | undefined): Failure {
  const where =
    extendedBy === undefined ? "correct templateRefs" : `correct extendsRef of BottleTemplate "${extendedBy}"`;
  const message = `BottleTemplate "${name}" does not exist: create it or ${where}`;
  return { ok: false, reason: "TemplateNotFound", message };
}

function cycleFrom(path: readonly string[], again: string): string[] {
  return [...path.slice(path.indexOf(again)), again];
}

function intersect(a: readonly BackendType[] | undefined, b: readonly BackendType[] | undefined) {
  if (a === undefined || b === undefined) return (a ?? b)?.toSorted();
  return a.filter((type) => b.includes(type)).sort();
}
