import { Command, Option } from "commander";
import { stringify } from "yaml";
import type { Bottle } from "../api/bottle.ts";
import { resolveBottle, type Resolution } from "../plan/resolve.ts";
import { getBottle } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { CommandError, EXIT } from "./exit.ts";
import { explanationText } from "./explain-text.ts";
import { explainUrl } from "./explain-url.ts";
import { print } from "./io.ts";
import { lookupIn } from "./lookup.ts";
import { perform } from "./perform.ts";
import { shownEgress } from "./policy-text.ts";
import { safeJson } from "./safe-output.ts";

export interface ExplainFlags {
  method?: string;
  websocket?: boolean;
  output?: "text" | "json";
}

export function policyCommand(): Command {
  return new Command("policy")
    .description("say what may leave a bottle, and which rule would decide")
    .addCommand(explainCommand())
    .addCommand(showCommand());
}

function explainCommand(): Command {
  return new Command("explain")
    .description("say which egress rule decides a request, and why the others do not")
    .argument("<name>", "the bottle")
    .argument("<url>", "https://…, http://…, wss://…, or tls://host:port and tcp://host:port for tunnels")
    .option("--method <method>", "of the request (default GET)")
    .option("--websocket", "the request asks for a WebSocket")
    .addOption(new Option("-o, --output <format>", "how to print").choices(["text", "json"]).default("text"))
    .addHelpText(
      "after",
      `
Reads the stored bottle and templates as the controller does, and needs no controller and no running bottle. Addresses
of a host name are decided when it is dialled. Exits with 0 if the request is allowed, with 1 if not.

Example:
  bot-bottle policy explain fix-login https://api.example.com/v1/messages --method POST`,
    )
    .action((name: string, url: string, flags: ExplainFlags, command: Command) =>
      perform(command, (context) => runExplain(context, { name, url }, flags)),
    );
}

function showCommand(): Command {
  return new Command("show")
    .description("print the egress of a bottle after all templates are merged, with every default")
    .argument("<name>", "the bottle")
    .addOption(new Option("-o, --output <format>", "how to print").choices(["yaml", "json"]).default("yaml"))
    .action((name: string, flags: { output?: "yaml" | "json" }, command: Command) =>
      perform(command, (context) => runShow(context, name, flags)),
    );
}

export async function runExplain(
  context: CommandContext,
  asked: { name: string; url: string },
  flags: ExplainFlags,
): Promise<number> {
  const bottle = await getBottle(context, asked.name);
  const method = (flags.method ?? "GET").toUpperCase();
  const request = { url: asked.url, method, webSocket: flags.websocket === true };
  const explanation = explainUrl(await resolutionOf(context, bottle), request);
  if (flags.output === "json") print(context.io, safeJson(explanation, 2));
  else print(context.io, explanationText(context.io, explanation));
  return explanation.verdict.action === "Allow" ? EXIT.ok : EXIT.error;
}

export async function runShow(
  context: CommandContext,
  name: string,
  flags: { output?: "yaml" | "json" },
): Promise<number> {
  const bottle = await getBottle(context, name);
  const resolution = await resolutionOf(context, bottle);
  if (!resolution.ok) throw new CommandError(EXIT.refused, `all egress is closed: ${resolution.message}`);
  const egress = shownEgress(resolution.template.egress);
  if (flags.output === "json") print(context.io, safeJson(egress, 2));
  else context.io.stdout.write(stringify(egress, { lineWidth: 0 }));
  return EXIT.ok;
}

async function resolutionOf(context: CommandContext, bottle: Bottle): Promise<Resolution> {
  return resolveBottle(bottle, await lookupIn(context, bottle.metadata.namespace));
}
