'use strict';
// The native part with the real libpam, and modules that Debian's libpam brings. The PAM services are in a folder of
// their own, which only the native part accepts.

const test = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');

const PACKAGE = process.env.MOTION_AD_CLIENT ?? path.join(__dirname, '..');
const client = require(PACKAGE);
const native = require(path.join(PACKAGE, 'motion-ad-client.node'));
const { createClient } = require(path.join(PACKAGE, 'lib/client'));

// A client whose calls find their services in a folder of this test.
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'motion-ad-client-'));
process.on('exit', () => fs.rmSync(folder, { recursive: true }));
class Call {
  #call = new native.Call();
  login(request, ...more) {
    return this.#call.login({ ...request, folder }, ...more);
  }
  change(request, ...more) {
    return this.#call.change({ ...request, folder }, ...more);
  }
  open(request) {
    return this.#call.open({ ...request, folder });
  }
  close(session) {
    return this.#call.close(session);
  }
  cancel() {
    this.#call.cancel();
  }
}
const here = createClient({ Call });

/** Writes a service of these lines, and returns its name. */
function service(name, lines) {
  fs.writeFileSync(path.join(folder, name), `${lines.join('\n')}\n`);
  return name;
}
service('other', ['auth required pam_deny.so', 'account required pam_deny.so']);
const PERMIT = service('permit', ['auth', 'account', 'password', 'session'].map((type) => `${type} required pam_permit.so`));

// A program that gets the password, and takes its time: `sleep` in the name of the service.
const script = path.join(folder, 'program');
fs.writeFileSync(script, `#!/bin/sh
password=$(cat)
echo "$PAM_TYPE $PAM_USER $PAM_RHOST $PAM_TTY" >>${folder}/seen
case $PAM_USER in slow*) sleep "\${PAM_USER#slow}" ;; esac
[ "$PAM_TYPE" != auth ] || [ "$password" = 'r\u00efght' ]
`, { mode: 0o755 });
const seen = () => fs.readFileSync(path.join(folder, 'seen'), 'utf8').trim().split('\n');
const CHECK = service('check', [
  `auth sufficient pam_exec.so quiet expose_authtok ${script}`,
  'auth required pam_deny.so',
  'account required pam_permit.so',
  `session required pam_exec.so quiet ${script}`,
]);
const right = () => Buffer.from('r\u00efght');

/** Returns a service whose authenticate gives this code of libpam, by its name in pam_debug(8). */
const debug = (code) =>
  service(`debug-${code}`, [`auth required pam_debug.so auth=${code}`, 'account required pam_permit.so']);

test('the right password is a success, and a wrong one is not', async () => {
  const login = (password) => here.login({ service: CHECK, user: 'john', password, rhost: '192.0.2.7', tty: 'web' });
  const success = { ok: true, outcome: 'success', code: 'PAM_SUCCESS', text: '', expiresIn: null, session: null };
  assert.deepEqual(await login(right()), success);
  assert.deepEqual(await login('r\u00efght'), success);
  const { ok, outcome, code, text } = await login(Buffer.from('right'));
  assert.deepEqual([ok, outcome, code], [false, 'wrong_password', 'PAM_AUTH_ERR']);
  assert.equal(text, 'The user name or the password is wrong.');
  assert.equal(seen().at(-1), 'auth john 192.0.2.7 web');
});

test('each code of libpam is a failure with an outcome', async () => {
  const cases = {
    auth_err: 'wrong_password',
    user_unknown: 'unknown_user',
    maxtries: 'locked_out',
    acct_expired: 'account_expired',
    perm_denied: 'denied',
    new_authtok_reqd: 'password_expired',
    authinfo_unavail: 'unavailable',
    system_err: 'misconfigured',
    service_err: 'misconfigured',
    ignore: 'denied', // libpam's answer when no module decides.
  };
  for (const [name, outcome] of Object.entries(cases)) {
    const said = await here.login({ service: debug(name), user: 'john', password: right() });
    assert.equal(said.ok, false, name);
    assert.equal(said.outcome, outcome, name);
    assert.notEqual(said.text, '', name);
    assert.equal(said.session, null, name);
  }
});

test('a service that does not exist, or that cannot be read, lets nobody in', async () => {
  const said = await here.login({ service: 'absent', user: 'john', password: right() });
  assert.equal(said.ok, false);
  service('broken', ['auth required pam_no_such_module.so', 'account required pam_permit.so']);
  const { ok, outcome } = await here.login({ service: 'broken', user: 'john', password: right() });
  assert.deepEqual([ok, outcome], [false, 'misconfigured']);
});

test('passwords are wiped before the promise is there, whatever the result', async () => {
  const cases = [
    ['login', { service: CHECK, user: 'john' }],
    ['login', { service: CHECK, user: 'nul\0' }],
    ['login', { service: 7, user: 'john' }],
    ['login', { service: CHECK, user: 'john', deadline: -1 }],
    ['login', { service: CHECK, user: 'john', signal: AbortSignal.abort() }],
    ['changePassword', { service: PERMIT, user: 'john' }],
  ];
  for (const [name, options] of cases) {
    const [password, newPassword] = [right(), Buffer.from('new')];
    const given = name === 'login' ? { password } : { password, newPassword };
    const pending = here[name]({ ...options, ...given });
    for (const bytes of Object.values(given)) assert.ok(bytes.every((byte) => byte === 0), name);
    await pending.catch(() => {});
  }
});

