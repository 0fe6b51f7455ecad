// Real BullMQ of the version installed in a folder, told what to do by a test.
//
//   node bullmq.mjs FOLDER SOCKET SCENE [JSON arguments]
//
// Every scene prints one line of JSON at its end: what it did, which is the truth the exporter is held against.
import { createRequire } from "node:module";

const [folder, socket, scene, args = "{}"] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { FlowProducer, Queue, UnrecoverableError, Worker } = require("bullmq");
const connection = { path: socket, maxRetriesPerRequest: null };
const given = JSON.parse(args);
const open = [];

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const keep = (closable) => (open.push(closable), closable);
const queue = (name) => keep(new Queue(name, { connection }));
const worker = (name, work, options = {}) => keep(new Worker(name, work, { connection, ...options }));

async function until(condition) {
  for (const deadline = Date.now() + 60_000; !(await condition()); await sleep(5)) {
    if (Date.now() > deadline) throw new Error(`${scene}: ${condition} did not come true within a minute`);
  }
}

// Counts by queue, result and job name as the workers see them; a failure counts once the attempts are used up.
class Truth {
  jobs = {};
  retries = {};
  seconds = 0;
  ended = 0;

  watch(watched) {
    const end = (job, result) => {
      const key = JSON.stringify([watched.name, result, job.name]);
      this.jobs[key] = (this.jobs[key] ?? 0) + 1;
      this.seconds += (job.finishedOn - job.processedOn) / 1000;
      this.ended += 1;
    };
    watched.on("completed", (job) => end(job, "completed"));
    watched.on("failed", (job) => {
      if (job.finishedOn) return end(job, "failed");
      const key = JSON.stringify([watched.name, job.name]);
      this.retries[key] = (this.retries[key] ?? 0) + 1;
    });
    return watched;
  }
}

const NAMES = ["reserve", "fetch-keys", "kinguin.order.completed", "reprice"];
const QUEUES = ["fulfillment-queue", "catalog", "payments-queue"];

// A pseudo-random number in [0, 1) that depends on n alone: two runs do the same.
const chance = (n) => ((n * 2654435761) % 4294967296) / 4294967296;

function optionsOf(n) {
  const options = { removeOnComplete: true, attempts: 1 + ((n >> 2) % 3) };
  if (n % 7 === 0) options.priority = 1 + (n % 5);
  if (n % 11 === 0) options.delay = 20 + (n % 200);
  if (n % 2 === 0) options.backoff = { type: "fixed", delay: 30 };
  if (n % 13 === 0) options.removeOnFail = true;
  return options;
}

