import { isIP } from "node:net";
import { resolve } from "node:path";
import type { CommandContext } from "./context.ts";
import { CommandError, EXIT } from "./exit.ts";

const SERVERS_MAX = 4;

/** How guards of this machine reach the network, where that is not as usual. */
export interface GuardEnvironment {
  /** Name servers that guards ask, each an address with an optional port; else those of the machine. */
  guardDns?: readonly string[];
  /** A PEM file with authorities that guards trust upstream besides the public ones. */
  guardUpstreamCa?: string;
}

/** Reads BOT_BOTTLE_GUARD_DNS (`10.0.0.53,[fd00::53]:5353`) and BOT_BOTTLE_GUARD_CA. */
export function guardEnvironment(env: CommandContext["env"]): GuardEnvironment {
  const dns = (env["BOT_BOTTLE_GUARD_DNS"] ?? "")
    .split(",")
    .map((server) => server.trim())
    .filter((server) => server !== "");
  const ca = env["BOT_BOTTLE_GUARD_CA"] ?? "";
  const wrong = dns.find((server) => !isServer(server));
  if (wrong !== undefined || dns.length > SERVERS_MAX) {
    const what = wrong === undefined ? `has ${dns.length} servers` : `holds "${wrong.slice(0, 80)}"`;
    const form = `at most ${SERVERS_MAX} addresses with an optional port, as in 10.0.0.53,[fd00::53]:5353`;
    throw new CommandError(EXIT.usage, `BOT_BOTTLE_GUARD_DNS ${what}: write ${form}`);
  }
  return {
    ...(dns.length === 0 ? {} : { guardDns: dns }),
    ...(ca === "" ? {} : { guardUpstreamCa: resolve(ca) }),
  };
}

function isServer(text: string): boolean {
  if (isIP(text) !== 0) return true;
  const parts = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?$/.exec(text);
  if (parts === null) return false;
  const [, bracketed, plain, port] = parts;
  const isAddress = bracketed === undefined ? isIP(plain ?? "") === 4 : isIP(bracketed) === 6;
  return isAddress && (port === undefined || (Number(port) > 0 && Number(port) < 65_536));
}
