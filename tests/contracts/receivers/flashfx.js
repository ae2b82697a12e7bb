// A receiver of FlashFX's webhooks, as "Securing the request" tells one to be: base64 HMAC-SHA256 of the JSON payload string,
// and 500 where it differs, as in their example. flashfx-request-id says what is one event.
'use strict';
const crypto = require('crypto');
const serve = require('./serve');

serve({
  refusal: 500,
  verify(headers, rawBody, secret) {
    const payload = rawBody.toString('utf8');
    return crypto.createHmac('sha256', secret).update(payload).digest('base64') === headers['flashfx-signature'];
  },
  identify(headers, rawBody) {
    if (!headers['flashfx-request-id']) throw new Error('no flashfx-request-id');
    JSON.parse(rawBody);
    return headers['flashfx-request-id'];
  },
});
