'use strict';
// Tests of the application (`node --test`): the fake of motion-ad-client plays PAM, motion-ad and Active Directory.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { after, before, beforeEach, test } = require('node:test');
const { createFake } = require('motion-ad-client/testing');
const { TEXTS } = require('./texts');

const domain = createFake();
let meanwhile = (answer) => answer; // between the domain's answer to a login and its arrival at the application
let lost = false; // the events: "gap" is all that arrives
async function* watch() {
  for await (const event of domain.sessions.watch()) yield lost ? { event: 'gap' } : event;
}
const client = {
  ...domain,
  login: async (options) => meanwhile(await domain.login(options)),
  sessions: { ...domain.sessions, watch },
};
const id = require.resolve('motion-ad-client');
require.cache[id] = { id, filename: id, loaded: true, exports: client };
process.env.PORT = '0';
const server = require('./server');

const john = { username: 'john.doe', password: 'secret' };
let url;

before(async () => {
  if (!server.listening) await once(server, 'listening');
  url = `http://127.0.0.1:${server.address().port}`;
});
beforeEach(() => {
  domain.reset();
  meanwhile = (answer) => answer;
  lost = false;
  domain.user(john.username, { password: john.password });
});
after(() => {
  server.close();
  server.closeAllConnections();
});

// A browser of this language, with the cookie of its last login.
function createBrowser(language = 'en') {
  const headers = { 'Content-Type': 'application/json', 'Accept-Language': language };
  const get = (path) => fetch(url + path, { headers, signal: AbortSignal.timeout(10_000) });
  async function post(path, body) {
    const response = await fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body) });
    const [cookie] = response.headers.getSetCookie();
    if (cookie) headers.Cookie = cookie.split(';')[0];
    return { status: response.status, ...(await response.json()) };
  }
  return { get, post, headers };
}

for (const [language, texts] of Object.entries(TEXTS)) {
  test(`each outcome rejects the user with a text, in ${language}`, async () => {
    const browser = createBrowser(`${language}-XX,${language};q=0.9,en;q=0.8`);
    assert.equal((await (await browser.get('/texts')).json()).page.user, texts.page.user);
    for (const outcome of domain.OUTCOMES.filter((name) => name !== 'success')) {
      domain.next(outcome);
      const own = await domain.login({ service: 'motion', user: john.username, password: john.password });
      domain.next(outcome);
      const { status, outcome: said, text } = await browser.post('/login', john);
      assert.notEqual(said, 'in', outcome);
      assert.ok([401, 503].includes(status), outcome);
      assert.equal((await browser.get('/me')).status, 401, outcome);
      // In English, the page says what motion-ad says.
      if (language === 'en') assert.equal(text, own.text, outcome);
      else assert.ok(text !== own.text && Object.values(texts.outcomes).includes(text), outcome);
    }
  });
}

test('a user logs in, reloads the page, and logs out', async () => {
  const browser = createBrowser('de');
  const { status, outcome } = await browser.post('/login', { ...john, username: ' John.Doe ' });
  assert.deepEqual([status, outcome], [200, 'in']);
  assert.deepEqual(await (await browser.get('/me')).json(), { user: 'john.doe' });
  assert.equal((await domain.sessions.list()).length, 1);
  assert.equal((await browser.post('/logout')).text, TEXTS.de.loggedOut);
  assert.equal((await browser.get('/me')).status, 401);
  assert.equal((await domain.sessions.list()).length, 0);
});

test('the cookie of an earlier login gives no access to a later one', async () => {
  const browser = createBrowser();
  await browser.post('/login', john);
  const earlier = { ...browser.headers };
  await browser.post('/login', john);
  assert.equal((await browser.get('/me')).status, 200);
  assert.equal((await fetch(`${url}/me`, { headers: earlier })).status, 401);
  assert.equal((await domain.sessions.list()).length, 1);
});

