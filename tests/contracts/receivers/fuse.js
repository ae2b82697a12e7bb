// A receiver of Fuse's webhooks, as their "Example webhook handler" is: it has the parsed body only, prints it with the keys of
// every object sorted, and compares the base64 HMAC-SHA256 of that, keyed with the client's API key. 401 where it differs.
'use strict';
const crypto = require('crypto');
const serve = require('./serve');

const inOrder = (_, value) => {
  if (!(value instanceof Object) || value instanceof Array) return value;
  const result = {};
  for (const key of Object.keys(value).sort()) result[key] = value[key];
  return result;
};

serve({
  refusal: 401,
  verify(headers, rawBody, apiKey) {
    const webhook = JSON.parse(rawBody);
    const wanted = Buffer.from(crypto.createHmac('sha256', apiKey).update(JSON.stringify(webhook, inOrder)).digest('base64'));
    const given = Buffer.from(headers['fuse-verification'] || '');
    return wanted.length === given.length && crypto.timingSafeEqual(wanted, given);
  },
  identify(headers, rawBody) {
    const body = JSON.parse(rawBody);
    if (!body.type || 'data' in body) throw new Error('the members of data must stand beside type');
    return body.type + '/' + body.id;
  },
});
