/** One folder (or file) of the program and its height: imports go down only. */
export interface Layer {
  path: string;
  /** A file imports its own layer and layers on a lower floor; two layers on one floor do not know each other. */
  floor: number;
  /** Pure layers reach neither the machine nor its clock. `functions`: they are also synchronous and without chance. */
  pure?: "imports" | "functions";
}

/** The house, from the ground up. A source file that is in none of these folders is a finding. */
export const LAYERS: readonly Layer[] = [
  { path: "controller/api", floor: 0, pure: "imports" },
  { path: "controller/ports", floor: 1, pure: "imports" },
  { path: "controller/policy", floor: 2, pure: "functions" },
  { path: "controller/agents", floor: 2, pure: "functions" },
  { path: "controller/plan", floor: 3, pure: "functions" },
  { path: "controller/loop", floor: 4 },
  { path: "controller/stores", floor: 5 },
  { path: "controller/sources", floor: 5 },
  { path: "controller/serve", floor: 5 },
  { path: "controller/forge", floor: 5 },
  { path: "controller/provenance", floor: 5 },
  { path: "backends/guard-launch.ts", floor: 4 },
  { path: "backends/docker", floor: 5 },
  { path: "backends/bubblewrap", floor: 5 },
  { path: "backends/kubernetes", floor: 5 },
  { path: "backends/smolmachines", floor: 5 },
  { path: "backends/macos-container", floor: 5 },
  { path: "backends/qemu", floor: 5 },
  { path: "backends/fake", floor: 5 },
  { path: "backends/guard", floor: 5 },
  { path: "backends/index.ts", floor: 6 },
  { path: "controller/commands", floor: 7 },
  { path: "controller/index.ts", floor: 8 },
  { path: "controller/main.ts", floor: 8 },
];

/** Imports between two layers of one floor that are wanted. */
export const BRIDGES: readonly { from: string; to: string; why: string }[] = [
  {
    from: "backends/guard",
    to: "controller/forge",
    why: "the forge sidecar of the guard speaks the forges' own clients",
  },
  { from: "backends/docker", to: "backends/guard/doors.ts", why: "whoever starts the guard must know its doors" },
  { from: "backends/bubblewrap", to: "backends/guard/doors.ts", why: "whoever starts the guard must know its doors" },
  ...["docker", "bubblewrap"].map((name) => ({
    from: `backends/${name}`,
    to: "backends/guard/control-client.ts",
    why: "a backend brings settings and questions to the guard over a channel of its own",
  })),
  {
    from: "backends/bubblewrap",
    to: "backends/guard/control-protocol.ts",
    why: "whoever starts the guard must know its control socket",
  },
];

/** The one module of Node that pure code may use: hashing is a function of its input. */
export const PURE_NODE_MODULES: readonly string[] = ["node:crypto"];

/** Entries of the top level. Files whose names begin with a dot are allowed too. */
export const TOP_LEVEL: readonly string[] = [
  "package.json",
  "package-lock.json",
  "tsconfig.json",
  "README.md",
  "LICENSE",
  "crds",
  "controller",
  "backends",
  "test",
  "charts",
];

export const FILE_LINES_MAX = 400;
export const FUNCTION_LINES_MAX = 70;
