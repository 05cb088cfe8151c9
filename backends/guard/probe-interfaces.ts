import { readFileSync } from "node:fs";

const IFF_UP = 1;

/** `undefined` for a check that held, else what was found. */
export type Finding = string | undefined;

/** The kernel's own tables of this namespace: no device but loopback that is up, no address on another one, no route. */
export function checkInterfaces(): Finding[] {
  // The first two lines of this table are headings.
  const devices = lines("/proc/net/dev")
    .slice(2)
    .map((line) => line.slice(0, line.indexOf(":")).trim())
    .filter((name) => name !== "lo" && !isDown(name));
  const addressed = lines("/proc/net/if_inet6")
    .map(lastWord)
    .filter((name) => name !== "lo");
  const routes = [
    ...lines("/proc/net/route")
      .slice(1)
      .map((line) => line.split(/\s+/)[0] ?? ""),
    ...lines("/proc/net/ipv6_route")
      .map(lastWord)
      .filter((name) => name !== "lo"),
  ];
  return [
    finding("interface besides lo", devices),
    finding("IPv6 address on", addressed),
    finding("route through", routes),
  ];
}

function finding(what: string, names: string[]): Finding {
  return names.length === 0 ? undefined : `${what}: ${[...new Set(names)].sort().join(", ")}`;
}

/**
 * Some kernels put tunnel devices (tunl0, sit0, …) into every new namespace. They are down, and raising one takes a capability the agent lacks.
 * A sandbox need not show /sys; there the table of multicast groups tells, which every device enters when it goes up and leaves when it goes down.
 */
function isDown(device: string): boolean {
  const [flags] = lines(`/sys/class/net/${device}/flags`);
  if (flags !== undefined) return (Number(flags) & IFF_UP) === 0;
  const [heading, ...groups] = lines("/proc/net/igmp");
  if (heading === undefined) return false;
  return !groups.some((line) => line.split(/[\s:]+/)[1] === device);
}

function lastWord(line: string): string {
  return line.trim().split(/\s+/).at(-1) ?? "";
}

/** Lines of a kernel table. A kernel without IPv6 has no IPv6 tables, which proves the same as empty ones. */
function lines(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line.trim() !== "");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}
