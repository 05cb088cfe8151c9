/** One way from the agent to the guard: a port of the bottle's loopback interface and a socket in the sockets directory. */
export interface Door {
  name: "egress" | "git" | "supervise" | "forge";
  port: number;
  /** File name in the sockets directory. */
  socket: string;
}

export const DOORS: readonly Door[] = [
  { name: "egress", port: 7001, socket: "egress.sock" },
  { name: "git", port: 7002, socket: "git.sock" },
  { name: "supervise", port: 7003, socket: "supervise.sock" },
  { name: "forge", port: 7004, socket: "forge.sock" },
];

/** Connections through one door at a time. An agent that opens more is refused the rest; its own are the only ones it can use up. */
export const CONNECTIONS_MAX = 256;

/** The two programs of every bottle: one owns the namespace and forwards, the other one decides. */
export type Program = "guard" | "holder";

const LEAN = ["--max-semi-space-size=1", "--v8-pool-size=0"];
/**
 * Options for the Node that runs these programs: both exist in every bottle, so their idle memory is what a host with many bottles pays for.
 * One thread less for each V8 worker, and a young generation that does not grow to its default 32 MiB. A holder keeps nothing; a guard has
 * up to a thousand tunnels and the bodies that its scan holds back.
 */
export function nodeFlags(program: Program): readonly string[] {
  return [`--max-old-space-size=${program === "guard" ? 192 : 64}`, ...LEAN];
}

/**
 * Environment for the same purpose. A holder's look-ups are rare, one thread serves them. In a guard a name that is slow to resolve must not
 * hold up signatures and compressed bodies.
 */
export function nodeEnv(program: Program): Readonly<Record<string, string>> {
  return { UV_THREADPOOL_SIZE: program === "guard" ? "4" : "1" };
}
