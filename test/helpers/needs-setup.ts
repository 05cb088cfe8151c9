import { spawnSync } from "node:child_process";
import type { TestProject } from "vitest/node";

/** Parts of the machine that some tests need. */
const PROBES = {
  docker: {
    works: () => spawnSync("docker", ["info"], { timeout: 20_000 }).status === 0,
    remedy: "apt-get install -y docker.io, then start dockerd",
  },
  busybox: {
    works: () => spawnSync("busybox", ["true"], { timeout: 5_000 }).status === 0,
    remedy: "apt-get install -y busybox-static",
  },
  bubblewrap: {
    works: () =>
      spawnSync(
        "bwrap",
        [
          "--ro-bind",
          "/usr",
          "/usr",
          "--symlink",
          "usr/lib",
          "/lib",
          "--symlink",
          "usr/lib64",
          "/lib64",
          "--unshare-all",
          "/usr/bin/true",
        ],
        {
          timeout: 10_000,
        },
      ).status === 0,
    remedy: "apt-get install -y bubblewrap",
  },
  root: { works: () => process.getuid?.() === 0, remedy: "run them as root" },
  tmux: {
    works: () => spawnSync("tmux", ["-V"], { timeout: 5_000 }).status === 0,
    remedy: "apt-get install -y tmux",
  },
  sqlite3: {
    works: () => spawnSync("sqlite3", ["--version"], { timeout: 5_000 }).status === 0,
    remedy: "apt-get install -y sqlite3",
  },
  curl: {
    works: () => spawnSync("curl", ["--version"], { timeout: 5_000 }).status === 0,
    remedy: "apt-get install -y curl",
  },
  git: {
    works: () => spawnSync("git", ["--version"], { timeout: 5_000 }).status === 0,
    remedy: "apt-get install -y git",
  },
  npm: {
    works: () => spawnSync("npm", ["--version"], { timeout: 20_000 }).status === 0,
    remedy: "install Node with npm",
  },
  openssl: {
    works: () => spawnSync("openssl", ["version"], { timeout: 5_000 }).status === 0,
    remedy: "apt-get install -y openssl",
  },
  python3: {
    works: () => spawnSync("python3", ["--version"], { timeout: 5_000 }).status === 0,
    remedy: "apt-get install -y python3",
  },
  pip: {
    works: () => spawnSync("python3", ["-m", "pip", "--version"], { timeout: 20_000 }).status === 0,
    remedy: "apt-get install -y python3-pip",
  },
} as const;
export type Need = keyof typeof PROBES;

declare module "vitest" {
  interface ProvidedContext {
    /** What to do about each need that is not met. */
    missing: Partial<Record<Need, string>>;
  }
}

export default function setup(project: TestProject): () => void {
  const missing: Partial<Record<Need, string>> = {};
  for (const [need, probe] of Object.entries(PROBES)) {
    if (!probe.works()) missing[need as Need] = probe.remedy;
  }
  project.provide("missing", missing);
  return () => {
    for (const [need, remedy] of Object.entries(missing)) {
      process.stdout.write(`skipped tests that need ${need}: ${remedy}\n`);
    }
  };
}