test('a NUL, an empty or a long text reaches no module', async () => {
  fs.writeFileSync(path.join(folder, 'seen'), '');
  const login = (user, password) => here.login({ service: CHECK, user, password });
  for (const password of ['r\u00efght\0', '\0', '', 'x'.repeat(1025), new Uint8Array(2)]) {
    const { ok, outcome } = await login('john', password);
    assert.deepEqual([ok, outcome], [false, 'wrong_password']);
  }
  for (const user of ['john\0', '', 'x'.repeat(257)]) {
    const { ok, outcome } = await login(user, right());
    assert.deepEqual([ok, outcome], [false, 'unknown_user']);
  }
  assert.deepEqual(seen(), ['']);
});

test('what a program gets wrong is an error, and shows no password', async () => {
  const good = { service: CHECK, user: 'john', password: 'S3cret' };
  const wrong = [
    { service: undefined }, { service: '' }, { service: 'a\0b' }, { user: 7 }, { password: 7 }, { password: null },
    { rhost: 'a\0b' }, { rhost: 7 }, { tty: {} }, { signal: {} }, { deadline: NaN }, { deadline: 2 ** 31 },
  ];
  for (const change of wrong) {
    await assert.rejects(here.login({ ...good, ...change }), (error) => {
      assert.ok(error instanceof TypeError || error instanceof RangeError, String(error));
      assert.doesNotMatch(error.stack, /S3cret/);
      return true;
    });
  }
  assert.throws(() => client.configure({ threads: 0 }), RangeError);
  assert.throws(() => client.configure({ queue: 1.5 }), RangeError);
});

test('a deadline ends the wait, and the call of PAM does not matter any more', async () => {
  const begun = Date.now();
  const said = await here.login({ service: CHECK, user: 'slow2', password: right(), deadline: 200 });
  assert.deepEqual([said.ok, said.outcome, said.code], [false, 'unavailable', 'PAM_AUTHINFO_UNAVAIL']);
  assert.ok(Date.now() - begun < 1000);
});

test('an aborted login is rejected with the reason, and its session is closed again', async () => {
  const abort = new AbortController();
  const pending = here.login({
    service: CHECK, user: 'slow0.5', password: right(), openSession: true, signal: abort.signal,
  });
  await sleep(100);
  abort.abort(new Error('the browser has gone'));
  await assert.rejects(pending, /the browser has gone/);
  // The call goes on: it authenticates, opens the session, and closes it.
  for (let waited = 0; seen().at(-1) !== 'close_session slow0.5  ' && waited < 100; waited += 1) await sleep(50);
  assert.deepEqual(
    seen().filter((line) => line.includes('slow0.5')).map((line) => line.split(' ')[0]),
    ['auth', 'open_session', 'close_session'],
  );
});

test('calls that wait for a thread are never made once they are cancelled', async () => {
  client.configure({ threads: 1, queue: 2 });
  try {
    const login = (user, deadline) => here.login({ service: CHECK, user, password: right(), deadline });
    const all = [login('slow1', 5000), login('late1', 300), login('late2', 5000), login('full', 5000)];
    const said = await Promise.all(all);
    assert.deepEqual(said.map(({ outcome }) => outcome), ['success', 'unavailable', 'success', 'unavailable']);
    assert.ok(!seen().some((line) => line.includes('late1') || line.includes('full')));
  } finally {
    client.configure();
  }
});

test('the event loop goes on while many calls wait, on threads beside those of libuv', async () => {
  const options = { service: CHECK, password: 'r\u00efght', user: 'slow1' };
  let ticks = 0;
  const timer = setInterval(() => (ticks += 1), 10);
  const begun = Date.now();
  const logins = Array.from({ length: 16 }, () => here.login(options));
  // A file call needs a thread of libuv, of which there are four.
  await fs.promises.readFile(script);
  assert.ok(Date.now() - begun < 500, 'a file call waited for a login');
  assert.ok((await Promise.all(logins)).every(({ ok }) => ok));
  clearInterval(timer);
  assert.ok(ticks > 20, `${ticks} ticks`);
  assert.ok(Date.now() - begun < 10_000);
});

test('threads are few', async () => {
  client.configure({ threads: 3 });
  try {
    const logins = Array.from({ length: 50 }, () => here.login({ service: PERMIT, user: 'john', password: right() }));
    assert.ok((await Promise.all(logins)).every(({ ok }) => ok));
    assert.ok(native.threads() <= 16, `${native.threads()} threads`);
  } finally {
    client.configure();
  }
});

