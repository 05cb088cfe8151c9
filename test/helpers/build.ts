import { fileURLToPath } from "node:url";

/** The program as `npm run build` made it: tests of whole processes run this, not the sources. The bench is itself a part of it. */
export const BUILD_DIR = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "../../.build" : "../..", import.meta.url),
);
