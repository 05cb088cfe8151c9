import { Command } from "commander";
import type { Bottle } from "../api/bottle.ts";
import type { EventResource } from "../api/event.ts";
import { resolveBottle } from "../plan/resolve.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { describeText, type EgressFacts } from "./describe-text.ts";
import { CommandError, EXIT, notFound } from "./exit.ts";
import { print } from "./io.ts";
import { lookupIn } from "./lookup.ts";
import { kindAndNames, singularOf } from "./resolve-kind.ts";

export function describeCommand(): Command {
  return new Command("describe")
    .description("show everything about an object, and what happened to it")
    .argument("<kind>", "bottle, agent, bottletemplate or secret")
    .argument("[names...]", "which ones")
    .action((kind: string, names: string[], _flags: object, command: Command) =>
      perform(command, (context) => runDescribe(context, [kind, ...names])),
    );
}

export async function runDescribe(context: CommandContext, words: readonly string[]): Promise<number> {
  const { kind, names } = kindAndNames(words);
  if (kind === "Event") throw new CommandError(EXIT.usage, 'events are shown by "get events"');
  const { namespace, store } = context;
  const { items } = await store.list(kind, { namespace });
  const objects = names.map((name) => {
    const found = items.find((item) => item.metadata.name === name);
    if (found === undefined) throw notFound(singularOf(kind), name, namespace);
    return found;
  });
  const events = (await store.list("Event", { namespace })).items;
  const texts: string[] = [];
  for (const object of names.length === 0 ? items : objects) {
    const own = events.filter((event) => isAbout(event, object));
    const egress = object.kind === "Bottle" ? await egressOf(context, object) : undefined;
    texts.push(describeText(object, { events: own, egress }, context.now()));
  }
  if (texts.length > 0) print(context.io, texts.join("\n\n\n"));
  return EXIT.ok;
}

async function egressOf(context: CommandContext, bottle: Bottle): Promise<EgressFacts> {
  const resolution = resolveBottle(bottle, await lookupIn(context, bottle.metadata.namespace));
  const counters = await context.auditLog.counters(bottle.metadata.uid);
  return { counters, rules: resolution.ok ? resolution.egress.policy.rules.length : resolution.message };
}

/** Events of an earlier object of this name are not this one's. */
function isAbout(
  { involvedObject }: EventResource,
  object: { kind: string; metadata: { name: string; uid: string } },
): boolean {
  if (involvedObject.kind !== object.kind || involvedObject.name !== object.metadata.name) return false;
  return involvedObject.uid === undefined || involvedObject.uid === object.metadata.uid;
}
