'use strict';
// Drives the npm package motion-ad-client: `client.js PACKAGE`, the folder of the package or its name.
//
// Each line of JSON on standard input is an action (`do`) with an id; the answer is a line of JSON with the id.

const fs = require('fs');
const readline = require('readline');
const { monitorEventLoopDelay } = require('perf_hooks');
const client = require(process.argv[2]);

const RHOST = '192.0.2.7';
const sessions = new Map();
const events = [];

const originOf = ({ service, user, deadline }) => ({ service, user, deadline, rhost: RHOST });

// Sends a password as bytes, and checks that they are wiped.
async function wiped(call, options, names) {
  const bytes = Object.fromEntries(names.map((name) => [name, Buffer.from(options[name])]));
  const pending = call({ ...options, ...bytes });
  const left = Object.values(bytes).filter((one) => one.some((byte) => byte !== 0));
  if (left.length > 0) throw new Error('a password was not wiped');
  return pending;
}

function keep({ session, ...said }) {
  if (!session) return said;
  sessions.set(session.id, session);
  return { ...said, session: session.id };
}

async function slowestOf(work, sofar) {
  const begun = performance.now();
  await work();
  return Math.max(sofar, performance.now() - begun);
}

const actions = {
  login: async (step) => {
    const { password, openSession } = step;
    return keep(await wiped(client.login, { ...originOf(step), password, openSession }, ['password']));
  },
  change: (step) =>
    wiped(client.changePassword, { ...originOf(step), password: step.password, newPassword: step.newPassword }, [
      'password',
      'newPassword',
    ]),
  open: async (step) => keep(await client.openSession(originOf(step))),
  close: ({ session }) => sessions.get(session).close(),
  // A password that was never a string in this process.
  file: async (step) => keep(await client.login({ ...originOf(step), password: fs.readFileSync(step.path) })),
  process: async () => ({ pid: process.pid, version: process.version }),

  watch: async () => {
    (async () => {
      for await (const event of client.sessions.watch()) events.push(event);
    })();
    while (events.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    return { event: events[0].event };
  },
  // The event that reports this about a session.
  told: async ({ event, session }) => {
    for (let waited = 0; waited < 500; waited += 1) {
      const told = events.find((seen) => seen.event === event && seen.session?.id === session);
      if (told) return { evicted: told.evicted, reason: told.session.ended?.reason ?? null };
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`no event ${event} of ${session}`);
  },
  list: async () => ({ ids: (await client.sessions.list()).map(({ id }) => id) }),

  // Many logins at once; meanwhile, how late the event loop is and how long a file call takes, in milliseconds.
  flood: async (step) => {
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    const begun = performance.now();
    let running = true;
    const logins = Array.from({ length: step.count }, () => client.login({ ...originOf(step), password: step.password }));
    const all = Promise.all(logins).then((said) => {
      running = false;
      return said;
    });
    let read = 0;
    for (let reads = 0; running || reads === 0; reads += 1) {
      read = await slowestOf(() => fs.promises.readFile(__filename), read);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const outcomes = (await all).map(({ outcome }) => outcome);
    delay.disable();
    return { outcomes: counted(outcomes), late: delay.max / 1e6, read, took: performance.now() - begun };
  },

  // `count` logins, `atOnce` at a time; memory in MiB and open files after each fifth of them.
  many: async (step) => {
    const outcomes = new Map();
    const memory = [];
    let files = [];
    const begun = performance.now();
    for (let part = 0; part < 5; part += 1) {
      let left = step.count / 5;
      const one = async () => {
        while (left > 0) {
          left -= 1;
          const { outcome } = await client.login({ ...originOf(step), password: step.password });
          outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        }
      };
      await Promise.all(Array.from({ length: step.atOnce }, one));
      memory.push(process.memoryUsage().rss / 2 ** 20);
      files = [...files, fs.readdirSync('/proc/self/fd').length];
    }
    return { outcomes: Object.fromEntries(outcomes), memory, files, took: performance.now() - begun };
  },
};

function counted(words) {
  const counts = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const step = JSON.parse(line);
  let said;
  try {
    said = await actions[step.do](step);
  } catch (error) {
    said = { error: String(error.stack) };
  }
  console.log(JSON.stringify({ id: step.id, ...said }));
}).on('close', () => process.exit());
