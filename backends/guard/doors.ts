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

/**
 * Options for the Node that runs this program: it exists twice in every bottle, so its idle memory is what a host with many bottles pays for.
 * One thread less for each V8 worker, and a young generation that does not grow to its default 32 MiB.
 */
export const NODE_FLAGS: readonly string[] = ["--max-old-space-size=64", "--max-semi-space-size=1", "--v8-pool-size=0"];
/** Environment for the same purpose: file and name look-ups are rare here, one thread serves them. */
export const NODE_ENV: Readonly<Record<string, string>> = { UV_THREADPOOL_SIZE: "1" };
