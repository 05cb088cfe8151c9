import type { UrlExplanation } from "./explain-url.ts";
import { colored, type Io } from "./io.ts";
import { safeCell } from "./safe-output.ts";
import { renderTable } from "./table.ts";

const SAID = { Allow: "allowed", RequireApproval: "needs an approval", Deny: "denied" } as const;
const COLOR = { Allow: "green", RequireApproval: "yellow", Deny: "red" } as const;

/** The verdict first, then each rule with its part in it. */
export function explanationText(io: Pick<Io, "color">, explanation: UrlExplanation): string {
  const { request, verdict, injected, rules } = explanation;
  const readsRequests = request.protocol === "HTTPS" || request.protocol === "HTTP";
  const what = readsRequests
    ? `${request.method} ${request.path}${request.webSocket ? " (WebSocket)" : ""}`
    : "a tunnel";
  const head = [
    ["Request:", `${safeCell(what)} to ${safeCell(request.host)} port ${request.port}, ${request.protocol}`],
    ["Verdict:", `${colored(io, COLOR[verdict.action], SAID[verdict.action])} by rule "${safeCell(verdict.rule)}"`],
    ["Reason:", safeCell(verdict.reason)],
    ["Injected:", injected.length === 0 ? "nothing" : injected.map(safeCell).join(", ")],
  ];
  const lines = head.map(([name = "", value = ""]) => `${name.padEnd(11)}${value}`);
  if (rules.length === 0) return lines.join("\n");
  const rows = rules.map(({ rule, outcome, why }) => [rule, outcome, why].map(safeCell));
  return [...lines, "", renderTable(rows, ["Rule", "Outcome", "Why"])].join("\n");
}
