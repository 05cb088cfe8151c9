import { defineConfig } from "vitest/config";
import { mutantPlugin } from "./sim/mutant-plugin.ts";

// Tests that drive Docker or whole processes share two cores: files run two at a time, and a deadline is generous, because no test proves speed.
export default defineConfig({
  plugins: [mutantPlugin()],
  test: {
    root: new URL("..", import.meta.url).pathname,
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/helpers/needs-setup.ts"],
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    reporters: ["default", "./test/helpers/summary-reporter.ts"],
  },
});
