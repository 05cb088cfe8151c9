import { StatusError } from "../api/errors.ts";
import { DEFAULT_NAMESPACE, type DraftMeta } from "../api/meta.ts";
import type { BottleTemplate, BottleTemplateSpec } from "../api/template.ts";
import { findTemplateCycle } from "../plan/resolve.ts";

type AnyTemplate = { metadata: DraftMeta; spec: BottleTemplateSpec };

/**
 * Which of the drafts would close a circle of `extendsRef`, over what is stored, and why. Only templates that change their base are
 * refused: the others of the circle are as they were.
 */
export function cycleRefusals<T extends AnyTemplate>(
  drafts: readonly T[],
  stored: readonly BottleTemplate[],
): Map<T, StatusError> {
  const refused = new Map<T, StatusError>();
  const namespaces = new Set(drafts.map(namespaceOf));
  for (const namespace of namespaces) {
    const before = new Map(
      stored.filter((one) => namespaceOf(one) === namespace).map((one) => [one.metadata.name, one]),
    );
    const open = new Map(drafts.filter((one) => namespaceOf(one) === namespace).map((one) => [one.metadata.name, one]));
    // Each round takes at least one draft away.
    while (open.size > 0) {
      const cycle = findTemplateCycle(new Map<string, AnyTemplate>([...before, ...open]).values());
      const members = (cycle ?? []).flatMap((name) => open.get(name) ?? []);
      if (cycle === undefined || members.length === 0) break;
      const changing = members.filter((one) => baseOf(before.get(one.metadata.name)) !== baseOf(one));
      for (const draft of changing.length > 0 ? changing : members) {
        open.delete(draft.metadata.name);
        refused.set(draft, refusal(draft, cycle));
      }
    }
  }
  return refused;
}

function refusal(draft: AnyTemplate, cycle: readonly string[]): StatusError {
  const what = `BottleTemplate "${draft.metadata.name}"`;
  const message = `extends itself (${cycle.join(" -> ")}): let one of them extend another template or none`;
  return new StatusError("Invalid", `${what} is invalid: spec.extendsRef.name: ${message}`, {
    causes: [{ field: "spec.extendsRef.name", message, reason: "FieldValueInvalid" }],
  });
}

function namespaceOf(template: AnyTemplate): string {
  return template.metadata.namespace ?? DEFAULT_NAMESPACE;
}

function baseOf(template: AnyTemplate | undefined): string | undefined {
  return template?.spec.extendsRef?.name;
}
