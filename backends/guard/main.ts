import { parseArgs } from "node:util";

const USAGE = "usage: node main.js guard|holder --sockets DIR\n";

/** The only lines this program writes on stdout: facts as JSON, one a line. Never anything that an agent sent. */
function report(fact: object): void {
  process.stdout.write(`${JSON.stringify(fact)}\n`);
}

function usage(why: string): never {
  process.stderr.write(`${why}\n${USAGE}`);
  process.exit(64);
}

function readArguments(): { program: "guard" | "holder"; sockets: string } {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    strict: false,
    options: { sockets: { type: "string" } },
  });
  const [program] = positionals;
  if (program !== "guard" && program !== "holder") usage(`cannot run "${program ?? ""}": write guard or holder`);
  if (typeof values.sockets !== "string") usage(`cannot run ${program}: --sockets DIR is missing`);
  return { program, sockets: values.sockets };
}

async function run(): Promise<void> {
  const { program, sockets } = readArguments();
  if (program === "guard") {
    const { startGuard } = await import("./guard.ts");
    await startGuard({ sockets });
    report({ ready: true });
    return;
  }
  const { startHolder } = await import("./holder.ts");
  await startHolder({ sockets });
  report({ ready: true });
  const { probeNamespace } = await import("./probe.ts");
  report({ probe: await probeNamespace() });
}

// As PID 1 of a container a process without handlers ignores these. There is nothing to save: connections end with the process.
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => process.exit(0));
// Whoever read the facts may be gone; the bottle still needs its guard.
process.stdout.on("error", () => {});

try {
  await run();
} catch (error) {
  process.stderr.write(`bottle guard cannot start: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
