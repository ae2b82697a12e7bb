// Makes the golden vectors: what each built-in profile sends for given events, computed here with nothing of Hookline's.
//
//   node make.mjs          writes the files
//   node make.mjs --check  fails where a file differs from what it would write
//
// Every value that is JSON (metadata, data, body) is kept as text, because its bytes are the point.
import { createHmac, createPrivateKey, createPublicKey, sign } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

const quote = JSON.stringify;
const secretA = "c2VjcmV0IEEgb2YgdGhlIGdvbGRlbiB2ZWN0b3JzIDA=";
const secretB = "c2VjcmV0IEIgb2YgdGhlIGdvbGRlbiB2ZWN0b3JzIDE=";
const seedA = Buffer.from("ed25519 seed of the vectors: AAA");
const seedB = Buffer.from("ed25519 seed of the vectors: BBB");

// fraction keeps n digits of a UTC time, cutting the rest off.
const fraction = (time, n) => {
  const [, head, digits = ""] = /^(.*?:\d\d:\d\d)(?:\.(\d+))?Z$/.exec(time);
  return `${head}.${(digits + "000000").slice(0, n)}Z`;
};
const unix = (time) => String(Math.floor(Date.parse(time) / 1000));
const hmac = (key, text, as) => createHmac("sha256", key).update(text).digest(as);

// An ed25519 key of PKCS #8 is a fixed prefix and the seed.
const pkcs8 = (seed) =>
  createPrivateKey({ key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]), format: "der", type: "pkcs8" });
const rawPublic = (seed) => createPublicKey(pkcs8(seed)).export({ format: "der", type: "spki" }).subarray(-32);
const privateSecret = (seed) => "whsk_" + Buffer.concat([seed, rawPublic(seed)]).toString("base64");
const publicSecret = (seed) => "whpk_" + rawPublic(seed).toString("base64");

// filled adds the members that are absent to an object, as text.
const filled = (text, members) => {
  const have = JSON.parse(text ?? "{}");
  const extra = Object.entries(members).filter(([name]) => !(name in have)).map(([name, value]) => `${quote(name)}:${quote(value)}`);
  if (extra.length === 0) return text;
  const inner = (text ?? "{}").trim().slice(1, -1).trim();
  return "{" + [...(inner ? [inner] : []), ...extra].join(",") + "}";
};

const sorted = (_, value) =>
  value instanceof Object && !Array.isArray(value)
    ? Object.keys(value).sort().reduce((out, name) => ((out[name] = value[name]), out), {})
    : value;

const profiles = {
  fynapse({ event, secrets, attemptAt, deliveryId }) {
    const metadata = filled(event.metadata, { eventType: event.type, startedOn: fraction(event.timestamp, 6) });
    const body =
      `{"event_id":${quote(event.id)},"event_type":${quote(event.type)},"metadata":${metadata},` +
      `"event_timestamp":"${fraction(event.timestamp, 3)}","data":${event.data}}`;
    const t = unix(attemptAt);
    const v1 = secrets.map((secret) => `v1=${hmac(secret, `${t}.${body}`, "hex")}`);
    return { headers: { "Idempotency-Key": deliveryId, "Webhook-Signature": [`t=${t}`, ...v1].join(",") }, body };
  },
  fynex({ event, secrets }) {
    const body = `{"event_type":${quote(event.type)},"timestamp":"${fraction(event.timestamp, 3)}","data":${event.data}}`;
    return { headers: { "X-Fynex-Signature": "sha256=" + hmac(secrets[0], body, "hex") }, body };
  },
  flashfx({ event, secrets }) {
    const body =
      `{"event_id":${quote(event.id)},"event_type":${quote(event.type)},` +
      `"event_timestamp":"${fraction(event.timestamp, 3)}","data":${event.data}}`;
    return { headers: { "flashfx-request-id": event.id, "flashfx-signature": hmac(secrets[0], body, "base64") }, body };
  },
  fuse({ event, secrets }) {
    const inner = event.data.trim().slice(1, -1).trim();
    const body = `{"type":${quote(event.type)}${inner ? "," + inner : ""}}`;
    return { headers: { "fuse-verification": hmac(secrets[0], JSON.stringify(JSON.parse(body), sorted), "base64") }, body };
  },
  standard({ event, secrets, attemptAt }) {
    const body = `{"type":${quote(event.type)},"timestamp":"${fraction(event.timestamp, 3)}","data":${event.data}}`;
    const t = unix(attemptAt);
    const content = `${event.id}.${t}.${body}`;
    const one = (secret) => {
      if (secret.startsWith("whsk_")) {
        const seed = Buffer.from(secret.slice(5), "base64").subarray(0, 32);
        return "v1a," + sign(null, Buffer.from(content), pkcs8(seed)).toString("base64");
      }
      return "v1," + hmac(Buffer.from(secret.replace(/^whsec_/, ""), "base64"), content, "base64");
    };
    return { headers: { "webhook-id": event.id, "webhook-timestamp": t, "webhook-signature": secrets.map(one).join(" ") }, body };
  },
};

const event = (type, data, more = {}) => ({
  id: "a3efc743-ac6c-463b-aa19-4dd9c45b5b96", type, timestamp: "2026-04-14T09:54:45.040Z", data, ...more,
});
const vector = (name, event, more = {}) => ({
  name, secrets: [secretA], attemptAt: "2026-04-14T09:54:46.999Z", deliveryId: "0e2f7c1a-5d34-5b8e-9c4f-7a6b5c4d3e2f", event, ...more,
});

