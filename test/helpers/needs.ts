import { describe, inject, it } from "vitest";
import type { Need } from "./needs-setup.ts";

/**
 * A suite of tests that need real parts of the machine. Where one is missing the suite is skipped under a name that says what to install;
 * with BOT_BOTTLE_TEST_STRICT set (as on CI, where everything is installed) that is a failure instead.
 */
export function describeWith(needs: readonly Need[], name: string, body: () => void): void {
  const missing = inject("missing");
  const absent = needs.filter((need) => missing[need] !== undefined);
  if (absent.length === 0) {
    describe(name, body);
    return;
  }
  const why = absent.map((need) => missing[need]).join("; ");
  if (process.env["BOT_BOTTLE_TEST_STRICT"] !== undefined) {
    it(`${name} has what it needs`, () => {
      throw new Error(`missing on a machine where everything must be installed: ${why}`);
    });
    return;
  }
  describe.skip(`${name} [skipped: ${why}]`, body);
}
