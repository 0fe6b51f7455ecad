// A peer: BullMQ's own exportPrometheusMetrics of each queue in turn, over HTTP.
//
//   node metrics.mjs FOLDER REDIS_PORT PORT QUEUES
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [folder, redisPort, port, count] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { Queue } = require("bullmq");
const Redis = require("ioredis");
const connection = new Redis({ port: Number(redisPort), maxRetriesPerRequest: null });
const queues = Array.from({ length: Number(count) }, (_, n) => new Queue(`queue-${n}`, { connection }));

createServer(async (_, response) => {
  const parts = [];
  for (const queue of queues) parts.push(await queue.exportPrometheusMetrics());
  const body = parts.join("\n");
  response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}).listen(Number(port), "127.0.0.1");
