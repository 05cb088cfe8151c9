import type { KindMap } from "../api/kinds.ts";
import type { Lookup } from "../plan/resolve.ts";
import type { Declared } from "../sources/apply.ts";
import type { CommandContext } from "./context.ts";

/** What bottles of a namespace may refer to, as it is stored now. `others` are declared along with it and not stored yet. */
export async function lookupIn(
  context: Pick<CommandContext, "store">,
  namespace: string,
  others: readonly Declared[] = [],
): Promise<Lookup> {
  const agents = new Map<string, KindMap["Agent"]>();
  const templates = new Map<string, KindMap["BottleTemplate"]>();
  const secrets = new Map<string, KindMap["Secret"]>();
  const stored = [
    ...(await context.store.list("Agent", { namespace })).items,
    ...(await context.store.list("BottleTemplate", { namespace })).items,
    ...(await context.store.list("Secret", { namespace })).items,
  ];
  for (const object of [...stored, ...others]) {
    if (object.metadata.namespace !== namespace) continue;
    if (object.kind === "Agent") agents.set(object.metadata.name, object);
    if (object.kind === "BottleTemplate") templates.set(object.metadata.name, object);
    if (object.kind === "Secret") secrets.set(object.metadata.name, object);
  }
  return {
    agent: (name) => agents.get(name),
    template: (name) => templates.get(name),
    secret(name) {
      const found = secrets.get(name);
      if (found === undefined) return undefined;
      const { uid, resourceVersion } = found.metadata;
      return { keys: new Set(Object.keys(found.data)), version: `${uid}/${resourceVersion}` };
    },
  };
}
