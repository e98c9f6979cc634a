// A Cosmos DB stand-in on loopback: @vercel/cosmosdb-server 1.0.1, with what it gets wrong on the wire put right.
// No package file is edited; handlers are replaced before the server takes them.
//
// usage: node launcher.cjs [PORT]      (0 or none: any free port); prints "Ready http://127.0.0.1:PORT",
// and ends when its standard input does, so that it does not outlive whoever started it.
"use strict";
const LIB = "@vercel/cosmosdb-server/lib/";
const LARGEST = 2 * 1024 * 1024;

const json = require(LIB + "json");
const meta = require(LIB + "handler/read-meta");
const reading = require(LIB + "handler/read-document");
const upserting = require(LIB + "handler/upsert-document");
const creating = require(LIB + "handler/create-document");
const replacing = require(LIB + "handler/replace-document");
const batching = require(LIB + "handler/batch-documents");
const querying = require(LIB + "handler/query-documents");
const readItems = require(LIB + "handler/_read-items");
const Account = require(LIB + "account").default;

const keyOf = (header) => {
  try {
    const value = JSON.parse(header);
    return Array.isArray(value) ? value : [value];
  } catch {
    return null;
  }
};
const at = (document, path) => path.slice(1).split("/").reduce((held, key) => (held == null ? held : held[key]), document);
const keyPaths = (collection) => ((collection.read() || {}).partitionKey || {}).paths || [];
const isOneKey = (key) => key && key.length > 0 && !(key[0] && typeof key[0] === "object");
const refused = (res, status, code, message) => {
  res.statusCode = status;
  return { code, message };
};

// A body is read once, however many handlers ask for it.
const readBody = json.default;
json.default = async (req) => {
  if (req.body === undefined) req.body = await readBody(req);
  return req.body;
};

// 1. An absent item is 404, not 500; If-None-Match is answered by 304.
const read = reading.default;
reading.default = (account, req, res, params) => {
  const collection = account.database(params.dbId).collection(params.collId);
  const key = keyOf(req.headers["x-ms-documentdb-partitionkey"]);
  if (!collection.read() || !isOneKey(key)) return read(account, req, res, params);
  const document = collection.document(params.docId, key[0]).read();
  const elsewhere = keyPaths(collection).some((path, i) => document && i < key.length && at(document, path) !== key[i]);
  if (!document || elsewhere) return refused(res, 404, "NotFound", "Resource Not Found.");
  if (req.headers["if-none-match"] === document._etag) {
    res.statusCode = 304;
    return {};
  }
  return document;
};

// 2. An upsert with If-None-Match: * does not overwrite.
const upsert = upserting.default;
upserting.default = async (account, req, res, params) => {
  const body = await json.default(req);
  if (req.headers["if-none-match"] === "*") {
    const collection = account.database(params.dbId).collection(params.collId);
    const key = keyOf(req.headers["x-ms-documentdb-partitionkey"]);
    if (collection.read() && key && collection.document(body.id, key[0]).read()) return refused(res, 409, "Conflict", "exists");
  }
  return upsert(account, req, res, params);
};

// 3. A transactional batch takes its partition key from the header, and is all or nothing.
const batch = batching.default;
batching.default = async (account, req, res, params) => {
  const body = await json.default(req);
  if (Array.isArray(body)) {
    for (const one of body) if (one && one.partitionKey === undefined) one.partitionKey = req.headers["x-ms-documentdb-partitionkey"];
  }
  const collection = account.database(params.dbId).collection(params.collId);
  const documents = collection.documents;
  const before = collection.read() ? [new Map(documents._data), new Map(documents._index), documents._ridCount] : null;
  const answers = await batch(account, req, res, params);
  if (before && Array.isArray(answers) && answers.some((answer) => answer.statusCode >= 400)) {
    [documents._data, documents._index, documents._ridCount] = before;
    for (const answer of answers) {
      if (answer.statusCode >= 400) continue;
      answer.statusCode = 424;
      delete answer.resourceBody;
      delete answer.eTag;
    }
    res.statusCode = 207;
  }
  return answers;
};

// 4. A query of one partition sees that partition only, and need not name the key in its text.
querying.default = (account, req, res, { dbId, collId }) =>
  readItems.default(req, res, "Documents", async ({ continuation, maxItemCount }) => {
    const body = await json.default(req);
    const collection = account.database(dbId).collection(collId);
    if (!collection.read()) return null;
    const key = keyOf(req.headers["x-ms-documentdb-partitionkey"]);
    const crosses = String(req.headers["x-ms-documentdb-query-enablecrosspartition"]).toLowerCase() === "true";
    if (!isOneKey(key) && !crosses) return refused(res, 400, "BadRequest", "Cross partition query is required but disabled.");
    const documents = collection.documents;
    const paths = keyPaths(collection);
    const all = documents._data;
    try {
      if (isOneKey(key)) {
        const within = ([, item]) => key.every((value, i) => at(item.read(), paths[i]) === value);
        documents._data = new Map([...all].filter(within));
      }
      return documents.query(body, { continuation, maxItemCount });
    } catch (error) {
      if (error.badRequest) return refused(res, 400, "BadRequest", error.message);
      throw error;
    } finally {
      documents._data = all;
    }
  });

// 5. No document is larger than 2 MB.
for (const handler of [creating, replacing, upserting]) {
  const write = handler.default;
  handler.default = async (account, req, res, params) => {
    if (Buffer.byteLength(JSON.stringify(await json.default(req))) > LARGEST) return refused(res, 413, "RequestEntityTooLarge", "too large");
    return write(account, req, res, params);
  };
}

// 6. The SDK is sent where it came from: http, and through whatever stands in front of this.
meta.default = (account, req) => {
  const described = JSON.parse(JSON.stringify(account.read()));
  for (const place of [...described.writableLocations, ...described.readableLocations]) {
    place.databaseAccountEndpoint = `http://${req.headers.host}/`;
  }
  return described;
};

// 7. Items and containers with a time to live: what has expired is gone before each request.
const expire = (account) => {
  const now = Math.floor(Date.now() / 1000);
  for (const databaseItem of account.databases._data.values()) {
    const database = account.database(databaseItem.read().id);
    for (const collectionItem of database.collections._data.values()) {
      const collection = database.collection(collectionItem.read().id);
      const usual = collection.read().defaultTtl;
      if (usual == null) continue;
      for (const item of [...collection.documents._data.values()]) {
        const document = item.read();
        const ttl = document.ttl ?? usual;
        if (ttl > 0 && document._ts + ttl <= now) collection.documents.delete(document.id, collection.documents._getPartition(document));
      }
    }
  }
};

// Only now: the routes hold on to the handlers that they find.
const { createHttpServer } = require("@vercel/cosmosdb-server");

// The account is made inside the server; the first one who asks it for a database shows it.
let held;
const databaseOf = Account.prototype.database;
Account.prototype.database = function database(id) {
  held = held || this;
  return databaseOf.call(this, id);
};

const server = createHttpServer({ keepAlive: true });
const [answer] = server.listeners("request");
server.removeAllListeners("request");
server.on("request", (req, res) => {
  if (held) expire(held);
  answer(req, res);
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2] || 0), "127.0.0.1", () => console.log(`Ready http://127.0.0.1:${server.address().port}`));
process.stdin.on("close", () => process.exit(0)).resume();
