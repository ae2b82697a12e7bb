// A receiver of Fynex's webhooks, as their page "Signature Verification" tells one to be: hex HMAC-SHA256 of the raw body
// after "sha256=", compared in constant time, and 401 where it differs. What is one event is told by event_type and data.id.
'use strict';
const crypto = require('crypto');
const serve = require('./serve');

serve({
  refusal: 401,
  verify(headers, rawBody, secret) {
    const wanted = Buffer.from('sha256=' + crypto.createHmac('sha256', secret).update(rawBody).digest('hex'));
    const given = Buffer.from(headers['x-fynex-signature'] || '');
    return wanted.length === given.length && crypto.timingSafeEqual(wanted, given);
  },
  identify(headers, rawBody) {
    const body = JSON.parse(rawBody);
    const members = Object.keys(body).join();
    if (members !== 'event_type,timestamp,data') throw new Error('members ' + members);
    if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(body.timestamp)) throw new Error('timestamp ' + body.timestamp);
    return body.event_type + '/' + body.data.id;
  },
});
