import { fileURLToPath } from "node:url";

/** The program as `npm run build` made it: tests of whole processes run this, not the sources. */
export const BUILD_DIR = fileURLToPath(new URL("../../.build", import.meta.url));
