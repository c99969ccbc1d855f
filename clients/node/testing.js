'use strict';
// A fake for the tests of an application: no PAM, no broker, no domain. It plays any outcome.

const { createClient } = require('./lib/client');
const { TABLE, OUTCOMES, CODES } = require('./lib/answer');

function row(outcome) {
  if (!Object.hasOwn(TABLE, outcome)) {
    throw new RangeError(`${outcome} is no outcome; the outcomes are ${OUTCOMES.join(', ')}`);
  }
  return TABLE[outcome];
}

function reply(stage, codeName, given = {}) {
  return {
    state: 'done',
    started: true,
    stage,
    code: CODES.indexOf(codeName),
    errors: given.text === undefined ? [] : [given.text],
    infos: [],
    ...given,
  };
}

/** Creates a fake with the functions of the package. */
function createFake() {
  const users = new Map(); // by name: password, outcome, text, expiresIn
  const planned = []; // what the next calls get, whoever makes them
  const calls = []; // what was called, without passwords
  const open = new Map(); // by id: the session
  const events = [];
  const watchers = new Set();
  let delay = 0;
  let numbers = 0;

  function tell(event, session) {
    numbers += 1;
    events.push({ event, cursor: String(numbers), evicted: event === 'ended' && isEviction(session), session });
    for (const wake of watchers) wake();
  }

  function begin(request) {
    numbers += 1;
    const { user, service } = request;
    const session = {
      id: `fake-${numbers}`,
      user,
      service,
      rhost: request.rhost ?? '',
      tty: request.tty ?? '',
      host: 'fake',
      pid: process.pid,
      since: Date.now(),
    };
    open.set(session.id, session);
    tell('opened', session);
    return { id: session.id };
  }

  function end(id, reason, detail = '') {
    const session = open.get(id);
    if (!session) return false;
    open.delete(id);
    tell('ended', { ...session, ended: { at: Date.now(), reason, detail } });
    return true;
  }

  /** Decides about a call: a planned outcome first, then the user's. */
  function decide(request, password) {
    const plan = planned.shift();
    if (plan) return plan;
    const user = users.get(request.user);
    if (!user) return { outcome: 'unknown_user' };
    if (password !== undefined && user.password !== password) return { outcome: 'wrong_password' };
    return user;
  }

  class Call {
    #settle;
    #timer;

    #answer(make) {
      return new Promise((resolve) => {
        this.#settle = resolve;
        this.#timer = setTimeout(() => resolve(make()), delay);
      });
    }

    cancel() {
      clearTimeout(this.#timer);
      this.#settle?.({ state: 'cancelled', started: true });
    }

    login(request, password, session) {
      calls.push({ call: 'login', ...request, openSession: session });
      const typed = Buffer.from(password).toString();
      return this.#answer(() => {
        const { outcome = 'success', text, expiresIn } = decide(request, typed);
        if (outcome !== 'success') {
          const stage = outcome.startsWith('session_') ? 'open' : 'authenticate';
          return reply(stage, row(outcome)[stage === 'open' ? 'session' : 'login'], { outcome, text });
        }
        const opened = session ? begin(request) : undefined;
        return { ...reply('account', 'PAM_SUCCESS'), outcome, expiresIn, session: opened };
      });
    }

    change(request, present, next) {
      calls.push({ call: 'changePassword', ...request });
      const [typed, chosen] = [present, next].map((bytes) => Buffer.from(bytes).toString());
      return this.#answer(() => {
        const user = users.get(request.user);
        const decided = decide(request, typed);
        const { text } = decided;
        let { outcome = 'success' } = decided;
        // An old password can be changed, whatever it keeps the user from.
        if (['password_expired', 'must_change'].includes(outcome)) outcome = 'success';
        if (outcome !== 'success') return reply('change', row(outcome).change, { outcome, text });
        if (user) Object.assign(user, { password: chosen, outcome: 'success' });
        return reply('change', 'PAM_SUCCESS', { outcome });
      });
    }

    open(request) {
      calls.push({ call: 'openSession', ...request });
      return this.#answer(() => {
        const { outcome = 'success', text } = decide(request);
        if (outcome === 'success') return { ...reply('open', 'PAM_SUCCESS'), session: begin(request) };
        const stage = outcome.startsWith('session_') ? 'open' : 'account';
        return reply(stage, row(outcome)[stage === 'open' ? 'session' : 'login'], { outcome, text });
      });
    }

    close({ id }) {
      calls.push({ call: 'close', id });
      return this.#answer(() => {
        end(id, 'closed');
        return reply('close', 'PAM_SUCCESS');
      });
    }
  }

  async function* watch({ after, signal } = {}) {
    signal?.throwIfAborted();
    let next = after === undefined ? events.length : events.findIndex(({ cursor }) => cursor === after) + 1;
    if (after === undefined) yield { event: 'ready', cursor: String(numbers) };
    let wake;
    const awake = () => wake?.();
    watchers.add(awake);
    signal?.addEventListener('abort', awake, { once: true });
    try {
      for (;;) {
        signal?.throwIfAborted();
        while (next < events.length) yield events[next++];
        await new Promise((resolve) => {
          wake = resolve;
          if (next < events.length || signal?.aborted) resolve();
        });
      }
    } finally {
      watchers.delete(awake);
      signal?.removeEventListener('abort', awake);
    }
  }

  return {
    ...createClient({ Call }),
    configure() {},
    sessions: { watch, list: async () => [...open.values()] },
    OUTCOMES,

    /** Sets a user: `password`, and for the right one `outcome` ("success"), `text` and `expiresIn`. */
    user(name, { password, outcome = 'success', text, expiresIn } = {}) {
      row(outcome);
      users.set(name, { password, outcome, text, expiresIn });
    },
    /** Plans the outcome of the next call, whatever its user and password; several calls queue. */
    next(outcome, { text, expiresIn } = {}) {
      row(outcome);
      planned.push({ outcome, text, expiresIn });
    },
    /** Sets the milliseconds that each call takes. */
    delay(milliseconds) {
      delay = milliseconds;
    },
    /** Ends a session as motion-ad would; false if it is not open. */
    evict(id, reason = 'replaced', detail = '') {
      return end(id, reason, detail);
    },
    /** The calls so far, without passwords. */
    calls,
    /** Forgets users, plans, calls and sessions. */
    reset() {
      users.clear();
      open.clear();
      planned.length = calls.length = 0;
      delay = 0;
    },
  };
}

// Reasons for which motion-ad itself ended the session.
const isEviction = ({ ended }) => ['replaced', 'refused', 'too_old', 'kicked'].includes(ended.reason);

module.exports = { createFake };
