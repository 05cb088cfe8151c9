#!/usr/bin/env node
import { Command, CommanderError, Option } from "commander";
import { errorLines, EXIT, EXIT_HELP, exitCodeOf } from "./commands/exit.ts";

interface Verb {
  name: string;
  summary: string;
  load(): Promise<Command>;
}

/** Every verb of the command line. Only the one that is asked for is loaded, so that help and completion stay quick. */
const VERBS: readonly Verb[] = [
  {
    name: "quickstart",
    summary: "see a bottle work in a minute",
    load: async () => (await import("./commands/quickstart.ts")).quickstartCommand(),
  },
  {
    name: "serve",
    summary: "run the control loop: keep every bottle as it is declared",
    load: async () => (await import("./commands/serve.ts")).serveCommand(),
  },
  {
    name: "apply",
    summary: "create or change objects as manifests say",
    load: async () => (await import("./commands/apply.ts")).applyCommand(),
  },
  {
    name: "plan",
    summary: "say what applying manifests would do, and do nothing",
    load: async () => (await import("./commands/plan.ts")).planCommand(),
  },
  { name: "get", summary: "list objects", load: async () => (await import("./commands/get.ts")).getCommand() },
  {
    name: "describe",
    summary: "show everything about an object, and what happened to it",
    load: async () => (await import("./commands/describe.ts")).describeCommand(),
  },
  {
    name: "logs",
    summary: "show what the agent wrote",
    load: async () => (await import("./commands/logs.ts")).logsCommand(),
  },
  {
    name: "egress",
    summary: "show what left a bottle, and what was refused",
    load: async () => (await import("./commands/egress.ts")).egressCommand(),
  },
  {
    name: "policy",
    summary: "say what may leave a bottle, and which rule would decide",
    load: async () => (await import("./commands/policy.ts")).policyCommand(),
  },
  {
    name: "turn",
    summary: "give a bottle another turn",
    load: async () => (await import("./commands/turn.ts")).turnCommand(),
  },
  {
    name: "attach",
    summary: "show the running turn live and exit with its code",
    load: async () => (await import("./commands/attach.ts")).attachCommand(),
  },
  {
    name: "exec",
    summary: "run a command beside the agent",
    load: async () => (await import("./commands/exec.ts")).execCommand(),
  },
  {
    name: "cp",
    summary: "copy files into a bottle or out of it",
    load: async () => (await import("./commands/cp.ts")).cpCommand(),
  },
  {
    name: "freeze",
    summary: "stop a bottle and keep its disk",
    load: async () => (await import("./commands/freeze.ts")).freezeCommand(),
  },
  {
    name: "resume",
    summary: "let a frozen bottle run again",
    load: async () => (await import("./commands/resume.ts")).resumeCommand(),
  },
  {
    name: "delete",
    summary: "delete objects; deleting a bottle destroys it with its disk",
    load: async () => (await import("./commands/delete.ts")).deleteCommand(),
  },
  {
    name: "export",
    summary: "write a frozen bottle to one archive",
    load: async () => (await import("./commands/export.ts")).exportCommand(),
  },
  {
    name: "import",
    summary: "make a bottle from such an archive",
    load: async () => (await import("./commands/import.ts")).importCommand(),
  },
  {
    name: "cleanup",
    summary: "remove what is left of bottles that nobody declares",
    load: async () => (await import("./commands/cleanup.ts")).cleanupCommand(),
  },
  {
    name: "doctor",
    summary: "check what this machine can do, and say what to install",
    load: async () => (await import("./commands/doctor.ts")).doctorCommand(),
  },
  {
    name: "crds",
    summary: "print the CustomResourceDefinitions",
    load: async () => (await import("./commands/crds.ts")).crdsCommand(),
  },
  {
    name: "version",
    summary: "print the version",
    load: async () => (await import("./commands/version.ts")).versionCommand(),
  },
];

await main(process.argv.slice(2));

async function main(argv: readonly string[]): Promise<void> {
  endQuietlyWithoutReader();
  try {
    await (await programFor(argv)).parseAsync(argv, { from: "user" });
  } catch (error) {
    // Commander has printed its message already.
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    else {
      const lines = errorLines(error, process.env["BOT_BOTTLE_DEBUG"] === "1");
      process.stderr.write(`${lines.join("\n")}\n`);
      process.exitCode = exitCodeOf(error);
    }
  }
}

/** The program with the verb that is asked for; the others are there by name only. */
async function programFor(argv: readonly string[]): Promise<Command> {
  const program = new Command("bot-bottle")
    .description("Runs untrusted AI coding agents in sealed bottles, as declared.")
    .option("--state-dir <dir>", "where everything is kept (default: $BOT_BOTTLE_STATE_DIR or ~/.bot-bottle)")
    .addOption(
      new Option("--log-level <level>", "how much to log to stderr").choices(["debug", "info", "warn", "error"]),
    )
    .option("-n, --namespace <name>", 'namespace of objects (default: "default")')
    .option("--no-color", "without colours (also: NO_COLOR)")
    .addHelpText("after", `\n${EXIT_HELP}`)
    .exitOverride();
  for (const verb of VERBS) {
    // A word that happens to be a verb's name loads it for nothing; a verb that is not among the words is not needed.
    if (!argv.includes(verb.name)) program.command(verb.name, { hidden: false }).description(verb.summary);
    else program.addCommand(inheriting(await verb.load(), program));
  }
  return program;
}

/** With the settings of the program, on every level: a verb may have verbs of its own. */
function inheriting(command: Command, parent: Command): Command {
  command.copyInheritedSettings(parent);
  for (const nested of command.commands) inheriting(nested, command);
  return command;
}

/** `bot-bottle get … | head` ends when head does. */
function endQuietlyWithoutReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") process.exit(process.exitCode ?? EXIT.ok);
      throw error;
    });
  }
}
