// What the receivers in node have in common: an HTTP server that keeps the raw body, as the documents of all three ask.
//
//   PUT  /secret   the secret in force
//   POST /flaky    verified, refused with 503 twice an event, then accepted
//   POST …         verified, accepted
//
// A request that does not verify gets the recipe's own refusal. A line of JSON about each POST goes to stdout.
'use strict';
const http = require('http');

module.exports = function serve({ verify, refusal, identify }) {
  let secret = '';
  const seen = new Map();

  function answer(path, headers, rawBody) {
    if (!verify(headers, rawBody, secret)) return refusal;
    const event = path + ' ' + identify(headers, rawBody);
    const times = (seen.get(event) || 0) + 1;
    seen.set(event, times);
    return path === '/flaky' && times <= 2 ? 503 : 200;
  }

  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const rawBody = Buffer.concat(chunks);
      if (request.method === 'PUT') {
        secret = rawBody.toString('utf8');
        response.end();
        return;
      }
      try {
        response.statusCode = answer(request.url, request.headers, rawBody);
      } catch (error) {
        response.statusCode = 500;
        console.error(error);
      }
      const line = { path: request.url, status: response.statusCode, headers: request.headers, body: rawBody.toString('base64') };
      process.stdout.write(JSON.stringify(line) + '\n');
      response.end();
    });
  });
  server.keepAliveTimeout = 120000;
  server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
};
