import { hasAwsSecret, hasDigit, hasKeyBytes, hasPuttyKeyBytes, isMixed, isNear, isUrlPassword } from "./confirm.ts";

/**
 * The shape of one kind of token. Text is first searched for the literals, at least three characters each, and only where one stands
 * is the shape tried. No shape has a quantifier within a quantifier or one without an upper bound, so that no text makes a scan slow.
 */
export interface TokenPattern {
  id: string;
  literals: readonly string[];
  /** A regular expression that matches at the first character of the literal. */
  shape: string;
  /** What stands before the literal and belongs to the token: a run of characters out of a class, from `opening` on if given. */
  lead?: { characters: RegExp; min: number; max: number; opening?: string };
  /** A last look at what the shape found: the whole text, where the token begins and where it ends. */
  confirm?: (text: string, start: number, end: number) => boolean;
}

const WORD = /[A-Za-z0-9_-]/;
const HEX_DIGITS: readonly string[] = [..."0123456789abcdef"];
/** Longest token with all that is looked at around it; the scan of a stream holds back twice this. */
export const PATTERN_LENGTH_MAX = 600;

/** Kinds of tokens by their issuer. A finding carries the id and never the text. */
export const TOKEN_PATTERNS: readonly TokenPattern[] = [
  // Forges
  { id: "github-token", literals: ["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], shape: "gh[pousr]_[A-Za-z0-9]{36}" },
  { id: "github-fine-grained-token", literals: ["github_pat_"], shape: "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}" },
  {
    id: "gitlab-token",
    literals: ["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glagent-", "gloas-"],
    shape: "gl(?:pat|dt|rt|cbt|ptt|ft|agent|oas)-[\\w-]{20}",
  },
  {
    // A token of Gitea or Forgejo is forty hex digits, as a commit is: only its name tells.
    id: "gitea-token",
    literals: ["GITEA_TOKEN", "gitea_token", "giteaToken", "FORGEJO_TOKEN", "forgejo_token"],
    shape: "\\w{10,13}[\"'\\\\:= ]{1,8}[0-9a-f]{40}(?![0-9A-Za-z])",
    lead: { characters: /\w/, min: 0, max: 32 },
  },
  // Clouds
  {
    id: "aws-access-key",
    literals: ["AKIA", "ASIA"],
    shape: "A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])",
    confirm: hasAwsSecret,
  },
  {
    id: "aws-secret-access-key",
    literals: ["secret_access_key", "SecretAccessKey", "secretAccessKey", "SECRET_ACCESS_KEY"],
    shape: "\\w{15,17}[\"'\\\\:= ]{1,8}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    // This one is found as the end of a longer name, as in aws_secret_access_key.
    lead: { characters: /\w/, min: 0, max: 32 },
  },
  {
    id: "gcp-service-account-key",
    literals: ["private_key_id"],
    shape: "private_key_id[\"'\\\\: ]{3,8}[0-9a-f]{40}(?![0-9A-Za-z])",
  },
  { id: "google-api-key", literals: ["AIza"], shape: "AIza[\\w-]{35}(?![\\w-])" },
  { id: "google-oauth-secret", literals: ["GOCSPX-"], shape: "GOCSPX-[\\w-]{28}" },
  { id: "google-oauth-token", literals: ["ya29."], shape: "ya29\\.[\\w-]{50}" },
  { id: "azure-storage-key", literals: ["AccountKey="], shape: "AccountKey=[A-Za-z0-9+/]{86}==" },
  {
    id: "azure-client-secret",
    literals: ["8Q~"],
    shape: "8Q~[\\w~.-]{34}(?![\\w~.-])",
    lead: { characters: /[\w~.-]/, min: 3, max: 3 },
  },
  { id: "digitalocean-token", literals: ["dop_v1_", "doo_v1_", "dor_v1_"], shape: "do[opr]_v1_[0-9a-f]{64}" },
  { id: "databricks-token", literals: ["dapi"], shape: "dapi[0-9a-f]{32}" },
  { id: "vault-token", literals: ["hvs.", "hvb."], shape: "hv[sb]\\.[\\w-]{24}", confirm: isMixed },
  {
    id: "terraform-token",
    literals: [".atlasv1."],
    shape: "\\.atlasv1\\.[\\w-]{60}",
    lead: { characters: /[A-Za-z0-9]/, min: 14, max: 14 },
  },
  { id: "pulumi-token", literals: ["pul-"], shape: "pul-[0-9a-f]{40}" },
  { id: "supabase-token", literals: ["sbp_"], shape: "sbp_[0-9a-f]{40}" },
  // Models
  { id: "anthropic-key", literals: ["sk-ant-"], shape: "sk-ant-[a-z0-9]{2,10}-[\\w-]{60}" },
  {
    id: "openai-key",
    literals: ["sk-"],
    shape: "sk-(?:(?:proj|svcacct|admin|or-v1)-[\\w-]{40}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|[A-Za-z0-9]{32})",
    confirm: hasDigit,
  },
  { id: "hugging-face-token", literals: ["hf_"], shape: "hf_[A-Za-z0-9]{34}" },
  { id: "groq-key", literals: ["gsk_"], shape: "gsk_[A-Za-z0-9]{52}" },
  { id: "xai-key", literals: ["xai-"], shape: "xai-[A-Za-z0-9]{80}" },
  { id: "perplexity-key", literals: ["pplx-"], shape: "pplx-[A-Za-z0-9]{48}" },
  { id: "replicate-token", literals: ["r8_"], shape: "r8_[A-Za-z0-9]{37}" },
  // Registries
  { id: "npm-token", literals: ["npm_"], shape: "npm_[A-Za-z0-9]{36}" },
  { id: "pypi-token", literals: ["pypi-AgE"], shape: "pypi-AgE[\\w-]{50}" },
  { id: "docker-hub-token", literals: ["dckr_pat_", "dckr_oat_"], shape: "dckr_[po]at_[\\w-]{27}" },
  { id: "rubygems-key", literals: ["rubygems_"], shape: "rubygems_[0-9a-f]{48}" },
  // Services
  { id: "slack-token", literals: ["xox"], shape: "xox[abeoprs][-.][0-9A-Za-z.-]{24}", confirm: hasDigit },
  { id: "slack-app-token", literals: ["xapp-"], shape: "xapp-[0-9]-[A-Z0-9]{8,12}-[0-9]{10,13}-[0-9a-f]{40}" },
  {
    id: "slack-webhook",
    literals: ["hooks.slack.com/"],
    shape: "hooks\\.slack\\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{24}",
  },
  { id: "stripe-key", literals: ["sk_live_", "rk_live_"], shape: "[rs]k_live_[A-Za-z0-9]{24}" },
  { id: "sendgrid-key", literals: ["SG."], shape: "SG\\.[\\w-]{22}\\.[\\w-]{43}" },
  {
    // As many other ids are written.
    id: "twilio-key",
    literals: HEX_DIGITS.map((digit) => `SK${digit}`),
    shape: "SK[0-9a-f]{32}(?![0-9A-Za-z])",
    confirm: isNear("twilio"),
  },
  {
    id: "telegram-token",
    literals: [":AA"],
    shape: ":AA[\\w-]{33}(?![\\w-])",
    lead: { characters: /[0-9]/, min: 8, max: 10 },
  },
  {
    id: "shopify-token",
    literals: ["shpat_", "shpca_", "shppa_", "shpss_"],
    shape: "shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
  },
  { id: "square-token", literals: ["sq0atp-", "sq0csp-"], shape: "sq0(?:atp-[\\w-]{22}|csp-[\\w-]{43})" },
  {
    // As entries of caches are called.
    id: "mailgun-key",
    literals: ["key-"],
    shape: "key-[0-9a-f]{32}(?![0-9A-Za-z])",
    confirm: isNear("mailgun"),
  },
  { id: "atlassian-token", literals: ["ATATT3"], shape: "ATATT3[\\w=-]{60}" },
  { id: "linear-key", literals: ["lin_api_"], shape: "lin_api_[A-Za-z0-9]{40}" },
  { id: "grafana-token", literals: ["glsa_"], shape: "glsa_[A-Za-z0-9]{32}_[0-9A-Fa-f]{8}" },
  // Anywhere
  {
    // Looked for from its middle: between two dots stands a second piece of JSON in base64.
    id: "jwt",
    literals: [".eyJ"],
    shape: "\\.eyJ[\\w-]{16}",
    lead: { characters: WORD, min: 12, max: 512, opening: "eyJ" },
  },
  {
    // Looked for from its middle, which text that repeats the beginning without end does not have.
    id: "private-key",
    literals: ["PRIVATE KEY"],
    shape: "PRIVATE KEY[A-Z ]{0,8}-----",
    lead: { characters: /[A-Z0-9 -]/, min: 11, max: 43, opening: "-----BEGIN " },
    confirm: hasKeyBytes,
  },
  {
    id: "putty-private-key",
    literals: ["PuTTY-User-Key-File-"],
    shape: "PuTTY-User-Key-File-[23]: ",
    confirm: hasPuttyKeyBytes,
  },
  { id: "age-secret-key", literals: ["AGE-SECRET-KEY-1"], shape: "AGE-SECRET-KEY-1[A-Z0-9]{58}" },
  {
    id: "url-password",
    literals: ["://"],
    shape: "://[^\\s:/?#@\"'<>]{1,64}:[^\\s:/?#@\"'<>]{8,128}@[A-Za-z0-9\\[]",
    lead: { characters: /[a-z0-9+]/, min: 2, max: 20 },
    confirm: isUrlPassword,
  },
];
