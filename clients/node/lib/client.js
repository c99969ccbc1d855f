'use strict';
// The calls of the package, on top of the native part or of a fake.

const { answer, answerOf } = require('./answer');

// As the module has them (src/protocol), in bytes. What is longer is refused there, too.
const MAX_USER = 256;
const MAX_PASSWORD = 1024;

// Milliseconds until a call is answered, unless its options say otherwise. The module itself answers in 5 seconds, for
// each of the calls of libpam that a login makes.
const DEADLINE = 15_000;
const LONGEST = 2 ** 31 - 1;

function wrong(name, value, expected) {
  const type = value === null ? 'null' : typeof value;
  return new TypeError(`${name} must be ${expected}, not of type ${type}`);
}

function textOption(options, name, isRequired) {
  const value = options[name];
  if (value === undefined && !isRequired) return undefined;
  if (typeof value !== 'string') throw wrong(name, value, 'a string');
  if (value.includes('\0')) throw new TypeError(`${name} must not contain NUL`);
  if (value === '' && isRequired) throw new TypeError(`${name} must not be empty`);
  return value;
}

function requestOf(options) {
  const { user } = options;
  if (typeof user !== 'string') throw wrong('user', user, 'a string');
  return {
    service: textOption(options, 'service', true),
    user,
    rhost: textOption(options, 'rhost', false),
    tty: textOption(options, 'tty', false),
  };
}

function limitsOf({ signal, deadline = DEADLINE }) {
  if (signal !== undefined && typeof signal?.throwIfAborted !== 'function') {
    throw wrong('signal', signal, 'an AbortSignal');
  }
  if (!(Number.isFinite(deadline) && deadline > 0 && deadline <= LONGEST)) {
    throw new RangeError('deadline must be a number of milliseconds');
  }
  signal?.throwIfAborted();
  return { signal, deadline };
}

/** Takes the passwords of the options, as bytes that are wiped by `wipe`. */
function take(options, names) {
  return names.map((name) => {
    const value = options[name];
    if (value instanceof Uint8Array) return value;
    if (typeof value !== 'string') return null;
    // Memory that no other Buffer shares.
    const bytes = Buffer.alloc(Buffer.byteLength(value));
    bytes.write(value);
    return bytes;
  });
}

function wipe(passwords) {
  for (const password of passwords) password?.fill(0);
}

// A name or a password like this can never be right, and libpam would take the part before the NUL for the whole.
const isName = (name) => name !== '' && Buffer.byteLength(name) <= MAX_USER && !name.includes('\0');
const isPassword = (bytes) => bytes.length > 0 && bytes.length <= MAX_PASSWORD && !bytes.includes(0);

/** Waits for a call; when the time is up or the signal is aborted, the call is cancelled, which ends the wait. */
async function finish(call, pending, { signal, deadline }) {
  const cancel = () => call.cancel();
  const timer = setTimeout(cancel, deadline);
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await pending;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', cancel);
  }
}

/** Creates the functions of the package. `Call` is a class like the native one (src/lib.rs). */
function createClient({ Call }) {
  /** A session that the application opened. It is closed once; later calls get the same answer. */
  class Session {
    #native;
    #closed;

    constructor(native) {
      this.#native = native;
    }

    get id() {
      return this.#native.id ?? null;
    }

    close(options = {}) {
      this.#closed ??= this.#close(options);
      return this.#closed;
    }

    async #close(options) {
      const limits = limitsOf(options);
      const call = new Call();
      const reply = await finish(call, call.close(this.#native), limits);
      limits.signal?.throwIfAborted();
      const { ok, outcome, code, text } = answerOf(reply, 'close', null);
      return { ok, outcome, code, text };
    }
  }

  async function conclude(call, pending, limits, what) {
    const reply = await finish(call, pending, limits);
    const session = reply.session ? new Session(reply.session) : null;
    if (limits.signal?.aborted) {
      // The answer came at the same moment. Its session ends, and the caller need not wait for that.
      session?.close().catch(() => {});
      throw limits.signal.reason;
    }
    return answerOf(reply, what, session);
  }

  /** Checks a password, and opens a session if the options say so. */
  async function login(options) {
    const passwords = take(options, ['password']);
    let call;
    let pending;
    let limits;
    try {
      const [password] = passwords;
      if (password === null) throw wrong('password', options.password, 'a Buffer or a string');
      const request = requestOf(options);
      limits = limitsOf(options);
      if (!isName(request.user)) return answer('unknown_user', 'PAM_USER_UNKNOWN');
      if (!isPassword(password)) return answer('wrong_password', 'PAM_AUTH_ERR');
      call = new Call();
      pending = call.login(request, password, options.openSession === true);
    } finally {
      wipe(passwords);
    }
    return conclude(call, pending, limits, 'login');
  }

  /** Changes a password. */
  async function changePassword(options) {
    const passwords = take(options, ['password', 'newPassword']);
    let call;
    let pending;
    let limits;
    try {
      const [present, next] = passwords;
      if (present === null) throw wrong('password', options.password, 'a Buffer or a string');
      if (next === null) throw wrong('newPassword', options.newPassword, 'a Buffer or a string');
      const request = requestOf(options);
      limits = limitsOf(options);
      if (!isName(request.user)) return changed(answer('unknown_user', 'PAM_USER_UNKNOWN'));
      if (!isPassword(present)) return changed(answer('wrong_password', 'PAM_AUTHTOK_RECOVERY_ERR'));
      if (!isPassword(next)) return changed(answer('password_refused', 'PAM_AUTHTOK_ERR'));
      call = new Call();
      pending = call.change(request, present, next);
    } finally {
      wipe(passwords);
    }
    return changed(await conclude(call, pending, limits, 'change'));
  }

  /** Opens a session for a user whom the application has authenticated by other means. */
  async function openSession(options) {
    const request = requestOf(options);
    const limits = limitsOf(options);
    if (!isName(request.user)) return answer('unknown_user', 'PAM_USER_UNKNOWN');
    const call = new Call();
    return conclude(call, call.open(request), limits, 'open');
  }

  return { login, changePassword, openSession };
}

function changed({ ok, outcome, code, text }) {
  return { ok, outcome, code, text };
}

module.exports = { createClient };