const scenes = {
  // `jobs` jobs over three queues, over `seconds` seconds: prioritized, delayed, retried, failing for good, all mixed.
  async crowd() {
    const truth = new Truth();
    for (const name of QUEUES) {
      const work = async (job) => {
        const { n } = job.data;
        await sleep(chance(n) * 8);
        if (n % 17 === 0) throw new UnrecoverableError("never");
        if (n % 10 === 1 || (n % 8 === 3 && job.attemptsMade === 0)) throw new Error("not yet");
        return n;
      };
      truth.watch(worker(name, work, { concurrency: 8, name: "one" }));
    }
    const queues = QUEUES.map(queue);
    const pause = (1000 * given.seconds) / (given.jobs / 20);
    for (let n = 0; n < given.jobs; n += 20) {
      const batch = Array.from({ length: 20 }, (_, i) => n + i);
      await Promise.all(
        batch.map((n) => queues[n % 3].add(NAMES[n % 4], { n, secret: given.secret }, optionsOf(n))),
      );
      await sleep(pause);
    }
    await until(() => truth.ended === given.jobs);
    return truth;
  },

  // What the exporter shows of a queue at rest: one of everything, nobody working.
  async rest() {
    const rest = queue(given.queue);
    const gone = worker(given.queue, async () => { throw new Error("boom"); });
    const failed = new Promise((done) => gone.on("failed", done));
    await rest.add("fails", {}, { attempts: 1 });
    await failed;
    await gone.close();
    const flows = keep(new FlowProducer({ connection }));
    const children = [{ name: "child", queueName: `${given.queue}-children` }];
    await flows.add({ name: "parent", queueName: given.queue, children });
    const delayed = await rest.add("later", {}, { delay: 3_600_000 });
    const first = await rest.add("first", {});
    await rest.add("second", {});
    await rest.add("urgent", {}, { priority: 1 });
    if (given.paused) await rest.pause();
    return { first: first.timestamp, due: delayed.timestamp + 3_600_000 };
  },

  // Each way an event stream can go; the worker's own durations beside.
  async ways() {
    const truth = new Truth();
    const name = given.queue;
    const jobs = queue(name);
    const once = { removeOnComplete: true };
    const again = { ...once, attempts: 2 };
    const tried = {};
    const work = async (job) => {
      tried[job.id] = (tried[job.id] ?? 0) + 1;
      if (job.name === "fails" || (job.name.startsWith("once") && tried[job.id] === 1)) throw new Error("boom");
      await sleep(20);
    };
    // A worker that takes a job and vanishes with it.
    await jobs.add("stalls", {}, once);
    const thief = new Worker(name, null, { connection, lockDuration: 100, skipStalledCheck: true });
    await thief.getNextJob("thief");
    await thief.close();
    await sleep(150);
    const finder = truth.watch(worker(name, work, { stalledInterval: 100 }));
    await until(() => truth.ended === 1);
    await jobs.add("plain", {}, once);
    await jobs.add("urgent", {}, { ...once, priority: 3 });
    await jobs.add("later", {}, { ...once, delay: 2000 });
    await jobs.add("once", {}, again);
    await jobs.add("once-later", {}, { ...again, backoff: { type: "fixed", delay: 50 } });
    const fails = await jobs.add("fails", {}, { attempts: 2 });
    await until(() => truth.ended === 7);
    await (await jobs.getJob(fails.id)).retry("failed");
    await until(() => truth.ended === 8);
    await jobs.add("removed", {}, { ...once, delay: 60_000 }).then((job) => job.remove());
    const kids = truth.watch(worker(`${name}-children`, work));
    const flows = keep(new FlowProducer({ connection }));
    const children = [{ name: "child", queueName: kids.name, opts: once }];
    await flows.add({ name: "parent", queueName: name, opts: once, children });
    await until(() => truth.ended === 10);
    await jobs.pause();
    const { timestamp } = await jobs.add("patient", {}, once);
    await sleep(120);
    await jobs.resume();
    await until(() => truth.ended === 11);
    truth.patience = (Date.now() - timestamp) / 1000;
    void finder;
    return truth;
  },

  // A worker for each of `queues`, until the test ends this process: says a line when all are ready, then one for every
  // job that ended. A job's first `failures` attempts fail.
  async serve() {
    const began = {};
    for (const name of given.queues) {
      await queue(name).waitUntilReady(); // it is the producer that writes the version into meta
      const work = async (job) => {
        (began[`${name} ${job.id}`] ??= []).push(Date.now());
        if (job.attemptsMade < (given.failures ?? 0)) throw new Error("not yet");
      };
      const served = worker(name, work, { concurrency: 16 });
      const tell = (job) => {
        if (!job.finishedOn) return;
        const { id, data, opts } = job;
        console.log(JSON.stringify({ queue: name, id, name: job.name, data, opts, began: began[`${name} ${id}`] }));
      };
      served.on("completed", tell);
      served.on("failed", tell);
      await served.waitUntilReady();
    }
    console.log("{}");
    await new Promise(() => {});
  },

  // `jobs` jobs that fail for good at their only attempt and would succeed at another. Says a line when all have failed,
  // then one for every job that ran again, until the test ends this process.
  async bury() {
    const ran = {};
    const work = async (job) => {
      ran[job.id] = (ran[job.id] ?? 0) + 1;
      if (ran[job.id] === 1) throw new Error(job.data.n % 2 ? "upstream answered 503" : "out of stock");
    };
    const served = worker(given.queue, work, { concurrency: 8 });
    let failed = 0;
    served.on("failed", () => (failed += 1));
    served.on("completed", (job) => console.log(JSON.stringify({ id: job.id, runs: ran[job.id] })));
    const jobs = queue(given.queue);
    for (let n = 0; n < given.jobs; n += 1) {
      await jobs.add("reserve", { n, secret: given.secret, email: "anna@example.com" }, { jobId: `job-${n}`, attempts: 1 });
    }
    await until(() => failed === given.jobs);
    console.log("{}");
    await new Promise(() => {});
  },

  // `workers` workers that stay until the test ends this process.
  async stay() {
    const workers = Array.from({ length: given.workers }, (_, i) =>
      worker(given.queue, async () => {}, i ? { name: `w${i}` } : {}),
    );
    await Promise.all(workers.map((each) => each.waitUntilReady()));
    console.log("{}");
    await new Promise(() => {});
  },
};

const truth = await scenes[scene]();
for (const closable of open.reverse()) await closable.close();
console.log(JSON.stringify(truth));
process.exit(0);
