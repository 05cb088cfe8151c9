import { Command } from "commander";
import { admit } from "../api/admit.ts";
import { StatusError } from "../api/errors.ts";
import { draftKey, previewDraft, type DeclaredDraft } from "../sources/apply.ts";
import { collect, withoutCycles } from "./apply.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { EXIT, errorLines } from "./exit.ts";
import { readInputs } from "./inputs.ts";
import { print } from "./io.ts";
import { singularOf } from "./resolve-kind.ts";

/** The steps the controller would take for a bottle if it were declared like this, in words. */
export type Forecast = (
  bottle: Extract<DeclaredDraft, { kind: "Bottle" }>,
  context: CommandContext,
) => Promise<readonly string[]>;

export function planCommand(forecast?: Forecast): Command {
  return new Command("plan")
    .description("say what applying manifests would do, and do nothing")
    .requiredOption("-f, --filename <path>", "a file, a folder or - for stdin; may be repeated", collect)
    .action((flags: { filename: string[] }, command: Command) =>
      perform(command, (context) => runPlan(context, flags, forecast)),
    );
}

export async function runPlan(
  context: CommandContext,
  flags: { filename: readonly string[] },
  forecast?: Forecast,
): Promise<number> {
  const { io, store } = context;
  const inputs = await readInputs(io, flags.filename, context.namespace);
  let exitCode: number = inputs.refused.length > 0 ? EXIT.refused : EXIT.ok;
  for (const error of inputs.refused) print(io, refusalLines("document", error));
  for (const { draft, refusal } of await withoutCycles(context, inputs)) {
    const label = `${singularOf(draft.kind)}/${draftKey(draft).name}`;
    try {
      if (refusal !== undefined) throw refusal;
      print(io, `${label}: ${await previewDraft(store, draft, { admit })}`);
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      print(io, refusalLines(label, error));
      exitCode = EXIT.refused;
      continue;
    }
    if (draft.kind !== "Bottle" || forecast === undefined) continue;
    for (const step of await forecast(draft, context)) print(io, `  - ${step}`);
  }
  return exitCode;
}

function refusalLines(label: string, error: StatusError): string {
  const [first = "", ...more] = errorLines(error);
  return [`${label}: refused: ${first.replace(/^error: /, "")}`, ...more].join("\n");
}
