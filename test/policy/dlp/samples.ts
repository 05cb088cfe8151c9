const LOWER = "abcdefghijklmnopqrstuvwxyz";
const DIGITS = "0123456789";
const HEX = `${DIGITS}abcdef`;
const UPPER = LOWER.toUpperCase();
const ALNUM = `${LOWER}${UPPER}${DIGITS}`;

/** Characters of an alphabet, neither alike nor in order. Made here, so that no file holds what looks like a real token. */
export function characters(alphabet: string, length: number): string {
  return Array.from({ length }, (_, index) => alphabet.charAt((index * 7 + 3) % alphabet.length)).join("");
}

const alnum = (length: number) => characters(ALNUM, length);
const hex = (length: number) => characters(HEX, length);
const upper = (length: number) => characters(`${UPPER}${DIGITS}`, length);

/** A token of every kind. */
export const TOKEN_SAMPLES: Readonly<Record<string, readonly string[]>> = {
  "github-token": ["ghp_", "gho_", "ghu_", "ghs_", "ghr_"].map((prefix) => prefix + alnum(36)),
  "github-fine-grained-token": [`github_pat_${alnum(22)}_${alnum(59)}`],
  "gitlab-token": ["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glagent-", "gloas-"].map(
    (prefix) => prefix + alnum(20),
  ),
  "gitea-token": [
    `GITEA_TOKEN=${hex(40)}`,
    `"gitea_token": "${hex(40)}"`,
    `MY_FORGEJO_TOKEN='${hex(40)}'`,
    `giteaToken: ${hex(40)}`,
    `forgejo_token=${hex(40)}`,
  ],
  "aws-access-key": [`AKIA${upper(16)} ${alnum(40)}`, `ASIA${upper(16)}",\\n"key": "\\n${alnum(40)}\\n"`],
  "aws-secret-access-key": [
    `aws_secret_access_key = ${alnum(40)}`,
    `"SecretAccessKey":"${alnum(40)}"`,
    `secretAccessKey: "${alnum(40)}"`,
    `AWS_SECRET_ACCESS_KEY=${alnum(40)}`,
  ],
  "gcp-service-account-key": [`"private_key_id": "${hex(40)}"`, `\\"private_key_id\\": \\"${hex(40)}\\"`],
  "google-api-key": [`AIza${alnum(35)}`],
  "google-oauth-secret": [`GOCSPX-${alnum(28)}`],
  "google-oauth-token": [`ya29.${alnum(60)}`],
  "azure-storage-key": [`AccountKey=${alnum(86)}==`],
  "azure-client-secret": [`${alnum(3)}8Q~${alnum(34)}`],
  "digitalocean-token": ["dop_v1_", "doo_v1_", "dor_v1_"].map((prefix) => prefix + hex(64)),
  "databricks-token": [`dapi${hex(32)}`],
  "vault-token": [`hvs.${alnum(24)}`, `hvb.${alnum(24)}`],
  "terraform-token": [`${alnum(14)}.atlasv1.${alnum(60)}`],
  "pulumi-token": [`pul-${hex(40)}`],
  "supabase-token": [`sbp_${hex(40)}`],
  "anthropic-key": [`sk-ant-api03-${alnum(93)}AA`],
  "openai-key": [`sk-proj-${alnum(48)}`, `sk-${alnum(20)}T3BlbkFJ${alnum(20)}`, `sk-${alnum(48)}`],
  "hugging-face-token": [`hf_${alnum(34)}`],
  "groq-key": [`gsk_${alnum(52)}`],
  "xai-key": [`xai-${alnum(80)}`],
  "perplexity-key": [`pplx-${alnum(48)}`],
  "replicate-token": [`r8_${alnum(37)}`],
  "npm-token": [`npm_${alnum(36)}`],
  "pypi-token": [`pypi-AgEIcHlwaS5vcmc${alnum(60)}`],
  "docker-hub-token": [`dckr_pat_${alnum(27)}`, `dckr_oat_${alnum(32)}`],
  "rubygems-key": [`rubygems_${hex(48)}`],
  "slack-token": [`xoxb-${characters(DIGITS, 12)}-${alnum(24)}`],
  "slack-app-token": [`xapp-1-${upper(11)}-${characters(DIGITS, 13)}-${hex(40)}`],
  "slack-webhook": [`https://hooks.slack.com/services/T${upper(9)}/B${upper(9)}/${alnum(24)}`],
  "stripe-key": [`sk_live_${alnum(24)}`, `rk_live_${alnum(24)}`],
  "sendgrid-key": [`SG.${alnum(22)}.${alnum(43)}`],
  "twilio-key": [`TWILIO_API_KEY=SK${hex(32)}`, `SK${hex(32)}", "host": "api.twilio.com"`],
  "telegram-token": [`${characters(DIGITS, 10)}:AA${alnum(33)}`],
  "shopify-token": ["shpat_", "shpca_", "shppa_", "shpss_"].map((prefix) => prefix + hex(32)),
  "square-token": [`sq0atp-${alnum(22)}`, `sq0csp-${alnum(43)}`],
  "mailgun-key": [`MAILGUN_API_KEY=key-${hex(32)}`, `key-${hex(32)}@api.mailgun.net`],
  "atlassian-token": [`ATATT3${alnum(60)}=ABCD1234`],
  "linear-key": [`lin_api_${alnum(40)}`],
  "grafana-token": [`glsa_${alnum(32)}_${hex(8)}`],
  jwt: [`eyJ${alnum(33)}.eyJ${alnum(40)}.${alnum(43)}`, `eyJ${alnum(509)}.eyJ${alnum(40)}`],
  "private-key": [
    `-----BEGIN PRIVATE KEY-----\n${alnum(64)}\n`,
    `-----BEGIN OPENSSH PRIVATE KEY-----\\n${alnum(64)}\\n`,
    `-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,${upper(32)}\n\n${alnum(64)}\n`,
  ],
  "putty-private-key": [
    `PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\nComment: me\r\nPublic-Lines: 2\r\n${alnum(64)}\r\n`,
  ],
  "age-secret-key": [`AGE-SECRET-KEY-1${upper(58)}`],
  "url-password": [`postgres://app:${alnum(16)}@db.internal:5432/app`, `amqps://u:k9${alnum(7)}-4@[2001:db8::7]/`],
};
