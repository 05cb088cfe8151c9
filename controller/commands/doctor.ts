import { accessSync, constants } from "node:fs";
import { Command } from "commander";
import { detectBackend } from "../../backends/index.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { EXIT } from "./exit.ts";
import { colored, print } from "./io.ts";
import { renderTable } from "./table.ts";
import { packageVersion } from "./version.ts";

const NODE_MIN = [20, 19] as const;

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("check what this machine can do, and say what to install")
    .action((_flags: object, command: Command) => perform(command, runDoctor));
}

interface Check {
  name: string;
  state: "ok" | "missing" | "note";
  found: string;
  fix?: string;
}

export async function runDoctor(context: CommandContext): Promise<number> {
  const backends = await Promise.all(context.backendNames.map((name) => checkBackend(context, name)));
  const checks = [checkNode(), checkStateDir(context), checkController(context), ...backends.map((each) => each.check)];
  const env = context.env["BOT_BOTTLE_BACKEND"];
  const detection = await detectBackend(
    backends.map((each) => each.backend),
    { env },
  );
  checks.push(
    detection.ok
      ? { name: "default backend", state: "ok", found: detection.name }
      : { name: "default backend", state: "missing", found: "none", fix: "make one of the backends above work" },
  );
  const rows = checks.map(({ name, state, found, fix }) => [name, state, found, fix ?? "-"]);
  print(context.io, colorStates(context, renderTable(rows, ["Check", "State", "Found", "To do"])));
  if (!detection.ok) return EXIT.unavailable;
  return checkNode().state === "ok" ? EXIT.ok : EXIT.error;
}

function colorStates(context: CommandContext, table: string): string {
  return table
    .replaceAll(/ ok( |$)/gm, (match) => colored(context.io, "green", match))
    .replaceAll(/ missing( |$)/gm, (match) => colored(context.io, "red", match));
}

function checkNode(): Check {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const isNew = major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1]);
  const found = `Node ${process.versions.node}, bot-bottle ${packageVersion()}`;
  if (isNew) return { name: "program", state: "ok", found };
  return { name: "program", state: "missing", found, fix: `install Node ${NODE_MIN.join(".")} or newer` };
}

/** The database was opened and asked before any command runs, so the folder and SQLite work; whether it may be written is another thing. */
function checkStateDir({ stateDir, installationId }: CommandContext): Check {
  try {
    accessSync(stateDir, constants.W_OK);
    return { name: "state", state: "ok", found: `${stateDir} (SQLite, installation ${installationId})` };
  } catch {
    return { name: "state", state: "missing", found: stateDir, fix: "let this user write it, or use --state-dir" };
  }
}

function checkController(context: CommandContext): Check {
  const pid = context.controllerPid();
  if (pid !== undefined) return { name: "controller", state: "ok", found: `running (pid ${pid})` };
  return { name: "controller", state: "note", found: "not running", fix: "bot-bottle serve" };
}

async function checkBackend(context: CommandContext, name: string) {
  const backend = context.backend(name);
  const found = await backend.available(context.signal);
  const check: Check = found.ok
    ? { name, state: "ok", found: found.version }
    : { name, state: "missing", found: found.reason, fix: found.fix };
  return { backend, check };
}