test('a session is opened and closed on one handle, once', async () => {
  fs.writeFileSync(path.join(folder, 'seen'), '');
  const { ok, session } = await here.login({ service: CHECK, user: 'john', password: right(), openSession: true });
  assert.equal(ok, true);
  assert.equal(session.id, null); // No motion-ad here.
  const [first, second] = [session.close(), session.close()];
  assert.equal(first, second);
  assert.deepEqual(await first, { ok: true, outcome: 'success', code: 'PAM_SUCCESS', text: '' });
  assert.deepEqual(seen().map((line) => line.split(' ')[0]), ['auth', 'open_session', 'close_session']);
  const alone = await here.openSession({ service: CHECK, user: 'john' });
  assert.deepEqual(await alone.session.close(), { ok: true, outcome: 'success', code: 'PAM_SUCCESS', text: '' });
  const rejected = await here.openSession({ service: 'other', user: 'john' });
  assert.deepEqual([rejected.ok, rejected.session], [false, null]);
});

test('a password is changed, or not', async () => {
  const change = (service) =>
    here.changePassword({ service, user: 'john', password: right(), newPassword: Buffer.from('new') });
  assert.deepEqual(await change(PERMIT), { ok: true, outcome: 'success', code: 'PAM_SUCCESS', text: '' });
  const refused = service('refuse', ['password required pam_debug.so chauthtok=authtok_err']);
  const { ok, outcome, code } = await change(refused);
  assert.deepEqual([ok, outcome, code], [false, 'password_refused', 'PAM_AUTHTOK_ERR']);
});

test('a change that was begun and has no answer is unknown, and one that waited was not made', async () => {
  const slow = service('slow-change', [`password required pam_exec.so quiet ${script}`]);
  const change = (user) =>
    here.changePassword({ service: slow, user, password: right(), newPassword: Buffer.from('new'), deadline: 300 });
  client.configure({ threads: 1 });
  try {
    const said = await Promise.all([change('slow1'), change('late3')]);
    assert.deepEqual(said.map(({ ok, outcome }) => [ok, outcome]), [[false, 'change_unknown'], [false, 'unavailable']]);
    await sleep(1500);
    assert.ok(!seen().some((line) => line.includes('late3')));
  } finally {
    client.configure();
  }
});

test('what a module shows is the text', async () => {
  fs.writeFileSync(path.join(folder, 'note'), 'Maintenance at noon');
  const echo = service('echo', [
    `auth optional pam_echo.so file=${folder}/note`, 'auth required pam_permit.so', 'account required pam_permit.so',
  ]);
  const { ok, text } = await here.login({ service: echo, user: 'john', password: right() });
  assert.deepEqual([ok, text.trim()], [true, 'Maintenance at noon']);
});

test('a call is made once', async () => {
  const call = new Call();
  const request = { service: PERMIT, user: 'john' };
  await call.login(request, right(), false);
  await assert.rejects(async () => call.login(request, right(), false), /called twice/);
  call.cancel();
});

test('the process can end while a call runs', async () => {
  const { execFile } = require('node:child_process');
  const { promisify } = require('node:util');
  const program = `
    const native = require(${JSON.stringify(path.join(PACKAGE, 'motion-ad-client.node'))});
    new native.Call().login(${JSON.stringify({ service: CHECK, user: 'slow5', folder })}, Buffer.from('x'), false);
    setTimeout(() => process.exit(3), 200);`;
  const begun = Date.now();
  await assert.rejects(promisify(execFile)(process.execPath, ['-e', program]), ({ code }) => code === 3);
  assert.ok(Date.now() - begun < 4000);
});

test('it works in a worker thread, and the worker can end while a call runs', async () => {
  const { Worker } = require('node:worker_threads');
  const { once } = require('node:events');
  const program = `
    const { parentPort } = require('node:worker_threads');
    const native = require(${JSON.stringify(path.join(PACKAGE, 'motion-ad-client.node'))});
    const request = (user) => ({ service: ${JSON.stringify(CHECK)}, user, folder: ${JSON.stringify(folder)} });
    new native.Call().login(request('john'), Buffer.from('r\\u00efght'), false).then(({ code }) => {
      new native.Call().login(request('slow1'), Buffer.from('x'), false);
      parentPort.postMessage(code);
    });`;
  const worker = new Worker(program, { eval: true });
  const [code] = await once(worker, 'message');
  assert.equal(code, 0);
  await sleep(100);
  await worker.terminate();
  await sleep(1500); // The call ends, and finds nobody.
  assert.equal((await here.login({ service: CHECK, user: 'john', password: right() })).ok, true);
});

test('many logins leave nothing behind', async () => {
  const login = () => here.login({ service: PERMIT, user: 'john', password: right() });
  const many = async (count) => {
    for (let done = 0; done < count; done += 100) await Promise.all(Array.from({ length: 100 }, login));
    global.gc?.();
    return process.memoryUsage().rss / 2 ** 20;
  };
  const before = await many(3000);
  const after = await many(6000);
  assert.ok(after - before < 24, `${before.toFixed(1)} MiB, then ${after.toFixed(1)} MiB`);
});
