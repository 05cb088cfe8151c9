import { parseArgs } from "node:util";
import { DOORS, type Door } from "./doors.ts";
import { dieQuietly } from "./die-quietly.ts";
import type { GuardOptions } from "./guard.ts";

const USAGE = `usage: node main.js guard --sockets DIR --control stdio|socket --audit DIR [--host-address A]... [--dns A[:PORT]]...
                          [--upstream-ca FILE] [--roles ${DOORS.map(({ name }) => name).join(",")}]
       node main.js holder --sockets DIR [--host-address A]...
`;

type Command = { program: "guard"; options: GuardOptions } | { program: "holder"; options: HolderOptions };
interface HolderOptions {
  sockets: string;
  hostAddresses: readonly string[];
}

/** Facts as JSON, one a line. Never anything that an agent sent. */
function report(fact: object): void {
  process.stdout.write(`${JSON.stringify(fact)}\n`);
}

function usage(why: string): never {
  process.stderr.write(`${why}\n${USAGE}`);
  process.exit(64);
}

function readArguments(): Command {
  const { program, values } = parse();
  if (program !== "guard" && program !== "holder") usage(`cannot run "${program}": write guard or holder`);
  const sockets = values.sockets ?? usage(`cannot run ${program}: --sockets DIR is missing`);
  const hostAddresses = values["host-address"] ?? [];
  if (program === "holder") return { program, options: { sockets, hostAddresses } };
  const control = values.control;
  if (control !== "stdio" && control !== "socket") usage("cannot run guard: write --control stdio or --control socket");
  const audit = values.audit ?? usage("cannot run guard: --audit DIR is missing");
  const roles = values.roles === undefined ? undefined : readRoles(values.roles);
  const upstreamCa = values["upstream-ca"];
  const extraCa = process.env["NODE_EXTRA_CA_CERTS"];
  return {
    program,
    options: { sockets, control, audit, roles, hostAddresses, dns: values.dns ?? [], upstreamCa, extraCa },
  };
}

function parse() {
  const one = { type: "string" } as const;
  const many = { type: "string", multiple: true } as const;
  const options = {
    sockets: one,
    control: one,
    audit: one,
    roles: one,
    "upstream-ca": one,
    "host-address": many,
    dns: many,
  };
  try {
    const { positionals, values } = parseArgs({ allowPositionals: true, options });
    return { program: positionals[0] ?? "", values };
  } catch (error) {
    return usage(error instanceof Error ? error.message : String(error));
  }
}

function readRoles(text: string): Door["name"][] {
  return text.split(",").map((name) => {
    const door = DOORS.find((one) => one.name === name);
    return (
      door?.name ??
      usage(`cannot run guard: "${name}" in --roles is none of ${DOORS.map((one) => one.name).join(", ")}`)
    );
  });
}

async function run(command: Command): Promise<void> {
  if (command.program === "guard") {
    const { startGuard } = await import("./guard.ts");
    await startGuard(command.options);
    report({ ready: true });
    return;
  }
  const { startHolder } = await import("./holder.ts");
  await startHolder(command.options);
  report({ ready: true });
  const { probeNamespace } = await import("./probe.ts");
  report({ probe: await probeNamespace(command.options) });
}

// As PID 1 of a container a process without handlers ignores these. There is nothing to save: connections end with the process.
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => process.exit(0));
// Without a listener this signal opens a debugger, through which the memory of a process can be read.
process.on("SIGUSR1", () => {});
// Whoever read the facts may be gone; the bottle still needs its guard.
process.stdout.on("error", () => {});

dieQuietly();

const command = readArguments();
try {
  await run(command);
} catch (error) {
  process.stderr.write(
    `bottle ${command.program} cannot start: ${error instanceof Error ? error.message : String(error)}\n`,
  );
  process.exit(1);
}