for (const [reason, name] of [['replaced', 'replaced'], ['refused', 'refused'], ['kicked', 'kicked'], ['too_old', 'other']]) {
  test(`a seat that ended (${reason}): the page is notified in its language, and the browser is logged out`, async () => {
    const browser = createBrowser('it');
    await browser.post('/login', john);
    const page = await browser.get('/seat');
    const [session] = await domain.sessions.list();
    domain.evict(session.id, reason);
    const told = JSON.parse((await page.text()).slice('data: '.length));
    assert.deepEqual(told, { outcome: 'ended', text: TEXTS.it.ends[name] });
    assert.equal((await browser.get('/me')).status, 401);
  });
}

test('a seat whose event was lost: the page is notified, and other seats remain', async () => {
  domain.user('wendy', { password: 'secret' });
  const [browser, other] = [createBrowser(), createBrowser()];
  await browser.post('/login', john);
  await other.post('/login', { ...john, username: 'wendy' });
  const page = await browser.get('/seat');
  const session = (await domain.sessions.list()).find(({ user }) => user === john.username);
  lost = true;
  domain.evict(session.id);
  assert.ok((await page.text()).includes(TEXTS.en.ends.replaced));
  assert.deepEqual([(await browser.get('/me')).status, (await other.get('/me')).status], [401, 200]);
});

test('a seat that ended before the application had the answer', async () => {
  meanwhile = async (answer) => {
    domain.evict(answer.session.id);
    await new Promise((resolve) => setTimeout(resolve, 50));
    return answer;
  };
  const browser = createBrowser();
  assert.equal((await browser.post('/login', john)).outcome, 'in');
  assert.equal((await browser.get('/me')).status, 401);
});

test('a session that is not in the register gives no access', async () => {
  let closed = 0;
  meanwhile = (answer) => ({ ...answer, session: { id: null, close: async () => (closed += 1) } });
  const browser = createBrowser();
  const { status, outcome, text } = await browser.post('/login', john);
  assert.deepEqual([status, outcome, text, closed], [503, 'session_store', TEXTS.en.outcomes.session_store, 1]);
  assert.equal((await browser.get('/me')).status, 401);
});

test('an expired password is changed, and the new one logs in', async () => {
  domain.user(john.username, { password: john.password, outcome: 'must_change' });
  const browser = createBrowser('fr');
  const seen = await browser.post('/login', john);
  assert.deepEqual([seen.outcome, seen.text], ['expired', TEXTS.fr.outcomes.must_change]);
  const change = { ...john, newPassword: 'better' };
  for (const [outcome, reason, text] of [
    ['wrong_password', undefined, TEXTS.fr.outcomes.wrong_password],
    ['change_forbidden', undefined, TEXTS.fr.outcomes.change_forbidden],
    // Without the argument `outcome`, this code of PAM has several causes, and the text has the right one.
    ['change_forbidden', 'Your account is disabled.', TEXTS.fr.outcomes.disabled],
    ['change_forbidden', TEXTS.it.outcomes.change_forbidden, TEXTS.fr.outcomes.change_forbidden], // lang=it
    ['password_refused', undefined, TEXTS.fr.outcomes.password_refused],
    ['password_refused', 'Your new password is too short.', 'Your new password is too short.'],
  ]) {
    domain.next(outcome, { text: reason });
    const said = await browser.post('/password', change);
    assert.deepEqual([said.outcome, said.text], ['expired', text]);
  }
  assert.equal((await browser.post('/password', change)).outcome, 'in');
  assert.equal((await browser.get('/me')).status, 200);
  assert.equal((await createBrowser().post('/login', john)).outcome, 'wrong_password');
});

test('a form that is not filled in never reaches PAM', async () => {
  const browser = createBrowser('es');
  for (const body of [undefined, [], {}, { ...john, password: '' }, { ...john, username: ['john.doe'] }]) {
    const { status, text } = await browser.post('/login', body);
    assert.deepEqual([status, text], [401, TEXTS.es.typeBoth]);
  }
  assert.equal((await browser.post('/password', john)).text, TEXTS.es.typePasswords);
  const broken = await fetch(`${url}/login`, { method: 'POST', headers: browser.headers, body: '{"password":"secret"' });
  assert.equal(broken.status, 400);
  assert.equal((await browser.post('/login', { ...john, password: 'x'.repeat(9000) })).status, 413);
  assert.deepEqual(domain.calls, []);
});
