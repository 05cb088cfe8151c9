// oxlint-disable-next-line import/no-unassigned-import -- the library below needs it to be there when it is loaded
import "reflect-metadata";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
  type X509Certificate,
} from "@peculiar/x509";
import { KeyObject, randomBytes, webcrypto } from "node:crypto";
import { isIP } from "node:net";

/** A bottle's own certificate authority. Its key is made here, kept in memory, and ends with the process. */
export interface Authority {
  /** PEM. */
  readonly certificate: string;
  /** Key and certificate, PEM, for a canonical host name or IP address. */
  leaf(host: string): Promise<Leaf>;
}

export interface Leaf {
  readonly key: string;
  readonly cert: string;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const CA_MS = 30 * DAY_MS;
const LEAF_MS = 7 * DAY_MS;
/** A bottle's clock may be behind the guard's: a VM that was paused, a container of another host. */
const SKEW_MS = HOUR_MS;
/** A leaf is replaced this long before it ends, so that no connection begins with one about to end. */
const RENEW_MS = HOUR_MS;
const LEAVES_MAX = 256;
const KEY = { name: "ECDSA", namedCurve: "P-256" };
const SIGNATURE = { name: "ECDSA", hash: "SHA-256" };

interface Issuer {
  certificate: X509Certificate;
  key: CryptoKey;
  endMs: number;
}
type CryptoKey = webcrypto.CryptoKey;

/**
 * The authority has no name constraint: the policy changes while the bottle lives, and a refusal is told inside TLS, so any host whatever may
 * need a leaf. What keeps it harmless is that nobody outside this bottle trusts it and that its key dies with the guard.
 */
export async function createAuthority(options: { now: () => number }): Promise<Authority> {
  const [issuer, leafKeys] = await Promise.all([issueAuthority(options.now()), keyPair(true)]);
  const key = KeyObject.from(leafKeys.privateKey).export({ type: "pkcs8", format: "pem" }).toString();
  /** In order of use: the first one was not asked for longest. */
  const leaves = new Map<string, { leaf: Promise<Leaf>; renewMs: number }>();

  const leafFor = (host: string): Promise<Leaf> => {
    const nowMs = options.now();
    const known = leaves.get(host);
    leaves.delete(host);
    if (known !== undefined && nowMs < known.renewMs) {
      leaves.set(host, known);
      return known.leaf;
    }
    const endMs = Math.min(nowMs + LEAF_MS, issuer.endMs);
    if (endMs <= nowMs)
      return Promise.reject(new Error("the bottle's certificate authority has ended: start a new guard"));
    const leaf = issueLeaf(issuer, leafKeys.publicKey, { host, nowMs, endMs }).then((cert) => ({ key, cert }));
    // At the end of the authority's own time a leaf cannot be made to last longer: it is used until then.
    leaves.set(host, { leaf, renewMs: endMs === issuer.endMs ? endMs : endMs - RENEW_MS });
    for (const oldest of leaves.keys()) {
      if (leaves.size <= LEAVES_MAX) break;
      leaves.delete(oldest);
    }
    // A failure is told to whoever waits for it, and not remembered.
    leaf.catch(() => leaves.delete(host));
    return leaf;
  };
  return { certificate: pem(issuer.certificate), leaf: leafFor };
}

async function issueAuthority(nowMs: number): Promise<Issuer> {
  const keys = await keyPair(false);
  const endMs = nowMs + CA_MS;
  // Another name for each authority: a client that kept an older one of the same name would look for its key.
  const subject = `CN=bot-bottle ${randomBytes(4).toString("hex")}`;
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: subject,
    notBefore: new Date(nowMs - SKEW_MS),
    notAfter: new Date(endMs),
    keys,
    signingAlgorithm: SIGNATURE,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      await AuthorityKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate, key: keys.privateKey, endMs };
}

async function issueLeaf(
  issuer: Issuer,
  publicKey: CryptoKey,
  options: { host: string; nowMs: number; endMs: number },
): Promise<string> {
  const { host } = options;
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serial(),
    // The host is in the alternative name, where every client looks; a common name holds 64 characters and no more.
    subject: "CN=bot-bottle guard",
    issuer: issuer.certificate.subject,
    notBefore: new Date(options.nowMs - SKEW_MS),
    notAfter: new Date(options.endMs),
    publicKey,
    signingKey: issuer.key,
    signingAlgorithm: SIGNATURE,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension([{ type: isIP(host) === 0 ? "dns" : "ip", value: host }]),
      await SubjectKeyIdentifierExtension.create(publicKey),
      await AuthorityKeyIdentifierExtension.create(issuer.certificate.publicKey),
    ],
  });
  return pem(certificate);
}

async function keyPair(extractable: boolean): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY, extractable, ["sign", "verify"]);
}

/** Positive and of 16 octets: the first bit is a sign, and a leading zero octet would not be kept. */
function serial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString("hex");
}

function pem(certificate: X509Certificate): string {
  return `${certificate.toString("pem")}\n`;
}
