/** Data loss prevention: finds what a bottle must not send, and takes secrets out of what comes back. */
export { compileDlp, type DlpRules } from "./compile.ts";
export { createScan, type BodyScan, type ScanStep } from "./scan.ts";
export { scanHost, scanText, scanTexts } from "./scan-text.ts";
export { createScrubber, type Scrubber } from "./scrub.ts";
