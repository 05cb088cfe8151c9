import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createBubblewrapBackend } from "../../backends/bubblewrap/index.ts";
import { backendContract } from "./backend-contract.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

backendContract("bubblewrap", ["bubblewrap"], async () => {
  const stateDir = mkdtempSync(join(tmpdir(), "bot-bottle-bubblewrap-"));
  const guardProgram = fileURLToPath(new URL("../../.build/backends/guard/main.js", import.meta.url));
  const create = (owner: string) =>
    createBubblewrapBackend({ stateDir, owner, now: Date.now, log: SILENT, guardProgram });
  return {
    backend: create("us"),
    stranger: create("them"),
    close: async () => rmSync(stateDir, { recursive: true, force: true }),
  };
});
