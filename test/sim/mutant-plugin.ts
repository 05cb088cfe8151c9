import { basename } from "node:path";
import type { Plugin } from "vitest/config";
import { MUTANTS } from "./mutants.ts";

const QUERY = /\?mutant=(\d+)$/;

/**
 * `import("…/plan-bottle.ts?mutant=3")` gives the planner with the third planted bug: the query travels along the relative imports within plan/, and
 * the one file that the mutant names is changed on the way in. Sources stay as they are.
 */
export function mutantPlugin(): Plugin {
  return {
    name: "planner-mutants",
    enforce: "pre",
    transform(code, id) {
      const number = QUERY.exec(id)?.[1];
      if (number === undefined) return undefined;
      const mutant = MUTANTS[Number(number)];
      if (mutant === undefined) throw new Error(`there is no mutant ${number}`);
      const own = code.replaceAll(/(from "\.\/[a-z-]+\.ts)"/g, `$1?mutant=${number}"`);
      if (basename(id.replace(QUERY, "")) !== mutant.file) return own;
      const parts = own.split(mutant.find);
      if (parts.length !== 2)
        throw new Error(
          `mutant "${mutant.name}" is stale: its text stands ${parts.length - 1} times in ${mutant.file}`,
        );
      return parts.join(mutant.replace);
    },
  };
}
