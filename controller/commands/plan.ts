import { Command } from "commander";
import { admit } from "../api/admit.ts";
import { StatusError } from "../api/errors.ts";
import { draftKey, previewDraft, type Declared } from "../sources/apply.ts";
import { collect, withoutCycles } from "./apply.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { EXIT, errorLines } from "./exit.ts";
import { forecastBottle } from "./forecast-bottle.ts";
import { readInputs } from "./inputs.ts";
import { print } from "./io.ts";
import { singularOf } from "./resolve-kind.ts";

export function planCommand(): Command {
  return new Command("plan")
    .description("say what applying manifests would do, and do nothing")
    .requiredOption("-f, --filename <path>", "a file, a folder or - for stdin; may be repeated", collect)
    .action((flags: { filename: string[] }, command: Command) =>
      perform(command, (context) => runPlan(context, flags)),
    );
}

/** Says for each manifest what applying it would change, and for each bottle what the control loop would then do. */
export async function runPlan(context: CommandContext, flags: { filename: readonly string[] }): Promise<number> {
  const { io, store } = context;
  const inputs = await readInputs(io, flags.filename, context.namespace);
  let exitCode: number = inputs.refused.length > 0 ? EXIT.refused : EXIT.ok;
  for (const error of inputs.refused) print(io, refusalLines("document", error));
  const previews: Declared[] = [];
  for (const { draft, refusal } of await withoutCycles(context, inputs)) {
    const label = `${singularOf(draft.kind)}/${draftKey(draft).name}`;
    try {
      if (refusal !== undefined) throw refusal;
      const { result, object } = await previewDraft(store, draft, { admit });
      print(io, `${label}: ${result}`);
      previews.push(object);
      if (object.kind !== "Bottle") continue;
      for (const step of await forecastBottle(context, object, previews)) print(io, `  - ${step}`);
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      print(io, refusalLines(label, error));
      exitCode = EXIT.refused;
    }
  }
  return exitCode;
}

function refusalLines(label: string, error: StatusError): string {
  const [first = "", ...more] = errorLines(error);
  return [`${label}: refused: ${first.replace(/^error: /, "")}`, ...more].join("\n");
}
