// A client of Fuse, with the handler of their documents: it verifies every webhook by their recipe, and sends what asks for it back to
// the sync endpoint. It fails at times, before and after that call, and writes a line of JSON about each request to the file it is given.
// Without a file it prints them. Prints its address first. PUT /settings gives it the key and the addresses of the sync endpoint.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const log = process.argv[2] ? fs.createWriteStream(process.argv[2]) : process.stdout;
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
let settings = { key: '', sync: [], fail: 0 };
let random = 12345;
const failed = new Map(); // how often each webhook has been failed at random: unless all are to fail, it comes through in the end
let step = 0; // what happens is numbered, so that the order of two calls can be told where they do not overlap

// chance is the same in every run.
function chance() {
  random = (Math.imul(random, 1103515245) + 12345) >>> 0;
  return random / 2 ** 32;
}

const hmacSignature = (key, msg, algorithm) => crypto.createHmac('sha256', key).update(msg).digest(algorithm);

const requestIsFromFuse = (fuseApiKey, webhook, fuseVerificationHeader) => {
  const replacer = (key, value) =>
    value instanceof Object && !(value instanceof Array)
      ? Object.keys(value)
          .sort()
          .reduce((sorted, key) => {
            sorted[key] = value[key];
            return sorted;
          }, {})
      : value;
  const dataHmac = hmacSignature(fuseApiKey, JSON.stringify(webhook, replacer), 'base64');
  const given = Buffer.from(fuseVerificationHeader || '');
  const expected = Buffer.from(dataHmac);
  return given.length === expected.length && crypto.timingSafeEqual(given, expected);
};

// sync calls the endpoint at the first address that answers.
function sync(verification, body, addresses) {
  return new Promise((resolve, reject) => {
    const text = JSON.stringify(body);
    const [host, port] = addresses[0].split(':');
    const request = http.request({
      agent, host, port, method: 'POST', path: '/v1/callbacks/fuse/financial_connections/sync',
      headers: {
        'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text),
        'Fuse-Client-Id': 'default', 'Fuse-Api-Key': settings.key, 'fuse-verification': verification,
      },
    }, (response) => {
      response.resume();
      response.on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(`sync answered ${response.statusCode}`))));
    });
    request.on('error', reject);
    request.end(text);
  }).catch((error) => (addresses.length > 1 ? sync(verification, body, addresses.slice(1)) : Promise.reject(error)));
}

async function handle(headers, body) {
  const line = { type: body.type, connection: body.financial_connection_id, remote: body.remote_data, source: body.source };
  line.verified = requestIsFromFuse(settings.key, body, headers['fuse-verification']);
  line.historical = body.historical_transactions_available;
  line.synced = false;
  line.traceparent = headers.traceparent;
  let status = line.verified ? 200 : 401;
  const signature = headers['fuse-verification'];
  const fails = () => {
    const times = failed.get(signature) || 0;
    if ((times >= 5 && settings.fail < 1) || chance() >= settings.fail) return false;
    failed.set(signature, times + 1);
    return true;
  };
  if (status === 200 && fails()) status = 503;
  else if (status === 200 && body.type === 'financial_connection.sync_data') {
    try {
      line.called = ++step;
      await sync(signature, body, settings.sync);
      line.synced = true;
      line.answered = ++step;
      if (fails()) status = 500;
    } catch (error) {
      line.error = error.message;
      status = 502;
    }
  }
  line.status = status;
  line.step = ++step;
  line.signature = signature;
  log.write(JSON.stringify(line) + '\n');
  return status;
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const text = Buffer.concat(chunks).toString('utf8');
    if (request.method === 'PUT') {
      settings = JSON.parse(text);
      response.end();
      return;
    }
    handle(request.headers, JSON.parse(text))
      .catch(() => 500)
      .then((status) => {
        response.statusCode = status;
        response.end();
      });
  });
});
server.listen(0, '127.0.0.1', () => console.log(`listening on 127.0.0.1:${server.address().port}`));
