import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBubblewrapBackend } from "../../backends/bubblewrap/index.ts";
import { backendContract } from "./backend-contract.ts";
import type { Bed } from "./bottles.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

const bed = async (): Promise<Bed> => {
  const stateDir = mkdtempSync(join(tmpdir(), "bot-bottle-bubblewrap-"));
  const create = (owner: string) => createBubblewrapBackend({ stateDir, owner, now: Date.now, log: SILENT });
  return {
    backend: create("us"),
    another: () => create("us"),
    stranger: create("them"),
    close: async () => rmSync(stateDir, { recursive: true, force: true }),
  };
};

backendContract("bubblewrap", ["bubblewrap", "curl"], bed, { guard: "Program" });