const awkward =
  '{ "n" : 1.0, "big":12345678901234567890, "e":1E+2, "html":"<&>\\u003c\\/", "sep":"\u2028\u2029", "emoji":"\\ud83d\\ude00 😀",\t"nul":"\\u0000", "nested":{"b":[{ }, [ ]],"a":null} }';
const common = (type, data) => [
  vector("a plain event", event(type, data)),
  vector("another attempt, later", event(type, data), { attemptAt: "2026-04-17T09:54:45Z" }),
  vector("bytes that a parser would change", event(type, awkward)),
  vector("a time without a fraction", event(type, data, { timestamp: "2026-01-01T00:00:00Z" })),
  vector("a time with microseconds", event(type, data, { timestamp: "2026-12-31T23:59:59.999999Z" })),
  vector("two live secrets", event(type, data), { secrets: [secretA, secretB] }),
];
const scalars = (type) => [
  vector("data is null", event(type, "null")),
  vector("data is an array", event(type, "[1, 2.50]")),
  vector("data is text", event(type, '"\\u00e9 é"')),
  vector("data has a key twice", event(type, '{"a":1,"a":2}')),
];

const cases = {
  fynapse: [
    ...common("balance.extracted", '{"extractId":"7d2f5a0e","amount":"1250.00"}'), ...scalars("balance.extracted"),
    vector("metadata as given", event("balance.extracted", "{}", {
      metadata: '{\n"eventType": "balance.extracted",\n"startedOn": "2026-04-14T09:54:43.674940Z"\n}',
    })),
    vector("metadata with one of the two", event("balance.extracted", "{}", { metadata: '{"run": 7.0, "startedOn":"2026-04-14T09:54:43.674940Z"}' })),
    vector("metadata without either", event("balance.extracted", "{}", { metadata: ' {"run":{"eventType":1}} ' })),
    vector("empty metadata", event("balance.extracted", "{}", { metadata: "{ }" })),
    vector("an id that must be escaped", event("balance.extracted", "{}", { id: 'evt "1"\\\n\u2028é' })),
  ],
  fynex: [
    ...common("promise.created", '{"id":"a1b2c3d4","account_id":"e5f6a7b8","amount":15000,"due_date":"2026-04-05"}'), ...scalars("promise.created"),
  ],
  flashfx: [...common("withdrawal.updated", '{"id":"8f14e45f","status":"completed","amount":"1500.00"}'), ...scalars("withdrawal.updated")],
  fuse: [
    ...common("transactions.updates", '{"financial_connection_id":"67bcb452-225e-11ee-be56-0242ac120002","environment":"sandbox","source":"fuse"}'),
    vector("JSON inside JSON", event("financial_connection.sync_data",
      `{"financial_connection_id":"67bcb452","remote_data":${quote('{"type":"AGGREGATION","count":2,"nested":{"a":"\\u00e9\\n"}}')}}`)),
    vector("no members", event("financial_connection.finished", " { } ")),
    vector("integer-like keys", event("transactions.updates", '{"b":0,"10":1,"9":2,"a":3,"01":4,"4294967294":5,"4294967295":6,"-1":7,"":8}')),
    vector("numbers", event("transactions.updates",
      '{"n":[1.0,-0,1e21,1e20,1E-7,0.000001,9007199254740993,123456789012345678901234567890,5e-324,1e-400,0.30000000000000004,-12.50]}')),
    vector("strings", event("transactions.updates", '{"s":"\\ud800 \\uDFFF \\ud83d\\ude00 \\u2028\u2028 \\u003c< \\u007f \\b\\f\\n\\r\\t\\u000b\\"\\\\\\/"}')),
    vector("keys by code unit", event("transactions.updates", '{"\uffff":1,"😀":2,"\\ud83d":3,"Z":4,"a":5,"é":6,"a\\n":7}')),
    vector("objects in arrays", event("transactions.updates", '{"z":[{"b":1,"a":[{"d":1,"c":2}]}],"y":{"2":1,"1":2}}')),
  ],
  standard: [
    ...common("invoice.paid", '{"id":"inv_2026_0042","amount":12500}').map((c) => ({ ...c, secrets: c.secrets.map((s) => "whsec_" + s) })),
    ...scalars("invoice.paid").map((c) => ({ ...c, secrets: ["whsec_" + secretA] })),
    vector("a secret without its prefix", event("invoice.paid", "{}")),
    vector("an ed25519 key", event("invoice.paid", "{}"), { secrets: [privateSecret(seedA)], publicKeys: [publicSecret(seedA)] }),
    vector("two ed25519 keys", event("invoice.paid", awkward), {
      secrets: [privateSecret(seedA), privateSecret(seedB)], publicKeys: [publicSecret(seedA), publicSecret(seedB)],
    }),
    vector("an ed25519 key that follows a shared one", event("invoice.paid", "{}"), { secrets: [privateSecret(seedB), "whsec_" + secretA] }),
    vector("an id of another form", event("invoice.paid", "{}", { id: "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W" })),
  ],
};

let differs = false;
for (const [profile, list] of Object.entries(cases)) {
  const vectors = list.map((c) => {
    const { headers, body } = profiles[profile](c);
    return { ...c, headers: { "Content-Type": "application/json", ...headers }, body };
  });
  const text = JSON.stringify({ profile, version: 1, vectors }, null, 2) + "\n";
  const file = new URL(`${profile}.json`, import.meta.url);
  if (process.argv[2] !== "--check") {
    writeFileSync(file, text);
  } else if (readFileSync(file, "utf8") !== text) {
    console.error(`${profile}.json differs from what make.mjs makes`);
    differs = true;
  }
}
process.exit(differs ? 1 : 0);
