'use strict';
// The fake, and that it behaves as the native part does.

const test = require('node:test');
const assert = require('node:assert/strict');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');

const PACKAGE = process.env.MOTION_AD_CLIENT ?? path.join(__dirname, '..');
const { createFake } = require(path.join(PACKAGE, 'testing'));
const { TABLE } = require(path.join(PACKAGE, 'lib/answer'));

const john = { service: 'motion', user: 'john.doe', password: 'secret' };

test('it plays every outcome of a login and of a change, with its code and a text', async () => {
  const fake = createFake();
  for (const outcome of fake.OUTCOMES) {
    fake.next(outcome);
    const said = await fake.login(john);
    assert.deepEqual([said.outcome, said.ok], [outcome, outcome === 'success'], outcome);
    const isSession = outcome.startsWith('session_');
    assert.equal(said.code, TABLE[outcome][isSession ? 'session' : 'login'], outcome);
    assert.equal(said.text === '', outcome === 'success', outcome);
    if (['password_expired', 'must_change'].includes(outcome)) continue;
    fake.next(outcome);
    const changed = await fake.changePassword({ ...john, newPassword: 'new' });
    assert.deepEqual([changed.outcome, changed.code], [outcome, TABLE[outcome].change], outcome);
  }
  assert.throws(() => fake.next('no_such_outcome'), /outcomes are success/);
});

test('users have a password, an outcome, and a warning', async () => {
  const fake = createFake();
  fake.user('john.doe', { password: 'secret', expiresIn: 86_400 });
  fake.user('petra', { password: 'old', outcome: 'password_expired' });
  assert.equal((await fake.login(john)).expiresIn, 86_400);
  assert.equal((await fake.login({ ...john, password: 'wrong' })).outcome, 'wrong_password');
  assert.equal((await fake.login({ ...john, user: 'nobody' })).outcome, 'unknown_user');
  const petra = { service: 'motion', user: 'petra', password: 'old' };
  assert.equal((await fake.login(petra)).outcome, 'password_expired');
  assert.equal((await fake.changePassword({ ...petra, newPassword: 'new' })).ok, true);
  assert.equal((await fake.login({ ...petra, password: 'new' })).ok, true);
  assert.ok(!JSON.stringify(fake.calls).includes('secret'));
  const { call, service, user, openSession } = fake.calls[0];
  assert.deepEqual([call, service, user, openSession], ['login', 'motion', 'john.doe', false]);
  fake.reset();
  assert.equal((await fake.login(john)).outcome, 'unknown_user');
});

test('it wipes, refuses NUL, and keeps the deadline and the signal', async () => {
  const fake = createFake();
  fake.user('john.doe', { password: 'secret' });
  const password = Buffer.from('secret');
  const pending = fake.login({ ...john, password });
  assert.ok(password.every((byte) => byte === 0));
  assert.equal((await pending).ok, true);
  assert.equal((await fake.login({ ...john, password: 'secret\0' })).outcome, 'wrong_password');
  fake.delay(5000);
  assert.equal((await fake.login({ ...john, deadline: 20 })).outcome, 'unavailable');
  const change = { ...john, newPassword: 'new', deadline: 20 };
  assert.equal((await fake.changePassword(change)).outcome, 'change_unknown');
  const abort = new AbortController();
  setTimeout(() => abort.abort(new Error('gone')), 20);
  await assert.rejects(fake.login({ ...john, signal: abort.signal }), /gone/);
});

test('sessions are opened, watched, evicted and closed', async () => {
  const fake = createFake();
  fake.user('john.doe', { password: 'secret' });
  const abort = new AbortController();
  const seen = [];
  const watching = (async () => {
    for await (const event of fake.sessions.watch({ signal: abort.signal })) seen.push(event);
  })();
  await sleep(5);
  const first = await fake.login({ ...john, openSession: true });
  const second = await fake.openSession({ service: 'motion', user: 'john.doe' });
  assert.deepEqual((await fake.sessions.list()).map(({ id }) => id), [first.session.id, second.session.id]);
  assert.equal(fake.evict(first.session.id), true);
  assert.equal(fake.evict(first.session.id), false);
  assert.equal((await second.session.close()).ok, true);
  await sleep(5);
  abort.abort(new Error('enough'));
  await assert.rejects(watching, /enough/);
  assert.deepEqual(
    seen.map(({ event, evicted, session }) => [event, evicted, session?.ended?.reason]),
    [
      ['ready', undefined, undefined],
      ['opened', false, undefined],
      ['opened', false, undefined],
      ['ended', true, 'replaced'],
      ['ended', false, 'closed'],
    ],
  );
  const [, opened] = seen;
  const rest = fake.sessions.watch({ after: opened.cursor });
  assert.equal((await rest.next()).value.session.id, second.session.id);
  await rest.return();
});

test('both modules have named exports for import', async () => {
  const { login, changePassword, openSession, configure, sessions, OUTCOMES } = await import(path.join(PACKAGE, 'index.js'));
  const { createFake: create } = await import(path.join(PACKAGE, 'testing.js'));
  for (const one of [login, changePassword, openSession, configure, sessions.watch, sessions.list, create]) {
    assert.equal(typeof one, 'function');
  }
  assert.deepEqual(OUTCOMES, create().OUTCOMES);
});
