// The subscribers of the test, in one process: verifies every request as the fynapse documents tell a receiver to, and
// writes a line of JSON about each to the file it is given. Prints its address. Secrets arrive as PUT /secrets/<path>.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const log = fs.createWriteStream(process.argv[2]);
const secrets = new Map();
const failedOnce = new Set();

function verify(header, rawBody, secret) {
  const parts = (header || '').split(',').map((part) => part.split('='));
  const timestamp = (parts.find(([name]) => name === 't') || [])[1];
  if (!timestamp || Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) return false;
  const expected = crypto.createHmac('sha256', secret).update(timestamp + '.').update(rawBody).digest();
  return parts.some(([name, value]) => {
    if (name !== 'v1') return false;
    const given = Buffer.from(value, 'hex');
    return given.length === expected.length && crypto.timingSafeEqual(given, expected);
  });
}

function dataOf(n) {
  return `{"n":${n},"big":12345678901234567890,"f":1.10,"k":{"b":1,"a":"\\u00e9<&>"}}`;
}

function receive(path, headers, rawBody) {
  const text = rawBody.toString('utf8');
  const body = JSON.parse(text);
  const n = body.data.n;
  // Every fiftieth event is refused once by each subscriber, and must come back.
  const first = `${path}/${body.event_id}`;
  const status = n % 50 === 0 && !failedOnce.has(first) ? 503 : 200;
  failedOnce.add(first);
  log.write(JSON.stringify({
    path, n, status,
    key: headers['idempotency-key'],
    event: body.event_id,
    type: body.event_type,
    verified: verify(headers['webhook-signature'], rawBody, secrets.get(path)),
    intact: text.endsWith(`"data":${dataOf(n)}}`) && headers['content-type'] === 'application/json',
    members: Object.keys(body).sort().join(),
  }) + '\n');
  return status;
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const rawBody = Buffer.concat(chunks);
    if (request.method === 'PUT') {
      secrets.set(request.url.replace('/secrets', ''), rawBody.toString('utf8'));
      response.end();
      return;
    }
    let status = 500;
    try {
      status = receive(request.url, request.headers, rawBody);
    } catch (error) {
      log.write(JSON.stringify({ path: request.url, broken: String(error) }) + '\n');
    }
    response.statusCode = status;
    response.end('ok');
  });
});
server.keepAliveTimeout = 120000;
server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
